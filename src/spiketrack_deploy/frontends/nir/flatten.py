"""Inlines nested graphs: a tree of NIR graphs becomes nodes and edges of one level.

Decides names (``sub.lif``) and what an edge to or from a nested graph joins. Must not know shapes or time. The
Input and Output nodes of a nested graph are junctions: they vanish, and what met in one meets in its readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spiketrack_deploy.nir_graph.tree import Record, Tree

MAX_EDGES = 1_000_000
JUNCTION = "Junction"
"""A nested graph's Input or Output that has to stay, because without it an edge would be there twice."""


@dataclass(slots=True)
class Flat:
    """Nodes and edges of one level, and every problem on the way (node, sentence)."""

    nodes: dict[str, Record] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def flatten(tree: Tree) -> Flat:
    """Every node under its full name; junctions gone unless they are needed."""
    flat, junctions = Flat(), list[str]()
    _inline(tree, "", flat, junctions)
    for name in junctions:
        _splice(flat, name)
    return flat


def _inline(tree: Tree, prefix: str, flat: Flat, junctions: list[str]) -> None:
    for name, node in tree.nodes.items():
        full = prefix + name
        if isinstance(node, Tree):
            _inline(node, f"{full}.", flat, junctions)
        elif full in flat.nodes:
            flat.problems.append((full, "two nodes have this name once nested graphs are inlined; rename one"))
        elif prefix and node.kind in ("Input", "Output"):
            flat.nodes[full] = Record(JUNCTION, node.fields)
            junctions.append(full)
        else:
            flat.nodes[full] = node
    for source, target in tree.edges:
        ends = _end(tree, source, "Output", prefix, flat), _end(tree, target, "Input", prefix, flat)
        if ends[0] is not None and ends[1] is not None:
            flat.edges.append((ends[0], ends[1]))


def _end(tree: Tree, name: str, kind: str, prefix: str, flat: Flat) -> str | None:
    """The node that an edge's end means: itself, the one Input or Output of a nested graph, or ``sub.node``."""
    node: Record | Tree | None = tree.nodes.get(name)
    trail = name
    if node is None:
        node, rest = tree, name
        while isinstance(node, Tree) and rest:
            node, rest = _step(node, rest)
    while isinstance(node, Tree):
        doors = [inner for inner, found in node.nodes.items() if isinstance(found, Record) and found.kind == kind]
        if len(doors) != 1:
            what = f"an edge ends at this nested graph, which has {len(doors)} {kind} nodes; name one: {name}.NODE"
            flat.problems.append((prefix + trail, what))
            return None
        trail, node = f"{trail}.{doors[0]}", node.nodes[doors[0]]
    if node is None:
        flat.problems.append((prefix + name, "an edge ends here, but there is no such node"))
        return None
    return prefix + trail


def _step(tree: Tree, rest: str) -> tuple[Record | Tree | None, str]:
    """The node that the longest beginning of a dotted name means, and what is left of the name."""
    for cut in [index for index in range(len(rest), 0, -1) if index == len(rest) or rest[index] == "."]:
        if rest[:cut] in tree.nodes:
            return tree.nodes[rest[:cut]], rest[cut + 1 :]
    return None, ""


def _splice(flat: Flat, name: str) -> None:
    """Join what feeds a junction with what reads it, at the place of its readers' edges."""
    sources = [source for source, target in flat.edges if target == name]
    others: Mapping[tuple[str, str], None] = dict.fromkeys(edge for edge in flat.edges if name not in edge)
    targets = [target for source, target in flat.edges if source == name]
    if not sources and not targets:
        del flat.nodes[name]
        return
    joined = [(source, target) for target in targets for source in sources]
    if not sources or not targets or len(flat.edges) + len(joined) > MAX_EDGES:
        return
    if any(edge in others for edge in joined) or name in sources:
        return
    edges: list[tuple[str, str]] = []
    for source, target in flat.edges:
        if source == name:
            edges.extend((before, target) for before in sources)
        elif target != name:
            edges.append((source, target))
    flat.edges, _ = edges, flat.nodes.pop(name)
