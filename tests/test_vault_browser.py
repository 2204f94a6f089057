"""The Vault and the settings in a real browser, on a phone and on a desk: promote, pin, compare, change a setting."""

import json

import pytest
from browser import fits
from playwright.sync_api import expect
from tavern_realm import services

from core import control
from core.ledger import Ledger


@pytest.mark.parametrize("width", [390, 1440])
def test_promote_pin_name_and_compare_by_the_pages_buttons(open_page, house, width):
    paths, _ = house
    ledger = Ledger(paths.ledger)
    services(paths)
    page = open_page("/vault", width)
    fits(page)
    tip = paths.tip.readlink().name
    row = page.get_by_role("row").filter(has_text=tip)
    row.get_by_role("button", name="Pin", exact=True).click()
    expect(page.locator(".note")).to_contain_text("is pinned")
    expect(page.get_by_role("row").filter(has_text=tip)).to_contain_text("pinned")
    page.locator(".note").get_by_role("button", name="Undo").click()
    expect(page.get_by_role("row").filter(has_text=tip).get_by_role("button", name="Pin", exact=True)).to_be_visible()
    page.get_by_role("row").filter(has_text=tip).get_by_role("button", name="Promote").click()
    expect(page.locator(".waits")).to_contain_text(tip)
    wish = control.waiting(ledger)[-1]
    assert (wish["verb"], wish["argument"]) == ("promote", tip)
    control.carried_out(ledger, wish["id"], "done")
    ledger.event("vault", "promoted", f"{tip} is promoted by hand.")
    expect(page.locator(".waits")).to_have_count(0)  # the page follows without a reload
    page.get_by_label("This one").select_option(label="current")
    page.get_by_label("with that").select_option(label="tip")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Two compared")).to_be_visible()
    fits(page)
    page.get_by_role("link", name=tip).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(tip)
    fits(page)
    page.get_by_label("Its name").fill(f"width-{width}")
    page.get_by_role("button", name="Give a name").click()
    expect(page.locator(".head .tagged")).to_contain_text([f"width-{width}"])
    page.get_by_role("button", name="Take back").first.click()
    expect(page.locator(".head .tagged")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1440])
def test_a_setting_is_changed_after_its_difference_was_seen(open_page, house, width):
    paths, _ = house
    page = open_page("/settings", width, expected="status of 422", java_script_enabled=width > 400)
    fits(page)
    rows = str(width // 10)
    page.get_by_label("batch_size", exact=True).fill("many")
    page.get_by_role("button", name="See the difference").click()
    expect(page.locator("#batch_size .bad")).to_contain_text("valid integer")
    page.get_by_label("batch_size", exact=True).fill(rows)
    page.get_by_label("packing", exact=True).select_option("false")
    page.get_by_role("button", name="See the difference").click()
    expect(page.locator(".change ins").first).to_have_text(rows)
    expect(page.locator(".diff .new").filter(has_text=rows)).to_be_visible()
    fits(page)
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".note")).to_contain_text("Saved")
    assert json.loads(paths.config.read_text()) == {"batch_size": int(rows), "packing": False}
    expect(page.get_by_label("batch_size", exact=True)).to_have_value(rows)
    expect(page.locator("#batch_size .now")).to_contain_text("8")
    page.get_by_label("packing", exact=True).select_option("")
    page.get_by_role("button", name="See the difference").click()
    page.get_by_role("button", name="Save").click()
    assert json.loads(paths.config.read_text()) == {"batch_size": int(rows)}
