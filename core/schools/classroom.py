"""A model and a school as one module, so that a plain `transformers.Trainer` can train by any school's loss.

    room = Classroom(model, school("judge", form="preference"), Renderer.load(folder, 1024))
    room.remember(rows)                                    # what the Judge compares with: the model as it is now
    arguments = TrainingArguments(..., remove_unused_columns=False, save_strategy="no")
    Trainer(room, arguments, train_dataset=rows, data_collator=room.collate).train()
    model.save_pretrained(...)

Rows are dictionaries in any form that quests may have (docs/reference.md); those of one batch are one lesson, packed.
Rewards are compared within a batch, so put the answers to a prompt into the same one. It knows no realm.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import torch

from core.advantages import compared
from core.errors import UserError
from core.forge.evaluate import evaluating
from core.forge.label_scores import label_scores
from core.forge.packing import Pack, pack, packs_of
from core.formats import form, read
from core.rendering import Renderer
from core.rows import BadRow, Row
from core.schools.base import School

PASS_TOKENS = 4096


class Classroom(torch.nn.Module):
    """`room`: tokens of a pass at most."""

    def __init__(self, model: torch.nn.Module, school: School, renderer: Renderer, room: int = PASS_TOKENS):
        super().__init__()
        if school.form == "problem":
            raise UserError(
                "the form problem has no answers to learn from, and a plain Trainer has the hero write none; "
                "give answers with a reward (prompt, response, reward), or train the problems as a quest"
            )
        self.model, self.school, self._renderer, self._room = model, school, renderer, room
        self._references: dict[bytes, list[np.ndarray]] = {}
        self._lessons = 0

    def remember(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep what the model as it is now makes of the labels of `rows`."""
        device = next(self.model.parameters()).device
        with evaluating(self.model):
            for row in rows:
                sequences = self._rendered(read(form(self.school.form), row))
                packs = [pack([sequence]).to(device) for sequence in sequences]
                self._references[_key(row)] = [label_scores(self.model, one).logps_N.cpu().numpy() for one in packs]

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[Pack]]:
        """A batch. Raises BadRow, and KeyError for a row that had to be remembered and was not."""
        sequences, beside, normals = [], [], [read(form(self.school.form), row) for row in rows]
        for row, normal, known in zip(rows, normals, self._known(normals), strict=True):
            own = self._rendered(normal)
            sequences += own
            for place in range(len(own)):
                if self.school.needs_reference:
                    known |= dict.fromkeys(("reference", "old"), self._references[_key(row)][place])
                beside.append(dict(known))
        return {"packs": packs_of(sequences, self._room, True, beside, self.school.together)}

    def forward(self, packs: list[Pack]) -> dict[str, torch.Tensor]:
        """The step's loss."""
        self.school.begin(self._lessons, self.model, packs)
        self._lessons += self.training
        device = next(self.model.parameters()).device
        total = sum(self.school.loss_sum(self.model, one.to(device)) for one in packs) / self.school.units(packs)
        factor = self.school.factor()
        return {"loss": total if factor is None else total * factor}

    def _rendered(self, row: Row) -> list[tuple[np.ndarray, np.ndarray]]:
        """(tokens, trained) of the row's sequences."""
        (rendered,) = self._renderer.render([row])
        if isinstance(rendered, BadRow):
            raise rendered
        return [(each.input_ids, each.trained) for each in rendered.every]

    def _known(self, rows: Sequence[Row]) -> list[dict[str, float]]:
        """What is known of each row of a batch as a whole; a reward is compared with those of the same prompt."""
        if self.school.form == "label":
            return [{"side": row.value} for row in rows]
        if self.school.form != "reward":
            return [{} for _ in rows]
        groups: dict[bytes, int] = {}
        group_R = np.array([groups.setdefault(orjson.dumps(row.asked), len(groups)) for row in rows])
        found = compared(np.array([row.value for row in rows]), group_R, self.school.settings.scale_rewards)
        return [{"advantage": advantage} for advantage in found.advantages_R.tolist()]


def _key(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
