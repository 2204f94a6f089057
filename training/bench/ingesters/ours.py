"""The realm's: `prepare` from the file to arrays on disk, synced."""

from pathlib import Path

from core.config import Config
from core.paths import BUNDLED_TOKENIZER
from core.prepare import prepare
from core.quest import Sidecar, freeze
from core.rendering import Renderer


def run(rows: Path, work: Path, how: str) -> dict[str, int]:
    renderer = Renderer.load(BUNDLED_TOKENIZER, 1 << 20)
    meta = prepare(rows, "messages", freeze(Config(), Sidecar()), renderer, work / "arrays").meta
    return {"tokens": meta["tokens"], "trained_tokens": meta["trained_tokens"]}
