"""The Tavern's process: parses its arguments, binds the port, serves until told to stop, shows that it lives."""

import argparse
import asyncio
import sys
from pathlib import Path

from core.config import load_config
from core.errors import UserError
from core.full_disk import Reserve
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from monitoring.servers.tavern.app import create_app
from safety.lifeline import Lifeline
from training.patience import when_right
from training.web_server import Server, allow_files, listen


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.tavern_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    lifeline = Lifeline(paths, "tavern", options.parent)
    start_logging(paths, "tavern")
    ledger = Ledger(paths.ledger, Reserve(paths).release)
    config = when_right(lambda: load_config(paths.config), "config_wrong", "tavern", ledger, lifeline)
    if config is None:
        return 0
    try:
        given = {name: value for name, value in (("host", options.host), ("port", options.port)) if value is not None}
        config = config.model_copy(update={"tavern": config.tavern.model_copy(update=given)})
        listener = listen(config.tavern.host, config.tavern.port)
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 1
    paths.make()
    allow_files()
    app = create_app(paths, config)
    asyncio.run(Server(app, lifeline, app.state.hub.close).serve([listener]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
