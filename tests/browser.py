"""A real browser for tests: launched in one way, its pages watched for complaints. It knows nothing about what a page should show."""

import contextlib
import shutil

from playwright.sync_api import sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Without a GPU every frame of what turns and breathes is computed: half of the time of a test that only looks.
STILL = {"reduced_motion": "reduce"}


@contextlib.contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def watched(browser):
    """A function that opens a page; in the end nothing was complained of, no dialog or window opened, nobody else asked.

    `expected`: a complaint that may come. `prepare`: is given the page before it goes anywhere.
    """
    complaints, contexts = [], []

    def visit(server, path="/", width=1440, expected="nothing", cookies=(), prepare=None, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **STILL | options)
        contexts.append(context)
        context.add_cookies([{"name": name, "value": cookies[name], "url": server.url} for name in cookies])
        page = context.new_page()
        page.on(
            "console",
            lambda said: (
                said.type in ("error", "warning")
                and expected not in said.text
                and complaints.append(f"{page.url}: {said.text}")
            ),
        )
        page.on("pageerror", lambda problem: complaints.append(str(problem)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        context.on("request", lambda request: request.url.startswith(server.url) or complaints.append(request.url))
        context.on("page", lambda other: complaints.append(f"another page: {other.url}"))
        if prepare:
            prepare(page)
        page.goto(server.url + path)
        if options.get("java_script_enabled", True):
            page.evaluate("window.marker = 'never reloaded'")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def overhang(page):
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth") - page.viewport_size["width"]


def fits(page):
    """Nothing is wider than the window, with everything unfolded."""
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert overhang(page) <= 0, page.url


def letters(text):
    """What markdown changes nothing of, so that what is shown can be compared with what was said."""
    return "".join(filter(str.isalnum, text))
