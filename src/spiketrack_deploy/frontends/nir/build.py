"""From a NIR file to a flat network: nested graphs inlined, shapes inferred, order and back edges decided, all checked.

Decides what a compilable network is, and says everything that is wrong with one at once, every node by name. Must not
know conventions of time or integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.nir import shapes
from spiketrack_deploy.frontends.nir.diagnose import Diagnostic, gathered
from spiketrack_deploy.frontends.nir.flatten import JUNCTION, Flat, flatten
from spiketrack_deploy.frontends.nir.network import NEURONS, STATEFUL, Edge, Network, Node, Shape
from spiketrack_deploy.frontends.nir.operations import respond
from spiketrack_deploy.frontends.nir.order import AlgebraicLoop, order
from spiketrack_deploy.nir_graph.tree import PRIMITIVES, Record, Tree, read_tree

MAX_TOLD = 40
MAX_TOTAL = 1 << 26
Found = list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A network, and what had to be assumed to read it."""

    network: Network
    diagnostics: tuple[Diagnostic, ...]


class _Refused(Exception):
    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__(problems)
        self.problems = problems


def read_network(path: Path, *, isolate: bool = True) -> Read:
    """The network in a NIR file; InputError (one sentence, every node that is wrong) where it cannot be compiled."""
    return build(read_tree(path, isolate=isolate), path)


def build(tree: Tree, path: Path) -> Read:
    """The network that a stored graph is."""
    found: Found = []
    try:
        flat = flatten(tree)
        _check_ends(flat)
        return _network(tree, _pruned(flat, found), path, found)
    except _Refused as refused:
        told = "; ".join(f"node '{name}': {text}" if name else text for name, text in refused.problems[:MAX_TOLD])
        more = len(refused.problems) - MAX_TOLD
        raise InputError(f"{path}: {told}{f'; and {more} more' if more > 0 else ''}") from None


def _check_ends(flat: Flat) -> None:
    problems = list(flat.problems)
    kinds = {name: record.kind for name, record in flat.nodes.items()}
    if not any(kind in NEURONS for kind in kinds.values()):
        problems.append(("", "the network has no neuron (I, IF, LI, LIF, CubaLI, CubaLIF), so there is nothing to run"))
    for kind in ("Input", "Output"):
        if kind not in kinds.values():
            problems.append(("", f"the network has no {kind} node"))
    fed, read = {target for _, target in flat.edges}, {source for source, _ in flat.edges}
    for name, kind in kinds.items():
        if kind == "Input" and name in fed:
            problems.append((name, "is an Input, but an edge feeds it"))
        elif kind == "Output" and name in read:
            problems.append((name, "is an Output, but an edge leaves it"))
        elif kind != "Input" and name not in fed:
            problems.append((name, f"({kind}) nothing feeds it; connect it or remove it"))
    if problems:
        raise _Refused(problems)


def _pruned(flat: Flat, found: Found) -> Flat:
    """Without the nodes that no Output reads."""
    into: dict[str, list[str]] = {}
    for source, target in flat.edges:
        into.setdefault(target, []).append(source)
    waiting = [name for name, record in flat.nodes.items() if record.kind == "Output"]
    kept = set(waiting)
    while waiting:
        for source in into.get(waiting.pop(), ()):
            if source not in kept:
                kept.add(source)
                waiting.append(source)
    for name in flat.nodes:
        if name not in kept and flat.nodes[name].kind != "Input":
            found.append(("unread", name, "no output reads it; it was left out"))
    nodes = {name: record for name, record in flat.nodes.items() if name in kept or record.kind == "Input"}
    return Flat(nodes, [(source, target) for source, target in flat.edges if target in kept])


def _network(tree: Tree, flat: Flat, path: Path, found: Found) -> Read:
    kinds = {name: "Scale" if r.kind == JUNCTION else r.kind for name, r in flat.nodes.items()}
    try:
        names, back = order(kinds, flat.edges)
    except AlgebraicLoop as loop:
        trail = " -> ".join(loop.args[0][:12])
        raise _Refused(
            [("", f"the cycle {trail} has no neuron and no Delay, so it has no solution in steps")]
        ) from None
    nodes = _shaped(names, flat, back, found)
    silence: dict[str, np.ndarray] = {}
    edges = tuple(
        Edge(s, t, True, _silent(s, nodes, flat.edges, silence)) if (s, t) in back else Edge(s, t)
        for s, t in flat.edges
    )
    ends = {kind: tuple(sorted(name for name in names if kinds[name] == kind)) for kind in ("Input", "Output")}
    network = Network(path.name, nodes, edges, ends["Input"], ends["Output"], {"nir": tree.version, **tree.notes})
    return Read(network, gathered(found))


def _silent(
    name: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]], known: dict[str, np.ndarray]
) -> np.ndarray:
    """What a node sends where every neuron, Delay and Input is silent."""
    if name not in known:
        node = nodes[name]
        if node.kind in (*STATEFUL, "Input"):
            known[name] = np.broadcast_to(np.float64(0), node.shape)
        else:
            total = sum((_silent(s, nodes, edges, known) for s, t in edges if t == name), np.zeros(node.in_shape))
            known[name] = respond(node, total)
    return known[name]


def _shaped(names: Sequence[str], flat: Flat, back: set[tuple[str, str]], found: Found) -> dict[str, Node]:
    """Every node with shapes and full parameters; a leading batch axis of the Inputs is tried without where the stored
    shapes do not fit."""
    records = flat.nodes
    inputs, problems = _inputs(records)
    if problems:
        raise _Refused(problems)
    nodes, problems = _infer(names, flat, inputs)
    batched = {name: shape[1:] for name, shape in inputs.items() if len(shape) > 1 and shape[0] == 1}
    if problems and batched:
        nodes, without = _infer(names, flat, {**inputs, **batched})
        if not without:
            problems = []
            found.extend(("batch-axis", name, f"read as {batched[name]}, stored as {inputs[name]}") for name in batched)
    total = sum(math.prod(node.shape) for node in nodes.values())
    if not problems and total > MAX_TOTAL:
        problems = [("", f"its nodes have {total} values together, more than {MAX_TOTAL}")]
    if problems:
        raise _Refused(problems)
    for name in names:
        _hints(name, records[name], nodes[name], found)
    return {name: nodes[name] for name in names}


def _inputs(records: Mapping[str, Record]) -> tuple[dict[str, Shape], list[tuple[str, str]]]:
    inputs, problems = dict[str, Shape](), list[tuple[str, str]]()
    for name, record in records.items():
        if record.kind == "Input":
            try:
                inputs[name] = shapes.declared(record)
            except shapes.Misfit as misfit:
                problems.append((name, str(misfit)))
    return inputs, problems


def _infer(
    names: Sequence[str], flat: Flat, inputs: Mapping[str, Shape]
) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """Shapes flow along all edges until none is new. A problem: a node that no shape reaches, or that does not fit."""
    into: dict[str, list[str]] = {name: [] for name in names}
    for source, target in flat.edges:
        into[target].append(source)
    known = {name: shapes.own_shape(flat.nodes[name]) for name in names} | dict(inputs)
    nodes, problems, told = dict[str, Node](), list[tuple[str, str]](), set[str]()
    waiting = list(names)
    while waiting:
        left = []
        for name in waiting:
            arriving = {source: shape for source in into[name] if (shape := known[source]) is not None}
            if not arriving and name not in inputs:
                left.append(name)
                continue
            got = inputs[name] if name in inputs else next(iter(arriving.values()))
            try:
                nodes[name] = _node(name, flat.nodes[name], got)
                known[name] = nodes[name].shape
            except shapes.Misfit as misfit:
                problems.append((name, f"({flat.nodes[name].kind}) {misfit}"))
                told.add(name)
        if len(left) == len(waiting):
            break
        waiting = left
    if not problems:
        problems.extend((name, f"({flat.nodes[name].kind}) its shape cannot be inferred") for name in waiting)
    for name in nodes:
        sizes = {source: nodes[source].shape for source in into[name] if source in nodes}
        if len(set(sizes.values())) > 1 or (sizes and next(iter(sizes.values())) != nodes[name].in_shape):
            problems.append((name, f"({flat.nodes[name].kind}) its inputs have different shapes: {sizes}"))
    return nodes, problems


def _node(name: str, record: Record, got: Shape) -> Node:
    if record.kind == JUNCTION:
        return Node(name, "Scale", {"scale": np.broadcast_to(np.float64(1), got)}, got, got)
    params, shape = shapes.RULES[record.kind](record, got)
    if math.prod(shape) > shapes.MAX_ELEMENTS:
        raise shapes.Misfit(f"its values of shape {shape} have more than {shapes.MAX_ELEMENTS} elements")
    for value in params.values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    return Node(name, record.kind, params, got, shape)


def _hints(name: str, record: Record, node: Node, found: Found) -> None:
    """What is stored beside the parameters, compared with them."""
    if record.kind == JUNCTION:
        return
    missing = [entry for entry in PRIMITIVES[record.kind].fields if entry.since and entry.name not in record.fields]
    for entry in missing:
        if entry.name in ("v_reset", "w_in"):
            value = 0 if entry.name == "v_reset" else 1
            found.append(
                ("field-filled", name, f"{entry.name} (since NIR {entry.since}) is missing; {value} was taken")
            )
    size1 = [key for key, value in record.fields.items() if isinstance(value, np.ndarray) and value.size == 1]
    if size1 and math.prod(node.shape) > 1 and record.kind in NEURONS:
        found.append(("size-1", name, f"one value of {', '.join(size1)} stands for {math.prod(node.shape)} neurons"))
    stored, field = None, ""
    if record.kind == "Output":
        stored, field, real = record.fields.get("shape"), "shape", node.shape
    elif record.kind in ("Conv1d", "Conv2d"):
        stored, field, real = record.fields.get("input_shape"), "input_shape", node.in_shape[1:]
    elif record.kind == "Flatten":
        stored, field, real = record.fields.get("input_type"), "input_type", node.in_shape
    if isinstance(stored, tuple) and field and stored != real:
        if stored[len(stored) - len(real) :] == real and set(stored[: len(stored) - len(real)]) == {1}:
            found.append(("batch-axis", name, f"field '{field}' is {stored}, read as {real}"))
        else:
            found.append(("stored-shape", name, f"field '{field}' is {stored}, its parameters and input say {real}"))
