"""A model folder from elsewhere: nothing in it runs, and what cannot be a hero is refused with its name and a remedy."""

import ast
import json
import os
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from model_folders import weights, write_model

from core.hero import base_models
from core.model_folder import problem
from core.paths import BUNDLED_TOKENIZER, CHECKOUT

OWN_TEMPLATE = (BUNDLED_TOKENIZER / "chat_template.jinja").read_text(encoding="utf-8")


class Canary:
    """Pickled, it makes a file wherever it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / "model")


def edit(folder: Path, file: str, **values) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def header(folder: Path, length: int, text: bytes) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + text)


def index(folder: Path, name) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))


def linked(folder: Path, name: str) -> None:
    outside = folder.parent / f"outside-{name}"
    os.rename(folder / name, outside)
    (folder / name).symlink_to(outside)


def cut_off(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 300_000)


def lacking(folder: Path) -> None:
    from safetensors.numpy import save_file

    tensors = weights()
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def piped(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def template(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text)


REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "auto_map": (lambda at: edit(at, "config.json", auto_map={"AutoModel": "evil.Evil"}), ("auto_map", "code", "refused")),
    "attention": (lambda at: edit(at, "config.json", _attn_implementation_internal="evil/kernel"), ("_attn_implementation",)),
    "trust": (lambda at: edit(at, "config.json", trust_remote_code=True), ("trust_remote_code",)),
    "tokenizer code": (lambda at: edit(at, "tokenizer_config.json", auto_map={"AutoTokenizer": "a.B"}), ("tokenizer_config.json",)),
    "quantized": (lambda at: edit(at, "config.json", quantization_config={"quant_method": "x"}), ("quantization_config",)),
    "program": (lambda at: (at / "modeling_evil.py").write_text("1/0"), ("modeling_evil.py", "remove it")),
    "adapter": (lambda at: (at / "adapter_config.json").write_text("{}"), ("adapter", "merge")),
    "layers": (lambda at: edit(at, "config.json", num_hidden_layers=10**9), ("num_hidden_layers = 1000000000", "1 to 1,024", "own config")),
    "negative": (lambda at: edit(at, "config.json", hidden_size=-32), ("hidden_size = -32", "whole number")),
    "text": (lambda at: edit(at, "config.json", intermediate_size="64"), ("intermediate_size = '64'",)),
    "heads": (lambda at: edit(at, "config.json", num_attention_heads=3, num_key_value_heads=2), ("must divide num_attention_heads = 3",)),
    "theta": (lambda at: edit(at, "config.json", rope_theta=-1), ("rope_theta = -1",)),
    "vocabulary": (lambda at: edit(at, "config.json", vocab_size=5000), ("embed_tokens.weight has the shape [4096, 32]", "[5000, 32]")),
    "no object": (lambda at: (at / "config.json").write_text("[" * 100_000), ("config.json is not JSON",)),
    "huge config": (lambda at: (at / "config.json").write_text(" " * (2 << 20)), ("config.json is larger than 1 MiB",)),
    "config elsewhere": (lambda at: linked(at, "config.json"), ("config.json is a symbolic link", "cp -L")),
    "weights elsewhere": (lambda at: linked(at, "model.safetensors"), ("model.safetensors is a symbolic link",)),
    "tokenizer elsewhere": (lambda at: linked(at, "tokenizer.json"), ("tokenizer.json is a symbolic link",)),
    "pipe": (lambda at: piped(at, "config.json"), ("config.json is a pipe",)),
    "no weights": (lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"), ("no model.safetensors", "never loaded")),
    "header bomb": (lambda at: header(at, 1 << 62, b"{}"), ("cut off or no safetensors",)),
    "header garbage": (lambda at: header(at, 2, b"[]"), ("no safetensors file",)),
    "cut off": (cut_off, ("cut off", "copy it again")),
    "lacking": (lacking, ("lack layers.1.mlp.up_proj.weight",)),
    "index outside": (lambda at: index(at, "../outside.safetensors"), ("'../outside.safetensors'", "own folder")),
    "index to anything": (lambda at: index(at, "/etc/hostname"), ("own folder",)),
    "index to nothing": (lambda at: index(at, "gone.safetensors"), ("cannot be read", "gone.safetensors")),
    "index of numbers": (lambda at: index(at, 7), ("own folder",)),
    "no template": (lambda at: (at / "chat_template.jinja").unlink(), ("no chat template",)),
    "endless template": (lambda at: template(at, "{% for a in range(10**12) %}x{% endfor %}"), ("Range too big",)),
    "many loops": (lambda at: template(at, "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"), ("an end",)),
    "template of a terabyte": (lambda at: template(at, "{{ 'x' | center(10**12) }}"), ("chat template", "take")),
    "template of many gigabytes": (lambda at: template(at, "{{ '%999999999999d' % 1 }}"), ("chat template", "take")),
    "template that reaches out": (
        lambda at: template(at, "{{ ''.__class__.__mro__[1].__subclasses__() }}" + OWN_TEMPLATE), ("unsafe",)),
    "template that imports": (lambda at: template(at, "{{ cycler.__init__.__globals__.os.mkdir('canary') }}"), ("unsafe",)),
    "template that says nothing": (lambda at: template(at, "hello"), ("chat template",)),
}  # fmt: skip


def test_a_model_as_it_should_be_can_be_a_hero(model):
    assert problem(model) is None


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_could_do_harm_or_cannot_be_trained_is_refused_with_the_reason(model, name):
    spoil, says = REFUSED[name]
    spoil(model)
    began = time.monotonic()
    found = problem(model)
    assert found and all(word in found for word in says), found
    assert len(found) < 500 and not (CHECKOUT / "canary").exists()
    assert time.monotonic() - began < 30, "most of it is starting Python on a busy machine"


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = write_model(tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 4096, "content": "<|other|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "token number 4,096" in problem(folder) and "vocab_size = 4096" in problem(folder).replace(",", "")


def test_a_folder_is_judged_anew_after_it_was_mended(model):
    (model / "evil.py").write_text("")
    assert "evil.py" in problem(model)
    (model / "evil.py").unlink()
    assert problem(model) is None


def hatched(root: Path, **environment) -> subprocess.CompletedProcess:
    """`hero hatch` in a process that has no network: whoever asks for it ends it."""
    guard = (
        "import os, socket, sys\n"
        "def no(*_, **__): os._exit(99)\n"
        "socket.socket.connect = socket.getaddrinfo = no\n"
        "from training.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "assert os.environ.get('HF_HUB_OFFLINE') == '1' and 'huggingface_hub' in sys.modules\n"
        "import huggingface_hub.constants as hub\n"
        "assert hub.HF_HUB_OFFLINE\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", guard, "--root", str(root), "hero", "hatch"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)


def test_planted_pickles_are_named_never_read_and_stay_silent_while_a_hero_hatches(realm):
    folder, fired = write_model(realm.models / "Tiny"), realm.root / "fired"
    realm.config.write_text("{}")
    planted = ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "scheduler.pkl", ".metadata"]
    for name in planted:
        (folder / name).write_bytes(pickle.dumps(Canary(fired)))
    done = hatched(realm.root)
    assert done.returncode == 0, done.stderr
    assert base_models(realm)[0]["never_read"] == sorted(planted)
    assert not fired.exists()
    saved = {path.name for path in realm.current_model.iterdir()}
    assert saved >= {"model.safetensors", "config.json", "tokenizer.json"} and not saved & set(planted)
    pickle.loads((folder / planted[0]).read_bytes())
    assert fired.exists(), "the canary does sing"


def test_weights_that_are_no_numbers_or_nothing_but_zeros_are_refused_at_hatching(tmp_path):
    from core.errors import UserError
    from core.forge.hatch import imported_hero

    assert imported_hero(write_model(tmp_path / "good"))
    not_a_number = weights()
    not_a_number["model.layers.1.mlp.down_proj.weight"][3, 5] = np.nan
    with pytest.raises(UserError, match=r"models/nan: model\.layers\.1\.mlp\.down_proj\.weight holds NaN"):
        imported_hero(write_model(tmp_path / "nan", not_a_number))
    zeros = {name: np.zeros_like(tensor) for name, tensor in weights().items()}
    with pytest.raises(UserError, match=r"nothing but zeros, .*copy the model again"):
        imported_hero(write_model(tmp_path / "zeros", zeros))
    deeper = {name: tensor * ("layers.1.self_attn.o_proj" not in name) for name, tensor in weights().items()}
    assert imported_hero(write_model(tmp_path / "deeper", deeper)), "a layer that was added begins with zeros"


def unsafe_calls(source: str) -> list[str]:
    """The calls and imports in `source` that could run what a file says, each as it is written."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [
                name
                for name in names
                if name.split(".")[0] in ("pickle", "cPickle", "dill", "joblib", "shelve", "marshal")
            ]
        elif isinstance(node, ast.Call):
            name, keys = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
            loads = name in (
                "torch.load",
                "yaml.load",
                "yaml.unsafe_load",
                "eval",
                "exec",
                "__import__",
                "torch.hub.load",
            )
            pickled = keys.get("allow_pickle", "False") != "False" or keys.get("trust_remote_code", "False") != "False"
            bare = name.endswith("from_pretrained") and keys.get("use_safetensors") != "True"
            found += [ast.unparse(node)] if loads or pickled or bare else []
    return found


def test_nothing_in_the_product_loads_what_could_run():
    rooms = ("core", "safety", "management", "monitoring", "training")
    sources = {
        path: path.read_text()
        for room in rooms
        for path in (CHECKOUT / room).rglob("*.py")
        if "bench" not in path.parts
    }
    found = {path.name: calls for path, source in sources.items() if (calls := unsafe_calls(source))}
    assert found == {}
    planted = "import pickle\ntorch.load(f)\nnp.load(f, allow_pickle=True)\nA.from_pretrained(f)\nexec(f)"
    assert len(unsafe_calls(planted)) == 5
