"""What a profile wants of the next token of an answer: no thoughts in tags, and an end after the stop signs. It knows no model.

Every change of a logit is bounded and none adds up from token to token, so that nothing can overflow.
"""

import torch

from core.profiles import ENDS, STOPS, end_asked_for
from core.rendering import Renderer

TAGS = ("<think>", "</think>")
LESS = 80.0  # of a tag's logit
TIMES = (8.0, 8.0, 8.0, 8.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.5, 1.5, 1.5)  # token by token from the first one on; then once
ENDED, FORBIDDEN = 50.0, 1e4  # more for what ends an answer, less for all else, when the stop signs are there
SEEN = 32  # newest tokens, among which stop signs are looked for


class Penalties:
    """Of one answer under a profile: called with the logits of its next token; `said` is told of each that was drawn.

    `question`: the last thing that was asked. `thinking`: whether thoughts in tags are wished for.
    """

    def __init__(self, renderer: Renderer, profile: str, question: str = "", thinking: bool = False):
        self._renderer, self._on = renderer, profile == "emoji_think"
        self._tags = [] if thinking else [each for each in renderer.control_ids if renderer.decode([each]) in TAGS]
        self._stops = list(renderer.stop_ids)
        asked = end_asked_for(question)
        self._ends = (asked,) if asked else tuple(sign * ENDS[-1] for sign in STOPS)
        self._said: list[int] = []

    def said(self, token: int) -> None:
        self._said.append(token)

    def __call__(self, logits_V: torch.Tensor) -> torch.Tensor:
        if not self._on:
            return logits_V
        changes_V = torch.zeros_like(logits_V)
        step = len(self._said)
        changes_V[self._tags] = -LESS * (TIMES[step] if step < len(TIMES) else 1.0)
        if self._renderer.decode(self._said[-SEEN:]).rstrip().endswith(self._ends):
            changes_V -= FORBIDDEN
            changes_V[self._stops] = ENDED
        return logits_V + changes_V
