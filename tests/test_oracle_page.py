"""The Oracle's page in a real browser, with a real micro hero behind it, and with a box that says hostile things."""

import contextlib
import json
import re
from types import SimpleNamespace

import pytest
from browser import letters, overhang
from hostile_answers import ELSEWHERE, HOSTILE_ANSWERS
from oracle_hall import answering, parrot, two_heroes
from playwright.sync_api import expect
from processes import until
from tavern_realm import empty_realm, services
from tavern_server import tavern

from core.ledger import Ledger


@pytest.fixture(scope="module")
def realm(tmp_path_factory):
    """A realm with two checkpoints, the local Oracle that speaks for them, and the Tavern."""
    with answering(tmp_path_factory.mktemp("realm")) as (paths, server, ready):
        heroes = two_heroes(paths)
        ready()
        yield SimpleNamespace(paths=paths, server=server, heroes=heroes)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """A realm whose config names a box, the Tavern, and the box."""
    paths = empty_realm(tmp_path_factory.mktemp("boxed"))
    Ledger(paths.ledger).close()
    two_heroes(paths)
    with parrot() as box:
        paths.config.write_text(json.dumps({"oracle": {"url": box.url}}))
        with tavern(paths.root) as server:
            yield SimpleNamespace(paths=paths, server=server, box=box)


@pytest.fixture
def open_page(visit):
    return lambda server, path="/oracle", **options: visit(server, path, **options)


def ask(page, words, tokens=24):
    if tokens:
        page.get_by_label("Maximum length").fill(str(tokens))
    page.get_by_label("Your question").fill(words)
    page.keyboard.press("Enter")


def begin_long(page):
    """The words of an answer that is being written: a hero of random weights may end one at any token, but its likeliest is long."""
    page.get_by_label("Temperature").fill("0")
    ask(page, "Line one", tokens=4000)
    words = page.locator(".answered .words")
    expect(words).to_have_text(re.compile(".{20}", re.DOTALL))
    return words


def answered(page):
    """The words of the last answer, when it has ended."""
    page.get_by_role("button", name="Answer again").wait_for()
    return page.locator(".answered .words").last.inner_text()


def handed_in(paths, folder=""):
    files = sorted((paths.inbox / folder).glob("*.jsonl"))
    rows = [json.loads(file.read_bytes()) for file in files]
    sidecars = [json.loads(file.with_suffix(".quest.json").read_bytes()) for file in files]
    for file in files:
        file.unlink()
        file.with_suffix(".quest.json").unlink()
    return list(zip(rows, sidecars, strict=True))


def test_a_talk_streams_stops_goes_on_and_survives_a_reload(open_page, realm):
    page = open_page(realm.server)
    expect(page.locator(".oracle-state")).to_contain_text(f"The hero is {realm.heroes[1]}")
    words = begin_long(page)
    assert page.locator("[data-turns]").get_attribute("aria-busy") == "true"
    page.keyboard.press("Escape")
    stopped = answered(page)
    expect(page.locator(".ending")).to_have_text("Stopped.")
    page.wait_for_timeout(300)
    assert words.inner_text() == stopped
    page.get_by_label("Temperature").fill("1.5")
    page.get_by_label("Maximum length").fill("24")
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".ending")).to_have_text("Cut at the maximum length.")
    assert answered(page) != stopped
    page.get_by_label("Your question").fill("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    last = answered(page)
    page.reload()
    assert page.locator(".asked .words").all_inner_texts() == ["Line one", "two\nlines"]
    expect(words).to_have_count(2)
    assert words.last.inner_text() == last and page.locator(".speaker").last.inner_text() == realm.heroes[1]
    assert page.get_by_label("Temperature").input_value() == "1.5"
    page.get_by_role("button", name="New talk").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_any_checkpoint_can_be_asked_with_the_system_prompt_and_template_of_training_in_view(open_page, boxed):
    page = open_page(boxed.server)
    page.get_by_text("Chat template").click()
    expect(page.locator("#template")).to_contain_text("<|im_start|>system\n(system prompt)<|im_end|>")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Who answers").select_option("echo")
    page.get_by_label("Let it think first").check()
    ask(page, "<think>Hm, *so*.</think>It is **two**.")
    answered(page)
    asked = boxed.box.asked[-1]
    assert asked["model"] == "echo" and asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["max_tokens"]) == (0.7, 24)
    assert asked["chat_template_kwargs"] == {"enable_thinking": True}
    assert page.locator(".answered .words strong").inner_text() == "two"
    assert not page.locator(".answered .thought p").is_visible()
    page.get_by_text("Thoughts").click()
    assert page.locator(".answered .thought p").inner_text() == "Hm, *so*."


def test_a_wrong_answer_becomes_a_quest(open_page, realm):
    page = open_page(realm.server)
    ask(page, "What is 1 plus 1?")
    answered(page)
    page.get_by_role("button", name="Wrong").click()
    expect(page.locator(".better")).to_contain_text("The Scribe teaches it")
    page.get_by_label("A better answer").fill("It is two.")
    page.get_by_role("button", name="Hand it in").click()
    expect(page.locator(".ending")).to_contain_text("Handed in as thumb_")
    better = {"role": "assistant", "content": "It is two."}
    question = {"role": "user", "content": "What is 1 plus 1?"}
    origin = {"origin": f"thumb: {realm.heroes[1]}"}
    assert handed_in(realm.paths, "high") == [({"messages": [question, better]}, origin)]
    ask(page, "And 2?")
    last = answered(page)
    page.get_by_role("button", name="Wrong").click()
    page.get_by_role("button", name="Hand it in").click()
    expect(page.locator(".ending").last).to_contain_text("The Judge teaches it")
    [(row, _)] = handed_in(realm.paths, "high")
    assert row["label"] is False and [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * 2
    assert row["messages"][0] == question and letters(row["messages"][3]["content"]) == letters(last)


def blind_answers(realm) -> str:
    """All that the wire tells of a duel before the choice."""

    def post(path, body):
        with contextlib.closing(realm.server.connect()) as connection:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            return str(response.getheaders()) + response.read().decode()

    asked = {
        "first": "hero",
        "second": realm.heroes[0],
        "messages": [{"role": "user", "content": "Hm?"}],
        "max_tokens": 5,
    }
    begun = post("/api/oracle/duels", asked)
    duel = json.loads(begun[begun.index("{") :])["duel"]
    return begun + "".join(post(f"/api/oracle/duels/{duel}/{side}", {}) for side in ("left", "right"))


def test_a_duel_is_blind_until_the_choice_becomes_a_row(open_page, realm):
    page = open_page(realm.server, "/oracle?mode=duel")
    page.get_by_label("Maximum length").fill("24")
    page.get_by_label("The question for both").fill("Who are you?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Both alike").wait_for()
    told = page.locator(".duelling").inner_html() + blind_answers(realm)
    assert not any(hero in told for hero in (*realm.heroes, '"hero"', ">hero<", "checkpoint"))
    page.reload()  # the ring is still there
    page.get_by_role("button", name="Right is better").click()
    expect(page.locator(".note")).to_contain_text("Handed in as duel_")
    expect(page.locator(".note")).to_contain_text("The Judge teaches it")
    [(row, sidecar)] = handed_in(realm.paths)
    names = [re.sub(r".*: ", "", title) for title in page.locator(".side h2").all_inner_texts()]
    left, right = names[0], names[1].split()[0]
    assert {left, right} == set(realm.heroes) and sidecar == {"origin": f"duel: {right} over {left}"}
    assert row["prompt"] == [{"role": "user", "content": "Who are you?"}]
    shown = page.locator(".side .words").all_inner_texts()
    for turn, words in zip((row["rejected"], row["chosen"]), shown, strict=True):
        assert turn[0]["role"] == "assistant" and letters(turn[0]["content"]) == letters(words)


def test_a_tie_writes_nothing(open_page, boxed):
    boxed.box.say = {"parrot": "the same words", "echo": "the same words"}
    page = open_page(boxed.server, "/oracle?mode=duel")
    for choice, told in (("Both bad", "Both bad: nothing was written."), ("Left is better", "same as chosen")):
        page.get_by_label("One", exact=True).select_option("parrot")
        page.get_by_label("The other").select_option("echo")
        page.get_by_label("The question for both").fill("Hm?")
        page.keyboard.press("Enter")
        page.get_by_role("button", name=choice).click()
        expect(page.locator(".note")).to_contain_text(told)
    assert handed_in(boxed.paths) == []
    boxed.box.say = {}


def test_what_a_model_says_does_nothing(open_page, boxed):
    page = open_page(boxed.server)
    page.get_by_label("Who answers").select_option("echo")
    for count, hostile in enumerate(HOSTILE_ANSWERS, 1):
        ask(page, f"<think>{hostile}</think>{hostile}", None)
        expect(page.locator("[data-again]:visible")).to_have_count(1)
        expect(page.locator(".answered")).to_have_count(count)
    page.reload()
    expect(page.locator(".words.raw")).to_have_count(0)
    page.evaluate("for (const all of document.querySelectorAll('details')) all.open = true")
    assert (
        page.locator(
            ".turns :is(script, img, svg, iframe, object, link, style, meta, base, math, form:not(.better))"
        ).count()
        == 0
    )
    for link in page.locator(".turns a").all():
        assert link.get_attribute("href").startswith(ELSEWHERE) and link.get_attribute("target") == "_blank"
    assert (
        page.locator(".turns *").evaluate_all(
            "all => all.flatMap(one => one.getAttributeNames()).filter(name => name.startsWith('on'))"
        )
        == []
    )
    assert overhang(page) <= 0


def test_the_page_says_who_answers_and_why_nobody_does(open_page, boxed, browser, tmp_path):
    page = open_page(boxed.server)
    card = page.locator(".oracle-state")
    expect(card).to_contain_text("The box speaks with other weights")
    ask(page, "Hello")
    answered(page)
    expect(page.locator(".ending")).to_contain_text("'parrot', which does not say what checkpoint it is")
    asleep = empty_realm(tmp_path)
    two_heroes(asleep)
    with tavern(asleep.root) as other:
        page = open_page(other, expected="status of 503")
        expect(page.locator(".oracle-state")).to_contain_text(
            "The realm does not run, so nobody can start the local Oracle"
        )
        ask(page, "Hello")
        expect(page.locator(".ending.bad")).to_contain_text("The realm does not run")
        services(asleep)
        page.get_by_role("button", name="Wake it").click(timeout=20_000)
        until(asleep.oracle_wish.exists)


def test_the_forms_work_without_javascript(open_page, boxed):
    boxed.box.say = {"parrot": "left **or** right", "echo": "<think>hm</think>the other"}
    page = open_page(boxed.server, java_script_enabled=False)
    page.get_by_label("Who answers").select_option("echo")
    page.get_by_label("Your question").fill("Which?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".answered .words")).to_have_text("the other")
    page.get_by_label("A better one").fill("This one.")
    page.get_by_role("button", name="Hand it in as wrong").click()
    expect(page.locator(".note")).to_contain_text("Handed in as thumb_echo_")
    [(row, _)] = handed_in(boxed.paths, "high")
    assert row["messages"][-1]["content"] == "This one."
    page.get_by_role("link", name="Duel").click()
    page.get_by_label("One", exact=True).select_option("parrot")
    page.get_by_label("The other").select_option("echo")
    page.get_by_label("The question for both").fill("Which?")
    page.get_by_role("button", name="Let them answer").click()
    page.get_by_role("button", name="Left is better").click()
    expect(page.locator(".note")).to_contain_text("Handed in as duel_")
    [(row, _)] = handed_in(boxed.paths)
    assert {row["chosen"][0]["content"], row["rejected"][0]["content"]} == {"left **or** right", "the other"}
    boxed.box.say = {}
