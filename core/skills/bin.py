"""BIN, arithmetic on binary numbers written in circled digits; knows nothing about models or quest files.

    decrement(①⓪) =        is answered by ①

Level L works on numbers of L + 1 bits, the last on 32, and brings in the operations below one by one. Unsigned results
carry no leading zeros; numbers of the `signed_` operations and of `to_signed` are two's complement, always of the
level's full width, and wrap around. `halve` rounds down. `compare(a, b)` is answered by <, = or >.

A tag at the end of the prompt asks for more than the answer: `[show-work]` for the way there, `[verify]` for a check,
mostly by the reverse operation; both end with a last line `Answer: …`. From level 8 on, half of the prompts begin by
naming two other symbols for the digits.
"""

import random
import re
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

from core.skills.base import ANSWER_MARK, Draft, Skill

ZERO, ONE = DIGITS = "⓪①"
KEY_SYMBOLS = "★☆▲△●○■□◆◇♠♣♥♦"  # each is one token of the bundled tokenizer, as the circled digits are
KEYS_FROM, KEY_SHARE = 8, 0.5
STYLES = ("", " [show-work]", " [verify]")
STYLE_WEIGHTS = (2, 1, 1)
_PROMPT = re.compile(
    rf"(?:([{KEY_SYMBOLS}]) means 0, ([{KEY_SYMBOLS}]) means 1\.\n)?([a-z_]+\([-\d{DIGITS}{KEY_SYMBOLS}, ]+\)) ="
    r"(?: \[[a-z-]+\])?"
)
_LONG = re.compile(r"[⓪①]{5}|1[6-9]|[2-9]\d|\d{3}")  # five binary digits, or 16 and more


class Exercise(NamedTuple):
    """One operation on given arguments, all of it in circled digits; `work` is the way, `check` the way back."""

    arguments: tuple[str, ...]
    answer: str
    work: list[str]
    check: str


Operation = Callable[[random.Random, int], Exercise]
_CURRICULUM: list[tuple[int, Operation]] = []


def _from_level(first: int) -> Callable[[Operation], Operation]:
    def enrol(operation: Operation) -> Operation:
        _CURRICULUM.append((first, operation))
        return operation

    return enrol


class Bin(Skill):
    name = "BIN"
    title = "Binary arithmetic"
    levels = range(1, 31)
    open_from = 4

    def draw(self, level: int, rng: random.Random) -> Draft:
        bits = 32 if level == self.levels[-1] else level + 1
        operation = rng.choice([operation for first, operation in _CURRICULUM if first <= level])
        task = operation(rng, bits)
        call = f"{operation.__name__}({', '.join(task.arguments)}) ="
        style = rng.choices(STYLES, STYLE_WEIGHTS)[0]
        lines = {
            "": [task.answer],
            " [show-work]": [*task.work, f"{ANSWER_MARK} {task.answer}"],
            " [verify]": [f"{call} {task.answer}", f"check: {task.check}", f"{ANSWER_MARK} {task.answer}"],
        }[style]
        draft = Draft(call + style, task.answer, "\n".join(lines))
        if level >= KEYS_FROM and rng.random() < KEY_SHARE:
            return _in_key(draft, *rng.sample(KEY_SYMBOLS, 2))
        return draft

    def kind(self, prompt: str) -> str:
        return prompt[prompt.find("\n") + 1 :].partition("(")[0]

    def essence(self, prompt: str) -> str | None:
        """The call in circled digits, without key and style, where a number is too long for the closed levels."""
        found = _PROMPT.fullmatch(prompt)
        if found is None:
            return None
        zero, one, call = found.groups()
        call = call.translate(str.maketrans(zero + one, DIGITS)) if zero else call
        return call if _LONG.search(call) else None


def _in_key(draft: Draft, zero: str, one: str) -> Draft:
    prompt, answer, response = (text.translate(str.maketrans(DIGITS, zero + one)) for text in draft)
    return Draft(f"{zero} means 0, {one} means 1.\n{prompt}", answer, response)


def _write(value: int, width: int = 1) -> str:
    """A number in circled digits; a negative one as two's complement of `width` bits."""
    return f"{value % (1 << width) if value < 0 else value:0{width}b}".translate(str.maketrans("01", DIGITS))


def _number(rng: random.Random, bits: int) -> int:
    """Often one of full width, else one of any width: uniform draws would hardly ever be short."""
    return rng.getrandbits(bits if rng.random() < 0.5 else rng.randint(1, bits))


def _neighbours(rng: random.Random, bits: int) -> tuple[int, int]:
    """Two numbers to compare: equal, apart in one digit, or unrelated."""
    a = _number(rng, bits)
    return a, rng.choice((a, a ^ 1 << rng.randrange(bits), _number(rng, bits)))


def _first_difference(a: str, b: str) -> list[str]:
    places = (f"place {place}: {x} and {y}" for place, (x, y) in enumerate(zip(a, b, strict=True), 1) if x != y)
    return [a, b, next(places, "no difference")]


def _order(a: int, b: int) -> str:
    return "<" if a < b else ">" if a > b else "="


def _halvings(value: int) -> str:
    """The digits of a number from the last to the first: `6 ⓪, 3 ①, 1 ①`."""
    steps = [value] + [value >> shift for shift in range(1, value.bit_length())]
    return ", ".join(f"{step} {DIGITS[step & 1]}" for step in steps)


def _doublings(digits: str, sign: int) -> str:
    """The value of ever longer beginnings of the digits, the first of which counts `sign`."""
    value, steps = 0, []
    for place, digit in enumerate(digits):
        value = 2 * value + (digit == ONE) * (1 if place else sign)
        steps.append(f"{digit} {value}")
    return ", ".join(steps)


@_from_level(1)
def increment(rng: random.Random, bits: int) -> Exercise:
    a = _number(rng, bits)
    width = (a ^ (a + 1)).bit_length()  # the digits that flip: the last zero and the ones behind it
    flip = f"{_write(a, width)[-width:]} becomes {_write(a + 1, width)[-width:]}"
    return Exercise((_write(a),), _write(a + 1), [flip], f"decrement({_write(a + 1)}) = {_write(a)}")


@_from_level(1)
def decrement(rng: random.Random, bits: int) -> Exercise:
    a = max(1, _number(rng, bits))
    width = (a ^ (a - 1)).bit_length()
    flip = f"{_write(a)[-width:]} becomes {_write(a - 1, width)[-width:]}"
    return Exercise((_write(a),), _write(a - 1), [flip], f"increment({_write(a - 1)}) = {_write(a)}")


@_from_level(1)
def compare(rng: random.Random, bits: int) -> Exercise:
    a, b = _neighbours(rng, bits)
    width = max(len(_write(a)), len(_write(b)))
    work = _first_difference(_write(a, width), _write(b, width))
    return Exercise((_write(a), _write(b)), _order(a, b), work, f"compare({_write(b)}, {_write(a)}) = {_order(b, a)}")


@_from_level(1)
def add(rng: random.Random, bits: int) -> Exercise:
    a, b = _number(rng, bits), _number(rng, bits)
    total = _write(a + b)
    rows = [_write(a, len(total)), _write(b, len(total)), f"carry {_write(a ^ b ^ (a + b), len(total))}"]
    return Exercise((_write(a), _write(b)), total, rows, f"subtract({total}, {_write(b)}) = {_write(a)}")


@_from_level(2)
def subtract(rng: random.Random, bits: int) -> Exercise:
    b, a = sorted((_number(rng, bits), _number(rng, bits)))
    width = len(_write(a))
    rows = [_write(a), _write(b, width), f"borrow {_write(a ^ b ^ (a - b), width)}"]
    return Exercise((_write(a), _write(b)), _write(a - b), rows, f"add({_write(a - b)}, {_write(b)}) = {_write(a)}")


@_from_level(2)
def double(rng: random.Random, bits: int) -> Exercise:
    a = _number(rng, bits)
    work = [f"{_write(a)} and {ZERO}" if a else "nothing doubled is nothing"]
    return Exercise((_write(a),), _write(2 * a), work, f"halve({_write(2 * a)}) = {_write(a)}")


@_from_level(2)
def halve(rng: random.Random, bits: int) -> Exercise:
    a = _number(rng, bits)
    half, rest = _write(a >> 1), DIGITS[a & 1]
    return Exercise((_write(a),), half, [f"{half} and {rest}"], f"double({half}) + {rest} = {_write(a)}")


@_from_level(3)
def to_decimal(rng: random.Random, bits: int) -> Exercise:
    a = _number(rng, bits)
    return Exercise((_write(a),), str(a), [_doublings(_write(a), 1)], f"to_binary({a}) = {_write(a)}")


@_from_level(3)
def to_binary(rng: random.Random, bits: int) -> Exercise:
    a = _number(rng, bits)
    return Exercise((str(a),), _write(a), [_halvings(a)], f"to_decimal({_write(a)}) = {a}")


@_from_level(4)
def multiply(rng: random.Random, bits: int) -> Exercise:
    a, b = _number(rng, bits), _number(rng, 2 + bits // 8)  # a short second factor keeps the work short
    parts = [a << place for place in range(b.bit_length()) if b >> place & 1]
    sums = [f"add {_write(part)} to get {_write(sum_)}" for part, sum_ in zip(parts, accumulate(parts), strict=True)]
    check = f"{' + '.join(map(_write, reversed(parts))) or ZERO} = {_write(a * b)}"
    return Exercise((_write(a), _write(b)), _write(a * b), sums or [f"times {ZERO}"], check)


@_from_level(5)
def signed_to_decimal(rng: random.Random, bits: int) -> Exercise:
    a = _signed(rng, bits)
    digits = _write(a, bits)
    return Exercise((digits,), str(a), [_doublings(digits, -1)], f"to_signed({a}, {bits}) = {digits}")


@_from_level(5)
def to_signed(rng: random.Random, bits: int) -> Exercise:
    a = _signed(rng, bits)
    digits = _write(a, bits)
    wrapped = [f"{1 << bits} - {-a} = {(1 << bits) + a}"] if a < 0 else []
    work = [*wrapped, _halvings(a % (1 << bits))]
    return Exercise((str(a), str(bits)), digits, work, f"signed_to_decimal({digits}) = {a}")


@_from_level(6)
def signed_negate(rng: random.Random, bits: int) -> Exercise:
    a = _signed(rng, bits)
    digits, answer = _write(a, bits), _wrap(-a, bits)
    work = [f"inverted {_write(~a, bits)}", f"one more {answer}"]
    return Exercise((digits,), answer, work, f"signed_negate({answer}) = {digits}")


@_from_level(7)
def signed_compare(rng: random.Random, bits: int) -> Exercise:
    a, b = (value - (value >> (bits - 1) << bits) for value in _neighbours(rng, bits))
    x, y = _write(a, bits), _write(b, bits)
    work = [f"signs {x[0]} and {y[0]}", *_first_difference(x, y)]
    return Exercise((x, y), _order(a, b), work, f"signed_compare({y}, {x}) = {_order(b, a)}")


@_from_level(8)
def signed_add(rng: random.Random, bits: int) -> Exercise:
    a, b = _signed(rng, bits), _signed(rng, bits)
    x, y, total = _write(a, bits), _write(b, bits), _wrap(a + b, bits)
    rows = [x, y, f"carry {_wrap(a ^ b ^ (a + b), bits)}"]
    return Exercise((x, y), total, rows, f"signed_subtract({total}, {y}) = {x}")


@_from_level(9)
def signed_subtract(rng: random.Random, bits: int) -> Exercise:
    a, b = _signed(rng, bits), _signed(rng, bits)
    x, y, rest = _write(a, bits), _write(b, bits), _wrap(a - b, bits)
    rows = [x, y, f"borrow {_wrap(a ^ b ^ (a - b), bits)}"]
    return Exercise((x, y), rest, rows, f"signed_add({rest}, {y}) = {x}")


def _signed(rng: random.Random, bits: int) -> int:
    """A number that fits into two's complement of `bits` bits: as likely negative as not."""
    size = _number(rng, bits - 1)
    return ~size if rng.random() < 0.5 else size


def _wrap(value: int, bits: int) -> str:
    return _write(value % (1 << bits), bits)


SKILL = Bin()
