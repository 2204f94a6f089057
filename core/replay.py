"""Against forgetting: a few rows of every earlier quest are kept, and some of them are trained beside each step of a battle.

The rows lie as arrays below state/replay/, so that they outlive their files. Of each skill, and of what users drop, at most
`QUESTS` quests are kept: those with the smallest hashes, which makes every quest as likely to stay as any other, whenever
it came (bottom-k sampling; Cohen and Kaplan, PODC 2007). What a step gets follows from seed, quest and step alone.

It knows nothing about models; how well each skill was kept is told it by the canaries of the checkpoint that a battle
begins from.
"""

import hashlib
import os
import random
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.battle import BattlePlan
from core.checkpoints import Ranges, holds
from core.durable import read_json, sync_file, sync_folder, write_json
from core.paths import RealmPaths
from core.prepare import Prepared
from core.quest import Quest

QUESTS, ROWS = 16, 256
USERS = "files"  # the pool of quests that no skill made
LEAST_WEIGHT = 0.1  # of a skill whose canaries are all right; one that lost them all has 1 more
UNKNOWN_WEIGHT = 0.5  # of what no canary tells about
Sequence_ = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Replay:
    """What is drawn from: kept quests in pools, each with its weight; `rows` of them beside every step."""

    rows: int
    pools: tuple[tuple[float, tuple[Prepared, ...]], ...]
    name: tuple

    def sequences(self, step: int) -> list[Sequence_]:
        """(tokens, trained) of what is trained beside `step`."""
        chance = random.Random(repr((*self.name, step)))
        drawn = []
        for _ in range(self.rows):
            _, kept = chance.choices(self.pools, [weight for weight, _ in self.pools])[0]
            prepared = chance.choice(kept)
            drawn += prepared.sequences(chance.randrange(len(prepared)))
        return drawn

    @property
    def tokens_per_step(self) -> float:
        """How many tokens it adds to a step, nearly."""
        kept = [prepared for _, pool in self.pools for prepared in pool]
        rows = sum(len(prepared) for prepared in kept)
        return self.rows * sum(prepared.meta["tokens"] for prepared in kept) / rows if rows else 0.0


def with_replay(
    plan: BattlePlan,
    quest: Quest,
    paths: RealmPaths,
    trained: Ranges,
    fingerprint: str,
    canaries: Mapping[str, Sequence],
) -> BattlePlan:
    """`plan` with replay beside it, where earlier quests of another pool are kept; rows of `quest` are kept for later.

    `trained`: the quests that the hero's weights hold; `fingerprint`: of tokenizer and template, whose rows alone count.
    """
    own = quest.card.get("skill") or USERS
    _keep(paths, quest.id, own, plan, trained, fingerprint)
    ratio = plan.settings.replay_ratio
    rows = round(plan.settings.batch_size * ratio / (1 - ratio))
    pools = _pools(paths, trained, fingerprint)
    pools.pop(own, None)
    if not rows or not pools:
        return plan
    weighed = tuple((_weight(pool, canaries), tuple(pools[pool])) for pool in sorted(pools))
    return replace(plan, replay=Replay(rows, weighed, (plan.settings.seed, plan.quest_sha256)))


def _weight(pool: str, canaries: Mapping[str, Sequence]) -> float:
    """The more of a skill's canaries are wrong, the oftener it comes."""
    scores = [right / asked for key, (right, asked) in canaries.items() if key.partition("/")[0] == pool]
    return LEAST_WEIGHT + 1 - min(scores) if scores else UNKNOWN_WEIGHT


def _pools(paths: RealmPaths, trained: Ranges, fingerprint: str) -> dict[str, list[Prepared]]:
    pools: dict[str, list[Prepared]] = {}
    for folder in sorted(paths.replay.glob("*-*")):
        pool, quest = _named(folder)
        if holds(trained, quest) and read_json(folder / "meta.json")["fingerprint"] == fingerprint:
            pools.setdefault(pool, []).append(Prepared(folder))
    return pools


def _named(folder: Path) -> tuple[str, int]:
    pool, _, quest = folder.name.rpartition("-")
    return pool, int(quest)


def _rank(quest: int) -> bytes:
    return hashlib.blake2b(str(quest).encode(), digest_size=8).digest()


def _keep(paths: RealmPaths, quest: int, pool: str, plan: BattlePlan, trained: Ranges, fingerprint: str) -> None:
    """Keep rows of `quest`, if it is among those of its pool that stay; who leaves for it, and what was never trained, goes."""
    paths.replay.mkdir(parents=True, exist_ok=True)
    for leftover in paths.replay.glob(".*"):
        shutil.rmtree(leftover)
    others = {_named(folder)[1]: folder for folder in paths.replay.glob(f"{pool}-*") if _named(folder)[0] == pool}
    staying = sorted({*(other for other in others if holds(trained, other)), quest}, key=_rank)[:QUESTS]
    for other in others.keys() - set(staying):
        shutil.rmtree(others[other])
    folder = paths.replay / f"{pool}-{quest}"
    if quest in staying and not folder.exists():
        _write(folder, plan, fingerprint)


def _write(folder: Path, plan: BattlePlan, fingerprint: str) -> None:
    """The training rows with the smallest keys, in the layout of a prepared quest (prepare.py)."""
    prepared = plan.prepared
    among = np.argsort(prepared.keys[: 1 << 20], kind="stable")
    rows = among[~np.isin(among, plan.held_out_rows)][:ROWS].tolist()
    by_row = [prepared.sequences(row) for row in rows]
    sequences = [sequence for row in by_row for sequence in row]
    dtype = np.dtype(prepared.meta["dtype"])
    firsts = np.cumsum([0, *map(len, by_row)])[:-1]
    arrays = {
        "tokens": np.concatenate([tokens for tokens, _ in sequences]).astype(dtype),
        "trained": np.concatenate([trained for _, trained in sequences]),
        "ends": np.cumsum([len(tokens) for tokens, _ in sequences]),
        "rows": np.stack([[prepared.line(row) for row in rows], firsts], axis=1),
        "keys": prepared.keys[rows],
    }
    building = folder.with_name(f".{secrets.token_hex(4)}")
    building.mkdir()
    for name, array in arrays.items():
        (building / f"{name}.bin").write_bytes(array.tobytes())
        sync_file(building / f"{name}.bin")
    counts = {"rows": len(rows), "sequences": len(sequences), "tokens": len(arrays["tokens"])}
    learned = int(arrays["trained"].sum())
    meta = prepared.meta | counts | {"trained_tokens": learned, "fingerprint": fingerprint}
    write_json(building / "meta.json", meta)
    os.rename(building, folder)
    sync_folder(folder.parent)
