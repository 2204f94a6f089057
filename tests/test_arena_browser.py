"""The arena in a real browser: two agents are made and called into the ring, curves and names come by themselves, one wins."""

from playwright.sync_api import expect
from test_tavern_browser import AXE, LOOKS, check

from core.arena.league import Arena


def make(page, name: str, width: int) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Width").fill(str(width))
    page.get_by_role("button", name="Create it").click()
    expect(page.get_by_role("row", name=name)).to_be_visible()


def test_a_battle_is_watched_from_the_call_to_the_winner(open_page, house):
    paths, _ = house
    page = open_page("/arena")
    make(page, "Ada", 16)
    make(page, "Bee", 8)
    page.get_by_label("First").select_option("Ada")
    page.get_by_label("Second").select_option("Bee")
    page.get_by_label("Steps", exact=True).fill("500")
    page.get_by_role("button", name="Begin the battle").click()
    page.evaluate("window.marker = 'never reloaded'")  # the form led back to the page; from here on it stays
    ring = page.get_by_label("The ring", exact=True)
    expect(ring.get_by_role("progressbar")).to_be_visible(timeout=60_000)
    expect(ring.get_by_role("button", name="Break it off")).to_be_visible()
    expect(ring.locator("path.line")).to_have_count(2)
    drawn = ring.locator("path.line.second").get_attribute("d")
    expect(ring.locator("path.line.second")).not_to_have_attribute("d", drawn, timeout=30_000)
    winner = ring.locator(".winner")
    expect(winner).to_be_visible(timeout=120_000)
    result = Arena(paths).told("battle")["result"]
    expect(winner).to_contain_text(f"{result['winner']} wins" if result["winner"] else "A draw")
    names = ring.get_by_label("Bee").get_by_label("Names it has written").locator("li")
    expect(names.first).to_have_text(result["agents"]["Bee"]["names"][0])
    expect(page.get_by_role("row", name="Ada")).to_contain_text(f"{result['agents']['Ada']['elo']:,.0f}")
    expect(page.locator(".bouts")).to_contain_text("500 steps")
    expect(page.get_by_role("button", name="Begin the battle")).to_be_enabled()
    assert page.evaluate("window.marker") == "never reloaded"
    page.evaluate(AXE)
    for width, theme in LOOKS:
        check(page, width, theme)
