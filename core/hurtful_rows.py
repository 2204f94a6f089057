"""Which rows of a quest a hero finds least likely: of a quest that hurt, the rows to look at first. It changes no weight."""

from collections.abc import Callable
from typing import Any

import numpy as np

from core.battle import BattlePlan
from core.forge.evaluate import nats_of
from core.train import HeroTrainer

MOST_ROWS, TOLD = 512, 20


def least_likely(trainer: HeroTrainer, plan: BattlePlan, beat: Callable[[], None]) -> list[dict[str, Any]]:
    """Lines of the quest's file with their loss (mean nats per label), worst first; of many rows an even sample is read."""
    chosen = np.unique(np.linspace(0, len(plan.prepared) - 1, MOST_ROWS).astype(int)).tolist()
    sequences = [(row, *sequence) for row in chosen for sequence in plan.prepared.sequences(row)]
    with trainer.compute_loss_context_manager():
        nats_S = nats_of(trainer.model, [(tokens, trained) for _, tokens, trained in sequences], beat)
    nats, labels = dict.fromkeys(chosen, 0.0), dict.fromkeys(chosen, 0)
    for (row, _, trained), value in zip(sequences, nats_S.tolist(), strict=True):
        nats[row] += value
        labels[row] += int(trained[1:].sum())
    losses = [(nats[row] / labels[row], plan.prepared.line(row)) for row in chosen if labels[row]]
    losses.sort(key=lambda pair: (-pair[0], pair[1]))
    return [{"line": line, "loss": round(loss, 4)} for loss, line in losses[:TOLD]]
