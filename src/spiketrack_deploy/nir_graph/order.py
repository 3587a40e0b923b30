"""In which order a graph with cuts runs, and which shape every value has.

Decides what a well-formed whole is: no cycle, both branches closed, every cut's ends used, shapes that agree.
Must not know files or arithmetic. A *step* is a node's name, or ``cut:<id>`` for a cut.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.cuts import CUT_OPS, check_cut
from spiketrack_deploy.nir_graph.graph import CUT_PREFIX, Cut, Graph, Shape, branch_of
from spiketrack_deploy.nir_graph.kinds import KINDS

MAX_NAMED = 12
"""Names that a message lists at most."""


def execution_order(graph: Graph, cuts: Sequence[Cut], branch: str | None = None) -> list[str]:
    """Steps in a deterministic topological order (first come in nodes and cuts, first served).

    With ``branch`` only that branch's steps. Raises InputError naming a cycle, an Input that no cut or more than
    one cut fills, an Output that no cut reads, and an edge between the branches.
    """
    needs = dependencies(graph, cuts)
    if branch is not None:
        needs = {
            step: [need for need in wanted if branch_of(need.removeprefix(CUT_PREFIX)) == branch]
            for step, wanted in needs.items()
            if branch_of(step.removeprefix(CUT_PREFIX)) == branch
        }
    return _topological(needs)


def _topological(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Keys of ``needs`` behind everything they need; among those that are ready the one that comes first."""
    rank = {step: index for index, step in enumerate(needs)}
    waiting = {step: len(wanted) for step, wanted in needs.items()}
    readers: dict[str, list[str]] = {step: [] for step in needs}
    for step, wanted in needs.items():
        for need in wanted:
            readers[need].append(step)
    ready = [rank[step] for step, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    steps, order = list(needs), list[str]()
    while ready:
        step = steps[heapq.heappop(ready)]
        order.append(step)
        for reader in readers[step]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, rank[reader])
    if len(order) != len(needs):
        trail = " -> ".join(_find_cycle(needs, set(order))[:MAX_NAMED])
        raise InputError(f"the graph has a cycle: {trail}; it must be feed-forward")
    return order


def _find_cycle(needs: Mapping[str, Sequence[str]], done: set[str]) -> list[str]:
    """One cycle (first step repeated at the end) among the steps that are not in ``done``."""
    step = next(step for step in needs if step not in done)
    trail: list[str] = []
    while step not in trail:
        trail.append(step)
        step = next(need for need in needs[step] if need not in done)
    cycle = trail[trail.index(step) :]
    return [*reversed(cycle), cycle[-1]]


def dependencies(graph: Graph, cuts: Sequence[Cut]) -> dict[str, list[str]]:
    """For each step the steps it reads, in the order in which a sum or a cut reads them.

    A memory_read depends on the memory_write of the same slot, which is the one dependency between the branches.
    """
    filled_by: dict[str, str] = {}
    read: set[str] = set()
    writes: dict[tuple[int, int], str] = {}
    ids: set[str] = set()
    for cut in cuts:
        check_cut(cut, graph)
        if cut.id in ids:
            raise InputError(f"cut '{cut.id}' is listed twice")
        ids.add(cut.id)
        for name in cut.outputs:
            if name in filled_by:
                raise InputError(f"Input node '{name}' is filled by two cuts: '{filled_by[name]}' and '{cut.id}'")
            filled_by[name] = cut.id
        read.update(cut.inputs)
        if cut.op == "memory_write":
            writes[cut.params["memory"], cut.params["step"]] = cut.id
    sources = graph.sources()
    _check_ends(graph, sources, filled_by, read)
    needs = {
        name: [CUT_PREFIX + filled_by[name]] if node.kind == "Input" else sources[name]
        for name, node in graph.nodes.items()
    }
    for cut in cuts:
        needs[CUT_PREFIX + cut.id] = _cut_needs(cut, ids, writes)
    return needs


def _cut_needs(cut: Cut, ids: set[str], writes: dict[tuple[int, int], str]) -> list[str]:
    if cut.op == "memory_read":
        slot = (cut.params["memory"], cut.params["step"])
        if slot not in writes:
            raise InputError(f"cut '{cut.id}' reads memory {slot[0]} of step {slot[1]}, which no cut writes")
        return [CUT_PREFIX + writes[slot]]
    for name in cut.inputs:
        if name.startswith(CUT_PREFIX) and name.removeprefix(CUT_PREFIX) not in ids:
            raise InputError(f"cut '{cut.id}' reads '{name}', which does not exist")
    return list(cut.inputs)


def _check_ends(graph: Graph, sources: dict[str, list[str]], filled_by: dict[str, str], read: set[str]) -> None:
    for name, node in graph.nodes.items():
        if node.kind == "Input" and name not in filled_by:
            raise InputError(f"Input node '{name}' is filled by no cut")
        if node.kind == "Output" and name not in read:
            raise InputError(f"Output node '{name}' is read by no cut")
        if node.kind == "Input" and sources[name]:
            raise InputError(f"Input node '{name}' is fed by an edge; only a cut may fill it")
    for source, target in graph.edges:
        if branch_of(source) != branch_of(target):
            raise InputError(f"edge '{source}' -> '{target}' joins the two branches; only a memory may")


def node_shapes(graph: Graph) -> dict[str, Shape]:
    """The shape of every node's value (no batch axis), from the declared shapes of the Input nodes on.

    Groups, strides and paddings are respected (NIR 1.0.8's own check ignores groups). Raises InputError naming the
    node where two statements disagree, and a cycle.
    """
    sources = graph.sources()
    shapes: dict[str, Shape] = {}
    for name in _topological(sources):
        got = [shapes[source] for source in sources[name]]
        if len(set(got)) > 1:
            raise InputError(f"node '{name}': its inputs have different shapes: {dict(zip(sources[name], got))}")
        node = graph.nodes[name]
        shapes[name] = KINDS[node.kind].shape(name, node, got[0] if got else None)
    return shapes


def infer_shapes(graph: Graph, cuts: Sequence[Cut]) -> dict[str, Shape]:
    """:func:`node_shapes` plus, under ``cut:<id>``, the shape of every cut's value.

    Raises InputError naming the node or cut where two statements disagree, the value that a cut puts into an Input
    node included.
    """
    by_id = {CUT_PREFIX + cut.id: cut for cut in cuts}
    needs = dependencies(graph, cuts)
    shapes = node_shapes(graph)
    for step in execution_order(graph, cuts):
        cut = by_id.get(step)
        if cut is None:
            continue
        shapes[step] = CUT_OPS[cut.op].shape(cut, [shapes[need] for need in needs[step]])
        for name in cut.outputs:
            if shapes[name] != shapes[step]:
                raise InputError(
                    f"cut '{cut.id}' ({cut.op}) gives {shapes[step]}, but Input node '{name}' declares {shapes[name]}"
                )
    return shapes
