"""A page that is left open stays true: over a dead connection, a new token, an update, two changes at once."""

import asyncio
import contextlib
import re
import threading
import time
from difflib import ndiff

import pytest
from browser import STILL
from playwright.sync_api import expect
from tavern_realm import add_checkpoint, add_quest, advance, empty_realm, fill, services
from tavern_server import Stream, tavern

from core.checkpoints import set_tip
from core.durable import read_json, write_json
from core.ledger import Ledger
from core.training_queue import TrainingQueue


@pytest.fixture
def page(browser):
    context = browser.new_context(**STILL)
    yield context.new_page()
    context.close()


class Wire:
    """A wire to a server's port. `cut`: what is open stays open and silent for ever, as after a sleep; new calls get through."""

    def __init__(self, behind: int):
        self._behind, self._ready = behind, threading.Event()
        self._open: set[asyncio.Task] = set()
        self._silent: set[asyncio.Task] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait()

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _join(self, reader, writer):
        task = asyncio.current_task()
        self._open.add(task)
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(task, *ends))
                    for ends in ((reader, behind_writer), (behind_reader, writer))
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for end in (writer, behind_writer):
                end.transport.abort()

    async def _pump(self, task, source, sink):
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if task in self._silent:
                    await self._over.wait()
                sink.write(data)
                await sink.drain()

    def cut(self):
        self._loop.call_soon_threadsafe(self._silent.update, tuple(self._open))

    def close(self):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


def test_a_page_finds_back_after_a_sleep_that_killed_its_connection(page, house):
    paths, server = house
    wire, ledger = Wire(server.port), Ledger(paths.ledger)
    try:
        page.clock.install()
        page.goto(f"http://127.0.0.1:{wire.port}/")
        ledger.event("daemon", "before", "It was heard before the sleep.")
        expect(page.locator("[data-log]")).to_contain_text("heard before the sleep")
        wire.cut()
        ledger.event("daemon", "asleep", "It happened during the sleep.")
        page.wait_for_timeout(1500)
        assert "during the sleep" not in page.locator("[data-log]").inner_text()
        page.clock.fast_forward("08:00:00")  # a night: the page's timers run when the lid is opened
        for _ in range(8):  # the browser may try dead connections that it kept, one after the other
            with contextlib.suppress(AssertionError):
                expect(page.locator("[data-log]")).to_contain_text("during the sleep", timeout=1500)
                break
            page.clock.fast_forward("00:20")
        expect(page.locator("[data-log]")).to_contain_text("during the sleep")
        ages = page.locator("[data-log] time").first.inner_text()
        assert re.fullmatch(r"just now|\d+ s ago", ages), (
            ages
        )  # by the Tavern's clock, not by the page's, which is hours ahead
    finally:
        wire.close()
        ledger.close()


AWAY = """away => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => away });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
SEEN = r"""() => {
    const seen = document.querySelector("main").cloneNode(true), curves = document.querySelector("[data-curves]");
    const other = "time, .machine, .plot, .room, [data-bind^=disk], [data-log] li:nth-child(n+15)"; // by the second, or more of it
    for (const gone of seen.querySelectorAll(other)) gone.remove();
    for (const each of seen.querySelectorAll("*")) each.append(" ");
    const told = [document.title, document.querySelector(".top").innerText, seen.textContent];
    return told.join(" ").trim().split(/\s+/).concat(curves ? curves.dataset.shown || "not drawn" : []);
}"""


def a_night(paths, ledger):
    """The battle is won, its checkpoint examined and promoted; another quest is trained, one has failed, one has come; much was told."""
    with ledger.together():
        for number in range(1300):
            ledger.event("daemon", "night", f"Hour {number} of the watch.")
    advance(paths, ledger, 152)
    [fought] = TrainingQueue(paths, ledger).processing()
    TrainingQueue(paths, ledger).finish(fought)
    battle = ledger.one("SELECT id FROM battles WHERE state='running'")["id"]
    ledger.change("battles", battle, state="done", validation_loss=0.5, finished=time.time(), xp=90)
    saved = add_checkpoint(paths, ledger, 2352, paths.tip.readlink().name, fought.id, "promoted", 0.5, time.time())
    set_tip(paths, saved)
    exam = {"skill": "BIN", "level": 1, "right": 20, "asked": 32, "kind": "canary", "seq": 0}
    ledger.add("exams", hero="DIO", campaign="c1", checkpoint=saved, step=2352, created=time.time(), **exam)
    add_quest(paths, ledger, "came_at_night", "queued", time.time(), 99, "high")
    add_quest(paths, ledger, "fell_at_night", "failed", time.time(), 9, reason="it was too dark")
    ledger.event("trainer", "quest_failed", "fell_at_night failed: it was too dark", "alert")
    write_json(paths.status, read_json(paths.status) | {"battle": None, "state": "idle"})


def test_pages_left_open_overnight_are_in_the_morning_what_a_fresh_load_is(visit, tmp_path):
    paths = empty_realm(tmp_path)
    ledger = fill(paths)
    with tavern(paths.root) as server:
        left = {
            path: visit(server, path, expected="ERR_CONNECTION_REFUSED")
            for path in ("/", "/quests", "/jobs", "/vault", "/live", "/skills", "/temple")
        }
        for page in left.values():
            page.wait_for_function("document.documentElement.classList.contains('js')")
            page.evaluate(AWAY, True)
        server.stop()
        a_night(paths, ledger)
        with tavern(paths.root, server.port) as another:
            services(paths)
            for path, page in left.items():
                page.evaluate(AWAY, False)
                fresh = visit(another, path, expected="ERR_CONNECTION_REFUSED")
                for _ in range(40):
                    services(paths)
                    new, old = fresh.evaluate(SEEN), page.evaluate(SEEN)
                    if old == new:
                        break
                    page.wait_for_timeout(250)
                assert [word for word in ndiff(new, old) if word[0] in "+-"] == [], path
                assert page.evaluate("window.marker") == "never reloaded"
    ledger.close()


def test_a_page_notices_that_the_ledger_is_of_another_past(visit, tmp_path):
    paths = empty_realm(tmp_path)
    ledger = fill(paths)
    with ledger.together():
        for number in range(50):
            ledger.event("daemon", "lost", f"Nobody will know {number}.")
    with tavern(paths.root) as server:
        page = visit(server, expected="ERR_")
        expect(page.locator("[data-log]")).to_contain_text("Nobody will know 49.")
        server.stop()
        ledger.change("events", ledger.one("SELECT MAX(id) AS id FROM events")["id"], text="Restored.")
        ledger.all("DELETE FROM events WHERE text LIKE 'Nobody%'")
        ledger.connection.execute("UPDATE events SET id = 40 WHERE text = 'Restored.'")
        ledger.connection.execute("UPDATE sqlite_sequence SET seq = 40 WHERE name = 'events'")
        with tavern(paths.root, server.port):
            expect(page.locator("[data-log]")).not_to_contain_text("Nobody will know", timeout=20_000)
            ledger.event("daemon", "after", "Told after the restore.")
            expect(page.locator("[data-log]")).to_contain_text("Told after the restore.")
    ledger.close()


def test_a_new_token_leads_an_open_page_to_the_login(page, tmp_path):
    paths = empty_realm(tmp_path)
    paths.config.write_text('{"tavern": {"require_token": true}}')
    with tavern(paths.root) as server:
        page.goto(f"{server.url}/login?token={paths.token.read_text()}")
        expect(page.locator(".pill")).to_be_visible()
        server.stop()
        paths.token.unlink()
        with tavern(paths.root, server.port):
            page.get_by_label("Token").wait_for(timeout=30_000)
            page.get_by_label("Token").fill(paths.token.read_text())
            page.get_by_role("button", name="Enter").click()
            expect(page.locator(".pill")).to_be_visible()


def test_a_part_that_changes_twice_at_once_ends_up_right(page, house):
    paths, server = house
    services(paths)
    page.goto(server.url + "/quests")
    page.wait_for_selector("[data-part]")
    (paths.inbox / "first.jsonl").write_text("{}\n")
    page.locator(".arriving", has_text="first.jsonl").wait_for()
    (paths.inbox / "second.jsonl").write_text("{}\n")  # within the pause after a part was fetched
    page.locator(".arriving", has_text="second.jsonl").wait_for(timeout=6000)
    assert page.locator(".arriving", has_text="first.jsonl").count() == 1


def test_a_page_of_an_older_tavern_fetches_itself_anew(page, house):
    paths, server = house
    ledger = Ledger(paths.ledger)
    services(paths)
    page.goto(server.url + "/vault")
    page.evaluate("document.body.dataset.build = 'of yesterday', window.marker = 'the old page'")
    advance(paths, ledger)
    page.wait_for_function("() => window.marker === undefined && document.body.dataset.build !== 'of yesterday'")
    ledger.close()


def test_a_client_that_remembers_events_of_another_past_still_hears_what_happens_next(house):
    paths, server = house
    ledger = Ledger(paths.ledger)
    stream = Stream(server, "?after=99999")
    stream.next("clock")
    told = ledger.event("daemon", "after", "It is heard all the same.")
    assert stream.next("event")["data"]["id"] == told
    stream.close()
    ledger.close()


def test_the_stream_tells_the_time_at_once(house):
    _, server = house
    before = time.time()
    stream = Stream(server)
    assert before <= stream.next("clock")["data"]["time"] <= time.time()
    stream.close()
