"""The board in a real browser: quests are dragged, moved by keys, cancelled and tried again; files are sent and looked at."""

import json

import pytest
from browser import fits
from playwright.sync_api import expect
from processes import until

from core.ledger import Ledger
from core.training_queue import TrainingQueue

CHAT = {"messages": [{"role": "user", "content": "Why <b>?"}, {"role": "assistant", "content": "Because it is so."}]}
ROWS = "".join(json.dumps(CHAT | {"n": n}) + "\n" for n in range(30))


def names(queue, priority):
    return [quest.stem for quest in queue.in_line(priority)]


@pytest.fixture
def queue(house):
    paths, _ = house
    return TrainingQueue(paths, Ledger(paths.ledger))


def card(page, stem):
    return page.locator(".quest", has=page.get_by_role("link", name=stem, exact=True))


def drag(page, card, to, y, done):
    """By the card's edge: its middle may be the menu of priorities, which is no handle. Let go where the page shows that
    it would fall: after one move alone the browser may not know yet that it may."""
    card.hover(position={"x": 8, "y": 8})
    page.mouse.down()
    place = to.bounding_box()
    for beside in (20, 0):
        page.mouse.move(place["x"] + 40, place["y"] + y + beside, steps=4)
    expect(page.locator(".drop-before, .drop-here")).to_have_count(1)
    with page.expect_response(lambda answer: "/parts/board" in answer.url):  # the drop was asked for, and answered
        page.mouse.up()
    until(done)


def test_a_quest_is_dragged_within_its_priority_and_into_another(open_page, queue):
    page = open_page("/quests")
    first, second = names(queue, "normal")
    drag(page, card(page, second), card(page, first), 5, lambda: names(queue, "normal") == [second, first])
    expect(page.locator("[data-line=normal] a.name").first).to_have_text(second)
    high = page.locator("[data-line=high]")
    drag(page, card(page, first), high, 2, lambda: names(queue, "high")[:1] == [first])
    expect(page.locator("[data-line=high] a.name").first).to_have_text(first)
    drag(page, card(page, first), card(page, second), 5, lambda: names(queue, "normal") == [first, second])
    assert page.evaluate("window.marker") == "never reloaded"


def test_the_board_does_not_come_anew_under_a_card_that_is_in_the_hand(open_page, queue):
    page = open_page("/quests")
    first, second = names(queue, "normal")
    place, held = card(page, first).bounding_box(), card(page, second).element_handle()
    held.hover(position={"x": 8, "y": 8})
    page.mouse.down()
    with page.expect_response("**/parts/board*"):
        page.evaluate("renew('board')")
    page.wait_for_timeout(300)
    assert held.evaluate("card => card.isConnected")
    page.mouse.move(place["x"] + 40, place["y"] + 20, steps=3)
    page.mouse.move(place["x"] + 40, place["y"] + 5, steps=3)
    page.mouse.up()
    until(lambda: names(queue, "normal") == [second, first])
    expect(page.locator("[data-line=normal] a.name").first).to_have_text(second)
    expect(page.locator("[data-held]")).to_have_count(0)
    page.get_by_label(f"Priority of {second}").dispatch_event("pointerdown")  # a menu may keep its pointerup to itself
    card(page, second).dispatch_event("pointerdown", {"button": 2})
    expect(page.locator("[data-held]")).to_have_count(0)


def test_a_quest_is_moved_by_the_fingers_of_one_hand_on_a_phone(open_page, queue):
    page = open_page("/quests", 390, has_touch=True, is_mobile=True)
    first, second = names(queue, "normal")
    buttons = card(page, second).locator("button.mini, select.mini")
    assert min(box["height"] for box in (each.bounding_box() for each in buttons.all()) if box) >= 40
    page.get_by_role("button", name=f"Earlier: {second}").tap()
    until(lambda: names(queue, "normal") == [second, first])
    expect(page.locator("[data-line=normal] a.name").first).to_have_text(second)
    page.get_by_label(f"Priority of {second}").select_option("high")
    until(lambda: names(queue, "high")[-1:] == [second])
    expect(page.locator("[data-line=high]").get_by_role("link", name=second)).to_be_visible()
    page.get_by_label(f"Priority of {second}").select_option("normal")
    until(lambda: names(queue, "normal") == [first, second])
    fits(page)


@pytest.mark.parametrize("width", [390, 1440])
def test_a_quest_is_moved_cancelled_and_tried_again_by_keys_alone(open_page, queue, width):
    page = open_page("/quests", width)
    first, second = names(queue, "normal")
    earlier = page.get_by_role("button", name=f"Earlier: {second}")
    earlier.focus()
    page.keyboard.press("Enter")
    until(lambda: names(queue, "normal") == [second, first])
    expect(page.locator("[data-line=normal] a.name").first).to_have_text(second)
    expect(earlier).to_be_focused()
    page.get_by_role("button", name=f"Later: {second}").press("Enter")
    until(lambda: names(queue, "normal") == [first, second])
    page.get_by_label(f"Priority of {second}").select_option("low")
    until(lambda: second in names(queue, "low"))
    page.get_by_role("button", name=f"Cancel {second}").press("Enter")
    expect(page.locator("#failed").get_by_role("link", name=second)).to_be_visible()
    page.locator("#failed .quest", has_text=second).get_by_role("button", name="Try again").press("Enter")
    expect(page.locator("[data-line=low]").get_by_role("link", name=second)).to_be_visible()
    page.get_by_label(f"Priority of {second}").select_option("normal")
    until(lambda: names(queue, "normal") == [first, second])
    fits(page)


def test_files_are_sent_with_progress_cancelled_refused_with_a_reason_and_looked_at(open_page, house, tmp_path):
    paths, _ = house
    page = open_page("/quests", expected="status of 415")
    slow = page.context.new_cdp_session(page)
    slow.send("Network.enable")
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
    slow.send("Network.emulateNetworkConditions", conditions | {"uploadThroughput": 1_500_000})
    for name, text in (("large.jsonl", ROWS * 6000), ("table.csv", "a,b"), ("chats.jsonl", ROWS)):
        (tmp_path / name).write_text(text)
    page.set_input_files("#file", [tmp_path / name for name in ("large.jsonl", "table.csv", "chats.jsonl")])
    lines = page.locator(".uploads .upload")
    expect(lines).to_have_count(3)
    expect(lines.nth(0)).to_contain_text("MB of 2")  # 22 MB
    assert 0 < lines.nth(0).locator("progress").evaluate("bar => bar.value") < 1
    expect(lines.nth(2)).to_contain_text("chats.jsonl waits")
    page.get_by_role("button", name="Cancel large.jsonl").click()
    expect(lines.nth(0)).to_contain_text("cancelled")
    expect(lines.filter(has_text="table.csv")).to_contain_text("Only .jsonl files are taken")
    sent = lines.filter(has_text="chats.jsonl is in the inbox")
    expect(sent).to_be_visible()
    until(lambda: not list(paths.inbox.glob(".*")) and not list(paths.inbox.glob("large*")))
    assert (paths.inbox / "chats.jsonl").read_text() == ROWS
    sent.get_by_role("link", name="What the hero will see").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("chats.jsonl")
    shown = page.locator(".seq[role=group]").first
    expect(shown.locator("mark")).to_have_text("Because it is so.<|im_end|>")
    assert "underline" in shown.locator("mark").evaluate("mark => getComputedStyle(mark).textDecorationLine")
    expect(shown.locator("i.s").first).to_have_text("<|im_start|>")
    expect(shown).to_contain_text("Why <b>?")
    expect(page.get_by_role("img", name="Rows by their length")).to_be_visible()
    page.get_by_role("link", name="Next rows").click()
    expect(page.get_by_role("heading", name="line 9", exact=False).first).to_be_visible()
    expect(page.get_by_role("img", name="Rows by their length")).to_be_visible()  # what was known of the file stays


def test_no_page_of_a_quest_or_a_job_overflows(open_page, house):
    paths, server = house
    (paths.inbox / "wide.jsonl").write_text(json.dumps({"prompt": "w" * 900, "response": "\u202e" + "z " * 900}) + "\n")
    rejected = Ledger(paths.ledger).one("SELECT id FROM quests WHERE stem='chat_export_broken'")["id"]
    page = open_page("/quests/dropped?name=wide.jsonl")
    page.locator(".seq[role=group]").wait_for()
    for path in (None, "/quests/2", f"/quests/{rejected}", "/jobs", "/jobs/battle-2"):
        if path:
            page.goto(server.url + path)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            fits(page)


def test_a_quests_page_is_whole_without_javascript(open_page, house, queue):
    paths, _ = house
    (paths.inbox / "plain.jsonl").write_text(ROWS)
    page = open_page("/quests", java_script_enabled=False)
    page.get_by_role("link", name="plain.jsonl").click()
    page.get_by_role("link", name="What the hero will see of it").click()
    expect(page.locator(".seq mark").nth(1)).to_have_text("Because it is so.<|im_end|>")  # the first explains the marks
    page.get_by_role("link", name="Next rows").click()
    expect(page.get_by_role("heading", name="line 9").first).to_be_visible()
    first, second = names(queue, "normal")
    page.get_by_role("link", name="Quests", exact=True).first.click()
    page.get_by_role("button", name=f"Earlier: {second}").click()
    assert names(queue, "normal") == [second, first]
    page.get_by_role("link", name=first).click()
    page.get_by_role("button", name="Train it next").click()
    assert names(queue, "high")[0] == first
    page.get_by_label(f"Priority of {first}").select_option("normal")
    card(page, first).get_by_role("button", name="Move", exact=True).click()
    assert names(queue, "normal") == [second, first]
