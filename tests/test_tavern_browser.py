"""The Tavern in a real browser: nothing overflows, nothing foreign is fetched, files drop, pages live."""

import importlib.resources
import re

import pytest
from browser import STILL, fits, overhang
from playwright.sync_api import expect
from processes import until
from tavern_realm import HOSTILE, advance, empty_realm, services
from tavern_server import tavern

from core import control
from core.ledger import Ledger
from monitoring.servers.tavern.pages import PAGES


def drop(page, name, text):
    transfer = page.evaluate_handle(
        """([name, text]) => {
        const all = new DataTransfer();
        all.items.add(new File([text], name));
        return all;
    }""",
        [name, text],
    )
    page.dispatch_event("main", "dragenter", {"dataTransfer": transfer})
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})


WIDTHS = (390, 1440, 2560)
AXE = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()


LOOKS = ((390, "light"), (390, "dark"), (1440, "light"), (2560, "dark"))


def check(page, width, theme):
    """Nothing hangs over, nothing is serious or critical for axe; with all details open."""
    page.set_viewport_size({"width": width, "height": 900})
    assert overhang(page) <= 0
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    fits(page)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    grave = [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in grave] == []


@pytest.mark.parametrize("path", [page.path for page in PAGES])
def test_every_page_fits_every_width_and_shuts_nobody_out(open_page, path):
    page = open_page(path, 390, reduced_motion="reduce")
    page.wait_for_function("document.querySelector('[data-bind]').textContent.length > 0")
    page.evaluate(AXE)
    for width, theme in LOOKS:
        check(page, width, theme)
    page.context.add_cookies([{"name": "realm_tongue", "value": "plain", "url": page.url}])
    page.reload()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert overhang(page) <= 0, "in the plain tongue"


def test_light_and_tongue_are_chosen_without_javascript_and_stay(open_page):
    page = open_page("/live?range=200", 390, java_script_enabled=False, color_scheme="light")
    night = "document.documentElement.dataset.theme === 'dark' && getComputedStyle(document.body).colorScheme"
    page.get_by_role("button", name="Light and words").click()
    page.get_by_role("button", name="night").click()
    page.wait_for_url("**/live?range=200")
    assert page.evaluate(night) == "dark"
    gold = "getComputedStyle(document.documentElement).getPropertyValue('--gold')"
    assert page.evaluate(gold) == "rgb(217, 180, 91)", "a colour that a canvas understands"
    page.get_by_role("button", name="Light and words").click()
    page.get_by_role("button", name="machine learning").click()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Checkpoints").click()
    page.wait_for_url("**/vault")
    expect(page.get_by_role("heading", level=1)).to_have_text("Checkpoints")
    assert page.evaluate(night) == "dark"


def test_words_that_change_by_the_second_are_plain_for_whom_wants_them_so(open_page, house):
    paths, _ = house
    services(paths)
    page = open_page("/", cookies={"realm_tongue": "plain"})
    advance(paths, Ledger(paths.ledger), 3)
    expect(page.locator(".pill")).to_have_text("Training")
    before = page.locator("[data-bind='hero.title']").inner_text()
    advance(paths, Ledger(paths.ledger), 3)
    expect(page.locator("[data-bind='hero.title']")).not_to_have_text(before)
    expect(page.locator("[data-bind='hero.title']")).to_have_text(re.compile(r"[\d,]+ steps"))


def test_a_file_dropped_on_any_page_lands_in_the_inbox(open_page, house):
    paths, _ = house
    page = open_page("/vault", expected="status of 415")
    text = '{"text": "häßlich ☃"}\n' * 2000
    drop(page, "dropped here.jsonl", text)
    expect(page.locator(".toasts")).to_contain_text("dropped here.jsonl is in the inbox.")
    assert (paths.inbox / "dropped_here.jsonl").read_text() == text
    drop(page, "table.csv", "a,b")
    expect(page.locator(".toasts .bad")).to_contain_text("Only .jsonl files are taken")
    open_page("/quests").get_by_text("dropped_here.jsonl").wait_for()


def test_the_chosen_priority_counts(open_page, house):
    paths, _ = house
    page = open_page("/quests")
    page.select_option("#priority", "high")
    page.set_input_files("#file", {"name": "urgent.jsonl", "mimeType": "text/plain", "buffer": b"{}\n"})
    until(lambda: (paths.inbox / "high" / "urgent.jsonl").exists())
    page.locator(".arriving", has_text="urgent.jsonl").wait_for()  # the board follows by itself


def test_events_and_steps_arrive_without_a_reload(open_page, house):
    paths, _ = house
    ledger = Ledger(paths.ledger)
    services(paths)
    page = open_page("/")
    before = page.locator("[data-bind='hero.step']").inner_text()
    ledger.event("daemon", "greeting", "A stranger came to the gate.", "warning")
    ledger.event("daemon", "attack", HOSTILE)
    expect(page.locator("[data-log] li").first).to_contain_text("<img src=x")
    expect(page.locator("[data-log] li").nth(1)).to_contain_text("A stranger came to the gate.")
    shown = page.locator("[data-curves][data-shown]").get_attribute("data-shown")
    advance(paths, ledger, 25)
    expect(page.locator("[data-bind='hero.step']")).not_to_have_text(before)
    expect(page.locator("[data-curves]")).not_to_have_attribute("data-shown", shown, timeout=15_000)
    assert page.title().startswith("7") and "house_style" in page.title()
    assert page.evaluate("window.marker") == "never reloaded"
    assert page.locator("[data-log] img").count() == 0


def test_pause_and_resume_by_button(open_page, house):
    paths, _ = house
    ledger = Ledger(paths.ledger)
    services(paths)
    page = open_page("/")
    page.get_by_role("button", name="Pause").click()
    page.locator(".battle").get_by_role("button", name="Resume").wait_for()
    expect(page.locator(".pill")).to_contain_text("Paused")
    assert control.is_paused(ledger)
    page.locator(".battle").get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert not control.is_paused(ledger) and page.evaluate("window.marker") == "never reloaded"


def test_pages_are_whole_without_javascript(open_page, house):
    paths, _ = house
    page = open_page("/quests", java_script_enabled=False)
    page.select_option("#priority", "low")
    page.set_input_files("#file", {"name": "plain.jsonl", "mimeType": "text/plain", "buffer": b"{}\n"})
    page.get_by_role("button", name="Send").click()
    page.get_by_text("1 dropped into the inbox").wait_for()
    assert (paths.inbox / "low" / "plain.jsonl").read_bytes() == b"{}\n"
    page.get_by_role("link", name="Battle", exact=True).click()
    page.get_by_role("button", name="Skip").click()
    page.wait_for_url("**/")
    assert control.waiting(Ledger(paths.ledger))[-1]["verb"] == "skip"


def test_a_page_finds_back_after_the_tavern_was_gone(browser, tmp_path):
    paths = empty_realm(tmp_path)
    ledger = Ledger(paths.ledger)
    with tavern(paths.root) as server:
        context = browser.new_context(**STILL)
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_function("document.documentElement.classList.contains('js')")
        server.stop()
        expect(page.locator(".offline")).to_be_visible()
        ledger.event("daemon", "meanwhile", "It happened while nobody looked.")
        with tavern(paths.root, server.port):
            expect(page.locator("[data-log]")).to_contain_text("It happened while nobody looked.", timeout=10_000)
            expect(page.locator(".offline")).to_be_hidden()
            context.close()


def test_the_locked_door_opens_with_the_token(browser, tmp_path):
    paths = empty_realm(tmp_path)
    paths.config.write_text('{"tavern": {"require_token": true}}')
    with tavern(paths.root) as server:
        context = browser.new_context(**STILL)
        page = context.new_page()
        page.goto(server.url + "/vault")
        page.get_by_label("Token").fill("nonsense")
        page.get_by_role("button", name="Enter").click()
        page.get_by_text("That is not the token").wait_for()
        page.get_by_label("Token").fill(paths.token.read_text())
        page.get_by_role("button", name="Enter").click()
        page.get_by_text("No battle yet").wait_for()
        context.close()
