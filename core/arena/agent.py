"""An agent alive: its model and optimizer, one step at a time, held-out loss, and the words it writes. It knows no energy,
no battle and no lock.

Training touches no random stream: weights follow from shape, seed, settings and the batches it was given. Legend as in model.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch.nn import functional as F

from core.arena.data import BEGIN, END, NO_LABEL, Alphabet, Batch, Samples
from core.arena.model import MicroModel
from core.arena.records import Record, State
from core.errors import UserError

BETAS = (0.9, 0.99)
MOMENTS, PARTS = ("exp_avg", "exp_avg_sq"), ("matrices", "gains")
SMALL = 1_000_000  # parameters up to which one thread is fastest
LOGITS_AT_ONCE = 1 << 24
WRITERS = 256  # samples that are written side by side


@dataclass(frozen=True)
class Written:
    """Texts as they came, whether each came to its end, and how many tokens it took."""

    texts: list[str]
    ended: list[bool]
    lengths: list[int]

    @property
    def whole(self) -> list[str | None]:
        """The texts, None for those that did not end."""
        return [text if ended else None for text, ended in zip(self.texts, self.ended, strict=True)]


class Agent:
    """`record`'s agent in its state now, or in `state`; its weights come from `folder` or, untrained, from its seed."""

    def __init__(self, record: Record, folder: Path, state: State | None = None):
        self.record, self.state = record, state or record.state
        self.settings, self.alphabet = self.state.settings, Alphabet(self.state.letters)
        self.losses, self.norms = torch.empty(0), torch.empty(0)
        self._new: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.step = self.state.step
        torch.set_num_threads(1 if record.parameters <= SMALL else max(1, torch.get_num_threads()))
        self.device = self.settings.device
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device = cuda: torch sees no GPU here; `config device cpu`")
        self.model = MicroModel(record.shape, len(self.alphabet), record.seed, self.device)
        decays = (self.settings.weight_decay, 0.0)
        groups = [{"params": [flat], "weight_decay": decay} for flat, decay in zip(self.flat, decays, strict=True)]
        self._optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=BETAS, fused=True)
        if self.state.file:
            self._load(folder / self.state.file)

    @property
    def flat(self) -> list[torch.nn.Parameter]:
        return self.model.flat

    def rate(self, step: int) -> float:
        """The learning rate of the step behind `step` others."""
        warm_up = self.settings.warmup_steps
        return self.settings.learning_rate * (min(1.0, (step + 1) / warm_up) if warm_up else 1.0)

    def train(self, batch: Batch) -> torch.Tensor:
        """One optimizer step; its loss, in nats per character."""
        loss = self.loss(batch)
        gradient = self.model.gradient
        gradient.zero_()
        loss.backward()
        norm = torch.linalg.vector_norm(gradient)
        if self.settings.clip:
            gradient.mul_((self.settings.clip / norm).clamp_(max=1.0))
        rate = self.rate(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.step += 1
        loss = loss.detach()
        self._new.append((loss, norm))
        return loss

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the labels, in nats."""
        logits_NV = self.model(torch.from_numpy(batch.tokens_BT).to(self.device))
        return F.cross_entropy(
            logits_NV, torch.from_numpy(batch.labels_BT).to(self.device).view(-1), ignore_index=NO_LABEL
        )

    @torch.no_grad()
    def held_out_loss(self, samples: Samples) -> float:
        """Nats per character of the held-out samples, the end of each counted as a character."""
        encoded = self.alphabet.encoded(samples.held_out)
        total, count = 0.0, 0
        for texts in _alike(encoded.lengths, LOGITS_AT_ONCE // len(self.alphabet)):
            batch = encoded.batch(texts)
            labels = int((batch.labels_BT != NO_LABEL).sum())
            total, count = total + self.loss(batch).item() * labels, count + labels
        return total / count

    @torch.no_grad()
    def write(self, count: int, draw: Sequence, most: int, temperature: float) -> Iterator[Written]:
        """Texts of at most `most` characters, some at a time; the same `draw` gives the same ones. Raises UserError where the
        agent's numbers are none."""
        seed = int.from_bytes(hashlib.blake2b(orjson.dumps(draw), digest_size=8).digest()) >> 1
        generator = torch.Generator().manual_seed(seed)
        for first in range(0, count, WRITERS):
            yield self._write(min(WRITERS, count - first), generator, most, temperature)

    def _write(self, count: int, generator: torch.Generator, most: int, temperature: float) -> Written:
        tokens_B = torch.full((count,), BEGIN)
        cache: list[torch.Tensor] = [torch.empty(0)] * self.record.shape.n_layer
        columns, ended_B = [], torch.zeros(count, dtype=torch.bool)
        for place in range(most + 1):
            logits_BV = self.model.step(tokens_B.to(self.device), place, cache).float().cpu()
            logits_BV[:, BEGIN] = -torch.inf
            chances_BV = (logits_BV / temperature).softmax(-1)
            if not torch.isfinite(chances_BV).all():
                raise UserError(
                    f"{self.record.name} cannot write: its weights give no numbers any more. `diagnose` says where; "
                    "`load` brings a saved state back"
                )
            tokens_B = torch.multinomial(chances_BV, 1, generator=generator)[:, 0]
            columns.append(tokens_B)
            ended_B |= tokens_B == END
            if ended_B.all():
                break
        rows = torch.stack(columns, 1).tolist()
        ended = [END in row for row in rows]
        lengths = [row.index(END) + 1 if END in row else len(row) for row in rows]
        texts = [self.alphabet.text(row[: row.index(END)] if END in row else row) for row in rows]
        return Written(texts, ended, lengths)

    # Its states

    def content(self) -> bytes:
        """All of it as a safetensors file: weights under transformers' names, moments, and the past of loss and norm."""
        losses, norms = self.past()
        tensors = {name: weight.detach() for name, weight in self.model.named_parameters()}
        for part, flat in zip(PARTS, self.flat, strict=True):
            kept = self._optimizer.state.get(flat, {})
            tensors |= {f"adam.{part}.{moment}": kept[moment] for moment in MOMENTS if moment in kept}
        tensors |= {"past.loss": losses, "past.norm": norms}
        return save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})

    def past(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and gradient norm of every step of its life."""
        if self._new:
            losses, norms = (torch.stack([pair[which].cpu() for pair in self._new]) for which in (0, 1))
            self.losses, self.norms = torch.cat([self.losses, losses]), torch.cat([self.norms, norms])
            self._new = []
        return self.losses, self.norms

    def now(self, file: str, **facts) -> State:
        """The state that it is in, as the book remembers it."""
        recent = self.past()[0][-20:]
        loss = float(recent.mean()) if len(recent) else None
        return replace(self.state, step=self.step, file=file, loss=_number(loss), **facts)

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        with safe_open(path, "pt") as opened:
            names = set(opened.keys())
            for name, weight in self.model.named_parameters():
                weight.copy_(opened.get_tensor(name))
            self.losses, self.norms = opened.get_tensor("past.loss"), opened.get_tensor("past.norm")
            for part, flat in zip(PARTS, self.flat, strict=True):
                if f"adam.{part}.{MOMENTS[0]}" in names:
                    kept = {name: opened.get_tensor(f"adam.{part}.{name}").to(self.device) for name in MOMENTS}
                    self._optimizer.state[flat] = {"step": torch.tensor(float(self.step), device=self.device), **kept}


def _number(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _alike(lengths: np.ndarray, positions: int) -> Iterator[np.ndarray]:
    """Indices of texts of about the same length, so many that they have at most `positions` together."""
    order, first = np.argsort(lengths, kind="stable"), 0
    while first < len(order):
        last = first + 1
        while last < len(order) and (last + 1 - first) * (lengths[order[last]] + 1) <= positions:
            last += 1
        yield order[first:last]
        first = last
