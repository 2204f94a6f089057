"""Every skill keeps one contract; what a single skill promises beyond it stands below."""

import json
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.skills import Problem, evaluated_by, seq, skill, skills, sy
from core.skills.base import final_answer

every_skill = pytest.mark.parametrize("name", skills())


def spread(name):
    """The first, some middle and the last levels of a skill."""
    levels = skill(name).levels
    return sorted({levels[0], levels[len(levels) // 4], levels[len(levels) // 2], levels[-1]})


def in_another_process(code, hash_seed):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@every_skill
def test_a_skill_is_found_by_its_name_in_any_case(name):
    assert skill(name).name == name
    assert skill(name.lower()) is skill(name)
    assert skill(name).title


def test_an_unknown_skill_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"'BNI'; did you mean 'BIN'"):
        skill("BNI")


@every_skill
def test_same_level_and_seed_give_the_same_problems(name):
    for level in spread(name):
        problems = skill(name).sample(level, 7)
        assert problems == skill(name).sample(level, 7)
        assert problems != skill(name).sample(level, 8)
        assert problems[:5] == skill(name).sample(level, 7, count=5)


@every_skill
def test_problems_are_the_same_in_every_process_and_sampling_imports_no_torch(name):
    level = spread(name)[-1]
    code = (
        "import json, sys; from core.skills import skill; "
        f"problems = skill({name!r}).sample({level}, 3, count=3); assert 'torch' not in sys.modules; "
        "print(json.dumps([[p.prompt, p.answer] for p in problems]))"
    )
    here = [[p.prompt, p.answer] for p in skill(name).sample(level, 3, count=3)]
    assert in_another_process(code, "1") == here


@every_skill
def test_every_level_makes_well_formed_problems(name):
    for level in skill(name).levels:
        problems = skill(name).sample(level, 0, count=6)
        assert len(problems) == 6
        assert len({problem.id for problem in problems}) == 6
        for problem in problems:
            assert (problem.level, problem.skill) == (level, name)
            assert problem.prompt.strip() and problem.answer == problem.answer.strip() != ""


@every_skill
def test_the_default_sample_repeats_no_prompt(name):
    for level in skill(name).levels:
        prompts = [problem.prompt for problem in skill(name).sample(level, 1)]
        assert len(set(prompts)) == len(prompts) == 20


@every_skill
def test_a_problem_cannot_be_altered(name):
    with pytest.raises(FrozenInstanceError):
        skill(name).sample(1, 0, count=1)[0].answer = "mine"


@every_skill
@pytest.mark.parametrize("level", [0, -1, 10_000, "one", None])
def test_an_unknown_level_is_refused_with_the_range(name, level):
    first, last = skill(name).levels[0], skill(name).levels[-1]
    with pytest.raises(ValueError, match=rf"{name}.*{level}.*{first} to {last}"):
        skill(name).sample(level, 0)


@every_skill
def test_the_answer_and_the_taught_response_earn_full_marks(name):
    for level in spread(name):
        for problem in skill(name).sample(level, 2, count=30):
            for right in (problem.answer, f"\n  {problem.answer} \n", problem.response):
                assert skill(name).grade(problem, right) == 1.0, (problem, right)


@every_skill
def test_talk_around_the_answer_earns_nothing(name):
    for level in spread(name):
        for problem in skill(name).sample(level, 4, count=10):
            for wrong in (
                "",
                " \n",
                "I do not know",
                f"surely not {problem.answer}, is it",
                f"{problem.answer}{problem.answer}",
                f"x{problem.answer}",
                problem.answer[:-1],
                problem.prompt,
            ):
                assert skill(name).grade(problem, wrong) == 0.0, (problem, wrong)


@every_skill
def test_evaluation_problems_of_open_levels_are_in_no_sample_and_no_quest(name):
    for level in spread(name):
        kept = skill(name).evaluation(level, 3, count=20)
        assert kept == skill(name).evaluation(level, 3, count=20) and len({problem.prompt for problem in kept}) == 20
        assert all(skill(name).grade(problem, problem.response) == 1.0 for problem in kept)
        open_level = level >= skill(name).open_from
        assert [evaluated_by(problem.prompt) for problem in kept] == [name if open_level else None] * 20
        asked = [problem.prompt for problem in skill(name).sample(level, 3, count=100)]
        asked += [row["messages"][0]["content"] for row in skill(name).quest_rows(level, 4, 100)]
        assert not any(map(evaluated_by, asked))


@pytest.mark.parametrize(
    "prompt",
    ["reverse a letter", "1. Boil water.\n2. Add tea.", "add(①⓪, ①) =", "What is sort(a b c) = ?", "", "\x00" * 50],
)
def test_other_texts_and_problems_of_closed_levels_are_no_evaluation_problems(prompt):
    assert all(skill(name).essence(prompt) is None for name in skills())


@every_skill
def test_grades_need_no_more_than_prompt_and_answer(name):
    problem = skill(name).sample(1, 0, count=1)[0]
    assert skill(name).grade(replace(problem, id="", response=""), problem.answer) == 1.0


@every_skill
def test_quest_rows_teach_the_sampled_problems(name):
    rows = list(skill(name).quest_rows(1, 5, 8))
    for row, problem in zip(rows, skill(name).sample(1, 5, count=8), strict=True):
        asked, said = row["messages"]
        assert asked == {"role": "user", "content": problem.prompt}
        assert said["role"] == "assistant" and skill(name).grade(problem, said["content"]) == 1.0


@every_skill
def test_quest_rows_leave_out_the_prompts_to_avoid(name):
    evaluation = {problem.prompt for problem in skill(name).sample(1, 5)}
    rows = list(skill(name).quest_rows(1, 5, 20, avoid=evaluation))
    assert len(rows) == 20
    assert evaluation.isdisjoint(row["messages"][0]["content"] for row in rows)


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("①⓪", "①⓪"),
        (" ①⓪\n", "①⓪"),
        ("work\nAnswer: ①⓪", "①⓪"),
        ("<think>\n① or ⓪?\nAnswer: ①\n</think>\n\nAnswer: ①⓪", "①⓪"),
        ("①\n①⓪", None),
        ("Answer: ①\nAnswer: ①⓪", None),
        ("Answer: ①⓪\nor so", None),
        ("<think>①⓪", "<think>①⓪"),
        ("The answer is ①⓪.", "The answer is ①⓪."),
        ("", ""),
    ],
)
def test_a_text_settles_on_one_answer_or_on_none(text, settled):
    assert final_answer(text) == settled


# BIN


def value(digits):
    return int(digits.translate(str.maketrans("⓪①", "01")), 2)


def signed(digits):
    return value(digits) - (digits[0] == "①") * 2 ** len(digits)


def order(a, b):
    return "<" if a < b else ">" if a > b else "="


def digits(number, width=1):
    return format(number % 2**width if width > 1 else number, f"0{width}b").translate(str.maketrans("01", "⓪①"))


EXPECTED = {
    "increment": lambda a: digits(value(a) + 1),
    "decrement": lambda a: digits(value(a) - 1),
    "compare": lambda a, b: order(value(a), value(b)),
    "add": lambda a, b: digits(value(a) + value(b)),
    "subtract": lambda a, b: digits(value(a) - value(b)),
    "double": lambda a: digits(value(a) * 2),
    "halve": lambda a: digits(value(a) // 2),
    "multiply": lambda a, b: digits(value(a) * value(b)),
    "to_decimal": lambda a: str(value(a)),
    "to_binary": lambda a: digits(int(a)),
    "to_signed": lambda a, width: digits(int(a), int(width)),
    "signed_to_decimal": lambda a: str(signed(a)),
    "signed_negate": lambda a: digits(-signed(a), len(a)),
    "signed_compare": lambda a, b: order(signed(a), signed(b)),
    "signed_add": lambda a, b: digits(signed(a) + signed(b), len(a)),
    "signed_subtract": lambda a, b: digits(signed(a) - signed(b), len(a)),
}


def in_circled_digits(problem):
    """The same problem, with the key of its prompt, if it has one, undone."""
    key = re.match(r"(.) means 0, (.) means 1\.\n", problem.prompt)
    if not key:
        return problem
    table = str.maketrans("".join(key.groups()), "⓪①")
    plain = {field: getattr(problem, field).translate(table) for field in ("prompt", "answer", "response")}
    return replace(problem, **plain | {"prompt": plain["prompt"][key.end() :]})


def call_of(problem):
    name, arguments = re.match(r"(\w+)\((.*?)\) =", in_circled_digits(problem).prompt).groups()
    return name, arguments.split(", ")


@given(level=st.integers(1, 30), seed=st.integers())
def test_bin_answers_agree_with_python_integers(level, seed):
    for problem in skill("BIN").sample(level, seed, count=5):
        name, arguments = call_of(problem)
        assert in_circled_digits(problem).answer == EXPECTED[name](*arguments), problem


def test_bin_numbers_fill_the_bits_of_their_level_and_no_more():
    for level, bits in ((1, 2), (7, 8), (29, 30), (30, 32)):
        numbers = [arg for p in skill("BIN").sample(level, 0, count=100) for arg in call_of(p)[1] if "①" in arg]
        assert max(map(len, numbers)) == bits


def test_bin_brings_in_its_operations_one_by_one():
    known = [{call_of(p)[0] for p in skill("BIN").sample(level, 0, count=100)} for level in range(1, 31)]
    assert known[0] == {"increment", "decrement", "compare", "add"}
    assert not any(name.startswith("signed") for name in set().union(*known[:4]))
    assert all(earlier <= later for earlier, later in pairwise(known))
    assert known[-1] == set(EXPECTED)


def test_bin_changes_its_digits_in_a_share_of_problems_from_level_8():
    keyed = [sum("means" in p.prompt for p in skill("BIN").sample(level, 0, count=100)) for level in range(1, 31)]
    assert not any(keyed[:7])
    assert all(30 < count < 70 for count in keyed[7:])


def test_bin_tags_ask_for_work_that_ends_with_the_answer():
    problems = skill("BIN").sample(12, 0, count=200)
    tagged = [problem for problem in problems if problem.prompt.endswith("]")]
    assert 60 < len(tagged) < 140
    for problem in problems:
        lines = problem.response.splitlines()
        if problem in tagged:
            assert problem.prompt.endswith(("[show-work]", "[verify]"))
            assert len(lines) > 1 and lines[-1] == f"Answer: {problem.answer}"
        else:
            assert lines == [problem.answer]


@given(level=st.integers(1, 30), seed=st.integers())
def test_bin_work_is_true(level, seed):
    for problem in map(in_circled_digits, skill("BIN").sample(level, seed, count=5)):
        for name, arguments, result in re.findall(r"(\w+)\((.*?)\) = (\S+)", problem.response):
            assert EXPECTED[name](*arguments.split(", ")) == result, problem
        if rows := re.match(r"(.+)\n(.+)\n(?:carry|borrow) (.+)\nAnswer: (.+)", problem.response):
            a, b, carried, result = map(value, rows.groups())
            assert a ^ b ^ carried == result, problem
        if problem.prompt.startswith(("to_decimal", "signed_to_decimal")) and "show-work" in problem.prompt:
            assert problem.response.splitlines()[0].endswith(f" {problem.answer}"), problem


@given(level=st.integers(1, 30), seed=st.integers(0, 9), guess=st.text("⓪①01<>=- \n", max_size=8))
def test_bin_gives_a_point_for_the_answer_itself_only(level, seed, guess):
    problem = skill("BIN").sample(level, seed, count=1)[0]
    assert skill("BIN").grade(problem, guess) == float(guess.strip() == problem.answer)
    assert skill("BIN").grade(problem, f"⓪ ① {problem.answer} {guess}.") == 0.0


@pytest.mark.parametrize("style", ["", " [show-work]", " [verify]"])
def test_a_sum_in_other_symbols_or_another_style_is_the_same_problem(style):
    assert skill("BIN").essence(f"add(①⓪⓪①⓪, ①) ={style}") == "add(①⓪⓪①⓪, ①)"
    assert skill("BIN").essence(f"♠ means 0, ▲ means 1.\nadd(▲♠♠▲♠, ▲) ={style}") == "add(①⓪⓪①⓪, ①)"


# SY


def test_the_lexicon_has_400_words_each_once_with_two_clues_that_do_not_name_it():
    texts = [word.text for word in sy.lexicon()]
    assert len(texts) >= 400 and len(set(texts)) == len(texts)
    for word in sy.lexicon():
        assert len(word.syllables) >= 2 and word.clue and word.oblique and word.clue != word.oblique, word
        assert not re.search(rf"\b{word.text}\b", f"{word.clue} {word.oblique}", re.IGNORECASE), word


def test_a_syllacrostic_has_a_clue_a_word_and_its_words_syllables_in_the_bank():
    for level in skill("SY").levels:
        for problem in skill("SY").sample(level, 11, count=5):
            words, lines = json.loads(problem.answer), problem.prompt.splitlines()
            assert len(lines) == len(words) + 2
            bank = lines[-2].removeprefix("Syllables: ").split(", ")
            for word in (word for word in sy.lexicon() if word.text in words):
                for syllable in word.syllables:
                    bank.remove(syllable)
            assert len(bank) == round((level - 1) / 49 * sy.MOST_DECOYS)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ('{"1": "WATER", "2": "TABLE"}', 1.0),
        ('{"2": "table", "1": "Water"}', 1.0),
        ('["WATER", "TABLE"]', 1.0),
        ("number | word\n--- | ---\n2 | TABLE\n1 | WATER", 1.0),
        ("| number | word |\n|---|---|\n| 1 | WATER |\n| 2 | TABLE |", 1.0),
        ("WATER\nTABLE", 1.0),
        ("1. WATER\n2. TABLE", 1.0),
        ("<think>TABLE?</think>WATER\nTABLE", 1.0),
        ("TABLE\nWATER", 0.0),
        ('{"1": "WATER", "2": "WINDOW"}', 0.5),
        ("WATER", 0.5),
        ('{"1": "WATER", "1": "TABLE", "2": "TABLE"}', 0.0),
        ("1. WATER\n1. TABLE\n2. TABLE", 0.0),
        ("WATER\nTABLE\nWINDOW", 0.0),
        ("WATER or TABLE\nTABLE", 0.0),
        ("The words are:\nWATER\nTABLE", 0.0),
        ('{"1": ["WATER", "TABLE"], "2": "TABLE"}', 0.5),
        ("[" * 100_000, 0.0),
        ("", 0.0),
    ],
)
def test_a_syllacrostic_is_graded_word_by_word_and_as_a_whole(said, score):
    problem = Problem("1. …\n2. …", '["WATER", "TABLE"]', 1, "SY")
    assert skill("SY").grade(problem, said) == score


# SEQ


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("swap_ends(k a b d)", "d a b k"),
        ("sort(drop_first(k d b a))", "a b d"),
        ("rotate_right(rotate_left(x y z))", "x y z"),
        ("double(odd_places(a b c))", "a a c c"),
        ("distinct(next_letters(z z a))", "a b"),
        ("drop_last(reverse(copy(a b c)))", "c b"),
    ],
)
def test_sequence_transforms_are_applied_from_the_inside(call, answer):
    names = re.findall(r"\w+(?=\()", call)
    letters = re.search(r"\(([a-z ]+)\)", call)[1].split()
    for name in reversed(names):
        letters = seq.TRANSFORMS[name](letters)
    assert " ".join(letters) == answer


def test_the_sequences_and_their_transforms_grow_with_the_level():
    def facts(level):
        prompts = [problem.prompt for problem in skill("SEQ").sample(level, 1, count=60)]
        names = {name for prompt in prompts for name in re.findall(r"\w+(?=\()", prompt)}
        return len(names), prompts[0].count("("), len(re.findall(r"\b[a-z]\b", prompts[0]))

    assert [facts(level) for level in (1, 12, 13, 22, 30)] == [
        (1, 1, 3),
        (12, 1, 6),
        (12, 2, 6),
        (12, 3, 9),
        (12, 3, 12),
    ]


# REV


def test_reversing_twice_gives_the_letters_back():
    for problem in skill("REV").sample(5, 3):
        assert " ".join(reversed(problem.answer.split())) == problem.prompt.removeprefix("reverse ")
        assert len(problem.answer.split()) == 7
