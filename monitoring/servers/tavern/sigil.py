"""The hero's portrait: a sigil grown from a checkpoint's hash, the same for the same hash, richer with its level.

It knows only a text and a level, and writes nothing but numbers and fixed words, so its SVG needs no escaping.
"""

import hashlib
import math
from collections.abc import Iterator

from markupsafe import Markup

GOLD, PALE = "#d9b45b", "#f4e3b2"
JEWELS = ("#7fc7c4", "#e58a6f", "#b79ae0", "#86aef0", "#93cf9c", "#e79bb4")
MAX_LAYERS = 9


def layers_of(level: int) -> int:
    """One layer at level 1, one more each time the level doubles."""
    return min(MAX_LAYERS, level.bit_length())


def sigil(seed: str, level: int) -> Markup:
    """The picture as the inside of an SVG with viewBox -120 -120 240 240."""
    dice = _dice(seed)
    fold = 7 + next(dice) % 5
    jewel = JEWELS[next(dice) % len(JEWELS)]
    layers = layers_of(level)
    parts = [_ground(level, jewel), _frame(fold, layers, jewel), _crown(fold, level, jewel)]
    reach = 88.0
    shapes = [*sorted((_petals, _star, _rosette, _rays, _arches), key=lambda _: next(dice)), _beads]
    for layer in range(layers):
        draw = shapes[layer % len(shapes)]
        colour = (GOLD, PALE, GOLD, jewel)[(layer + next(dice)) % 4]
        turn = 180 / fold * (next(dice) % 2)
        parts.append(f'<g transform="rotate({turn:g})" stroke="{colour}">{draw(fold, reach, dice)}</g>')
        reach *= 0.8 if layers > 5 else 0.72
    parts.append(_heart(fold, jewel, next(dice)))
    return Markup("".join(parts))


def sigil_file(seed: str, level: int) -> str:
    """The same picture as an SVG file."""
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-120 -120 240 240" fill="none">{sigil(seed, level)}</svg>'


def _dice(seed: str) -> Iterator[int]:
    """Bytes without end, from the seed alone."""
    block = hashlib.sha256(seed.encode()).digest()
    while True:
        yield from block
        block = hashlib.sha256(block).digest()


def _at(angle: float, radius: float) -> str:
    return f"{radius * math.sin(angle):.1f} {-radius * math.cos(angle):.1f}"


def _turns(count: int) -> list[float]:
    return [2 * math.pi * place / count for place in range(count)]


def _path(d: str, width: float = 1.2, more: str = "") -> str:
    return f'<path d="{d}" stroke-width="{width:g}"{more}/>'


def _circle(radius: float, width: float, more: str = "") -> str:
    return f'<circle r="{radius:.1f}" stroke-width="{width:g}"{more}/>'


def _frame(fold: int, layers: int, jewel: str) -> str:
    """Two rings with marks between them; the marks are as many as the hero's layers allow."""
    marks = "".join(f"M{_at(angle, 101)}L{_at(angle, 106)}" for angle in _turns(fold * (2 + 2 * layers)))
    pearls = "".join(f"M{_at(angle, 112)}h0" for angle in _turns(fold))
    return (
        f'<g class="turning" stroke="{GOLD}">{_circle(109, 1.4)}{_circle(98, 0.8)}{_path(marks, 0.9)}'
        f'<path d="{pearls}" stroke="{jewel}" stroke-width="5" stroke-linecap="round"/></g>'
    )


def _ground(level: int, jewel: str) -> str:
    """The disc behind everything: gold from level 10 on, with the jewel's light from level 1000 on."""
    gold = f'<circle r="98" fill="{GOLD}" fill-opacity=".05"/>' if level >= 10 else ""
    light = "".join(f'<circle r="{radius}" fill="{jewel}" fill-opacity=".05"/>' for radius in (98, 78, 58, 38))
    return gold + (light if level >= 1000 else "")


def _crown(fold: int, level: int, jewel: str) -> str:
    """What stands around the frame: tips between the pearls from level 100 on, a chain of arcs in it from level 1000 on."""
    parts = []
    if level >= 100:
        half = math.pi / fold
        tips = "".join(
            f"M{_at(angle - half / 4.6, 110)}L{_at(angle, 119)}L{_at(angle + half / 4.6, 110)}Z"
            for angle in (turn + half for turn in _turns(fold))
        )
        parts.append(_path(tips, 0.9, f' stroke="{PALE}" fill="{GOLD}" fill-opacity=".55" stroke-linejoin="round"'))
    if level >= 1000:
        arcs, count = [], 4 * fold
        for place in range(count):
            begin, middle, end = (2 * math.pi * (place + part) / count for part in (0, 0.5, 1))
            arcs.append(f"M{_at(begin, 98)}Q{_at(middle, 86)} {_at(end, 98)}")
        parts.append(_path("".join(arcs), 0.9, f' stroke="{jewel}"'))
    return f'<g class="turning">{"".join(parts)}</g>' if parts else ""


def _petals(fold: int, reach: float, dice: Iterator[int]) -> str:
    wide = math.pi / fold * (0.55 + next(dice) % 5 / 10)
    inner = reach * 0.28
    d = "".join(
        f"M{_at(angle, inner)}Q{_at(angle - wide, reach * 0.72)} {_at(angle, reach)}"
        f"Q{_at(angle + wide, reach * 0.72)} {_at(angle, inner)}Z"
        for angle in _turns(fold)
    )
    return _path(d, 1.3, ' fill="#d9b45b" fill-opacity=".07"')


def _star(fold: int, reach: float, dice: Iterator[int]) -> str:
    stride = 2 + next(dice) % max(1, (fold - 1) // 2 - 1)
    angles = _turns(fold)
    d = "".join(f"M{_at(angles[place], reach)}L{_at(angles[(place + stride) % fold], reach)}" for place in range(fold))
    return _path(d, 1.3) + _circle(reach, 0.6, ' stroke-opacity=".6"')


def _rosette(fold: int, reach: float, dice: Iterator[int]) -> str:
    radius = reach * (0.42 + next(dice) % 4 / 40)
    centre = reach - radius
    places = [(centre * math.sin(angle), -centre * math.cos(angle)) for angle in _turns(fold)]
    return "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" stroke-width="1"/>' for x, y in places)


def _rays(fold: int, reach: float, dice: Iterator[int]) -> str:
    short = 0.72 + next(dice) % 3 / 20
    spread = math.pi / fold / 3
    d = "".join(
        f"M{_at(angle - spread, reach * short)}L{_at(angle, reach)}L{_at(angle + spread, reach * short)}"
        for angle in _turns(fold)
    )
    return _path(d, 1.3, ' stroke-linejoin="round"') + _circle(reach * short, 0.8)


def _beads(fold: int, reach: float, dice: Iterator[int]) -> str:
    count = fold * (2 + next(dice) % 2)
    d = "".join(f"M{_at(angle, reach * 0.94)}h0" for angle in _turns(count))
    return _circle(reach * 0.94, 0.7, ' stroke-opacity=".7"') + _path(d, 3.6, ' stroke-linecap="round"')


def _arches(fold: int, reach: float, dice: Iterator[int]) -> str:
    lift = reach * (1.05 + next(dice) % 3 / 10)
    half = math.pi / fold
    d = "".join(
        f"M{_at(angle - half, reach * 0.7)}Q{_at(angle, lift * 1.15)} {_at(angle + half, reach * 0.7)}"
        for angle in _turns(fold)
    )
    return _path(d, 1.3) + _circle(reach * 0.62, 0.7, ' stroke-opacity=".7"')


def _heart(fold: int, jewel: str, roll: int) -> str:
    corners = [_at(angle, 9.5 if place % 2 else 5.0 + roll % 3) for place, angle in enumerate(_turns(2 * fold))]
    return (
        f'<circle r="15" fill="#0d0b08" stroke="{GOLD}" stroke-width="1.2"/>'
        f'<path d="M{"L".join(corners)}Z" fill="{jewel}" stroke="{PALE}" stroke-width=".8"/>'
    )
