"""Tells from its first bytes what a file is that is no JSON Lines, and how to make it so; knows nothing about rows."""

import re

import orjson

HEAD_BYTES = 1 << 16
_MAGIC = (
    (b"\x1f\x8b", "is compressed (gzip); drop what `gunzip` makes of it"),
    (b"PK\x03\x04", "is compressed (zip); unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd); unpack it"),
    (b"\xfd7zXZ\0", "is compressed (xz); unpack it"),
    (b"BZh", "is compressed (bzip2); unpack it"),
    (b"7z\xbc\xaf", "is compressed (7z); unpack it"),
    (b"PAR1", "is a Parquet file; write its rows as JSON Lines"),
    (b"ARROW1", "is an Arrow file; write its rows as JSON Lines"),
    (b"SQLite format 3\0", "is an SQLite database; write its rows as JSON Lines"),
    (b"\x89PNG", "is a PNG image, no text"),
    (b"\xff\xd8\xff", "is a JPEG image, no text"),
    (b"GIF8", "is a GIF image, no text"),
    (b"%PDF", "is a PDF document; only text in rows can be trained"),
    (b"version https://git-lfs", "is a Git LFS pointer and not the data; `git lfs pull` fetches that"),
    (b"\xff\xfe", "is written in UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "is written in UTF-16; save it as UTF-8"),
)
_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)


def other_kind(head: bytes) -> str | None:
    """What a file that begins with `head` is instead of JSON Lines, and the remedy; None where that cannot be told."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return f"the file {kind}"
    if not any(head[:4096]):
        return "the file begins with nothing but NUL bytes, as after a copy that failed; copy it again"
    if head[:1] == b"\0" or head[1:2] == b"\0":
        return "the file is written in UTF-16; save it as UTF-8"
    if _PAGE.match(head):
        return "the file is an HTML page or XML and not the data, as after a download that failed"
    return _other_text(head.removeprefix(b"\xef\xbb\xbf").lstrip())


def _other_text(text: bytes) -> str | None:
    first, _, rest = text.partition(b"\n")
    if first.startswith(b"[") and not (_is_json(first) and rest.strip()):
        return "the file is one JSON array; rename it to .json and give it to `quest add`, which takes arrays"
    if first.startswith(b"{") and first.rstrip().endswith((b"{", b"[", b",")) and not _is_json(first):
        return "the file is JSON written over many lines; write each row on one line (`jq -c . FILE` does)"
    if b"\r" in first.rstrip(b"\r") and not rest:
        return "the file ends its lines with CR alone; end them with LF, as JSON Lines has it"
    second = rest.partition(b"\n")[0]
    for mark, name in ((b",", "CSV"), (b"\t", "tab-separated values"), (b";", "CSV with semicolons")):
        if first[:1] not in b"{[\"'" and 1 <= first.count(mark) <= second.count(mark):
            return f"the file looks like {name}; write each row as a JSON object on one line"
    return None


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
