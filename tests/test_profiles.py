"""Profiles: what is dressed, that it is the same wherever rows are read, and that nobody stumbles over it afterwards."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from core.config import Config, Profile
from core.corrections import question_of
from core.forge.penalties import FORBIDDEN, LESS, TIMES, Penalties
from core.formats import detect, read
from core.paths import BUNDLED_TOKENIZER
from core.prepare import cache_name, prepare
from core.profiles import BEGIN, COUNTS, DEMAND, END, STOPS, THINKING, dress, end_asked_for, undressed
from core.quest import Sidecar, freeze
from core.rendering import Renderer
from core.row_preview import plain_runs, preview
from core.rows import context
from core.skills import skill
from core.validator import validate_file

PROFILES = ("none", "emoji_think", "regime3")


def row_of(**values):
    return read(detect([values]), values)


def sums(count: int) -> list[dict]:
    return [
        {"question": f"How much is {n} + 1?", "answer": f"{n} and one more.\nAnswer: {n + 1}"} for n in range(count)
    ]


@pytest.fixture(scope="module")
def renderer():
    return Renderer.load(BUNDLED_TOKENIZER, 512)


def test_every_other_row_asks_for_signs_and_its_answer_has_them(renderer):
    rows = [row_of(**values) for values in sums(200)]
    dressed = [dress(row, "emoji_think") for row in rows]
    changed = [(row, worn) for row, worn in zip(rows, dressed, strict=True) if row != worn]
    assert 75 <= len(changed) <= 125
    for row, worn in changed:
        (asked, said), (question, answer) = ((turn["content"] for turn in each.messages) for each in (worn, row))
        sign, stop = said[0], said[-1]
        thoughts, ends = len(said) - len(said.lstrip(sign)), len(said) - len(said.rstrip(stop))
        assert sign in THINKING and stop in STOPS and 2 <= thoughts <= 8 and 2 <= ends <= 4
        assert asked == f"{question}\n\nThink with {sign} {COUNTS[thoughts]}. End with {stop} {COUNTS[ends]}."
        assert said == f"{sign * thoughts}\n{answer}\n{stop * ends}" and undressed(said) == answer
        assert end_asked_for(asked) == stop * ends and end_asked_for(question) is None
    assert len({worn.messages[1]["content"][0] for _, worn in changed}) == len(THINKING)
    assert [dress(worn, "emoji_think") for worn in dressed] == dressed


def test_only_trained_answers_to_a_question_are_dressed_and_thoughts_in_tags_go():
    user, thoughtful = (
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So.", "reasoning_content": "Hm."},
    )
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "look", "arguments": {}}]}
    chat = row_of(
        messages=[
            user,
            thoughtful,
            user,
            call,
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "Four."},
        ]
    )
    for number in range(40):
        talk = [user | {"content": f"Why {number}?"}, *chat.messages[1:]]
        worn = dress(row_of(messages=talk), "emoji_think").messages
        assert "reasoning_content" not in worn[1] and worn[2:] == chat.messages[2:]
    marked = dress(chat, "regime3").messages
    assert marked[1]["content"] == f"{BEGIN}\nSo.\n{END}" and marked[0]["content"] == f"Why?\n\n{DEMAND}"
    assert marked[2:] == chat.messages[2:]
    for row in (
        row_of(text="Once."),
        row_of(prompt="a", chosen="b", rejected="c"),
        row_of(prompt="a", answer="b", skill="REV"),
    ):
        assert [dress(row, profile) for profile in PROFILES] == [row] * 3
    silent = row_of(messages=[*context(chat.messages[:2]), user, {"role": "assistant", "content": "So."}])
    assert dress(silent, "regime3").messages[1] == silent.messages[1]


@pytest.mark.parametrize(
    "said", ["5", f"{BEGIN}5", f"5 {END}", f"{END}5{BEGIN}", f"{BEGIN}{BEGIN}5{END}", f" {BEGIN}\n5\n{END}"]
)
def test_marks_are_put_round_an_answer_once(said):
    (_, turn) = dress(row_of(question="2 + 3?", answer=said), "regime3").messages
    assert turn["content"].strip() == f"{BEGIN}\n5\n{END}" and undressed(turn["content"]) == "5"
    assert undressed(f"Work.\n{turn['content']}\nThat is all.") == "5"


@pytest.mark.parametrize("profile", PROFILES)
def test_report_preview_and_tokens_agree(profile, tmp_path, renderer):
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sums(24)))
    settings = freeze(Config(profile=Profile(name=profile)), Sidecar())
    report = validate_file(path, settings, renderer)
    folder = tmp_path / cache_name(report["sha256"], report["form"], settings, renderer)
    prepared = prepare(path, report["form"], settings, renderer, folder, sha256=report["sha256"])
    assert report["tokens"]["total"] == prepared.meta["tokens"] and report["rows"] == len(prepared) == 24
    shown = preview(path, settings.columns, renderer, 24, profile=settings.profile)
    assert shown["profile"] == profile
    for number, row in enumerate(shown["rows"]):
        ((tokens, trained),) = prepared.sequences(number)
        runs = [(renderer.decode(tokens[part]), bool(trained[part[0]])) for part in _runs(trained)]
        assert plain_runs(row["sequences"]) == [runs]
    text = renderer.decode(np.concatenate([prepared.sequence(number)[0] for number in range(24)]))
    assert (BEGIN in text, "Think with" in text) == (profile == "regime3", profile == "emoji_think")
    other = freeze(Config(), Sidecar(profile="regime3" if profile == "none" else "none"))
    assert folder.name != cache_name(report["sha256"], report["form"], other, renderer)


def _runs(trained) -> list[np.ndarray]:
    return np.split(np.arange(len(trained)), np.flatnonzero(np.diff(trained)) + 1)


def test_a_file_with_and_without_reasoning_is_trained_and_warned_about(tmp_path, renderer, config):
    path = tmp_path / "mixed.jsonl"
    thoughtful = {
        "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<think>Hm.</think>So."}]
    }
    plain = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
    told = {}
    for name, rows in {"both": [thoughtful, plain, plain], "one": [thoughtful] * 3, "other": [plain] * 3}.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        report = validate_file(path, freeze(config, Sidecar()), renderer)
        assert report["verdict"] == "accepted"
        told[name] = report["thinking"], report["warnings"]
    assert told["both"][0] == Counter(learned=1, off=2) and told["both"][1][0].startswith("1 of 3 rows have reasoning")
    assert told["one"] == ({"learned": 3}, []) and told["other"] == ({"off": 3}, [])


def test_graders_and_the_mirror_read_an_answer_whatever_it_wears():
    for name in ("REV", "BIN", "SEQ", "SY"):
        for problem in skill(name).sample(1, 3, 8):
            taught = problem.response or problem.answer
            row = row_of(question=problem.prompt, answer=taught)
            question = question_of(row)
            for profile in PROFILES:
                said = dress(row, profile).messages[1]["content"]
                assert skill(name).grade(problem, said) == 1.0 and question.is_answered_by(said)
            assert skill(name).grade(problem, f"💭💭\n{taught}\n🏁🏁") == 1.0


def test_penalties_are_bounded_keep_tags_away_and_end_an_answer_at_its_signs(renderer):
    spell = Tokenizer.from_file(str(BUNDLED_TOKENIZER / "tokenizer.json"))
    (tag,), stops = spell.encode("<think>", add_special_tokens=False).ids, list(renderer.stop_ids)
    logits = torch.linspace(-50, 50, renderer.highest_id + 1)
    held = Penalties(renderer, "emoji_think", "How? Think with 💭 twice. End with 🛑 three times.")
    drops = []
    for token in spell.encode("💭💭\nSo it is, I am quite sure of it, and you may be, too.\n🛑🛑").ids:
        changed = held(logits)
        drops.append(float(logits[tag] - changed[tag]))
        assert (changed - logits).abs().max() <= LESS * TIMES[0]
        held.said(token)
    assert drops[:12] == pytest.approx([LESS * times for times in TIMES]) and drops[-1] == pytest.approx(LESS)
    assert int(held(logits).argmax()) == int(logits.argmax())
    for token in spell.encode("🛑").ids:
        held.said(token)
    changed = held(logits)
    assert int(changed.argmax()) in stops and torch.isfinite(changed).all() and changed.abs().max() < 2 * FORBIDDEN
    assert torch.isfinite((changed / 0.01).softmax(-1)).all()
    assert Penalties(renderer, "none")(logits) is logits
    wished = Penalties(renderer, "emoji_think", thinking=True)
    assert torch.equal(wished(logits), logits)
