"""Takes the pictures of docs/images from a throw-away realm in the middle of a battle: every page, home by day, too.

python scripts/take_screenshots.py
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGES = CHECKOUT / "docs" / "images"
WIDE, PHONE = {"width": 1440, "height": 1000}, {"width": 390, "height": 844}
MORE = {
    "home_light": ("/", WIDE, "light"),
    "home_phone": ("/", PHONE, "dark"),
    "skills": ("/skills?skill=REV&level=9&seed=2", WIDE, "dark"),
    "help": ("/help/troubleshooting", WIDE, "light"),
}
ARENA = (
    "create_agent Broad 32 1 4",
    "create_agent Tiny 16 1 2",
    "train 40",
    "create_agent Deep 12 3 2",
    "battle Deep Tiny 40 --equal-energy",
    "battle Tiny Broad 120",
)
STEPS, PATIENCE = 60, 900
CHROMIUM = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def realm(root: Path, *words: str) -> str:
    command = [sys.executable, "-m", "training", *words, "--root", str(root)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_quests(folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Files of the skills' problems and one that is not JSON Lines, each with what the command line adds to it."""
    program = (
        "import sys, orjson; from core.skills import skill\n"
        "for row in skill(sys.argv[1]).quest_rows(int(sys.argv[2]), 1, int(sys.argv[3])): print(orjson.dumps(row).decode())"
    )
    made = []
    for name, skill, level, rows in (
        ("spelled_backwards", "REV", 1, 6000),
        ("sums_of_four_bits", "BIN", 3, 1200),
        ("sums_of_eight_bits", "BIN", 7, 6000),
        ("secret_symbols", "BIN", 9, 3000),
    ):
        path = folder / f"{name}.jsonl"
        words = [sys.executable, "-c", program, skill, str(level), str(rows)]
        path.write_bytes(subprocess.run(words, cwd=CHECKOUT, capture_output=True, check=True).stdout)
        made.append((path, ("--skill", skill)))
    shopping = folder / "shopping_list.jsonl"
    shopping.write_text("milk\nbread\n")
    return [*made, (shopping, ())]


def main() -> int:
    root = Path(tempfile.mkdtemp(prefix="realm-"))
    port = free_port()
    try:
        realm(root, "init")
        realm(root, "config", "set", "replay_ratio", "0.25")
        realm(root, "start-all", "--port", str(port))
        (root / "fresh").mkdir()
        for path, more in write_quests(root / "fresh"):
            realm(root, "quest", "add", str(path), *more)
        for line in ARENA:
            realm(root, "arena", *line.split())
        wait_for_battle(root)
        take(port)
    finally:
        realm(root, "stop-all")
        shutil.rmtree(root)
    return 0


def wait_for_battle(root: Path) -> None:
    """Until the second quest has curves to show; a machine on which it never does so is told, not waited for."""
    deadline, battle = time.monotonic() + PATIENCE, {}
    while battle.get("quest") != "sums_of_eight_bits" or battle["step"] < STEPS:
        if time.monotonic() > deadline:
            sys.exit(
                f"After {PATIENCE} s the battle to be shown has not come to step {STEPS}; the realm tells of: {battle}"
            )
        time.sleep(0.5)
        battle = json.loads(realm(root, "status", "--json"))["battle"] or {}


def take(port: int) -> None:
    """Every page of the navigation by night, and `MORE`."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM))
        page = browser.new_page()
        page.goto(f"http://localhost:{port}/")
        paths = page.eval_on_selector_all("#pages a", "links => links.map(link => link.getAttribute('href'))")
        page.close()
        shots = {path.strip("/") or "home": (path, WIDE, "dark") for path in paths} | MORE
        for name, (path, viewport, theme) in shots.items():
            page = browser.new_page(viewport=viewport, color_scheme=theme)
            page.goto(f"http://localhost:{port}{path}")
            page.wait_for_timeout(2500)
            page.screenshot(path=IMAGES / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
