"""In which order a graph with cuts runs, and which shape every value has.

Decides what a well-formed whole is: no cycle, every phase closed, every cut's ends used, shapes that agree.
Must not know files or arithmetic. A *step* is a node's name, or ``cut:<id>`` for a cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.cuts import CUT_OPS, check_cut
from spiketrack_deploy.nir_graph.graph import CUT_PREFIX, Cut, Graph, Shape, phase_of
from spiketrack_deploy.nir_graph.kinds import KINDS, check_nodes

MAX_NAMED = 12
"""Names that a message lists at most."""


def execution_order(graph: Graph, cuts: Sequence[Cut], phase: str | None = None) -> list[str]:
    """Steps in a topological order that depends on the order of nodes and cuts alone.

    With ``phase`` only that phase's steps. Raises InputError naming a cycle, an Input that no cut or more than
    one cut fills, an Output that no cut reads, and an edge between the phases.
    """
    needs = dependencies(graph, cuts)
    if phase is not None:
        needs = {
            step: [need for need in wanted if phase_of(need) == phase]
            for step, wanted in needs.items()
            if phase_of(step) == phase
        }
    return _topological(needs)


def _topological(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Keys of ``needs`` behind everything they need."""
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        trail = " -> ".join(error.args[1][:MAX_NAMED])
        raise InputError(f"the graph has a cycle: {trail}; it must be feed-forward") from None


def dependencies(graph: Graph, cuts: Sequence[Cut]) -> dict[str, list[str]]:
    """For each step the steps it reads, in the order in which a sum or a cut reads them.

    A memory_read depends on the memory_write of the same slot, which is the one dependency between the phases.
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
            slot = (cut.params["memory"], cut.params["step"])
            if slot in writes:
                raise InputError(f"memory {slot[0]} of step {slot[1]} is written by '{writes[slot]}' and '{cut.id}'")
            writes[slot] = cut.id
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
        if phase_of(source) != phase_of(target):
            raise InputError(f"edge '{source}' -> '{target}' joins two phases; only a memory may")


def node_shapes(graph: Graph) -> dict[str, Shape]:
    """The shape of every node's value (no batch axis), from the declared shapes of the Input nodes on.

    Groups, strides and paddings are respected (NIR 1.0.8's own check ignores groups). Raises InputError naming the
    node where two statements disagree, and a cycle.
    """
    sources = graph.sources()
    shapes: dict[str, Shape] = {}
    for name in _topological(sources):
        shapes[name] = _node_shape(graph, name, {source: shapes[source] for source in sources[name]})
    return shapes


def _node_shape(graph: Graph, name: str, got: Mapping[str, Shape]) -> Shape:
    if len(set(got.values())) > 1:
        raise InputError(f"node '{name}': its inputs have different shapes: {dict(got)}")
    node = graph.nodes[name]
    return KINDS[node.kind].shape(name, node, next(iter(got.values()), None))


def infer_shapes(graph: Graph, cuts: Sequence[Cut]) -> dict[str, Shape]:
    """:func:`node_shapes` plus, under ``cut:<id>``, the shape of every cut's value.

    Raises InputError naming the node or cut where two statements disagree, the value that a cut puts into an Input
    node included.
    """
    check_nodes(graph)
    by_id = {CUT_PREFIX + cut.id: cut for cut in cuts}
    needs = dependencies(graph, cuts)
    shapes: dict[str, Shape] = {}
    for step in _topological(needs):
        cut = by_id.get(step)
        if cut is None:
            shapes[step] = _node_shape(graph, step, {need: shapes[need] for need in needs[step]})
            continue
        shapes[step] = CUT_OPS[cut.op].shape(cut, [shapes[need] for need in needs[step]])
        for name in cut.outputs:
            if graph.nodes[name].ints("shape") != shapes[step]:
                raise InputError(
                    f"cut '{cut.id}' ({cut.op}) gives {shapes[step]}, but Input node '{name}' declares "
                    f"{graph.nodes[name].ints('shape')}"
                )
    return shapes
