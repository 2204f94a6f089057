"""The verbs, a module per family. To add one, write a sibling with `register(verbs)` and name it in `FAMILIES`."""

from importlib import import_module
from types import ModuleType

FAMILIES = {  # module: its verbs, so that a command loads its own family only
    "realm": ("init", "status", "pause", "resume", "skip"),
    "start_stop": ("start-all", "stop-all"),
    "doctor": ("doctor",),
    "config": ("config",),
    "quest": ("quest",),
    "hero": ("hero",),
    "vault": ("vault",),
    "schooling": ("skill", "school"),
    "temple": ("temple",),
    "campaign": ("campaign",),
    "logs": ("logs",),
    "bench": ("bench",),
    "plan": ("plan",),
    "oracle": ("oracle",),
    "arena": ("arena",),
}


def families(verb: str | None) -> list[ModuleType]:
    """The family of `verb`; all of them where none has it."""
    names = [name for name, verbs in FAMILIES.items() if verb in verbs] or list(FAMILIES)
    return [import_module(f"{__name__}.{name}") for name in names]
