"""`logs`: what the services wrote, as text or as the JSON lines themselves."""

import time

from core.logs import as_text, follow, newest_records
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import as_json


def register(verbs) -> None:
    parser = verb(verbs, "logs", logs, "the newest log records, of one service or of all together")
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="watchdog, daemon, trainer, tavern or cli")
    parser.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="how many (default 50)")
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")


def logs(realm: Realm) -> None:
    args = realm.args
    for record in newest_records(realm.existing, args.service, args.lines):
        _show(record, args.json)
    if args.follow:
        try:
            for record in follow(realm.paths, args.service, time.sleep):
                _show(record, args.json)
        except KeyboardInterrupt:
            return


def _show(record: dict, plain: bool) -> None:
    print(as_json(record, indent=False) if plain else as_text(record), flush=True)
