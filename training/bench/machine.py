"""What a bench ran on: processor, memory, GPUs, versions. Asked of the interpreter that the contestants use."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import orjson
import psutil

from monitoring.gpu import read_gpus

PACKAGES = ("torch", "transformers", "accelerate", "trl", "datasets", "tokenizers", "numpy")
_ASK = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def describe_machine(threads: int) -> dict[str, Any]:
    """Without anything that tells one machine from another of its kind."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [gpu["name"] for gpu in read_gpus()],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    fields = dict(re.findall(r"^(model name|cpu family|model|flags)\s*: (.*)$", text, re.MULTILINE))
    if not fields:
        return platform.processor() or platform.machine()
    flags = set(fields.get("flags", "").split())
    vector = next((name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags), "")
    named = f"{fields.get('model name', 'unknown')} (family {fields.get('cpu family')}, model {fields.get('model')})"
    return f"{named}, {vector}" if vector else named


def versions(python: str) -> dict[str, str]:
    """Of what `python` would import, and its own."""
    return {"python": platform.python_version(), **_ask(python, PACKAGES)}


def installed(python: str, packages: set[str]) -> set[str]:
    """Those of `packages` that are there for `python`."""
    return set(_ask(python, sorted(packages)))


def _ask(python: str, names) -> dict[str, str]:
    done = subprocess.run([python, "-c", _ASK, *names], capture_output=True, check=True)
    return orjson.loads(done.stdout)
