"""Which quest made what: the checkpoints of the Vault as a tree, each with the quests trained since the one above it.

Manifests say which quests their weights hold, so the tree needs no ancestor that retention took: a checkpoint hangs below
its nearest ancestor that is still there. It decides nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from core.checkpoints import Manifest, Ranges, manifests
from core.ledger import Ledger
from core.paths import RealmPaths
from management.vault import pointers, tags

SHOWN_QUESTS = 8


def lineage(
    paths: RealmPaths, ledger: Ledger, of: str | None = None, known: Sequence[Manifest] | None = None
) -> list[dict[str, Any]]:
    """The tree from its roots, parents ahead of their children; `of`: only this checkpoint's ancestors and descendants.

    `known`: the Vault's manifests, newest first, for who has read them already.
    """
    found = {manifest.id: manifest for manifest in reversed(manifests(paths) if known is None else known)}
    rows = {row["id"]: row for row in ledger.all("SELECT id, parent, state, pinned, rolled_back FROM checkpoints")}
    above = {key: _above(manifest.parent, found, rows) for key, manifest in found.items()}
    names = _names(paths, ledger)
    stems = {row["id"]: row["stem"] for row in ledger.all("SELECT id, stem FROM quests ORDER BY id")}
    ids = list(stems)
    wanted = set(found) if of is None else {*_ancestors(of, above), *_descendants(of, above)}
    return [
        {
            **_facts(found[key], found.get(above[key]), stems, ids),
            "above": above[key] if above[key] in wanted else None,
            "state": rows.get(key, {}).get("state", "saved"),
            "pinned": bool(rows.get(key, {}).get("pinned")),
            "rolled_back": bool(rows.get(key, {}).get("rolled_back")),
            "names": names.get(key, []),
        }
        for key in found
        if key in wanted
    ]


def _above(parent: str | None, found: dict[str, Manifest], rows: dict[str, dict]) -> str | None:
    """The nearest ancestor that is in the Vault."""
    passed = set()
    while parent and parent not in found and parent not in passed:
        passed.add(parent)
        parent = rows.get(parent, {}).get("parent")
    return parent if parent in found else None


def _names(paths: RealmPaths, ledger: Ledger) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, checkpoint in {**pointers(paths), **tags(ledger)}.items():
        names.setdefault(checkpoint, []).append(name)
    return names


def _ancestors(checkpoint: str | None, above: dict[str, str | None]) -> Iterator[str]:
    while checkpoint in above:
        yield checkpoint
        checkpoint = above[checkpoint]


def _descendants(checkpoint: str, above: dict[str, str | None]) -> Iterator[str]:
    return (key for key in above if checkpoint in _ancestors(key, above))


def _facts(manifest: Manifest, above: Manifest | None, stems: dict[int, str], ids: list[int]) -> dict[str, Any]:
    trained = within(beyond(manifest.trained, above.trained if above else ()), ids)
    return {
        "id": manifest.id,
        "hero": manifest.hero,
        "step": manifest.step,
        "parent": manifest.parent,
        "branch": manifest.branch,
        "validation_loss": manifest.validation_loss,
        "trained": [{"quest": quest, "stem": stems[quest]} for quest in trained],
        "begun": [{"quest": quest, "stem": stems.get(quest), "steps": steps} for quest, steps in manifest.open.items()],
        "created": manifest.created,
    }


def beyond(held: Ranges, before: Ranges) -> Ranges:
    """What `held` has and `before` lacks."""
    left: list[tuple[int, int]] = []
    for first, last in held:
        for known_first, known_last in sorted(before):
            if known_last >= first and known_first <= last:
                if known_first > first:
                    left.append((first, known_first - 1))
                first = known_last + 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def within(ranges: Ranges, ids: Sequence[int]) -> list[int]:
    """Those of `ids` (sorted: the quests that the ledger knows) that lie in `ranges`, which may span others."""
    return [key for first, last in ranges for key in ids[bisect_left(ids, first) : bisect_right(ids, last)]]


def tree(nodes: list[dict[str, Any]]) -> list[str]:
    """One line a checkpoint, side ways set in."""
    return [f"{'│ ' * depth}{_line(node)}" for node, depth in walk(nodes)]


def walk(nodes: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Every node with its depth. A way without forks keeps its depth; where it forks, the side ways come first, set in."""
    below: dict[str | None, list[dict[str, Any]]] = {}
    for node in nodes:
        below.setdefault(node["above"], []).append(node)
    best = _ends(nodes)
    waiting = [(node, 0) for node in reversed(below.get(None, []))]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        *side, main = sorted(below.get(node["id"], []), key=lambda one: best[one["id"]]) or [None]
        if main:
            waiting.append((main, depth))
        waiting += [(one, depth + 1) for one in side]


def _ends(nodes: list[dict[str, Any]]) -> dict[str, tuple]:
    """The best end that can be reached from each: not left behind by a rollback, no branch, the latest step."""
    best = {node["id"]: (not node["rolled_back"], node["branch"] is None, node["step"]) for node in nodes}
    for node in reversed(nodes):  # children before their parents
        if node["above"]:
            best[node["above"]] = max(best[node["above"]], best[node["id"]])
    return best


def _line(node: dict[str, Any]) -> str:
    quests = [f"q{one['quest']} {one['stem']}" for one in node["trained"]]
    more = [f"and {len(quests) - SHOWN_QUESTS} more"] if len(quests) > SHOWN_QUESTS else []
    begun = [f"q{one['quest']} {one['stem']} to step {one['steps']}" for one in node["begun"]]
    what = ", ".join([*quests[:SHOWN_QUESTS], *more, *begun]) or (
        "birth" if not node["parent"] else node["branch"] or ""
    )
    loss = f"  loss {node['validation_loss']:.4f}" if node["validation_loss"] is not None else ""
    flags = [*node["names"], *(["pinned"] if node["pinned"] else []), *(["rolled back"] if node["rolled_back"] else [])]
    return f"● {node['id']}  {what}{loss}{'  [' + ', '.join(flags) + ']' if flags else ''}"
