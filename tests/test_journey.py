"""The whole way as a person goes it, by clicks alone, in a real realm: a file, a battle, a talk, a duel, what becomes of the verdicts."""

import json
import re
from types import SimpleNamespace

import pytest
from browser import letters
from playwright.sync_api import expect
from processes import cli, free_port, in_state, status, until

from core.paths import RealmPaths

pytestmark = pytest.mark.alone
WATCH = """() => {
    window.lengths = [];
    new MutationObserver(() => {
        const words = document.querySelector('.answered .words');
        if (words) window.lengths.push(words.textContent.length);
    }).observe(document.querySelector('[data-turns]'), { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def living(tmp_path_factory):
    """A realm with all its services: its folders, and the address of its Tavern."""
    root = tmp_path_factory.mktemp("realm")
    settings = {"idle_generation": {"enabled": False}, "batch_size": 16, "eval_steps": 20}
    (root / "config.json").write_text(json.dumps(settings | {"oracle": {"port": free_port()}}))
    port = free_port()
    cli(root, "start-all", "--port", str(port))
    yield SimpleNamespace(paths=RealmPaths(root), url=f"http://127.0.0.1:{port}")
    cli(root, "stop-all")


def counts(path):
    """Rows whose answers are long enough to be seen growing."""
    with open(path, "w") as file:
        for first in range(600):
            answer = f"I count: {' '.join(str(first + more) for more in range(12))}."
            file.write(json.dumps({"question": f"Count from {first}!", "answer": answer}) + "\n")
    return path


def go(page, name):
    page.locator("#pages").get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


@pytest.mark.timeout(600)
def test_from_a_file_to_a_better_hero_and_back_to_new_quests(living, visit, tmp_path):
    page = visit(living, "/")
    page.set_default_timeout(60_000)
    go(page, "Quests")
    cli(living.paths.root, "pause")  # so that nobody misses the battle
    with page.expect_file_chooser() as chosen:
        page.get_by_text("Drop a .jsonl here").click()
    chosen.value.set_files(counts(tmp_path / "counts.jsonl"))
    page.locator(".uploads").get_by_role("link", name="What the hero will see").click()
    learned = page.locator(".seq[role=group] mark")
    expect(learned.first).to_have_text(re.compile(r"I count: [\d ]+\.<\|im_end\|>"), timeout=20_000)
    assert "Count from" not in "".join(learned.all_inner_texts())
    go(page, "Battle")
    cli(living.paths.root, "resume")
    battle = page.locator(".battle")
    expect(battle.get_by_role("heading", name="counts")).to_be_visible(timeout=60_000)
    expect(battle.locator("[data-bind='battle.step']")).to_have_text(re.compile("[1-9]"), timeout=60_000)
    expect(battle.locator("[data-bind='battle.loss']")).to_have_text(re.compile(r"\d\.\d"))
    go(page, "Quests")
    expect(page.locator("#done").get_by_role("link", name="counts", exact=True)).to_be_visible(timeout=90_000)

    go(page, "Oracle")
    page.evaluate(WATCH)
    page.get_by_label("Maximum length").fill("60")
    page.get_by_label("Your question").fill("Count from 3!")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Wrong").click()
    assert len(set(page.evaluate("lengths"))) > 4, "the answer was seen growing"
    page.get_by_label("A better answer").fill("I count: 3 4 5.")
    page.get_by_role("button", name="Hand it in").click()
    expect(page.locator(".ending")).to_contain_text("Handed in as thumb_")

    page.get_by_role("link", name="Duel").click()
    first = page.get_by_label("One", exact=True)
    born = first.locator("option[value*='-0']").first.get_attribute("value")
    page.get_by_label("The other").select_option(born)
    page.get_by_label("The question for both").fill("Count from 5!")
    page.get_by_role("button", name="Let them answer").click()
    page.get_by_role("button", name="Left is better").click()
    told = page.locator(".note")
    expect(told).to_contain_text("The Judge teaches it")
    [chosen, rejected] = page.locator(".side .words").all_inner_texts()

    go(page, "Quests")
    expect(page.locator("#done").get_by_role("link", name=re.compile("^duel_"))).to_be_visible(timeout=60_000)
    [file] = until(lambda: in_state(living.paths, "recently_completed", "duel_"))
    row = json.loads(file.read_text())
    assert (letters(chosen), letters(rejected)) == tuple(
        letters(row[side][0]["content"]) for side in ("chosen", "rejected")
    )
    expect(page.locator("#done").get_by_role("link", name=re.compile("^thumb_"))).to_be_visible(timeout=60_000)
    [file] = until(lambda: in_state(living.paths, "recently_completed", "thumb_"))
    assert json.loads(file.read_text())["messages"][-1]["content"] == "I count: 3 4 5."


def test_a_skill_is_examined_by_whoever_answers_the_realms_questions(living):
    until(lambda: status(living.paths.root)["current_model"])  # the hero is born
    asked = cli(living.paths.root, "skill", "eval", "REV", "--level", "2", "--on", "oracle", "-n", "3", "--json")
    told = json.loads(asked.stdout)
    assert (told["by"], told["level"], told["asked"]) == ("local", 2, 3) and told["low"] <= told["accuracy"]
    assert told["checkpoint"] == status(living.paths.root)["current_model"]
