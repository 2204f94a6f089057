"""The rules of the house, read from the source: rooms, directions, sizes, who owns a name, what may be imported."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from core.paths import CHECKOUT

ROOMS = {  # room: the rooms it may import besides itself
    "core": set(),
    "safety": {"core"},
    "management": {"core"},
    "monitoring": {"core", "management"},
    "training": {"core", "safety", "management", "monitoring"},
}
TORCH_ROOMS = (
    "core.train",
    "core.worker",
    "core.between_steps",
    "core.forge.",
    "core.schools.",
    "core.dice.",
    "core.arena.",
    "training.bench.",
)
HEAVY = {"torch", "transformers", "accelerate"}
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
NAMES = {
    "inbox",
    "queue",
    "recently_completed",
    "processing",
    "rejected",
    "failed",
    ".claim",
    "models",
    "vault",
    "current_model",
    "status",
    "training_status.json",
    "state",
    "realm.db",
    "metrics.db",
    "prepared",
    "heartbeats",
    "realm.lock",
    "queue.lock",
    "services.json",
    "disk.json",
    "reserve",
    "logs",
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the five rooms by its dotted name."""
    found = {}
    for room in ROOMS:
        for path in sorted((CHECKOUT / room).rglob("*.py")):
            parts = path.relative_to(CHECKOUT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imports(nodes) -> Iterator[str]:
    """The dotted names that import statements among `nodes` name; `from package import module` gives the module's."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else node.module


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_rooms_import_in_one_direction_only():
    wrong = []
    for name in modules():
        room = name.partition(".")[0]
        for target in imports(ast.walk(tree(name))):
            other = target.partition(".")[0]
            if other in ROOMS and other != room and other not in ROOMS[room]:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_modules_do_not_import_in_a_circle():
    graph = {name: {target for target in imports(tree(name).body) if target in modules()} for name in modules()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle: {' -> '.join((*above, name))}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def may_use_torch(name: str) -> bool:
    return name in TORCH_ROOMS or any(name.startswith(room) for room in TORCH_ROOMS if room.endswith("."))


def test_torch_is_named_only_where_training_happens():
    wrong = [
        f"{name} imports {target}"
        for name in modules()
        for target in imports(ast.walk(tree(name)))
        if target.partition(".")[0] in HEAVY and not may_use_torch(name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "name", ["cli", "watchdog_process", "daemon_process", "trainer_process", "tavern_process", "oracle_process"]
)
def test_command_line_and_services_start_without_torch(name):
    program = f"import sys, training.{name}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_nobody_edits_the_module_path():
    wrong = []
    for name in modules():
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
                wrong.append(f"{name}:{node.lineno}")
    assert wrong == []


def test_modules_and_functions_stay_small():
    long = [
        f"{name}: {lines} lines"
        for name, path in modules().items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    ]
    for name in modules():
        for function in functions(name):
            lines = function.end_lineno - function.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                long.append(f"{name}.{function.name}: {lines} lines")
    assert long == []


def test_every_module_says_what_it_does():
    assert [name for name in modules() if tree(name).body and not ast.get_docstring(tree(name))] == []


def test_no_module_is_a_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert [name for name in modules() if drawers & set(name.split("."))] == []


def joined_names(name: str) -> Iterator[tuple[int, str]]:
    """String constants that are joined to a path: `folder / "name"`."""
    for node in ast.walk(tree(name)):
        match node:
            case ast.BinOp(op=ast.Div(), right=ast.Constant(value=str(text))):
                yield node.lineno, text


def test_only_core_paths_spells_the_realms_files_and_folders():
    wrong = [
        f"{name}:{line} joins {text!r}"
        for name in modules()
        if name != "core.paths"
        for line, text in joined_names(name)
        if set(text.split("/")) & NAMES
    ]
    assert wrong == []


def test_folders_for_data_hold_no_python():
    if not shutil.which("git") or not (CHECKOUT / ".git").exists():
        pytest.skip("no git here to tell what belongs to the repository")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "inbox", "queue", "models"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    assert set(listed) <= {"inbox/.gitkeep", "queue/.gitkeep", "models/.gitkeep"}


def ends_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches any exception at all and raises none itself."""
    caught = "BaseException" if handler.type is None else ast.unparse(handler.type)
    raises = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    return not raises and re.search(r"\b(Base)?Exception\b", caught) is not None


def test_exceptions_end_at_the_boundaries_only():
    boundaries = {  # a quest, a request, the supervisor; and a GPU's driver, which may do anything
        "core.worker",
        "core.validation_process",
        "training.cli",
        "monitoring.servers.tavern.events",
        "monitoring.gpu",
    }
    broad = {
        name
        for name in modules()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ExceptHandler) and ends_everything(node)
    }
    assert broad <= boundaries
