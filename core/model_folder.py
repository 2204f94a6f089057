"""Whether a model folder that somebody brought can be a hero, found out without torch and without loading a weight.

A folder from elsewhere is a stranger's: nothing in it is run, its config.json reaches transformers only by the keys below,
its weights are safetensors files of the folder itself whose tensors have the shapes that the config says, and its chat
template was proven in a process with limits (core/template_proof.py).
"""

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from core.errors import UserError
from core.regular_file import open_regular, other_kind_of
from core.template_proof import prove
from core.weights_header import INDEX, Shapes, shapes

CONFIG = "config.json"
JSON_BYTES = 1 << 20
TOKENIZER_BYTES = 64 << 20
RUNS = (".py", ".pyc", ".pyo", ".so")  # what no model needs that is data only
NEVER_READ = (
    ".bin",
    ".pt",
    ".pth",
    ".pkl",
    ".pickle",
    ".ckpt",
    ".joblib",
    ".npy",
    ".npz",
    ".h5",
    ".msgpack",
    ".gguf",
    ".distcp",
    ".metadata",
)
EXECUTE = {  # keys with which a config.json, generation_config.json or tokenizer_config.json has code fetched or run
    "auto_map", "trust_remote_code", "custom_generate", "custom_pipelines", "kernel_config", "use_kernels", "attn_implementation",
    "_attn_implementation", "_attn_implementation_internal", "experts_implementation", "_experts_implementation",
    "_experts_implementation_internal",
}  # fmt: skip
WHOLE = {  # whole numbers, each with the most it may be
    "vocab_size": 4_000_000, "hidden_size": 65_536, "intermediate_size": 1_000_000, "num_hidden_layers": 1_024,
    "num_attention_heads": 1_024, "num_key_value_heads": 1_024, "head_dim": 4_096, "max_position_embeddings": 100_000_000,
}  # fmt: skip
NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
NUMBERS = {"rms_norm_eps": 1.0, "initializer_range": 1_000.0, "rope_theta": 1e15, "attention_dropout": 1.0}
SWITCHES = ("tie_word_embeddings", "attention_bias", "use_sliding_window")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
ACTIVATIONS = ("silu", "gelu", "gelu_new", "relu")
PLAIN = ("sliding_window", "max_window_layers", "layer_types", "rope_parameters", "rope_scaling")
SOURCE = "take the base model's own config.json"


def problem(folder: Path) -> str | None:
    """Why the model in `folder` cannot be a hero, with the remedy; None where it can. Asked again only after a change."""
    try:
        facts = tuple((entry.name, *_facts(entry.stat(follow_symlinks=False))) for entry in _entries(folder))
    except OSError as wrong:
        return f"it cannot be read: {wrong.strerror}"
    return _problem(folder, facts)


def never_read(folder: Path) -> list[str]:
    """The files of kinds that can run code when they are loaded, or are of no use here: they lie there and are not read."""
    return [entry.name for entry in _entries(folder) if entry.name.lower().endswith(NEVER_READ)]


def model_type(folder: Path) -> str | None:
    """What the model says that it is, None where it says nothing that can be read."""
    try:
        named = _object(folder / CONFIG).get("model_type")
    except (UserError, OSError):
        return None
    return named[:40] if isinstance(named, str) else None


def config_values(folder: Path) -> dict[str, Any]:
    """The settings of the model's config.json that reach transformers, each checked. Raises UserError."""
    values = _object(folder / CONFIG)
    if values.get("model_type") != "qwen3":
        raise UserError(f"model_type is {str(values.get('model_type'))[:40]!r}; a hero is a qwen3 model")
    _refuse_code(CONFIG, values)
    if values.get("quantization_config"):
        raise UserError(
            f"{CONFIG}: quantization_config says that its weights are quantized; take the model as it was before"
        )
    for key in NEEDED:
        if key not in values:
            raise UserError(f"{CONFIG}: {key} is missing; {SOURCE}")
    kept = {key: value for key, value in values.items() if _is_checked(key, value)}
    heads, sharing = kept["num_attention_heads"], kept.get("num_key_value_heads", kept["num_attention_heads"])
    if heads % sharing:
        raise UserError(
            f"{CONFIG}: num_key_value_heads = {sharing} must divide num_attention_heads = {heads}; {SOURCE}"
        )
    return kept | {"num_key_value_heads": sharing, "head_dim": kept.get("head_dim", 128)}


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    return iter(sorted(os.scandir(folder), key=lambda entry: entry.name))


def _facts(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ino


@lru_cache(maxsize=64)
def _problem(folder: Path, entries: tuple[tuple, ...]) -> str | None:
    try:
        for name, mode, size, *_ in entries:
            _check_file(name, mode, size)
        values = config_values(folder)
        for name in ("generation_config.json", "tokenizer_config.json"):
            if (folder / name).exists():
                _refuse_code(name, _object(folder / name, TOKENIZER_BYTES))
        _check_shapes(values, shapes(folder))
        if not (folder / "tokenizer.json").is_file():
            return "it has no tokenizer.json"
    except UserError as wrong:
        return str(wrong)
    except OSError as wrong:
        return f"it cannot be read: {Path(str(wrong.filename)).name}: {wrong.strerror}"
    return prove(folder, values["vocab_size"])


def _check_file(name: str, mode: int, size: int) -> None:
    """Refuse what runs, and links and pipes in the place of files that are read."""
    read = name.endswith((".json", ".safetensors", ".jinja", ".txt"))
    if name.lower().endswith(RUNS):
        raise UserError(f"{name} is a program, and no model needs one; remove it")
    if name == "adapter_config.json":
        raise UserError(f"{name} says that it is an adapter; merge it into its model first")
    if read and (kind := other_kind_of(mode)):
        raise UserError(f"{name} {kind}; put the file itself there (`cp -L` copies what a link leads to)")
    if stat.S_ISREG(mode) and read and not name.endswith((".safetensors", INDEX)) and size > TOKENIZER_BYTES:
        raise UserError(f"{name} is larger than {TOKENIZER_BYTES >> 20} MiB; copy it from the model's source again")


def _object(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path.name} is larger than {most >> 20} MiB; copy it from the model's source again")
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError as wrong:
        raise UserError(f"{path.name} is not JSON: {wrong}; copy it from the model's source again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path.name} is no JSON object; copy it from the model's source again")
    return values


def _refuse_code(name: str, values: dict[str, Any]) -> None:
    if named := sorted(key for key in EXECUTE & values.keys() if values[key] not in (None, False)):
        raise UserError(f"{name} names code to be run ({', '.join(named)}); such models are refused")


def _is_checked(key: str, value: Any) -> bool:
    """Whether transformers is to hear of `key`. Raises UserError for a value that it cannot have."""
    if key in WHOLE:
        if type(value) is not int or not 1 <= value <= WHOLE[key]:
            raise UserError(
                f"{CONFIG}: {key} = {_short(value)} must be a whole number from 1 to {WHOLE[key]:,}; {SOURCE}"
            )
    elif key in NUMBERS:
        if type(value) not in (int, float) or not 0 <= value <= NUMBERS[key]:
            raise UserError(f"{CONFIG}: {key} = {_short(value)} must be a number from 0 to {NUMBERS[key]:g}; {SOURCE}")
    elif key in SWITCHES:
        if type(value) is not bool:
            raise UserError(f"{CONFIG}: {key} = {_short(value)} must be true or false; {SOURCE}")
    elif key == "hidden_act":
        if value not in ACTIVATIONS:
            raise UserError(f"{CONFIG}: hidden_act = {_short(value)} must be one of {', '.join(ACTIVATIONS)}; {SOURCE}")
    elif key in TOKENS:
        ids = value if isinstance(value, list) else [value]
        if value is not None and not all(type(each) is int and 0 <= each <= WHOLE["vocab_size"] for each in ids):
            raise UserError(f"{CONFIG}: {key} = {_short(value)} must be a token's number; {SOURCE}")
    return key in (*WHOLE, *NUMBERS, *SWITCHES, *TOKENS, *PLAIN, "hidden_act")


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


def _check_shapes(values: dict[str, Any], found: Shapes) -> None:
    """Refuse weights of other shapes than the config says, or that are not all there: transformers would make some up."""
    found = {name.removeprefix("model."): shape for name, shape in found.items()}
    for name, shape in _expected(values):
        if name not in found:
            raise UserError(f"its weights lack {name}, which {CONFIG} asks for; copy the model again, whole")
        if found[name] != shape:
            raise UserError(
                f"{name} has the shape {list(found[name])}, and {CONFIG} asks for {list(shape)}: they do not belong together"
            )


def _expected(values: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every matrix of a Qwen3, and of its norms."""
    hidden, inner, head = values["hidden_size"], values["intermediate_size"], values["head_dim"]
    query, key = values["num_attention_heads"] * head, values["num_key_value_heads"] * head
    yield "embed_tokens.weight", (values["vocab_size"], hidden)
    if not values.get("tie_word_embeddings", False):
        yield "lm_head.weight", (values["vocab_size"], hidden)
    yield "norm.weight", (hidden,)
    layer = {
        "self_attn.q_proj": (query, hidden), "self_attn.k_proj": (key, hidden), "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query), "self_attn.q_norm": (head,), "self_attn.k_norm": (head,),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    for number in range(values["num_hidden_layers"]):
        for name, shape in layer.items():
            yield f"layers.{number}.{name}.weight", shape
