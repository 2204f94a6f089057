"""`bench forge|ingest|learning|schools|dice|faults|tavern|arena`: measure on this machine what the realm promises."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import RealmError, UserError, nearest
from core.paths import CHECKOUT
from training.bench.contestants import CONTESTANTS, PEERS, PRECISIONS, SIZES
from training.bench.dice import QUICK_ROWS, ROWS, DiceOptions, run_dice
from training.bench.dice_page import dice_text, write_dice
from training.bench.faults import DRIVERS, QUICK_MINUTES, FaultOptions, chosen, faults_text, run_faults
from training.bench.faults_page import write_faults
from training.bench.forge import Options, run_forge
from training.bench.forgetting import ForgettingOptions, forgetting_text, run_forgetting, write_forgetting
from training.bench.idle_hero import IdleOptions, idle_hero_text, run_idle_hero, write_idle_hero
from training.bench.in_turn import in_turn_text, run_in_turn, write_in_turn
from training.bench.ingest import ingest_text, run_ingest
from training.bench.learning import LEAST_ROWS, LearningOptions, run_learning
from training.bench.learning import QUICK_SECONDS as LEARNING_SECONDS
from training.bench.learning_page import learning_text, write_learning
from training.bench.page import write_forge
from training.bench.peers import PEERS as SCHOOL_PEERS
from training.bench.peers import PeerOptions, run_peers
from training.bench.peers_page import peers_text, write_peers
from training.bench.schools import PROMISES, SchoolOptions, run_schools
from training.bench.schools_page import schools_text, write_schools
from training.bench.table import forge_text
from training.bench.tavern import QUICK, TavernOptions, promises, run_tavern, tavern_text
from training.commands.verb import group, verb
from training.realm import Realm

QUICK_SECONDS = 540.0


def register(verbs) -> None:
    actions = group(
        verbs,
        "bench",
        "measure what the realm promises, on this machine: forge, ingest, learning, schools, dice, faults, tavern, arena",
    )
    parser = verb(actions, "forge", forge, "training speed, memory and loss beside TRL, HF Trainer and a bare loop")
    parser.add_argument(
        "--quick", action="store_true", help="the 4m size with fewer steps and rounds, in ten minutes or less"
    )
    parser.add_argument("--sizes", metavar="LIST", help=f"of {', '.join(SIZES)} (default: 4m,30m)")
    parser.add_argument("--precision", metavar="LIST", default="fp32", help="fp32, bf16 or fp32,bf16 (default: fp32)")
    parser.add_argument(
        "--peers", metavar="LIST", help=f"of {', '.join(name for name in CONTESTANTS if name != 'ours')}"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="rounds (default: 3; at most 2 with --quick)")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps a run (default: by size)")
    parser.add_argument(
        "--in-turn",
        action="store_true",
        help="instead: the forge and the bare loop alive at once, stepping in turn (default: 4m, 120 steps)",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the result in docs/benchmarks.md of this checkout"
    )
    parser = verb(actions, "ingest", ingest, "from rows to tokens: speed and memory beside `datasets`")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds, in two minutes or less")
    _register_learning(actions)
    _register_schools(actions)
    _register_dice(actions)
    parser = verb(actions, "faults", faults, "harm throw-away realms in every way; exit 1 where a promise is broken")
    parser.add_argument("--minutes", type=float, metavar="M", default=20.0, help="how long, shared by the kinds (20)")
    parser.add_argument("--seed", type=int, metavar="S", default=1, help="of all random choices (1)")
    parser.add_argument("--quick", action="store_true", help="the light kinds only, in two minutes or less")
    parser.add_argument("--kinds", metavar="LIST", help=f"of {', '.join(DRIVERS)} (default: all)")
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the result in docs/benchmarks.md of this checkout"
    )
    parser = verb(
        actions, "tavern", tavern, "a crowd before the Tavern of a realm in battle; exit 1 where it is too slow"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="how long the crowd stays (5)")
    parser.add_argument("--quick", action="store_true", help="a small crowd for ten seconds, a short past")
    parser = verb(actions, "arena", arena, "a step of the arena beside a bare loop; exit 1 where it is 10 % slower")
    parser.add_argument("--quick", action="store_true", help="fewer steps")


def _register_learning(actions) -> None:
    parser = verb(actions, "learning", learning, "what a learning rate that falls, resets and averages are worth")
    parser.add_argument("--quick", action="store_true", help="smaller quests and fewer seeds, in ten minutes or less")
    parser.add_argument(
        "--acceptance",
        action="store_true",
        help="instead: what an idle hero has learnt in half an hour; exit 1 if too little",
    )
    parser.add_argument("--minutes", type=float, metavar="M", default=30.0, help="that it has, with --acceptance (30)")
    parser.add_argument(
        "--forgetting",
        action="store_true",
        help="instead: what is left of a skill after another, with replay and without; exit 1 if too little",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="heroes and streams of quests (default: 5; quick and the other two: 3)"
    )
    parser.add_argument("--first-seed", type=int, metavar="S", help="of those seeds, with --acceptance (1)")
    parser.add_argument("--rows", type=int, metavar="N", help="rows of a quest (default: 400; quick: 150)")
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the result in docs/benchmarks.md of this checkout"
    )


def _register_schools(actions) -> None:
    parser = verb(actions, "schools", schools, "that every school teaches what it is for; exit 1 where one does not")
    parser.add_argument("--quick", action="store_true", help="half the rows, one seed")
    parser.add_argument("--seeds", type=int, metavar="N", help="heroes of each school (3)")
    parser.add_argument("--schools", metavar="LIST", help=f"of {', '.join(PROMISES)} (default: all)")
    parser.add_argument("--preferences", type=Path, metavar="FILE", help="preference rows for the Judge, in five folds")
    parser.add_argument(
        "--peers",
        action="store_true",
        help=f"instead: speed and memory of {', '.join(SCHOOL_PEERS)} beside TRL's trainers (quick: of a tiny model)",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the result in docs/benchmarks.md of this checkout"
    )


def _register_dice(actions) -> None:
    parser = verb(actions, "dice", dice, "what rolling for updates costs or gains, beside a twin without dice")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the rows, three seeds, in three minutes or less"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="heroes of each way (default: 5; quick: 3)")
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the result in docs/experiments/dice.md of this checkout"
    )


def tavern(realm: Realm) -> int:
    """The realm it is called in is not touched."""
    options = QUICK if realm.args.quick else TavernOptions()
    if realm.args.minutes is not None:
        if realm.args.minutes <= 0:
            raise UserError(f"--minutes {realm.args.minutes:g}: must be above 0")
        options = replace(options, minutes=realm.args.minutes)
    result = run_tavern(options, _say, len(os.sched_getaffinity(0)))
    realm.report(result, lambda: tavern_text(result))
    return 0 if all(held for _, _, held in promises(result)) else 1


def arena(realm: Realm) -> int:
    """The realm it is called in is not touched."""
    from training.bench.arena import QUICK_STEPS, STEPS, arena_text, run_arena  # torch, and for nobody else

    result = run_arena(QUICK_STEPS if realm.args.quick else STEPS)
    realm.report(result, lambda: arena_text(result))
    return 0 if result["passed"] else 1


def faults(realm: Realm) -> int:
    """The realm it is called in is not touched."""
    args = realm.args
    minutes = QUICK_MINUTES if args.quick else args.minutes
    if minutes <= 0:
        raise UserError(f"--minutes {minutes:g}: must be above 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no image stays mounted
    options = FaultOptions(args.seed, minutes, chosen(args.kinds, args.quick))
    result = run_faults(options, _say, len(os.sched_getaffinity(0)))
    _tell(realm, result, faults_text, write_faults)
    return 1 if result["violations"] else 0


def schools(realm: Realm) -> int:
    """The realm it is called in is not touched."""
    args = realm.args
    if args.peers:
        return school_peers(realm)
    if args.preferences and not args.preferences.is_file():
        raise UserError(f"--preferences {args.preferences}: no such file")
    options = SchoolOptions(
        seeds=_positive(args.seeds, "seeds") or (1 if args.quick else 3),
        schools=_chosen(args.schools, tuple(PROMISES), "school") if args.schools else tuple(PROMISES),
        quick=args.quick,
        preferences=args.preferences,
    )
    result = run_schools(options, _say)
    _tell(realm, result, schools_text, write_schools)
    return 0 if result["passed"] else 1


def dice(realm: Realm) -> int:
    """The realm it is called in is not touched."""
    quick = realm.args.quick
    options = DiceOptions(
        seeds=_positive(realm.args.seeds, "seeds") or (3 if quick else 5),
        rows=QUICK_ROWS if quick else ROWS,
        quick=quick,
    )
    result = run_dice(options, _say)
    _tell(realm, result, dice_text, write_dice)
    return 0


def school_peers(realm: Realm) -> int:
    args, known = realm.args, tuple(SCHOOL_PEERS)
    options = PeerOptions(_chosen(args.schools, known, "school") if args.schools else known, args.quick)
    result = run_peers(options, _say)
    _tell(realm, result, peers_text, write_peers)
    failed = [
        each["title"]
        for school in result["schools"].values()
        for each in school["contestants"].values()
        if each["state"] == "failed"
    ]
    if failed:
        raise RealmError(f"failed: {', '.join(failed)}")
    return 0


def ingest(realm: Realm) -> int:
    result = run_ingest(realm.args.quick, len(os.sched_getaffinity(0)), _say)
    realm.report(result, lambda: ingest_text(result))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def forge(realm: Realm) -> int:
    args = realm.args
    options = Options(
        sizes=_chosen(args.sizes or ("4m" if args.quick or args.in_turn else "4m,30m"), tuple(SIZES), "size"),
        precisions=_chosen(args.precision, PRECISIONS, "precision"),
        contestants=_contestants(args.peers, args.quick),
        repeats=_positive(args.repeats, "repeats") or (2 if args.quick else 3),
        quick=args.quick,
        steps=_positive(args.steps, "steps"),
        seconds=QUICK_SECONDS if args.quick else None,
    )
    run, text, write = (
        (run_in_turn, in_turn_text, write_in_turn) if args.in_turn else (run_forge, forge_text, write_forge)
    )
    result = run(options, _say)
    _tell(realm, result, text, write)
    if args.in_turn:
        return 0
    failed = [
        each["title"] for case in result["cases"] for each in case["contestants"].values() if each["state"] == "failed"
    ]
    if failed:
        raise RealmError(f"failed: {', '.join(failed)}")
    return 0


def idle_hero(realm: Realm) -> int:
    """The realm it is called in is not touched."""
    args = realm.args
    if args.minutes <= 0:
        raise UserError(f"--minutes {args.minutes:g}: must be above 0")
    first = _positive(args.first_seed, "first-seed") or 1
    result = run_idle_hero(IdleOptions(_positive(args.seeds, "seeds") or 3, first, args.minutes), _say)
    _tell(realm, result, idle_hero_text, write_idle_hero)
    return 0 if result["passed"] else 1


def forgetting(realm: Realm) -> int:
    """The realm it is called in is not touched."""
    result = run_forgetting(ForgettingOptions(_positive(realm.args.seeds, "seeds") or 3), _say)
    _tell(realm, result, forgetting_text, write_forgetting)
    return 0 if result["passed"] else 1


def learning(realm: Realm) -> int:
    args = realm.args
    if args.acceptance:
        return idle_hero(realm)
    if args.forgetting:
        return forgetting(realm)
    options = LearningOptions(
        seeds=_positive(args.seeds, "seeds") or (3 if args.quick else 5),
        rows=max(_positive(args.rows, "rows") or (150 if args.quick else 400), LEAST_ROWS),
        quick=args.quick,
        seconds=LEARNING_SECONDS if args.quick else None,
    )
    result = run_learning(options, lambda text: print(text, file=sys.stderr, flush=True))
    _tell(realm, result, learning_text, write_learning)
    return 0


def _contestants(given: str | None, quick: bool) -> tuple[str, ...]:
    """Ours, and the peers asked for."""
    peers = tuple(name for name in CONTESTANTS if name != "ours")
    if given is None:
        return ("ours", *(name for name in peers if not quick or name in (*PEERS, "trl_as_it_comes")))
    return ("ours", *(name for name in _chosen(given, (*peers, "ours"), "peer") if name != "ours"))


def _tell(realm: Realm, result: dict[str, Any], text: Callable, write: Callable) -> None:
    """Print the result, and have it written into docs/ where that is wished."""
    realm.report(result, lambda: text(result))
    if realm.args.write_docs:
        for path in write(result, CHECKOUT / "docs"):
            print(f"written: {path.relative_to(CHECKOUT)}", file=sys.stderr)


def _chosen(given: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}{nearest(name, known) or '.'} Known: {', '.join(known)}")
    return names


def _positive(number: int | None, what: str) -> int | None:
    if number is not None and number < 1:
        raise UserError(f"--{what} {number}: must be at least 1")
    return number
