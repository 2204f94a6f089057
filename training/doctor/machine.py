"""Checks of the machine and the installation: Python, packages, SQLite, memory, GPU, inotify. Knows no realm."""

import ctypes
import os
import platform
import re
import sqlite3
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from core.ledger import SAFE_WAL
from core.machine import BF16_FLAGS, compiler, cpu_flags
from core.memory_needs import CPU, CUDA
from core.paths import CHECKOUT
from monitoring.gpu import read_gpus
from training.doctor.case import Case, Finding, bad, look, ok
from training.terminal import bytes_text

REQUIREMENTS = CHECKOUT / "requirements.txt"
BOOTSTRAP = "`bash scripts/bootstrap_dev.sh` installs what is pinned"
MEMORY_BYTES = 2 << 30
OLDEST_PYTHON = (3, 11)


def python(case: Case) -> Iterator[Finding]:
    version = platform.python_version()
    if tuple(map(int, version.split(".")[:2])) >= OLDEST_PYTHON:
        yield ok("python", f"Python {version}")
    else:
        yield bad("python", f"Python {version} is too old", "install Python 3.11 or newer")


def packages(case: Case) -> Iterator[Finding]:
    if not REQUIREMENTS.exists():
        yield look("packages", "requirements.txt is missing, versions are unknown", "restore it from the repository")
        return
    wanted = re.findall(r"^([\w.-]+)==([\w.]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    found = {name: _version(name) for name, _ in wanted}
    missing = [name for name, version in found.items() if version is None]
    other = [f"{name} {found[name]} (pinned {pin})" for name, pin in wanted if found[name] not in (None, pin)]
    if missing:
        yield bad("packages", f"not installed: {', '.join(missing)}", BOOTSTRAP)
    if other:
        yield look("packages", f"other versions than tested: {', '.join(other)}", BOOTSTRAP)
    if not missing and not other:
        yield ok("packages", f"{len(wanted)} packages as pinned")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def sqlite(case: Case) -> Iterator[Finding]:
    bug = "rollback journal (its write-ahead log has a bug)"
    journal = "write-ahead log" if sqlite3.sqlite_version_info >= SAFE_WAL else bug
    yield ok("sqlite", f"SQLite {sqlite3.sqlite_version}, {journal}")


def memory(case: Case) -> Iterator[Finding]:
    facts = psutil.virtual_memory()
    text = f"{bytes_text(facts.available)} of {bytes_text(facts.total)} memory available"
    if facts.available < MEMORY_BYTES:
        yield look("memory", text, f"a micro hero wants {bytes_text(MEMORY_BYTES)}; close something")
    else:
        yield ok("memory", text)


def gpu(case: Case) -> Iterator[Finding]:
    """Without importing torch: its version.py says what the build was made for."""
    cards = ", ".join(str(card["name"]) for card in read_gpus())
    device = cards or Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()
    cuda = _torch_cuda()
    if not device:
        yield ok("gpu", "no NVIDIA GPU; training is on the CPU")
    elif not cards:
        yield look("gpu", "an NVIDIA GPU is there, its driver is silent", "repair it until `nvidia-smi` lists the GPU")
    elif cuda is None:
        yield look(
            "gpu",
            f"{cards} is there, but torch is a build without CUDA, so training is on the CPU",
            "install the CUDA build of the pinned torch into .venv",
        )
    else:
        yield ok("gpu", f"{cards}; torch for CUDA {cuda}")


def kernels(case: Case) -> Iterator[Finding]:
    """What the forge has for its kernels here."""
    on_gpu = bool(_torch_cuda() and read_gpus())
    found = compiler(CUDA if on_gpu else CPU)
    bf16 = "bf16 at full speed" if BF16_FLAGS & cpu_flags() else "no fast bf16"
    here = "packs go through torch's variable-length attention" if on_gpu else f"the processor has {bf16}"
    if found:
        yield ok("kernels", f"long battles are compiled ({Path(found).name}); {here}")
    else:
        yield look(
            "kernels",
            f"nothing to compile with, long battles run a tenth to a third slower; {here}",
            "install g++ (a GPU needs triton and a C compiler)",
        )


def _torch_cuda() -> str | None:
    try:
        facts = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, FileNotFoundError):
        return None
    found = re.search(r"^cuda\b[^=]*= *['\"]([\d.]+)", facts, re.MULTILINE)
    return found[1] if found else None


def inotify(case: Case) -> Iterator[Finding]:
    descriptor = ctypes.CDLL(None, use_errno=True).inotify_init1(0)
    if descriptor < 0:
        yield bad(
            "inotify",
            f"no inotify instance to be had: {os.strerror(ctypes.get_errno())}",
            "raise the limit: sysctl fs.inotify.max_user_instances=512",
        )
        return
    os.close(descriptor)
    yield ok("inotify", "file events can be heard")
