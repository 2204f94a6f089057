"""TROUBLESHOOTING.md has an entry for everything that complains, and for nothing else; its commands can be typed."""

import ast
import re
import shlex

import pytest
from tavern_realm import empty_realm, fill
from tavern_server import PAGE, client_of

from core.dossier import Kind
from core.paths import CHECKOUT
from core.status import MENDED_BY, WARNINGS
from monitoring.servers.tavern import help as help_page
from training.cli import build_parser
from training.doctor.promises import REMEDIES

TEXT = (CHECKOUT / "TROUBLESHOOTING.md").read_text()
ROOMS = ("core", "management", "safety", "monitoring", "training")


def calls(files, name):
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in name:
                yield node


def constants(node) -> list[str]:
    return [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)]


def alert_codes() -> set[str]:
    """Codes of events that are told as alerts: by a literal, or known to `status` as something that is mended."""
    found = set(MENDED_BY) | set(WARNINGS)
    files = [file for room in ROOMS for file in (CHECKOUT / room).rglob("*.py")]
    for call in calls(files, ("event", "_tell")):
        values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "level")]
        if any("alert" in constants(value) for value in values[1:] if not isinstance(value, ast.JoinedStr)):
            code = call.args[1] if call.func.attr == "event" else call.args[0]
            found |= {code.value} if isinstance(code, ast.Constant) else set()
    return found


def doctor_codes() -> set[str]:
    """Codes of findings that ask for something, and of those that only tell."""
    files = sorted((CHECKOUT / "training" / "doctor").glob("*.py"))
    first = [call.args[0] for call in calls(files, ("ok", "look", "bad")) if call.args]
    known = {node.value for node in first if isinstance(node, ast.Constant)}
    return {code.lower() for code in (known | set(REMEDIES)) - {"promises"}}


def test_everything_that_complains_has_an_entry_and_nothing_else_has_one():
    told = alert_codes() | {"realm_asleep", "trainer_down", "daemon_down"}
    wanted = told | {f"crash-{kind}" for kind in Kind} | {f"doctor-{code}" for code in doctor_codes()}
    assert {"disk_low", "quest_failed", "checkpoint_corrupt", "backup_failed", "realm_asleep"} <= told
    assert {"crash-nan", "doctor-port", "doctor-i4"} <= wanted
    assert help_page.troubleshooting()[1] == wanted


def test_every_entry_says_what_is_seen_why_and_what_to_do():
    entries = re.split(r"^### (.+)$", TEXT, flags=re.MULTILINE)[1:]
    for name, text in zip(entries[::2], entries[1::2], strict=True):
        assert re.search(r"\*\*You see\*\*.*\*\*Why\*\*.*\*\*Do\*\*.*```sh\n", text, re.DOTALL), name


@pytest.mark.parametrize("page", ["TROUBLESHOOTING.md", "QUICKSTART.md"])
def test_the_commands_can_be_typed(page):
    parser, typed, strange = build_parser(), 0, set()
    for command in re.findall(r"^python -m training (.+?)&?$", (CHECKOUT / page).read_text(), re.MULTILINE):
        words = shlex.split(command.replace("ID", "7"), comments=True)
        if words[0] in parser._subparsers._group_actions[0].choices:
            parser.parse_args(words)
            typed += 1
        else:
            strange.add(words[0])
    assert typed >= 10 and strange <= {"oracle"}  # its verbs come with the Oracle


def test_links_inside_the_page_lead_to_entries():
    anchors = {help_page.anchor(heading) for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
    assert help_page.help_address("disk_low") == "/help/troubleshooting#disk_low"
    assert help_page.help_address("<b>nothing</b>") is None


def test_what_keeps_a_realm_from_its_work_leads_to_its_entry(tmp_path):
    paths = empty_realm(tmp_path)
    with client_of(paths) as client:
        assert 'href="/help/troubleshooting#realm_asleep"' in client.get("/", headers=PAGE).text
    fill(paths).close()
    with client_of(paths) as client:
        page = client.get("/", headers=PAGE).text
        assert "#realm_asleep" not in page and 'href="/help/troubleshooting#quest_failed"' in page
    services = [{"name": name, "state": "running"} for name in ("watchdog", "trainer", "daemon")]
    status = {"state": "battle", "disk": {"state": "ok"}, "services": services}
    assert help_page.trouble_of(status) is None
    for broken, code in (
        ({"disk": {"state": "not_claiming"}}, "disk_low"),
        ({"services": [*services[:2], {"name": "daemon", "state": "failed"}]}, "daemon_down"),
        ({"services": [services[0], {"name": "trainer", "state": "backoff"}, services[2]]}, "trainer_down"),
    ):
        assert help_page.trouble_of(status | broken) == code
        assert help_page.help_address(code)
