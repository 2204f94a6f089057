"""A model that answers: one token after another, with a key-value cache. It knows no HTTP, no names and no Vault.

The prompt is the one that training made of the same messages (core/rendering.py). It is read in pieces, so that whoever
waits may leave, and others get their turn, between two of them.
"""

import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from core.answer_text import AnswerText
from core.chat_reply import Part
from core.chat_request import ChatRequest, Sampling
from core.errors import NotFinite, UserError
from core.forge.decoder import Decoder
from core.forge.penalties import Penalties
from core.rendering import Renderer

PIECE = 256  # tokens of a prompt that are read at once


class Voice:
    """The model in `folder`, which holds safetensors and a checked config.json; `context`: tokens of prompt and answer.

    `profile`: what its answers are held to.
    """

    def __init__(self, folder: Path, device: str = "cpu", profile: str = "none"):
        self._profile = profile
        self.decoder = Decoder(folder, device)
        self.context = self.decoder.positions
        self.renderer = Renderer.load(folder, self.context)
        self.stops = frozenset(self.renderer.stop_ids)

    def answer(self, asked: ChatRequest) -> "Answer":
        """The answer to be. Raises UserError where the prompt leaves no room for one, or the template refuses it."""
        prompt = self.renderer.prompt_ids(asked.messages, asked.tools, asked.thinking)
        if len(prompt) >= self.context:
            raise UserError(
                f"messages: have {len(prompt):,} tokens; this Oracle holds {self.context:,} with the answer. Leave some out."
            )
        question = next((turn["content"] for turn in reversed(asked.messages) if turn["role"] == "user"), "")
        penalties = Penalties(self.renderer, self._profile, question, asked.thinking)
        return Answer(self, prompt, min(asked.most, self.context - len(prompt)), asked.sampling, penalties)

    def parts(self, asked: ChatRequest) -> Iterator[Part]:
        """All of an answer, for who is alone with this voice."""
        reply, text = self.answer(asked), self.text(asked)
        while reply.tokens < reply.most and not text.ended:
            token = reply.step()
            yield from text.feed(token) if token is not None else ()
        yield from text.end()

    def text(self, asked: ChatRequest) -> AnswerText:
        """What makes words of the tokens of an answer."""
        decode = partial(self.renderer.decode, specials=False)
        return AnswerText(decode, self.stops, asked.stops, asked.tools is not None, asked.one_call)


class Answer:
    """Tokens in the order of being said. `step` does a little work and returns one, or None while the prompt is read."""

    def __init__(self, voice: Voice, prompt: list[int], most: int, sampling: Sampling, penalties: Penalties):
        self._penalties = penalties
        self.prompt_tokens, self.most, self.tokens = len(prompt), most, 0
        self._voice, self._sampling = voice, sampling
        self._unread = prompt
        self._cache = voice.decoder.cache(self.prompt_tokens + most)
        self._dice = torch.Generator().manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
        self._said = torch.zeros(voice.decoder.vocabulary)

    def step(self) -> int | None:
        now, self._unread = self._unread[:PIECE], self._unread[PIECE:]
        logits_V = self._voice.decoder.read(now, self._cache)
        if self._unread:
            return None
        token = self._drawn(logits_V.cpu())
        self.tokens += 1
        self._said[token] += 1
        self._penalties.said(token)
        self._unread = [token]
        return token

    def _drawn(self, logits_V: torch.Tensor) -> int:
        how = self._sampling
        if not torch.isfinite(logits_V).all():
            raise NotFinite("this checkpoint's weights give what is no number; ask another one")
        logits_V = logits_V - how.frequency_penalty * self._said - how.presence_penalty * (self._said > 0)
        logits_V = self._penalties(logits_V)
        if how.temperature == 0:
            return int(logits_V.argmax())
        chances_V, order_V = (logits_V / how.temperature).softmax(-1).sort(descending=True)
        if how.top_k:
            chances_V[how.top_k :] = 0
        before_V = chances_V.cumsum(-1) - chances_V
        chances_V[before_V >= how.top_p] = 0
        return int(order_V[torch.multinomial(chances_V, 1, generator=self._dice)])
