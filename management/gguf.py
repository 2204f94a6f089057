"""A model folder for llama.cpp and Ollama, made by llama.cpp's own converter where there is one. It knows no torch.

The converter is a script of llama.cpp's repository, `convert_hf_to_gguf.py`. It is found through LLAMA_CPP (that
repository's folder, or the script) or on PATH, and what it says is passed on.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from core.errors import RealmError, UserError

SCRIPT = "convert_hf_to_gguf.py"
TYPES = {"bf16": "bf16", "fp16": "f16", "fp32": "f32", None: "auto"}
MODELFILE = "Modelfile"
CHAT_MARK = "<|im_start|>"
TEMPLATE = """TEMPLATE \"\"\"{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
\"\"\"
PARAMETER stop <|im_end|>
"""


def converter() -> Path:
    """The script. Raises UserError where there is none."""
    given = os.environ.get("LLAMA_CPP")
    if given:
        path = Path(given).expanduser()
        script = path / SCRIPT if path.is_dir() else path
        if not script.is_file():
            raise UserError(f"LLAMA_CPP = {given!r} holds no {SCRIPT}; set it to a checkout of llama.cpp")
        return script.absolute()
    if found := shutil.which(SCRIPT):
        return Path(found).absolute()
    raise UserError(
        f"a GGUF file is made by llama.cpp's {SCRIPT}, which is neither on PATH nor named by LLAMA_CPP. "
        "Get llama.cpp, set LLAMA_CPP to its folder, and export again; without --gguf the folder is safetensors only."
    )


def convert(script: Path, folder: Path, name: str, dtype: str | None) -> Path:
    """`name`.gguf in `folder`, from the model there, and a Modelfile for `ollama create`. Raises RealmError."""
    target = folder / f"{name}.gguf"
    command = [sys.executable, str(script), str(folder), "--outfile", str(target), "--outtype", TYPES[dtype]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode or not target.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RealmError(f"{SCRIPT} made no GGUF file: {said[-1] if said else f'it ended with {done.returncode}'}")
    (folder / MODELFILE).write_text(_modelfile(folder, target.name), encoding="utf-8")
    return target


def _modelfile(folder: Path, weights: str) -> str:
    """ChatML is spelled out in Ollama's own template language; another chat format is left to what the GGUF file says."""
    template = folder / "chat_template.jinja"
    chat = template.is_file() and CHAT_MARK in template.read_text(encoding="utf-8")
    return f"FROM ./{weights}\n" + (TEMPLATE if chat else "")
