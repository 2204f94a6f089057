"""The charts in a real browser: zoom fetches its own range, two battles lie over each other, values are read, the newest arrive."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import overhang
from playwright.sync_api import expect
from tavern_realm import advance, services
from tavern_server import PAGE, client_of

from core.ledger import Ledger
from monitoring.machine_history import EVERY_SECONDS, KEPT, MachineHistory
from monitoring.servers.tavern.libraries import LIBRARIES, LibraryFile, found

DEAF = "window.ResizeObserver = class { observe() {} unobserve() {} disconnect() {} };"


@pytest.fixture
def live(open_page):
    """Opens a page; it has drawn its curves. `page.asked`: the queries for metrics. `script`: runs before the page's own."""

    def live(path="/live", script="", **options):
        def prepare(page):
            page.asked = []
            page.on("request", lambda request: "/api/metrics" in request.url and page.asked.append(_query(request.url)))
            page.add_init_script(script)

        page = open_page(path, color_scheme="dark", prepare=prepare, **options)
        page.wait_for_selector("[data-curves][data-shown]")
        return page

    return live


def _query(url):
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def _shown(page):
    return tuple(map(int, page.locator("[data-curves]").get_attribute("data-shown").split("-")))


def _drag(page, start, end):
    box = page.locator("[data-chart=loss] .u-over").bounding_box()
    page.mouse.move(box["x"] + start * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], box["y"] + 80, steps=4)
    page.mouse.up()


def _wait_until_shown(page, test):
    page.wait_for_function(
        f"() => {{ const [low, high] = document.querySelector('[data-curves]').dataset.shown.split('-').map(Number); return {test}; }}"
    )


def test_a_zoom_fetches_its_own_range_and_a_reload_keeps_it(live):
    page = live("/live?range=all")
    before = _shown(page)
    assert before[0] == 1 and "first" not in page.asked[0]
    _drag(page, 0.25, 0.5)
    _wait_until_shown(page, "high - low < 700")
    low, high = _shown(page)
    assert (int(page.asked[-1]["first"]), int(page.asked[-1]["last"])) == (low, high)
    assert abs(low - 0.25 * before[1]) < 30 and abs(high - 0.5 * before[1]) < 30
    page.reload()
    page.wait_for_selector("[data-curves][data-shown]")
    assert _shown(page) == (low, high)
    page.locator("[data-chart=loss]").focus()
    page.keyboard.press("+")
    _wait_until_shown(page, f"high - low < {(high - low) * 0.6}")
    page.locator("[data-chart=loss] .u-over").hover()
    page.mouse.wheel(0, -300)
    _wait_until_shown(page, f"high - low < {(high - low) * 0.45}")
    page.locator("[data-chart=loss] .u-over").dblclick()
    _wait_until_shown(page, f"high - low > {(high - low) * 0.45}")
    page.get_by_role("button", name="Back").click()
    page.locator("[data-chart=loss]").focus()
    page.keyboard.press("Escape")
    _wait_until_shown(page, f"low == {before[0]} && high >= {before[1]}")
    assert "first" not in page.url


def test_values_are_read_by_pointer_and_by_keys(live):
    page = live("/live?range=all")
    readout = page.locator("[data-chart=loss] .readout")
    box = page.locator("[data-chart=loss] .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    expect(readout).to_have_text(re.compile(r"step 1,0\d\d · [\d.]+ .*held out [\d.]+"))
    expect(page.locator("[data-chart=gradient_norm] .readout")).to_contain_text("step 1,0")  # the charts read together
    page.mouse.move(5, 5)
    expect(readout).not_to_contain_text("step")
    page.locator("[data-chart=loss]").focus()
    page.keyboard.press("Home")
    expect(readout).to_have_text(re.compile(r"step \d "))
    page.keyboard.press("End")
    expect(readout).to_contain_text("step 2,0")


def test_two_battles_lie_over_each_other_by_step_within_the_battle(live):
    page = live()
    page.select_option("[name=battle]", "2")
    page.select_option("[name=beside]", "3")
    page.get_by_role("button", name="Show").click()
    page.wait_for_selector("[data-curves][data-shown]")
    assert _shown(page) == (1, 900) and {query["quest"] for query in page.asked[-2:]} == {"2", "3"}
    box = page.locator("[data-chart=loss] .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    expect(page.locator("[data-chart=loss] .readout")).to_have_text(
        re.compile(r"step 22\d · gsm8k_train .* · alpaca_en_demo ")
    )
    drawn = page.evaluate(  # two curves, seen as colours on the canvas
        """() => {
        const canvas = document.querySelector("[data-chart=learning_rate] canvas");
        const pixels = (context, width, height) => context.getImageData(0, 0, width, height).data;
        const all = pixels(canvas.getContext("2d"), canvas.width, canvas.height), seen = new Set();
        for (let at = 0; at < all.length; at += 4) if (all[at + 3] > 250) seen.add(all.slice(at, at + 3).join());
        return ["--gold", "--verdigris"].map((name) => {
            const patch = new OffscreenCanvas(1, 1).getContext("2d");
            patch.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
            patch.fillRect(0, 0, 1, 1);
            return seen.has(pixels(patch, 1, 1).slice(0, 3).join());
        }); }"""
    )
    assert drawn == [True, True]


def test_the_newest_steps_are_followed_until_one_looks_closer(live, house):
    paths, _ = house
    page, ledger = live("/live?range=200"), Ledger(paths.ledger)
    services(paths)
    before = _shown(page)
    advance(paths, ledger, 30)
    _wait_until_shown(page, f"high == {before[1] + 30} && low == {before[0] + 30}")
    _drag(page, 0.2, 0.8)
    _wait_until_shown(page, "high - low < 150")
    closer = _shown(page)
    advance(paths, ledger, 30)
    page.wait_for_timeout(2500)
    assert _shown(page) == closer
    ledger.close()


def test_the_home_page_draws_its_curve_and_the_machine_its_hour(live):
    page = live("/")
    assert page.asked[0]["series"] == "loss" and page.locator("[data-chart] canvas").count() == 1
    page = live("/live")
    expect(page.locator("[data-chart=machine] .readout")).to_contain_text("Memory")
    page.wait_for_selector("[data-chart=machine] canvas")


@pytest.mark.parametrize("path", ["/", "/live"])
def test_a_chart_that_has_not_heard_of_a_narrower_window_does_not_widen_the_page(live, path):
    page = live(path, width=2560, script=DEAF)
    page.wait_for_function(
        "document.querySelectorAll('.plot').length === document.querySelectorAll('.plot.drawn').length"
    )
    drawn = page.locator(".plot.drawn canvas").evaluate_all("all => all.map(canvas => canvas.clientWidth)")
    page.set_viewport_size({"width": 390, "height": 900})
    kept = page.locator(".plot.drawn canvas").evaluate_all("all => all.map(canvas => canvas.clientWidth)")
    assert kept == drawn and min(kept) > 390
    assert overhang(page) <= 0


def test_without_javascript_the_same_ranges_and_battles_are_drawn_by_the_server(house):
    with client_of(house[0]) as client:
        both = client.get("/live?battle=2&beside=3", headers=PAGE).text
        closer = client.get("/live?first=300&last=320", headers=PAGE).text
    assert 'class="line first"' in both and 'class="line second"' in both
    assert "steps 300 to 320" in closer


def test_the_library_is_served_as_its_makers_published_it_or_not_at_all(house):
    with client_of(house[0], require_token=True) as client:
        assert client.get("/static/lib/uplot.js").status_code == 401
    with client_of(house[0]) as client:
        script = client.get("/static/lib/uplot.js")
        assert script.content.startswith(b"/*! https://github.com/leeoniya/uPlot (v1.6.31) */")
        assert "javascript" in script.headers["content-type"] and script.headers["x-content-type-options"] == "nosniff"
        again = client.get("/static/lib/uplot.js", headers={"if-none-match": script.headers["etag"]})
        assert again.status_code == 304
        assert client.get("/static/lib/uplot.iife.min.js").status_code == 404
    assert set(found()) == set(LIBRARIES)
    known = LIBRARIES["lib/uplot.js"]
    assert LibraryFile(known.package, known.path, "0" * 64).find() is None
    assert LibraryFile("no-such-package", known.path, known.sha256).find() is None


def test_the_history_of_the_machine_survives_sleep_and_is_an_hour_long(tmp_path):
    moment = 1000.0
    gpu = {"index": 0, "name": "H", "utilization_percent": 90, "memory_used_bytes": 1, "memory_total_bytes": 4}
    history = MachineHistory(tmp_path, lambda: [gpu], lambda: moment)
    history.take()
    moment += 8 * 3600  # the lid was closed
    history.take()
    told = history.told()
    assert told["series"][3] == {"key": "gpu0", "name": "H", "percent": [90, None, 90]}
    assert told["series"][4]["percent"] == [25.0, None, 25.0] and told["time"] == sorted(told["time"])
    assert told["time"][-1] - told["time"][0] == pytest.approx(8 * 3600, abs=0.2)
    for _ in range(KEPT + 10):
        moment += EVERY_SECONDS
        history.take()
    assert len(history.told()["time"]) == KEPT
