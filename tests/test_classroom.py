"""Every school's loss under a plain transformers.Trainer."""

import random

import pytest
import torch
from transformers import Trainer, TrainingArguments

from core.errors import UserError
from core.forge.hatch import micro_hero
from core.forge.label_scores import label_scores
from core.paths import BUNDLED_TOKENIZER, CHECKOUT
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


def test_of_rewarded_answers_those_below_their_like_become_less_likely():
    model = micro_hero(1)
    room = Classroom(model, school("champion", form="reward"), Renderer.load(BUNDLED_TOKENIZER, 128))
    rows = [
        {"prompt": f"Say {prompt}.", "response": f"{word}.", "reward": reward}
        for prompt, word, reward in (("red", "red", 1), ("red", "blue", 0), ("gold", "gold", 5), ("gold", "iron", 3))
    ]
    room.remember(rows)
    (batch,) = room.collate(rows)["packs"]
    low, high = sorted(set(batch.beside["advantage"].round(decimals=2).tolist()))
    assert batch.beside["advantage"].sign().tolist().count(-1) == 2 and low == -high
    before = label_scores(model, batch).logps_N.detach()
    room(packs=[batch])["loss"].backward()
    with torch.no_grad():
        for weights in model.parameters():
            weights -= 0.1 * weights.grad
        moved_S = batch.by_sequence(label_scores(model, batch).logps_N - before)
    assert torch.equal(moved_S.sign(), batch.beside["advantage"].sign())


def test_problems_are_refused():
    with pytest.raises(UserError, match="the form problem has no answers to learn from"):
        Classroom(micro_hero(1), school("champion", form="problem"), Renderer.load(BUNDLED_TOKENIZER, 128))


def test_a_row_of_another_form_and_one_that_was_not_remembered_are_told():
    room = Classroom(micro_hero(1), school("judge", form="preference"), Renderer.load(BUNDLED_TOKENIZER, 128))
    with pytest.raises(BadRow, match="chosen"):
        room.collate([{"question": "Say red.", "answer": "red."}])
    with pytest.raises(KeyError):
        room.collate([_pairs(random.Random(1), "red")])


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")  # transformers' own, on a machine without a GPU
def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    blocks = (CHECKOUT / "README.md").read_text().split("```python\n")[1:]
    (example,) = (block.partition("```")[0] for block in blocks if "Classroom" in block)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    assert names["room"](**names["room"].collate(names["rows"]))["loss"] < 0.69, "ln 2 is where it began"
