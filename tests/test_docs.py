"""The documents say what is: references are made from the code, links lead somewhere, the README's commands run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import free_port

from core.paths import CHECKOUT

PAGES = (
    "README.md",
    "QUICKSTART.md",
    "TROUBLESHOOTING.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/LOG.md",
    "docs/reference.md",
)


def test_the_reference_is_what_the_code_says():
    done = subprocess.run(
        [sys.executable, "scripts/make_docs.py", "--check"], cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.returncode == 0, "run: PYTHONPATH=. python scripts/make_docs.py"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_every_module_that_is_named_exists(page):
    text = (CHECKOUT / page).read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = re.findall(r"`((?:core|training|management|safety|monitoring|scripts|tests)/[\w/]+\.(?:py|sh|txt))`", text)
    base = (CHECKOUT / page).parent
    missing = [target for target in linked if not (base / target).exists()]
    missing += [name for name in named if "NAME" not in name and not (CHECKOUT / name).exists()]
    assert missing == []


def test_ci_runs_the_test_command_of_the_readme():
    assert "bash scripts/test.sh" in (CHECKOUT / "README.md").read_text()
    assert "exec bash scripts/test.sh" in (CHECKOUT / ".ci" / "run").read_text()


def test_the_repository_speaks_of_itself_alone():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout.split(
        b"\0"
    )
    pattern = re.compile(rb"(?<![\w.])/(?:work|farm|root|home/\w+)/|pypi\.org|files\.pythonhosted|registry\.npmjs")
    own = Path(__file__).name.encode()
    guilty = [
        name
        for name in listed
        if name
        and not name.endswith((b".png", own))
        and (CHECKOUT / os.fsdecode(name)).is_file()
        and pattern.search((CHECKOUT / os.fsdecode(name)).read_bytes())
    ]
    assert guilty == []


@pytest.fixture
def clone(tmp_path) -> Path:
    """The checkout's own files in another folder, with this environment and a free port."""
    target = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, listed)):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CHECKOUT / name, target / name)
    (target / ".venv").symlink_to(Path(sys.prefix))
    settings = json.loads((target / "config.json").read_text()) | {"tavern": {"port": free_port()}}
    (target / "config.json").write_text(json.dumps(settings))
    return target


def test_the_commands_of_the_readme_run_as_written(clone):
    rows = [{"question": f"What is {n} plus {n + 3}?", "answer": f"It is {2 * n + 3}."} for n in range(200)]
    (clone / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    blocks = re.findall(r"```bash\n(.*?)```", (clone / "README.md").read_text(), re.DOTALL)
    born = "for _ in $(seq 600); do [ -e models/current_model ] && break; sleep 0.1; done"
    script = "\n".join(["set -euo pipefail", "bash scripts/start.sh", born, *blocks])
    clean = {key: value for key, value in os.environ.items() if key != "REALM_ROOT"}
    done = subprocess.run(["bash", "-c", script], cwd=clone, env=clean, capture_output=True, text=True, timeout=200)
    subprocess.run(["bash", "-c", ".venv/bin/python -m training stop-all"], cwd=clone, env=clean, timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert list((clone / "models" / "vault").glob("DIO-*"))
