"""Against forgetting: a few rows of every earlier quest are kept, and some of them are trained beside each step of a battle.

The rows lie as arrays below state/replay/HERO/, so that they outlive their files. Of each skill, and of what users drop, at
most `QUESTS` quests are drawn from: of those that the weights hold the ones with the smallest hashes, which makes every quest
as likely to stay as any other, whenever it came (bottom-k sampling; Cohen and Kaplan, PODC 2007). What a step gets follows
from seed, quest, step and what the weights hold.

It knows nothing about models; how well each skill was kept is told it by the canaries of the checkpoint that a battle
begins from.
"""

import hashlib
import os
import random
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.battle import BattlePlan
from core.checkpoints import Manifest, Ranges, holds
from core.durable import sync_file, sync_folder, write_json
from core.paths import RealmPaths
from core.prepare import Prepared
from core.quest import Quest
from core.schools import IMITATING
from core.skills import skills

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
    plan: BattlePlan, quest: Quest, paths: RealmPaths, fingerprint: str, held: Manifest, tip: Manifest
) -> BattlePlan:
    """`plan` with replay beside it, where earlier quests of another pool are kept; rows of `quest` are kept for later.

    `fingerprint`: of tokenizer and template, whose rows alone count; `held`: what the hero's weights are, `tip`: the newest
    of them on disk.
    """
    if plan.settings.school not in IMITATING:
        return plan
    store, own = paths.replay(held.hero), _pool_of(quest)
    _keep(store, own, quest.id, plan, fingerprint, tip.trained)
    ratio = plan.settings.replay_ratio
    rows = round(plan.settings.batch_size * ratio / (1 - ratio))
    if not rows:
        return plan
    pools = _pools(store, held.trained, fingerprint)
    pools.pop(own, None)
    if not pools:
        return plan
    weighed = tuple((_weight(pool, held.canaries), tuple(pools[pool])) for pool in sorted(pools))
    return replace(plan, replay=Replay(rows, weighed, (plan.settings.seed, plan.quest_sha256)))


def _pool_of(quest: Quest) -> str:
    """A skill's name is a user's own words until it is one that we know."""
    name = (quest.card.get("skill") or "").upper()
    return name if name in skills() else USERS


def _weight(pool: str, canaries: Mapping[str, Sequence]) -> float:
    """The more of a skill's canaries are wrong, the oftener it comes."""
    scores = [right / asked for key, (right, asked) in canaries.items() if key.partition("/")[0] == pool]
    return LEAST_WEIGHT + 1 - min(scores) if scores else UNKNOWN_WEIGHT


def _pools(store: Path, trained: Ranges, fingerprint: str) -> dict[str, list[Prepared]]:
    """What is drawn from. It follows from `trained`, whatever is kept besides, or a kill could change it."""
    pools = {}
    for pool in (*skills(), USERS):
        kept = _kept(store, pool)
        chosen = [Prepared(kept[quest]) for quest in _first(kept, trained)]
        pools[pool] = [prepared for prepared in chosen if prepared.meta["fingerprint"] == fingerprint]
    return {pool: chosen for pool, chosen in pools.items() if chosen}


def _kept(store: Path, pool: str) -> dict[int, Path]:
    return {int(folder.name.rpartition("-")[2]): folder for folder in store.glob(f"{pool}-*")}


def _first(quests: Iterable[int], trained: Ranges) -> list[int]:
    return sorted((quest for quest in quests if holds(trained, quest)), key=_rank)[:QUESTS]


def _rank(quest: int) -> bytes:
    return hashlib.blake2b(str(quest).encode(), digest_size=8).digest()


def _keep(store: Path, pool: str, quest: int, plan: BattlePlan, fingerprint: str, durable: Ranges) -> None:
    """Keep rows of `quest`. Those go that come after as many as are drawn from, all of which the tip holds: nobody who goes
    on from there would draw them. A quest that was only begun drives none out, for a kill or a verdict may undo it."""
    store.mkdir(parents=True, exist_ok=True)
    for leftover in store.glob(".*"):
        shutil.rmtree(leftover)
    kept = _kept(store, pool)
    first = _first(kept, durable)
    late = {each for each in {*kept, quest} if len(first) == QUESTS and _rank(each) > _rank(first[-1])}
    for each in late & kept.keys():
        shutil.rmtree(kept[each])
    if quest not in kept and quest not in late:
        _write(store / f"{pool}-{quest}", plan, fingerprint)


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
