"""OpenAI's own client talks through the Tavern to `transformers serve`, a real server of somebody else's, until that is killed."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hostile_box import Tap
from model_folders import write_model
from processes import free_port
from tavern_realm import empty_realm
from tavern_server import tavern

from core.durable import write_json

openai = pytest.importorskip("openai")
START_SECONDS = 120


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """(process, port, model) of a `transformers serve` that answers with a tiny Qwen3."""
    folder = write_model(tmp_path_factory.mktemp("box") / "tiny", max_position_embeddings=4096)
    port = free_port()
    command = [Path(sys.executable).parent / "transformers", "serve", folder, "--port", str(port), "--device", "cpu"]
    home = {"HF_HOME": str(folder.parent / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env={**os.environ, **home}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, "transformers serve did not start"
            time.sleep(0.1)
        yield process, port, str(folder)
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def tap(box):
    tap = Tap(box[1])
    yield tap
    tap.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, box, tap):
    paths = empty_realm(tmp_path_factory.mktemp("realm"))
    write_json(paths.config, {"oracle": {"url": f"http://127.0.0.1:{tap.port}/v1", "model": box[2]}})
    with tavern(paths.root) as server:
        yield server


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def stream(client, tokens: int):
    ask = [{"role": "user", "content": "What is one and one?"}]
    return client.chat.completions.create(model="hero", messages=ask, max_tokens=tokens, stream=True)


def words(chunk) -> str:
    return chunk.choices[0].delta.content or "" if chunk.choices else ""


@pytest.mark.alone
def test_openais_client_streams_a_chat_and_hears_the_first_word_at_once(server, client, tap):
    assert [model.id for model in client.models.list()]
    late = []
    for _ in range(5):
        tap.words.clear()
        with stream(client, 8) as chunks:
            first = next(chunk for chunk in chunks if words(chunk))
            late.append(time.monotonic() - tap.words[0])
            rest = list(chunks)
        assert words(first) and rest[-1].choices[0].finish_reason in ("stop", "length")
    assert sorted(late)[2] <= 0.1, late
    whole = client.chat.completions.create(model="hero", messages=[{"role": "user", "content": "Hello"}], max_tokens=4)
    assert whole.choices[0].message.content


def test_a_box_that_is_killed_in_mid_sentence_ends_the_answer_and_not_the_tavern(server, client, box):
    with stream(client, 4000) as chunks:
        for _ in range(5):
            next(chunks)
        box[0].send_signal(signal.SIGKILL)
        with pytest.raises(openai.APIError, match=r"connection to The Oracle's box .* broke"):
            for _ in chunks:
                pass
    with pytest.raises(openai.InternalServerError, match=r"cannot be reached|broke"):
        stream(client, 5)
    assert answers(f"{server.url}/healthz")
