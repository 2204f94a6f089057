"""`oracle ask|serve|sync`: a question to the hero; an inference box of one's own, and how it gets new champions."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.chat_reply import Piece
from core.chat_request import CHAMPION, HERO, read_request
from core.errors import RealmError, UserError
from core.logs import visible
from core.machine import main_memory
from core.memory_needs import GIB
from core.oracle_config import check_url
from management.model_shelf import FolderShelf, Shelf, VaultShelf
from management.weight_sync import pull
from training import tavern_link
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import bytes_text, is_terminal, styled

TOKEN = "REALM_TOKEN"
BOX_SHARE = 0.8  # of main memory, where a box does nothing but answer
LEAST_PAUSE = 1.0


def register(verbs) -> None:
    actions = group(verbs, "oracle", "the Oracle: ask the hero, serve it elsewhere")
    parser = verb(actions, "ask", ask, "one question to the hero, or to any checkpoint")
    parser.add_argument("text", metavar="TEXT", help="the question; - reads it from stdin")
    parser.add_argument(
        "--model", default=HERO, help="hero, champion, a checkpoint's id, or a model of oracle.url's box"
    )
    parser.add_argument("--system", metavar="TEXT", help="a system prompt")
    parser.add_argument("--stream", action="store_true", help="show the answer as it grows (a terminal always does)")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 for the most likely answer (default: 0.7)")
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens of the answer at most (default: 512)")
    parser.add_argument("--think", action="store_true", help="let the hero think first, where its template knows how")
    parser = verb(actions, "serve", serve, "an inference box: OpenAI's chat interface over this realm's checkpoints")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; any but loopback asks for the token")
    parser.add_argument("--port", type=int, help="TCP port (default: oracle.port)")
    parser.add_argument("--model", metavar="DIR", type=Path, help="a model folder instead of the realm's checkpoints")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it computes")
    parser = verb(actions, "sync", sync, "on an inference box: pull the champion from a trainer's Tavern")
    parser.add_argument("--from", dest="source", metavar="URL", required=True, help="the trainer's Tavern")
    parser.add_argument(
        "--what", choices=(CHAMPION, HERO), default=CHAMPION, help="which checkpoint (default: champion)"
    )
    parser.add_argument("--token", help=f"the trainer's token, where its Tavern asks for one (default: {TOKEN})")
    parser.add_argument("--every", type=_seconds, metavar="SECONDS", help="stay, and look again so often")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= LEAST_PAUSE:
        raise argparse.ArgumentTypeError(f"{text}: give {LEAST_PAUSE:.0f} second or more")
    return seconds


# Ask


def ask(realm: Realm) -> None:
    """Through the Tavern where the realm runs, else in this process."""
    args, about, began = realm.args, {}, time.monotonic()
    request = _request(args)
    shows = (args.stream or is_terminal()) and not args.json
    said: dict[bool, str] = {True: "", False: ""}  # thoughts, words
    for piece in _answer(realm, request | {"stream": shows}, about):
        said[piece.thought] += piece.text
        if shows:
            print(styled(_harmless(piece.text), "dim") if piece.thought else _harmless(piece.text), end="", flush=True)
    answer, notice = said[False], about.get("notice")
    facts = {"answer": answer, "reasoning": said[True] or None, "asked": args.model, "notice": notice}
    facts |= {"model": about.get("model"), "checkpoint": about.get("checkpoint"), "answered_by": about.get("by")}
    realm.report(facts | {"seconds": round(time.monotonic() - began, 3)}, "" if shows else _harmless(answer))
    if notice:
        print(visible(notice), file=sys.stderr)


def _harmless(text: str) -> str:
    """What a model said, without the power to move a terminal's cursor."""
    return "\n".join(map(visible, text.split("\n")))


def _request(args: argparse.Namespace) -> dict[str, Any]:
    text = sys.stdin.read() if args.text == "-" else args.text
    system = [{"role": "system", "content": args.system}] if args.system else []
    request: dict[str, Any] = {"model": args.model, "messages": [*system, {"role": "user", "content": text}]}
    given = {"temperature": args.temperature, "max_tokens": args.tokens}
    request |= {name: value for name, value in given.items() if value is not None}
    request |= {"chat_template_kwargs": {"enable_thinking": True}} if args.think else {}
    read_request(request)  # a mistake is told here, whoever would answer
    return request


def _answer(realm: Realm, request: dict[str, Any], about: dict[str, str]) -> Iterator[Piece]:
    client = tavern_link.client(realm.existing, realm.config.tavern)
    if client is None:
        yield from _answer_here(realm, request, about)
        return
    try:
        yield from client.chat(request, about)
    finally:
        client.close()


def _answer_here(realm: Realm, request: dict[str, Any], about: dict[str, str]) -> Iterator[Piece]:
    shelf, asked = VaultShelf(realm.paths), read_request(request)
    checkpoint, folder = shelf.find(asked.model)
    about.update(model=checkpoint, checkpoint=checkpoint, by="process")
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
    from core.forge.voices import Voices  # torch

    voices = Voices(realm.config.oracle.memory_gib, profile=realm.config.profile.name)
    yield from voices.load(checkpoint, folder, shelf.check).parts(asked)


# Serve


def serve(realm: Realm) -> None:
    from monitoring.servers.oracle.app import create_app
    from training.web_server import listen, serve_until_interrupted

    args = realm.args
    shelf = _shelf(realm)
    port = args.port or realm.config.oracle.port
    listener = listen(args.host, port, "The Oracle", "oracle.port")
    voices = _voices(realm)
    app = create_app(shelf, voices, _rules(realm, port))
    names = [model.name for model in shelf.models()]
    if names:
        voices.load(*shelf.find(names[0]), shelf.check)  # the first question need not wait for it
    url = f"http://{args.host}:{port}"
    said = ", ".join(names[:3]) or "nobody yet: `oracle sync` brings a champion"
    realm.report({"url": url, "models": names}, f"The Oracle answers at {styled(url, 'gold')}: {said}. Ctrl-C ends it.")
    sys.stdout.flush()
    serve_until_interrupted(app, listener)


def _shelf(realm: Realm) -> Shelf:
    if (folder := realm.args.model) is None:
        realm.paths.make()
        return VaultShelf(realm.paths)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is no model folder: it has no config.json. Leave --model out to serve the realm's own."
        )
    return FolderShelf(folder)


def _voices(realm: Realm):
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    if realm.args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from core.forge.voices import Voices, best_device  # torch

    device = best_device() if realm.args.device == "auto" else realm.args.device
    return Voices(realm.config.oracle.memory_gib or BOX_SHARE * main_memory() / GIB, device, realm.config.profile.name)


def _rules(realm: Realm, port: int):
    from core.config import Tavern
    from monitoring.servers.tavern.security import Rules, read_or_make_token

    tavern = realm.config.tavern
    door = Tavern(host=realm.args.host, port=port, hosts=tavern.hosts, require_token=tavern.require_token)
    return Rules.of(door, read_or_make_token(realm.paths), frozenset())


# Sync


def sync(realm: Realm) -> None:
    from monitoring.tavern_client import TavernClient

    args = realm.args
    try:
        url = check_url(args.source)
    except ValueError as problem:
        raise UserError(f"--from {args.source}: {problem}") from None
    client = TavernClient(url, args.token or os.environ.get(TOKEN))
    try:
        _pull(realm, client, thorough=True)
        while args.every:
            time.sleep(args.every)
            try:
                _pull(realm, client, thorough=False)
            except RealmError as problem:  # the trainer may be down for a while
                print(problem, file=sys.stderr, flush=True)
    finally:
        client.close()


def _pull(realm: Realm, client, thorough: bool) -> None:
    done = pull(realm.paths, client, realm.args.what, _progress() if is_terminal() else _silence, thorough)
    text = f"{done.checkpoint} (step {done.step:,}) is here: {bytes_text(done.bytes)} fetched, every SHA-256 compared."
    facts = {"checkpoint": done.checkpoint, "step": done.step, "bytes": done.bytes, "new": done.new}
    if done.new or thorough:
        realm.report(facts, text if done.new else f"{done.checkpoint} (step {done.step:,}) is here already, and whole.")
        sys.stdout.flush()


def _silence(name: str, done: int, of: int) -> None:
    """Nobody watches."""


def _progress():
    due = 0.0

    def tell(name: str, done: int, of: int) -> None:
        nonlocal due
        if time.monotonic() >= due or done == of:
            due = time.monotonic() + 0.2
            end = "\n" if done == of else ""
            print(f"\r\x1b[K{name}: {bytes_text(done)} of {bytes_text(of)}", end=end, file=sys.stderr, flush=True)

    return tell
