"""An agent as a base model of the realm: a folder in Hugging Face layout that a hero can hatch from. It knows no training.

The tokenizer has a token for every byte, so any text can be written, and one for each letter the agent knows; around them
stand the marks and the chat template of the realm's own tokenizer. Letters keep the rows that they have learned, the agent's
beginning and end become the marks of a turn, and what the agent never saw gets small random rows.
"""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import save_file

from core.arena.agent import Agent
from core.arena.data import BEGIN, END, FIRST_LETTER
from core.arena.model import EMBEDDING_STD
from core.durable import sync_file, sync_folder
from core.errors import UserError
from core.hero import reserved
from core.model_folder import problem
from core.paths import BUNDLED_TOKENIZER, RealmPaths

MARKS = {"<|im_start|>": BEGIN, "<|im_end|>": END, "<|endoftext|>": END}


def promote(paths: RealmPaths, agent: Agent) -> Path:
    """Write models/NAME; the folder. Raises UserError where it is there, is a name of the realm's own, or would be refused."""
    folder = paths.models / agent.record.name
    if reserved(folder.name):
        raise UserError(f"models/{folder.name} means something else to the realm; create an agent of another name")
    if os.path.lexists(folder):
        raise UserError(f"models/{folder.name} is there already; move it away to promote {folder.name} anew")
    paths.models.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    beside.mkdir()
    try:
        _write(beside, agent)
        if wrong := problem(beside):
            raise UserError(f"{folder.name} cannot be promoted: {wrong}")
        for path in beside.iterdir():
            sync_file(path)
        os.rename(beside, folder)
        sync_folder(paths.models)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _write(folder: Path, agent: Agent) -> None:
    tokenizer, rows = _tokenizer(agent.alphabet.letters)
    marks = {mark["content"]: mark["id"] for mark in tokenizer["added_tokens"]}
    vocabulary = len(tokenizer["model"]["vocab"]) + len(marks)
    weights = {name: weight.detach().cpu().clone() for name, weight in agent.model.named_parameters()}
    if not all(torch.isfinite(weight).all() for weight in weights.values()):
        raise UserError(f"{agent.record.name} holds NaN or infinity; `load` a saved state before it is promoted")
    name = "model.embed_tokens.weight"
    weights[name] = _embedding(weights[name], vocabulary, rows | {marks[mark]: row for mark, row in MARKS.items()})
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "attention_bias": False,
        "dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": marks["<|im_end|>"],
        "pad_token_id": marks["<|endoftext|>"],
        **agent.record.shape.config(vocabulary),
    }
    (folder / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
    (folder / "tokenizer.json").write_bytes(orjson.dumps(tokenizer))
    for file in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BUNDLED_TOKENIZER / file, folder / file)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _tokenizer(letters: str) -> tuple[dict[str, Any], dict[int, int]]:
    """The realm's tokenizer with bytes and `letters` for words; and which of its tokens are which of the agent's."""
    tokenizer = orjson.loads((BUNDLED_TOKENIZER / "tokenizer.json").read_bytes())
    spelled = _byte_characters()
    vocabulary = {character: number for number, character in enumerate(sorted(spelled))}
    merges, rows = [], {}
    for place, letter in enumerate(letters):
        first, *others = (spelled[byte] for byte in letter.encode())
        for other in others:  # a letter of several bytes is put together from the left
            if first + other not in vocabulary:
                merges.append([first, other])
                vocabulary[first + other] = len(vocabulary)
            first += other
        rows[vocabulary[first]] = place + FIRST_LETTER
    tokenizer["model"] |= {"vocab": vocabulary, "merges": merges}
    for number, mark in enumerate(tokenizer["added_tokens"]):
        mark["id"] = len(vocabulary) + number
    return tokenizer, rows


def _byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level tokenizer: itself where it can be seen, others from 256 on (GPT-2,
    Radford et al. 2019)."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    shown = {byte: chr(byte) for byte in seen} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return [shown[byte] for byte in range(256)]


def _embedding(learned: torch.Tensor, vocabulary: int, rows: dict[int, int]) -> torch.Tensor:
    """An embedding of so many tokens, of which `rows` tells the rows that were learned."""
    draw = torch.Generator().manual_seed(0)
    grown = torch.randn(vocabulary, learned.shape[1], generator=draw) * EMBEDDING_STD
    for token, row in rows.items():
        grown[token] = learned[row]
    return grown
