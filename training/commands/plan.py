"""`plan`: what a battle of a model needs in memory, component by component, and the means that make it fit."""

import argparse
from pathlib import Path

from core.errors import UserError
from core.machine import a_gpu, this_cpu
from core.memory_beside import beside
from core.memory_needs import CUDA, GIB, Component, Means, Shape
from core.memory_plan import Plan, choose
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import number_text, styled, table


def register(verbs) -> None:
    parser = verb(
        verbs,
        "plan",
        show,
        "what a battle of a model needs in memory, and by which means it fits; exit 1 if it does not",
    )
    parser.add_argument(
        "--model", metavar="DIR", required=True, help="folder with the model's config.json, or its name below models/"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--vram", metavar="GIB", type=_gib, help="memory of the GPU, in GiB")
    where.add_argument(
        "--cpu",
        metavar="GIB",
        type=_gib,
        nargs="?",
        const=0,
        help="train on the CPU, in so much main memory (default: memory.gib of config.json, else what this machine has)",
    )
    parser.add_argument(
        "--max-length", metavar="T", type=_tokens, help="tokens of the longest row (default: max_length of config.json)"
    )
    parser.add_argument("--school", metavar="NAME", help="school of the battle (default: school of config.json)")
    parser.add_argument(
        "--teacher",
        metavar="DIR",
        help="the Whisper's, a folder or its name (default: schools.whisper.teacher of config.json)",
    )


def _gib(text: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    if not 0 < count < 1 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of GiB above 0")
    return count


def _tokens(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 32 <= int(text) <= 131072:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of tokens from 32 to 131072")
    return int(text)


def show(realm: Realm) -> int:
    args = realm.args
    folder = _folder(realm, args.model)
    machine = a_gpu(int(args.vram * GIB)) if args.vram else this_cpu(args.cpu or realm.config.memory.gib)
    config = realm.config.model_copy(update={"max_length": args.max_length} if args.max_length else {})
    held = beside(realm.paths, config, args.school, args.teacher)
    found = choose(config, Shape.read(folder), machine, beside=held)
    realm.report({"model": folder.name, **found.as_dict()}, lambda: _text(folder.name, found))
    return 0 if found.fits else 1


def _folder(realm: Realm, name: str) -> Path:
    """The folder called `name`, here or below the realm's models/."""
    for folder in (Path(name).expanduser(), realm.paths.models / name):
        if (folder / "config.json").is_file():
            return folder.resolve()
    raise UserError(f"--model {name}: no folder with a config.json, neither here nor in {realm.paths.models}")


def _text(name: str, found: Plan) -> str:
    memory = "GPU memory" if found.target == CUDA else "main memory"
    head = (
        f"{name}, {number_text(found.parameters)} parameters, rows of up to {found.max_length} tokens, "
        f"{found.room_bytes / GIB:.1f} GiB of {memory}"
    )
    rows = [(component.name, f"{component.bytes / GIB:9.2f}", _remark(component)) for component in found.components]
    rows += [("total", f"{found.total_bytes / GIB:9.2f}", ""), ("headroom", f"{found.headroom_bytes / GIB:9.2f}", "")]
    parts = [styled(head, "bold"), table(("component", f"{'GiB':>9}", ""), rows)]
    if found.fits:
        parts += [styled("It fits: ", "green") + _means(found.means), _lines("Why", found.reasons)]
    else:
        parts += [
            styled("It does not fit.", "red"),
            _lines("Tried", found.reasons),
            _lines("What would help", found.advice),
        ]
    return "\n\n".join(parts)


def _lines(title: str, sentences: tuple[str, ...]) -> str:
    return "\n".join([f"{title}:", *(f"- {sentence}" for sentence in sentences)])


def _remark(component: Component) -> str:
    if component.host:
        return "in main memory"
    return "" if component.counts else "not at the peak"


def _means(means: Means) -> str:
    """The means as settings."""
    return ", ".join(
        [
            f"weights {means.weights}",
            f"compute {means.compute}",
            f"rounding {means.rounding}",
            f"moments {means.moments}",
            f"gradient release {'on' if means.release else 'off'}",
            f"recompute every {means.recompute_every or '-'}",
            f"pack_tokens {means.pack_tokens}",
        ]
    )
