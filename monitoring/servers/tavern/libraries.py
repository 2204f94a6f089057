"""Libraries for the browser that installed Python packages bring: found without importing them, served unchanged.

A file is served only if it is, byte for byte, what the library's makers published; without it a page shows what the
server drew. It knows nothing about what the libraries do.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


@dataclass(frozen=True)
class LibraryFile:
    """`path` in `package` holds the bytes with this SHA-256."""

    package: str
    path: str
    sha256: str

    def find(self) -> Path | None:
        try:
            file = Path(str(distribution(self.package).locate_file(self.path)))
            return file if hashlib.sha256(file.read_bytes()).hexdigest() == self.sha256 else None
        except (PackageNotFoundError, OSError):
            return None


# uPlot 1.6.31 (MIT), as its makers publish it.
LIBRARIES = {
    "lib/uplot.js": LibraryFile(
        "youplot",
        "youplot/vendor/uplot.iife.min.js",
        "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    ),
    "lib/uplot.css": LibraryFile(
        "youplot",
        "youplot/vendor/uplot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
}


def found() -> dict[str, Path]:
    """The files that are here and right, by their names below /static/."""
    return {name: path for name, file in LIBRARIES.items() if (path := file.find())}
