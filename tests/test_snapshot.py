"""The snapshot's files are the ones that plain saving writes, and a disk that lies is found out."""

import errno
import hashlib
import mmap
import os

import pytest
import torch

from core.direct_file import CHUNK, padded, write_compared
from core.forge import snapshot as snapshot_module
from core.forge import state
from core.forge.adamw import RealmAdamW
from core.forge.hatch import micro_hero
from core.forge.snapshot import Snapshot
from core.forge.state import load_state, save_model, save_state
from core.paths import BUNDLED_TOKENIZER


@pytest.fixture(scope="module")
def hero():
    return micro_hero(7)


def step(model, optimizer, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    optimizer.step()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("max_shard", ["5GB", "3MB"])
def test_a_snapshot_is_written_as_plain_saving_would_byte_for_byte(hero, tmp_path, monkeypatch, max_shard):
    monkeypatch.setattr(state, "MAX_SHARD", max_shard)
    monkeypatch.setattr(snapshot_module, "MAX_SHARD", max_shard)
    optimizer = torch.optim.AdamW(hero.parameters(), fused=True)
    step(hero, optimizer)
    save_model(hero, tmp_path / "plain", BUNDLED_TOKENIZER)
    save_state(tmp_path / "plain", optimizer)
    expected = contents(tmp_path / "plain")
    snapshot = Snapshot()
    snapshot.take(hero, optimizer)
    step(hero, optimizer, 2)  # training goes on
    (tmp_path / "ours").mkdir()
    sums = snapshot.write(tmp_path / "ours", BUNDLED_TOKENIZER)
    assert contents(tmp_path / "ours") == expected
    assert sums == {
        name: hashlib.sha256(data).hexdigest() for name, data in expected.items() if name.endswith(".safetensors")
    }


def test_the_second_snapshot_uses_the_memory_of_the_first_and_another_shape_gets_its_own(hero, tmp_path):
    optimizer, snapshot = torch.optim.AdamW(hero.parameters(), fused=True), Snapshot()
    snapshot.take(hero, optimizer)
    weights, before = snapshot._files["model.safetensors"], snapshot._files["optimizer.safetensors"]
    step(hero, optimizer)
    snapshot.take(hero, optimizer)
    after = snapshot._files["optimizer.safetensors"]
    assert snapshot._files["model.safetensors"] is weights and after is not before
    step(hero, optimizer)
    snapshot.take(hero, optimizer)
    assert snapshot._files["optimizer.safetensors"] is after


@pytest.mark.parametrize(("moments", "rounding"), [("8bit", "kahan"), ("bf16", "stochastic")])
def test_every_kind_of_optimizer_state_comes_back(tmp_path, moments, rounding):
    model = micro_hero(7).to(torch.bfloat16)
    optimizer, twin, snapshot = (
        RealmAdamW(model.parameters(), state=moments, rounding=rounding),
        RealmAdamW(model.parameters(), state=moments, rounding=rounding),
        Snapshot(),
    )
    step(model, optimizer)
    snapshot.take(model, optimizer)
    snapshot.write(tmp_path, BUNDLED_TOKENIZER)
    load_state(tmp_path, twin)
    for parameter in model.parameters():
        assert all(
            torch.equal(value, twin.state[parameter][name]) for name, value in optimizer.state[parameter].items()
        )
    written = contents(tmp_path)
    save_model(model, tmp_path / "plain", BUNDLED_TOKENIZER)
    assert contents(tmp_path / "plain").items() <= written.items()


# Files around the cache


def memory_of(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, padded(len(data)))
    memory[: len(data)] = data
    return memory


def refuse_direct(monkeypatch):
    opened = os.open

    def refuse(path, flags, *rest):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("length", [1, 4095, 4096, 4097, CHUNK, CHUNK + 1, 2 * CHUNK - 4095])
def test_a_file_of_any_length_is_written_as_it_is(tmp_path, monkeypatch, length, direct):
    if not direct:
        refuse_direct(monkeypatch)
    data = os.urandom(length)
    assert write_compared(tmp_path / "file", memory_of(data), length) == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("place", [0, 5000, CHUNK + 9])
def test_a_disk_that_keeps_other_bytes_is_found_out(tmp_path, monkeypatch, place):
    written = os.pwrite

    def lie(file, data, offset):
        data = bytearray(data)
        if offset <= place < offset + len(data):
            data[place - offset] ^= 1
        return written(file, memory_of(bytes(data)), offset)

    monkeypatch.setattr(os, "pwrite", lie)
    with pytest.raises(OSError, match="other bytes"):
        write_compared(tmp_path / "file", memory_of(os.urandom(CHUNK + 5000)), CHUNK + 5000)
