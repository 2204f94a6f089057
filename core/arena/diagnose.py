"""What is wrong with an agent: one look at a fresh batch, and what it says about gradients, neurons, attention, numbers.

A healthy agent, untrained or trained, has no finding; every bound stands far from what such agents show (docs/LOG.md).
It changes nothing. Legend as in model.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from core.arena.agent import Agent
from core.arena.data import NO_LABEL, Batch, Samples
from core.arena.model import MicroModel, by_layer
from core.forge.qwen3 import norm

LOOKED_AT = 128  # samples
WORSE_THAN_BLIND = 0.5  # nats per character above a blind guess: no agent gets there by learning
GRADIENT_MOST, GRADIENT_LEAST = 100.0, 1e-7  # norm of a place's gradient; a healthy one's is from 0.001 to 10
RECENT, GROWN = 100, 10.0  # in so many steps the whole gradient grew to so many times what it was in the first one
WEIGHT_MOST = 10.0  # root mean square of a place's weights; a healthy one's is below 4
DEAD_SHARE, DEAD_BELOW = 0.1, 1e-6  # of a layer's neurons, and of its strongest activation
SATURATED = 1e-4  # mean of 1 - the largest weight of a head's attention, where there is a choice
CHOICE = 3  # positions that attention must have to choose from


@dataclass(frozen=True)
class Finding:
    """`kind` by the field's word, `where` it is, what to do. `value`: what was measured, None where it is no number."""

    kind: str
    where: str
    advice: str
    value: float | None = None


LOWER = (
    "lower the learning rate (`config learning_rate {rate:.2g}`) and go back to a saved state (`load`), or begin anew"
)


def diagnose(agent: Agent, samples: Samples) -> list[dict[str, Any]]:
    """The findings, the gravest first."""
    batch = _fresh(agent, samples)
    findings = list(_not_finite(agent))
    if not findings:
        seen = Looked(agent, batch)
        findings = [*_exploding(agent, seen), *_vanishing(seen), *_dead(seen), *_saturated(seen)]
    return [asdict(finding) for finding in findings]


def layer_norms(agent: Agent, samples: Samples) -> dict[str, float]:
    """The gradient's norm at each place, on a fresh batch."""
    return Looked(agent, _fresh(agent, samples)).gradients


class Looked:
    """One forward and backward pass over a batch: loss, gradients by place, activations and attention by layer."""

    def __init__(self, agent: Agent, batch: Batch):
        self.neurons: list[torch.Tensor] = []
        self.free: list[torch.Tensor] = []
        self._real = torch.from_numpy(batch.labels_BT != NO_LABEL).to(agent.device)
        agent.model.gradient.zero_()
        tokens = torch.from_numpy(batch.tokens_BT).to(agent.device)
        labels = torch.from_numpy(batch.labels_BT).to(agent.device).view(-1)
        logits = agent.model(tokens, lambda number, parts: self._look(agent.model, number, parts))
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=NO_LABEL)
        loss.backward()
        self.loss = loss.item()
        self.gradients = {where: _norm(weight.grad for weight in weights) for where, weights in by_layer(agent.model)}
        agent.model.gradient.zero_()

    @torch.no_grad()
    def _look(self, model: MicroModel, number: int, parts: dict[str, torch.Tensor]) -> None:
        layer = model.model.layers[number]
        x_ND = parts["x"] + parts["seen"] @ layer.self_attn.o_proj.weight.T
        normed = norm(x_ND, layer.post_attention_layernorm.weight, 1e-6)
        fired = torch.nn.functional.silu(normed @ layer.mlp.gate_proj.weight.T) * (normed @ layer.mlp.up_proj.weight.T)
        self.neurons.append(fired[self._real.view(-1)].abs().amax(0))
        query, key = parts["query"], parts["key"]
        places = query.shape[2]
        unseen = torch.full((places, places), -torch.inf, device=query.device).triu(1)
        chances = (query @ key.transpose(2, 3) * query.shape[3] ** -0.5 + unseen).softmax(-1)
        chosen = self._real.clone()
        chosen[:, : CHOICE - 1] = False
        self.free.append(1 - chances.amax(-1).transpose(1, 2)[chosen].mean(0) if chosen.any() else chances.new_ones(0))


def _fresh(agent: Agent, samples: Samples) -> Batch:
    """Held-out samples, as many as there are."""
    encoded = agent.alphabet.encoded(samples.held_out[:LOOKED_AT])
    return encoded.batch(torch.arange(len(encoded.lengths)).numpy())


def _norm(tensors) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _not_finite(agent: Agent) -> Iterator[Finding]:
    for where, weights in by_layer(agent.model):
        bad = sum(int((~torch.isfinite(weight)).sum()) for weight in weights)
        if bad:
            advice = (
                f"{bad:,} weights are NaN or infinite; nothing can be learned any more: `load` a saved state, or begin anew "
                "with a lower learning rate"
            )
            yield Finding("non_finite", where, advice)
    losses = agent.past()[0]
    bad_steps = (~torch.isfinite(losses)).nonzero()
    if len(bad_steps):
        first = int(bad_steps[0]) + 1
        yield Finding(
            "non_finite",
            f"step {first}",
            "the loss was no number; lower the learning rate, and `load` a state from before",
        )


def _exploding(agent: Agent, seen: Looked) -> Iterator[Finding]:
    advice = LOWER.format(rate=agent.settings.learning_rate / 10)
    blind = math.log(len(agent.alphabet) - 1)
    if not seen.loss <= blind + WORSE_THAN_BLIND:
        told = f"held-out loss {seen.loss:.4g}, a blind guess has {blind:.3g}: {advice}"
        yield Finding("exploding_loss", "held-out loss", told, _finite(seen.loss))
    norms = agent.past()[1]
    if len(norms) and not (worst := float(norms[-RECENT:].max())) <= GROWN * max(1.0, float(norms[0])):
        told = f"the gradient's norm rose to {worst:.4g}, from {float(norms[0]):.3g} in the first step: {advice}"
        yield Finding("exploding_gradients", f"the last {min(RECENT, len(norms))} steps", told, _finite(worst))
    for where, size in seen.gradients.items():
        if not size <= GRADIENT_MOST:
            yield Finding(
                "exploding_gradients", where, f"its gradient has the norm {size:.4g}: {advice}", _finite(size)
            )
    for where, weights in by_layer(agent.model):
        count = sum(weight.numel() for weight in weights)
        size = _norm(weight.detach() for weight in weights) / math.sqrt(count)
        if not size <= WEIGHT_MOST:
            yield Finding("exploding_weights", where, f"its weights have grown to {size:.4g}: {advice}", _finite(size))


def _vanishing(seen: Looked) -> Iterator[Finding]:
    for where, size in seen.gradients.items():
        if size < GRADIENT_LEAST:
            advice = "hardly any gradient arrives there; raise the learning rate or warmup_steps, or take fewer layers"
            yield Finding("vanishing_gradients", where, advice, size)


def _dead(seen: Looked) -> Iterator[Finding]:
    for number, strongest in enumerate(seen.neurons, 1):
        dead = int((~(strongest > DEAD_BELOW * strongest.max())).sum())
        if dead >= max(1, DEAD_SHARE * len(strongest)):
            advice = (
                f"{dead} of {len(strongest)} neurons never fire; lower the learning rate or weight_decay, or begin anew with a "
                "smaller n_embd"
            )
            yield Finding("dead_neurons", f"layer {number} mlp", advice, dead / len(strongest))


def _saturated(seen: Looked) -> Iterator[Finding]:
    for number, free in enumerate(seen.free, 1):
        for head, rest in enumerate(free.tolist(), 1):
            if not rest >= SATURATED:
                advice = (
                    "it looks at one place alone, wherever it is, and no longer learns to look elsewhere; lower the learning "
                    "rate, or `load` an earlier state"
                )
                yield Finding("saturated_attention", f"layer {number} head {head}", advice, _finite(rest))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
