"""Held-out loss and token accuracy of a model; it changes neither weights nor random streams."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from core.forge.loss import hidden_states, rows_at_once
from core.forge.packing import Pack, best_fit, pack

PASS_TOKENS = 2048  # of sequences that are looked at beside training


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of rows it never saw.

    `loss`: mean nats per label; `accuracy`: share of labels that it holds most likely, the tokens before them given;
    `labels`: how many there are; `nats_S`: the loss summed over each sequence, in the order of the packs. Of a school whose
    loss is of whole rows, a row counts as one label.
    """

    loss: float
    accuracy: float
    labels: int
    nats_S: np.ndarray


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """A block in which `model` is only looked at: no gradient, no dropout."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def evaluate(model: torch.nn.Module, packs: Iterable[Pack]) -> Evaluation | None:
    """`model` on all label positions of `packs`, or None where there is none."""
    device = next(model.parameters()).device
    with evaluating(model):
        found = [(pack, *_scores(model, pack.to(device))) for pack in packs if len(pack.labels_N)]
    if not found:
        return None
    nats_S = np.concatenate([_by_sequence(pack, nats_N.cpu().numpy()) for pack, nats_N, _ in found])
    labels = sum(len(nats_N) for _, nats_N, _ in found)
    hits = torch.stack([hits for _, _, hits in found]).sum().item()
    return Evaluation(float(nats_S.sum()) / labels, hits / labels, labels, nats_S)


def nats_of(
    model: torch.nn.Module,
    sequences: Sequence[tuple[np.ndarray, np.ndarray]],
    beat: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """-log p of the labels of each sequence (tokens, trained), summed; 0 where it has none. `beat` is called before each pass."""
    nats_S = np.zeros(len(sequences))
    for members in best_fit([len(tokens) for tokens, _ in sequences], PASS_TOKENS):
        beat()
        members = sorted(members)
        if found := evaluate(model, [pack([sequences[index] for index in members])]):
            nats_S[members] = found.nats_S
    return nats_S


def _scores(model: torch.nn.Module, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p of each label of the pack, and how many labels are the most likely token."""
    states_ND = hidden_states(model, pack)
    rows = rows_at_once(model.lm_head.weight)
    nats, hits = [], torch.zeros((), device=states_ND.device)
    for states, labels in zip(states_ND.split(rows), pack.labels_N.split(rows), strict=True):
        logits = model.lm_head(states).float()
        nats.append(F.cross_entropy(logits, labels, reduction="none"))
        hits += (logits.argmax(-1) == labels).sum()
    return torch.cat(nats), hits


def _by_sequence(pack: Pack, nats_N: np.ndarray) -> np.ndarray:
    """Sums of `nats_N` over the labels of each sequence of the pack."""
    owners_N = np.searchsorted(np.cumsum(pack.lengths), pack.at_N.cpu().numpy(), side="right")
    return np.bincount(owners_N, weights=nats_N, minlength=len(pack.lengths))
