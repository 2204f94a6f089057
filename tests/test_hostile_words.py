"""Hostile words wherever a page shows what others wrote, in a real browser: nothing runs, nothing is fetched, all is read."""

import time

import pytest
from hostile_words import WORDS
from tavern_realm import empty_realm, fill, services
from tavern_server import tavern

from core.durable import read_json, write_json
from core.paths import PRIORITIES
from core.previews import Preview
from core.quest import quest_name
from core.steps import StepRecord
from monitoring.servers.tavern.pages import PAGES

STATES = ("queued", "failed", "rejected")


@pytest.fixture(scope="module")
def realm(tmp_path_factory):
    """Every word as a file's name, a quest's, a reason, a row's text, the hero's answer, an event, an alert."""
    paths = empty_realm(tmp_path_factory.mktemp("hostile"))
    ledger = fill(paths)
    ledger.connection.execute("BEGIN")
    for place, word in enumerate(WORDS):
        name = word.replace("/", "\u2215").strip(".")
        (paths.inbox_for(PRIORITIES[place % 3]) / f"{name}.jsonl").write_text(word)
        state, now = STATES[place % 3], time.time() + place
        facts = {"stem": word, "reason": word, "form": word[:40], "state": state, "created": now, "updated": now}
        quest = ledger.add("quests", **facts, origin="user", priority="normal", bytes=1, rows=1, bad_rows=0)
        folder = paths.queued("normal" if state == "queued" else state)
        (folder / f"{quest_name('x' if state == 'queued' else name, quest)}.jsonl").write_text(word)
        error = {"line": place, "field": word, "reason": word, "remedy": word}
        write_json(
            folder / f"{quest_name(name, quest)}.report.json", {"quest": quest, "reason": word, "errors": [error]}
        )
        ledger.event("daemon", f"word_{place}", word, "alert")
    ledger.connection.execute("COMMIT")
    StepRecord(paths.metrics, "DIO").previews(9999, 4, time.time(), [Preview(word, word, word, 0.5) for word in WORDS])
    snapshot = read_json(paths.status)
    snapshot["battle"] |= {"quest": WORDS[42], "previewed_step": 9999, "zone": WORDS[7]}
    snapshot["hero"] |= {"model": WORDS[48]}
    write_json(paths.status, snapshot)
    services(paths)
    with tavern(paths.root) as server:
        yield paths, ledger, server
    ledger.close()


def test_sixty_hostile_words_are_only_read(realm, visit):
    _, ledger, server = realm
    assert len(set(WORDS)) == 60
    wrong, read = [], ""
    page = visit(server)
    for shown in PAGES:
        page.goto(server.url + shown.path)
        page.wait_for_function("document.querySelector('[data-bind]').textContent.length > 0")
        read += look(page, wrong)
    page.goto(server.url)
    page.wait_for_function("document.documentElement.classList.contains('js')")
    for word in WORDS:  # and as they arrive
        ledger.event("daemon", "live", word, "warning")
    page.locator("[data-log] li").filter(has_text="gpj.").first.wait_for()
    read += look(page, wrong)
    assert wrong == []
    unread = [word for word in WORDS if squeezed(word) not in squeezed(read)]
    assert unread == []


def look(page, wrong):
    """All the text of the page, its folded parts opened and its elements touched; what a word has put there is wrong."""
    found = page.evaluate(
        """() => {
        document.querySelectorAll('details').forEach(one => { one.open = true; });
        document.querySelectorAll('main *').forEach(one => {
            for (const kind of ['mouseover', 'focus', 'click']) {
                if (kind !== 'click' || !one.closest('a, button, form, label')) one.dispatchEvent(new Event(kind));
            }
        });
        const strange = 'script:not([src^="/static/"]), iframe, object, embed, base, marquee, math, audio, video, template:not(#turn), ' +
            'meta[http-equiv], link[href*="evil"], a[href^="javascript"], [src*="evil"], [style*="evil"], [srcdoc], animate';
        const handlers = [...document.querySelectorAll('*')].filter(
            one => [...one.attributes].some(given => given.name.startsWith('on')));
        return {
            strange: [...document.querySelectorAll(strange), ...handlers].map(one => one.outerHTML.slice(0, 200)),
            text: document.title + document.body.textContent,
        };
    }"""
    )
    page.wait_for_timeout(200)
    wrong.extend(found["strange"])
    return found["text"]


def squeezed(text):
    return "".join(text.split())
