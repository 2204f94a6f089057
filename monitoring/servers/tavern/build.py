"""What this Tavern's pages are made of, as one short text that changes with any of it. It knows nothing about the realm.

An open page compares it with its own, and fetches itself anew when the Tavern was updated under it.
"""

import hashlib
from pathlib import Path

HERE = Path(__file__).parent


def _digest() -> str:
    digest = hashlib.sha256()
    for folder in ("templates", "static"):
        for file in sorted(path for path in (HERE / folder).rglob("*") if path.is_file()):
            digest.update(f"{file.relative_to(HERE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


BUILD = _digest()
