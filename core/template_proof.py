"""Proves in a process with limits that a stranger's tokenizer and chat template can be used before anybody else loads them.

The template writes a few short conversations there. One that runs for ever, wants all the memory or reaches for Python's
inside ends with that process. The parent's half is `prove`, the child's is `main`; it knows nothing about weights.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.paths import CHECKOUT

PROCESSOR_SECONDS = 4
MEMORY_BYTES = 2 << 30
PATIENCE_SECONDS = 60.0  # on a machine that is busy otherwise
SHOWN = 400
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
ADD = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
TOOLS = ({"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": ADD}},)
ASKED = {"role": "user", "content": "How much is one and two?"}
ANSWERED = {"role": "assistant", "content": "Three."}
CONVERSATIONS = (  # the first must be written; of the others a template may refuse what it does not know
    ((ASKED, ANSWERED), None),
    (({"role": "system", "content": "Be brief."}, ASKED, ANSWERED, ASKED, ANSWERED), None),
    ((ASKED, {**ANSWERED, "reasoning_content": "One and two are three."}), None),
    ((ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "3"}, ANSWERED), TOOLS),
)  # fmt: skip


def prove(folder: Path, vocab_size: int) -> str | None:
    """Why tokenizer and chat template in `folder` cannot be used with a vocabulary of that size, None where they can."""
    command = [sys.executable, "-m", "core.template_proof", str(folder), str(vocab_size)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1"}
    costly = (
        f"its chat template or tokenizer needs more than {PROCESSOR_SECONDS} s or {MEMORY_BYTES >> 30} GiB for a short "
        "conversation; take the base model's own chat_template.jinja"
    )
    try:
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return costly
    if done.returncode:
        return costly
    return done.stdout.decode(errors="replace")[:SHOWN].strip() or None


# The child's half


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for reason in _reasons(Path(sys.argv[1]), int(sys.argv[2])):
        print(reason)
        break
    return 0


def _reasons(folder: Path, vocab_size: int) -> Iterator[str]:
    """What speaks against them, the first thing first."""
    from core.rendering import Renderer
    from core.rows import BadRow, Conversation

    try:
        renderer = Renderer.load(folder, 4096)
    except UserError as wrong:
        yield str(wrong).removeprefix(f"{folder}: ")
        return
    highest = renderer.highest_id
    if highest >= vocab_size:
        yield (
            f"tokenizer.json has the token number {highest:,}, and config.json: vocab_size = {vocab_size:,} must be above "
            "it; take tokenizer and config from the same model"
        )
    for place, (messages, tools) in enumerate(CONVERSATIONS):
        (rendered,) = renderer.render([Conversation(messages, tools)])
        if isinstance(rendered, BadRow) and place == 0:
            yield f"its chat template does not write a question and its answer ({rendered.reason}); take the base model's own"


if __name__ == "__main__":
    sys.exit(main())
