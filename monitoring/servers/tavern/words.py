"""How numbers, sizes and times are written on the pages, None as a dash; it knows nothing about what they mean."""

import math
import time

from core.logs import visible

NOTHING = "–"


def number(value: float | None) -> str:
    """12345 -> 12,345."""
    return NOTHING if value is None else f"{value:,.0f}"


def compact(value: float | None) -> str:
    """596049920 -> 596 M."""
    if value is None:
        return NOTHING
    for bound, sign in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= bound:
            scaled = value / (1e3 if sign == "k" else bound)
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {sign}"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"


def precise(value: float | None, digits: int = 4) -> str:
    """A loss or a norm: 2.3412; not-a-number stays visible."""
    if value is None:
        return NOTHING
    return f"{value:.{digits}f}" if math.isfinite(value) and abs(value) < 1000 else f"{value:.3g}"


def tiny(value: float | None) -> str:
    """A learning rate: 0.00098 -> 9.80e-4."""
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def percent(part: float | None, whole: float | None = 1) -> str:
    return NOTHING if part is None or not whole else f"{100 * part / whole:.0f} %"


def percent_points(value: float | None) -> str:
    """43.2 -> 43 %."""
    return NOTHING if value is None else f"{value:.0f} %"


def size(count: float | None) -> str:
    """Bytes in decimal units: 1234567 -> 1.2 MB."""
    if count is None:
        return NOTHING
    for bound, sign in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= bound:
            scaled = count / bound
            return f"{scaled:.{0 if scaled >= 100 else 1}f} {sign}"
    return f"{count:.0f} B"


def gib(count: float | None) -> str:
    """Bytes of memory: 1610612736 -> 1.50 GiB."""
    if count is None:
        return NOTHING
    return f"{count / (1 << 30):.2f} GiB" if count >= 100 << 20 else f"{count / (1 << 20):.1f} MiB"


def duration(seconds: float | None) -> str:
    """The two largest units: 8040 -> 2 h 14 min."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    whole = max(0, round(seconds))
    for unit, name, smaller, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name} {rest} {small_name}" if rest else f"{whole // unit} {name}"
    return f"{whole} s" if seconds >= 1 or seconds == 0 else "< 1 s"


def about(seconds: float | None) -> str:
    """An estimate: its largest unit only, with a half where that counts. 8040 -> about 2 h; nothing where nothing waits."""
    if not seconds or not math.isfinite(seconds):
        return NOTHING
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            count = round(2 * seconds / unit) / 2 if seconds < 4 * unit else round(seconds / unit)
            return f"about {count:g} {name}"
    return "less than a minute"


def ago(moment: float | None) -> str:
    """A time in seconds since the epoch as distance from now; live.js says the same in the browser."""
    if not moment:
        return NOTHING
    passed = time.time() - moment
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if passed >= unit:
            return f"{int(passed // unit)} {name} ago"
    return "just now" if passed < 5 else f"{int(passed)} s ago"


def stamp(moment: float | None) -> str:
    """ISO 8601 in UTC, for `datetime` attributes and titles."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment else ""


def shown(text: str) -> str:
    """A text from outside with every hidden character, but line ends and tabs, written as an escape."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


FILTERS = {
    "number": number,
    "compact": compact,
    "precise": precise,
    "tiny": tiny,
    "percent": percent,
    "size": size,
    "gib": gib,
    "duration": duration,
    "ago": ago,
    "shown": shown,
    "stamp": stamp,
}
