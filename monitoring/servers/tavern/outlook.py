"""What comes next for the hero: one answer in words, with the reason and the remedy. It knows no HTML and changes nothing."""

from dataclasses import dataclass

from core.disk import Level
from core.hero_loop import RESTING
from core.paths import PRIORITIES
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.words import number, size

START = "bash scripts/start.sh"
STANDS_IN_THE_WAY = ("config_wrong", "hero_unclear")  # alerts that a service waits with until they are mended


@dataclass(frozen=True)
class Next:
    """What happens next. `kind`: go, idle or blocked; `command` and `verb`: what a person can type or press."""

    kind: str
    title: str
    text: str
    command: str | None = None
    verb: str | None = None


def what_next(realm: Realm) -> Next:
    status = realm.status()
    services = {service["name"]: service["state"] for service in status["services"]}
    return _in_the_way(status, services) or _under_way(status, realm)


def _in_the_way(status: dict, services: dict[str, str]) -> Next | None:
    """What keeps the hero from training, gravest first."""
    disk = status["disk"]
    if services["watchdog"] == "stopped" and services["trainer"] != "running":
        return Next("blocked", "The realm is asleep", "No service runs, so nothing is trained. Wake it with", START)
    if disk["state"] in (Level.NOT_CLAIMING.word, Level.PAUSED.word):
        return Next("blocked", "The disk is almost full", disk["text"])
    if status["state"] == "blocked":
        text = f"What it wants to write does not fit into {size(disk['free_bytes'])}. Free space; it goes on by itself."
        return Next("blocked", "The trainer waits for room on the disk", text)
    for alert in status["alerts"]:
        if alert["code"] in STANDS_IN_THE_WAY and not status["battle"]:
            return Next(
                "blocked", "The hero cannot begin", f"{alert['text']} It goes on by itself once that is mended."
            )
    if status["state"] in ("starting", "loading"):
        return Next("idle", "The hero wakes up", "The model is being loaded.")
    if services["trainer"] != "running":
        command = "python -m training logs trainer"
        return Next("blocked", f"The trainer is in state {services['trainer']}", "Its log says why:", command)
    if status["paused"]:
        text = "The hero keeps its place in the quest and waits for you."
        return Next("idle", "Paused", text, verb=None if status["battle"] else "resume")
    if services["daemon"] != "running":
        text, command = "Files in the inbox are not taken. Its log says why:", "python -m training logs daemon"
        return Next("blocked", f"The daemon is in state {services['daemon']}", text, command)
    return None


def _under_way(status: dict, realm: Realm) -> Next:
    waiting, arriving = _waiting(status), status["queue"]["arriving"]
    if status["battle"]:
        return Next("go", "The battle is on", _after_battle(waiting))
    if preparing := status["preparing"]:
        if preparing.get("kind") == "sparring":
            text = f"{preparing['share']:.0%} of {preparing['quest']} is answered; what is wrong becomes a quest."
            return Next("go", "The hero looks into the Mirror", text)
        if preparing.get("kind") == "asking":
            text = f"{preparing['share']:.0%} of {preparing['quest']} is answered; what was said is trained then."
            return Next("go", "A teacher is asked", text)
        text = f"{preparing['share']:.0%} of {preparing['quest']} is turned into tokens; then the battle begins."
        return Next("go", "A quest is being prepared", text)
    if waiting:
        return Next("go", "A quest is being taken up", f"{number(waiting)} waiting. The first step is seconds away.")
    if status["state"] == "saving":
        return Next("go", "The hero is being saved", "What it has learned is on its way to the Vault.")
    if arriving:
        files = "One file is" if arriving == 1 else f"{number(arriving)} files are"
        return Next("go", "A quest arrives", f"{files} being checked; what is understood is trained at once.")
    if realm.config.idle_generation.enabled and any(realm.config.skill_priorities.values()):
        return Next("idle", "All quiet", f"No quest waits. Drop a .jsonl anywhere on this page; {_practice(realm)}")
    return Next("idle", "All quiet", "No quest waits. Drop a .jsonl anywhere on this page, and the battle begins.")


def _practice(realm: Realm) -> str:
    """What the idle hero does meanwhile."""
    mark = realm.ledger.mark(RESTING.format(realm.config.hero.name))
    rests = {
        "maxed_out": "the hero has mastered every level of its skills and rests.",
        "overload": "the hero rests, for practising its skills has not helped of late.",
    }
    return rests.get(mark, "the hero rests.") if mark else "meanwhile the hero practises its skills."


def _waiting(status: dict) -> int:
    return sum(status["queue"][priority] for priority in PRIORITIES)


def _after_battle(waiting: int) -> str:
    if not waiting:
        return "No quest waits behind it. Drop another .jsonl whenever you like."
    return "One quest waits behind it." if waiting == 1 else f"{number(waiting)} quests wait behind it."
