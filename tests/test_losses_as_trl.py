"""The schools' losses and gradients are those of TRL, for the same model and batch, in float32."""

import json
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.forge.hatch import micro_hero
from core.forge.label_scores import label_scores
from core.forge.packing import packs_of
from core.forge.state import save_model
from core.paths import BUNDLED_TOKENIZER
from core.school_config import ChampionSettings, JudgeSettings, WhisperSettings
from core.schools import school
from training.bench.launch import PEER_PYTHON, surroundings

PROMPT, LONGEST, ROWS = 7, 19, 6
CASES = {
    "sft": ("sft", "turns", {}),
    **{f"dpo {kind}": ("dpo", "pairs", {"loss_type": kind, "beta": 0.3}) for kind in ("sigmoid", "ipo", "sigmoid_norm")},
    **{
        f"grpo {kind} {beta}": ("grpo", "answers", {"loss_type": kind, "beta": beta, "epsilon": 0.1, "epsilon_high": 0.25,
                                                    "max_new_tokens": 40, "prompt_tokens": PROMPT})
        for kind in ("grpo", "dapo", "dr_grpo") for beta in (0.0, 0.04)
    },
    **{
        f"distillation {beta}": ("distillation", "answers", {"beta": beta, "temperature": 1.7, "prompt_tokens": PROMPT})
        for beta in (0.0, 0.3, 1.0)
    },
}  # fmt: skip
SCHOOLS = {"sft": "scribe", "dpo": "judge", "grpo": "champion", "distillation": "whisper"}
SETTINGS = {"dpo": JudgeSettings, "grpo": ChampionSettings, "distillation": WhisperSettings}


@pytest.fixture(scope="module")
def heroes():
    """A hero and a teacher whose distributions are far from even, so that every part of a loss counts."""
    found = {"hero": micro_hero(3), "teacher": micro_hero(4)}
    for model in found.values():
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(3)
    return found


@pytest.fixture(scope="module")
def batches(heroes):
    """By name, rows of tokens (B, T), which of them are trained, and what is known beside them; answers differ in length."""
    draw = np.random.default_rng(5)
    found = {}
    for name in ("turns", "pairs", "answers"):
        lengths = draw.integers(PROMPT + 3, LONGEST + 1, ROWS)
        tokens = draw.integers(10, 3000, (ROWS, LONGEST))
        places = np.arange(LONGEST)
        trained = (places >= PROMPT) & (places < lengths[:, None])
        if name == "turns":
            trained &= draw.random((ROWS, LONGEST)) < 0.6
        noise = draw.normal(0, 0.3, (2, ROWS, LONGEST))
        logps = _logps(heroes["hero"], tokens, trained, lengths)
        found[name] = {
            "input_ids": tokens, "attention_mask": (places < lengths[:, None]).astype(np.int64),
            "trained": trained.astype(np.int64), "advantage": draw.normal(0.5, 1, ROWS).astype(np.float32),
            "old": (logps + noise[0] * trained).astype(np.float32),
            "reference": (logps + noise[1] * trained).astype(np.float32),
        }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def theirs(heroes, batches, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trl")
    for name, model in heroes.items():
        (folder / name).mkdir()
        save_model(model, folder / name, BUNDLED_TOKENIZER)
    cases = {
        name: {"method": method, "batch": batch, "options": options} for name, (method, batch, options) in CASES.items()
    }
    (folder / "cases.json").write_text(json.dumps(cases))
    tensors = {
        f"{name}.{key}": torch.from_numpy(values) for name, batch in batches.items() for key, values in batch.items()
    }
    save_file(tensors, folder / "batches.safetensors")
    command = [str(PEER_PYTHON), "tests/peers/trl_losses.py", str(folder)]
    done = subprocess.run(command, env=surroundings(1), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "results.safetensors")


def _rows(tokens, trained, lengths):
    return [
        (row[:length], learned[:length].astype(bool))
        for row, learned, length in zip(tokens, trained, lengths, strict=True)
    ]


def _logps(hero, tokens, trained, lengths):
    """Log-probabilities at the trained tokens (B, T), 0 elsewhere."""
    found = np.zeros(tokens.shape)
    with torch.no_grad():
        (pack,) = packs_of(_rows(tokens, trained, lengths), 1 << 20)
        found[trained] = label_scores(hero, pack).logps_N.numpy()
    return found


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_trls(case, packing, heroes, batches, theirs):
    method, batch, options = CASES[case]
    known = SETTINGS.get(method)
    settings = known(**{key: value for key, value in options.items() if key in known.model_fields}) if known else None
    ours = school(SCHOOLS[method], settings, form="preference" if method == "dpo" else "messages")
    ours.teacher = heroes["teacher"]
    data = batches[batch]
    rows = _rows(data["input_ids"], data["trained"], data["attention_mask"].sum(-1))
    order = [row for pair in zip(range(ROWS // 2), range(ROWS // 2, ROWS), strict=True) for row in pair]
    order = order if method == "dpo" else range(ROWS)  # TRL has all chosen answers first, we have pairs
    beside = [
        {"advantage": data["advantage"][row]}
        | {name: data[name][row][data["trained"][row] > 0] for name in ("old", "reference")}
        for row in order
    ]
    packs = packs_of([rows[row] for row in order], 60, packing, beside, ours.together)
    hero = heroes["hero"]
    hero.zero_grad()
    loss = sum(ours.loss_sum(hero, pack) for pack in packs) / ours.units(packs)
    loss.backward()
    assert len(packs) > 1 and loss.item() == pytest.approx(theirs[f"{case}.loss"].item(), rel=1e-5, abs=1e-7)
    for name, parameter in hero.named_parameters():
        wanted = theirs[f"{case}.{name}"]
        assert (parameter.grad - wanted).norm() <= 1e-5 * wanted.norm(), name
