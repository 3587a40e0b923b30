"""No field is silent: every single change of a NIR graph, its cuts or its metadata is refused by name or is seen.

Seen means: other integers, shapes or wiring of the program, or, for what only the tracker's loop reads, another
workload. A sample runs by default, the whole sweep is slow.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from _nir import TINY, state_of

from spiketrack_deploy.errors import FitError, InputError
from spiketrack_deploy.frontends.spiketrack.export import build_graph
from spiketrack_deploy.frontends.spiketrack.recognise import recognise
from spiketrack_deploy.lowering.lower import lower
from spiketrack_deploy.nir_graph.cuts import CUT_OPS
from spiketrack_deploy.nir_graph.graph import Cut, Graph, Node
from spiketrack_deploy.nir_graph.order import dependencies
from spiketrack_deploy.program.store import content_hash

SAMPLE = 80


class Change(NamedTuple):
    """What was changed, of whom, who might be named in a refusal, and the whole afterwards."""

    what: str
    names: tuple[str, ...]
    graph: Graph
    cuts: list[Cut]


def other_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Values one step away, by the type of the field."""
    if isinstance(value, np.ndarray):
        changed = np.array(value)
        changed.flat[changed.size // 2] += 1.0
        yield "one element", changed
        if value.any():
            yield "zeroed", np.zeros_like(value)
    elif isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, (int, float)):
        yield "+1", value + 1
    elif value is None:
        yield "a number", 3.0
    elif isinstance(value, str):
        yield "text", value + "x"
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            for how, new in other_values(item):
                yield f"[{index}] {how}", type(value)([*value[:index], new, *value[index + 1 :]])
        if value and isinstance(value[0], str):
            yield "shorter", value[1:]
            if len(set(value)) > 1:
                yield "reversed", value[::-1]


def downstream(graph: Graph, cuts: list[Cut]) -> dict[str, set[str]]:
    """Everything up to three reads behind a node or cut: there a shape may meet another that it no longer fits."""
    needs = dependencies(graph, cuts)
    readers: dict[str, set[str]] = {step: set() for step in needs}
    for step, wanted in needs.items():
        for need in wanted:
            readers[need].add(step)
    found = {}
    for step in needs:
        reach = set(readers[step])
        for _ in range(2):
            reach |= {reader for one in reach for reader in readers[one]}
        found[step] = {name.removeprefix("cut:") for name in reach}
    return found


def node_changes(graph: Graph, cuts: list[Cut]) -> Iterator[Change]:
    meets = downstream(graph, cuts)
    for name, node in graph.nodes.items():
        names = (name, *meets[name])
        fields = [("kind", "LIF", Node("LIF", node.params))]
        for field, value in node.params.items():
            fields += [(field, how, Node(node.kind, {**node.params, field: new})) for how, new in other_values(value)]
        for field, how, changed in fields:
            whole = Graph({**graph.nodes, name: changed}, graph.edges, graph.metadata)
            yield Change(f"{node.kind} {name} {field} {how}", names, whole, cuts)


def cut_changes(graph: Graph, cuts: list[Cut]) -> Iterator[Change]:
    ops, meets = list(CUT_OPS), downstream(graph, cuts)
    for index, cut in enumerate(cuts):
        versions = [("op", "another", dataclasses.replace(cut, op=ops[(ops.index(cut.op) + 1) % len(ops)]))]
        for field in ("id", "inputs", "outputs"):
            for how, new in other_values(getattr(cut, field)):
                versions.append((field, how, dataclasses.replace(cut, **{field: new})))
        for field, value in cut.params.items():
            for how, new in other_values(value):
                versions.append((field, how, dataclasses.replace(cut, params={**cut.params, field: new})))
        for field, how, changed in versions:
            names = (cut.id, *cut.inputs, *cut.outputs, *meets[f"cut:{cut.id}"])
            yield Change(f"cut {cut.id} {field} {how}", names, graph, [*cuts[:index], changed, *cuts[index + 1 :]])


def metadata_changes(graph: Graph, cuts: list[Cut]) -> Iterator[Change]:
    for key, value in graph.metadata.items():
        metadata = {**graph.metadata, key: value + "x"}
        yield Change(f"metadata {key}", (key,), Graph(graph.nodes, graph.edges, metadata), cuts)
    config = json.loads(graph.metadata["config"])
    for key, value in config.items():
        for how, new in other_values(value):
            metadata = {**graph.metadata, "config": json.dumps({**config, key: new})}
            yield Change(f"config {key} {how}", (key, "config"), Graph(graph.nodes, graph.edges, metadata), cuts)


def edge_changes(graph: Graph, cuts: list[Cut]) -> Iterator[Change]:
    for index, edge in enumerate(graph.edges):
        edges = [*graph.edges[:index], *graph.edges[index + 1 :]]
        yield Change(f"edge {edge} lost", edge, Graph(graph.nodes, edges, graph.metadata), cuts)


def whole(templates: int) -> tuple[Graph, list[Cut]]:
    config = dataclasses.replace(TINY, name=f"sweep_t{templates}", templates=templates)
    return build_graph(state_of(config), config)


def seen(graph: Graph, cuts: list[Cut]) -> tuple[str, str]:
    network, workload = recognise(graph, cuts)
    program = lower(network).program
    often = {name: str(phase.cadence) for name, phase in program.phases.items()}
    return content_hash(program), json.dumps([workload.to_dict(), often], sort_keys=True)


def silent(change: Change, before: tuple[str, str]) -> str | None:
    """What is wrong with the answer to a change; None where it was seen, or refused with a name."""
    try:
        return f"{change.what}: silent" if seen(change.graph, change.cuts) == before else None
    except (InputError, FitError) as refusal:
        # Of a neuron's nodes the refusal names the neuron: X@t0, not X@t0.k1.
        named = any(re.sub(r"(@t\d+).*", r"\1", name) in str(refusal) for name in change.names)
        return None if named else f"{change.what}: refused without its name: {refusal}"


def every_change(graph: Graph, cuts: list[Cut]) -> list[Change]:
    kinds = (node_changes, cut_changes, metadata_changes, edge_changes)
    return [change for kind in kinds for change in kind(graph, cuts)]


@pytest.mark.parametrize("templates", [1, 3])
def test_a_sample_of_changes_is_seen(templates: int) -> None:
    graph, cuts = whole(templates)
    before = seen(graph, cuts)
    changes = every_change(graph, cuts)
    drawn = random.Random(templates).sample(changes, SAMPLE)
    # And the ones that once were silent, whatever is drawn.
    known = ("template.encoder.downsample1_1.encode_conv", "retriever.pool", "query gain", ".normalise mean", "clamp")
    for part in known:
        drawn += [c for c in changes if all(p in c.what for p in part.split(" "))][:3]
    assert len(changes) > 1000 and len(drawn) > SAMPLE + 10
    assert [problem for change in drawn if (problem := silent(change, before))] == []


@pytest.mark.slow
@pytest.mark.parametrize("templates", [1, 3])
def test_every_change_is_seen(templates: int) -> None:
    graph, cuts = whole(templates)
    before = seen(graph, cuts)
    problems = [problem for change in every_change(graph, cuts) if (problem := silent(change, before))]
    assert problems == []


def torn(graph: Graph, cuts: list[Cut], draw: random.Random) -> tuple[Graph, list[Cut]]:
    """Two structural changes at once: an edge moved, a node gone, two nodes exchanged, a cut's ends or step changed."""
    nodes, edges, cuts, names = dict(graph.nodes), list(graph.edges), list(cuts), list(graph.nodes)
    for _ in range(2):
        index, cut, one, other = draw.randrange(len(edges)), draw.randrange(len(cuts)), *draw.sample(names, 2)
        kind = draw.randrange(5)
        if kind == 0:
            edges[index] = (one, edges[index][1]) if draw.random() < 0.5 else (edges[index][0], one)
        elif kind == 1:
            nodes.pop(one, None)
            edges = [edge for edge in edges if one not in edge]
        elif kind == 2 and one in nodes and other in nodes:
            nodes[one], nodes[other] = nodes[other], nodes[one]
        elif kind == 3:
            cuts[cut] = dataclasses.replace(cuts[cut], inputs=draw.choice(cuts).inputs)
        elif kind == 4:
            cuts[cut] = dataclasses.replace(cuts[cut], id=cuts[cut].id.replace("@t0", "@t2"))
    return Graph(nodes, edges, graph.metadata), cuts


def test_a_torn_graph_is_refused_or_unharmed() -> None:
    """Nothing but a refusal, and no program other than the whole graph's."""
    graph, cuts = whole(3)
    before, refused = seen(graph, cuts), 0
    for seed in range(60):
        try:
            assert seen(*torn(graph, cuts, random.Random(seed))) == before, f"seed {seed}: another program"
        except (InputError, FitError):
            refused += 1
    assert refused > 50
