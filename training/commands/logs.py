"""`logs`: what the services wrote, as text or as the JSON lines themselves; and how they, or a quest's battles, ended."""

import time
from typing import Any

import orjson

from core.logs import as_text, follow, newest_records, visible
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import as_json, moment_text, styled


def register(verbs) -> None:
    parser = verb(verbs, "logs", logs, "the newest log records, of one service or of all together")
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="watchdog, daemon, trainer, tavern or cli")
    parser.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="how many (default 50)")
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--crashes", action="store_true", help="instead: how services ended unasked, why, and what followed"
    )


def logs(realm: Realm) -> None:
    args = realm.args
    if args.crashes:
        crashes = crashes_of(realm, args.service, args.lines)
        pages = (death_text(crash, f"{crash['name']}: ") for crash in crashes)
        realm.report(crashes, lambda: "\n\n".join(pages) or "No service has ended unasked.")
        return
    for record in newest_records(realm.existing, args.service, args.lines):
        _show(record, args.json)
    if args.follow:
        try:
            for record in follow(realm.paths, args.service, time.sleep):
                _show(record, args.json)
        except KeyboardInterrupt:
            return


def crashes_of(realm: Realm, service: str | None, count: int) -> list[dict[str, Any]]:
    """The newest `count` crashes, of one service or of all, oldest first."""
    assert realm.existing
    wanted = "code='crash' AND (? IS NULL OR json_extract(data, '$.name')=?)"
    rows = realm.ledger.all(
        f"SELECT time, level, data FROM events WHERE {wanted} ORDER BY id DESC LIMIT ?", (service, service, count)
    )
    return [{"time": row["time"], "level": row["level"], **orjson.loads(row["data"])} for row in reversed(rows)]


def death_text(page: dict[str, Any], whose: str = "") -> str:
    """A crash, or a page of a quest's dossier, for the terminal."""
    where = f" in its {page['phase']}" if page.get("phase") else ""
    step = f" after step {page['step']:,}" if page["step"] else ""
    follows = f" Then: {page['action'].replace('_', ' ')}." if page.get("action") else ""
    head = f"{moment_text(page['time'])} {whose}{styled(page['kind'], 'red')}, {page['exit']}{where}{step}"
    lines = (f"    {visible(line)}" for line in page["lines"])
    return "\n".join([head, f"  {visible(page['advice'])}{follows}", *lines])


def _show(record: dict, plain: bool) -> None:
    print(as_json(record, indent=False) if plain else as_text(record), flush=True)
