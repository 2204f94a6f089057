"""Every school's loss under a plain transformers.Trainer."""

import random

import pytest
import torch
from transformers import Trainer, TrainingArguments

from core.forge.hatch import micro_hero
from core.paths import BUNDLED_TOKENIZER
from core.rendering import Renderer
from core.rows import BadRow
from core.schools import school
from core.schools.classroom import Classroom

WORDS = ("red", "blue", "green", "gold", "iron", "salt")


def _chats(draw, word):
    return {"question": f"Say {word}.", "answer": f"{word}, {word}."}


def _pairs(draw, word):
    return {"prompt": f"Say {word}.", "chosen": f"{word}.", "rejected": f"{word}! {draw.choice(WORDS)}!"}


def _labels(draw, word):
    good = draw.random() < 0.5
    return {"prompt": f"Say {word}.", "completion": f"{word}." if good else f"{word}! {word}!", "label": good}


def _rewards(draw, word):
    good = draw.random() < 0.5
    return {"prompt": f"Say {word}.", "response": f"{word}." if good else f"no {word}", "reward": 1.0 if good else -1.0}


KINDS = {
    "scribe": ("question", _chats),
    "mirror": ("question", _chats),
    "oracle": ("question", _chats),
    "whisper": ("question", _chats),
    "judge": ("preference", _pairs),
    "judge of labels": ("label", _labels),
    "champion": ("reward", _rewards),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_trainer_lowers_the_loss_of(kind, tmp_path):
    form, make = KINDS[kind]
    draw = random.Random(3)
    rows = [make(draw, draw.choice(WORDS)) for _ in range(64)]
    model = micro_hero(1)
    room = Classroom(model, school(kind.split()[0], form=form), Renderer.load(BUNDLED_TOKENIZER, 128), 256)
    if kind == "whisper":
        room.school.teacher = micro_hero(2)
    if room.school.needs_reference:
        room.remember(rows)
    with torch.no_grad():
        before = room(**room.collate(rows))["loss"].item()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=8, learning_rate=3e-4, num_train_epochs=1, use_cpu=True,
        remove_unused_columns=False, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    Trainer(room, arguments, train_dataset=rows, data_collator=room.collate).train()
    with torch.no_grad():
        after = room(**room.collate(rows))["loss"].item()
    assert after < before - 0.01 * abs(before)


def test_a_row_of_another_form_and_one_that_was_not_remembered_are_told():
    room = Classroom(micro_hero(1), school("judge", form="preference"), Renderer.load(BUNDLED_TOKENIZER, 128))
    with pytest.raises(BadRow, match="chosen"):
        room.collate([{"question": "Say red.", "answer": "red."}])
    with pytest.raises(KeyError):
        room.collate([_pairs(random.Random(1), "red")])
