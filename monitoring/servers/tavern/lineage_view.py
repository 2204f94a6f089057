"""The lineage as nested lists for the page: what is worth a line has one, long stretches without a fork are folded.

It draws what management/lineage.py says, knows no HTML and reads nothing.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from management.lineage import walk

FEW = 14  # checkpoints that are shown one by one, whatever they are
SHORTEST = 3  # checkpoints of a stretch that is folded
NEWEST = 3  # at the end of a way that stay unfolded
DEEPEST = 5  # side ways of side ways are set in no further
QUESTS = 3  # named on a line

Node = dict[str, Any]


def lines(nodes: list[Node], of: str | None = None) -> list[dict[str, Any]]:
    """Lines in order, each of one `node`, or of a stretch that is folded (`fold`). `of`: a checkpoint never to be folded.

    For lists within lists: a line `opens` a list, `holds` the next one in its own item, closes so many lists with the items
    that hold them (`up`), and `ends` the list that it stands in.
    """
    walked = [(node, min(depth, DEEPEST)) for node, depth in walk(nodes)]
    plain = _plain(walked, of) if len(nodes) > FEW else set()
    rows = [row for _, group in groupby(walked, _stretches(plain)) for row in _rows(list(group), plain)]
    newest: dict[int, str] = {}  # the last checkpoint at each depth
    for before, row in zip([None, *rows], [*rows, None], strict=True):
        deeper = row is not None and (before is None or row["depth"] > before["depth"])
        first, last = (
            (row["fold"]["nodes"][0], row["fold"]["nodes"][-1]) if row and row["fold"] else [row and row["node"]] * 2
        )
        goes_on = row is not None and not deeper and first["above"] == newest.get(row["depth"])
        if before:
            before["holds"], before["ends"] = deeper, not deeper and not goes_on
            before["up"] = max(0, before["depth"] - (row["depth"] if row else 0))
        if row:
            row["opens"], newest[row["depth"]] = not goes_on, last["id"]
    return rows


def _plain(walked: list[tuple[Node, int]], of: str | None) -> set[str]:
    """What is no birth, no fork, no end, and has nothing that anybody gave it."""
    children: dict[str | None, int] = {}
    for node, _ in walked:
        children[node["above"]] = children.get(node["above"], 0) + 1
    near_end: set[str] = set()
    above = {node["id"]: node["above"] for node, _ in walked}
    for node, depth in walked:
        if not children.get(node["id"]):
            here = node["id"]
            for _ in range(NEWEST if depth == 0 else 1):
                near_end.add(here)
                here = above.get(here) or here
    return {
        node["id"]
        for node, _ in walked
        if node["above"]
        and node["id"] not in near_end
        and node["id"] != of
        and children.get(node["id"], 0) == 1
        and children[node["above"]] == 1
        and not (node["names"] or node["pinned"] or node["branch"] or node["state"] == "cursed")
    }


def _stretches(plain: set[str]):
    """A key by which neighbours of one stretch are equal."""
    place = 0

    def key(walked: tuple[Node, int]) -> tuple:
        nonlocal place
        node, depth = walked
        if node["id"] in plain:
            return ("fold", depth, node["rolled_back"])
        place += 1
        return ("one", place, depth)

    return key


def _rows(group: list[tuple[Node, int]], plain: set[str]) -> Iterator[dict[str, Any]]:
    nodes, depth = [node for node, _ in group], group[0][1]
    if len(nodes) >= SHORTEST and nodes[0]["id"] in plain:
        yield {"depth": depth, "node": None, "fold": _fold(nodes)}
    else:
        yield from ({"depth": depth, "node": line_of(node), "fold": None} for node in nodes)


def _fold(nodes: list[Node]) -> dict[str, Any]:
    losses = [node["validation_loss"] for node in nodes if node["validation_loss"] is not None]
    quests = [quest for node in nodes for quest in node["trained"]]
    return {
        "id": nodes[0]["id"],
        "count": len(nodes),
        "first": nodes[0]["step"],
        "last": nodes[-1]["step"],
        "quests": len(quests),
        "losses": (losses[0], losses[-1]) if losses else None,
        "rolled_back": nodes[0]["rolled_back"],
        "nodes": [line_of(node) for node in nodes],
    }


def line_of(node: Node, most: int = QUESTS) -> dict[str, Any]:
    """A line's words: the quests trained since the one above, and what was begun."""
    stems = [quest["stem"] or f"quest {quest['quest']}" for quest in node["trained"]]
    begun = [f"{quest['stem'] or quest['quest']} to step {quest['steps']:,}" for quest in node["begun"]]
    what, more = [*stems[:most], *begun], max(0, len(stems) - most)
    birth = not node["parent"] and not node["step"]
    return node | {"what": what, "more": more, "birth": birth, "kind": _kind(node)}


def _kind(node: Node) -> str:
    """How its mark is drawn."""
    pointed = [name for name in ("tip", "champion", "current") if name in node["names"]]
    if pointed:
        return pointed[0]
    if node["state"] == "cursed":
        return "cursed"
    return "left" if node["rolled_back"] else "branch" if node["branch"] else node["state"]
