"""What a graph with cuts consists of, as plain numbers for ``spiketrack inspect``.

Decides what is counted. Must not know files, terminals or what the numbers are for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from spiketrack_deploy.nir_graph.cuts import cut_record
from spiketrack_deploy.nir_graph.graph import Cut, Graph, array_digests, compact, constant_value, phase_of, phases_of


def summary(graph: Graph, cuts: Sequence[Cut]) -> dict[str, Any]:
    """JSON-ready counts.

    ``nodes`` (by kind) and ``edges`` of the whole; ``bytes``: ``declared`` = all array fields at full shape,
    ``stored`` = distinct arrays, a constant counting one number; per phase ``nodes``, ``edges``, ``neuron_banks``
    (NI-LIF calls times steps), ``neurons`` (their elements), ``cut_ops`` (by operation) and ``cuts`` (in execution
    order: id, op, inputs, outputs, params).
    """
    return {
        "schema": graph.metadata.get("schema"),
        "nodes": _by_kind(graph, None),
        "edges": len(graph.edges),
        "bytes": _bytes(graph),
        "phases": {phase: _phase(graph, cuts, phase) for phase in phases_of(graph, cuts)},
    }


def _by_kind(graph: Graph, phase: str | None) -> dict[str, int]:
    kinds = Counter(node.kind for name, node in graph.nodes.items() if phase in (None, phase_of(name)))
    return dict(sorted(kinds.items()))


def _phase(graph: Graph, cuts: Sequence[Cut], phase: str) -> dict[str, Any]:
    banks = [name for name, feeds in graph.sources().items() if feeds and phase_of(name) == phase]
    spikes = [name for name in banks if _is_bank(graph, name)]
    own = [cut for cut in cuts if phase_of(cut.id) == phase]
    return {
        "nodes": _by_kind(graph, phase),
        "edges": sum(phase_of(source) == phase for source, _ in graph.edges),
        "neuron_banks": len(spikes),
        "neurons": sum(graph.nodes[name].array("scale").size for name in spikes),
        "cut_ops": dict(sorted(Counter(cut.op for cut in own).items())),
        "cuts": [cut_record(cut) for cut in own],
    }


def _is_bank(graph: Graph, name: str) -> bool:
    return graph.nodes[name].kind == "Scale" and f"{name}.k1" in graph.nodes


def _bytes(graph: Graph) -> dict[str, int]:
    declared, stored = 0, 0
    digests, seen = array_digests(graph), set[str]()
    for node in graph.nodes.values():
        for value in node.params.values():
            if not isinstance(value, np.ndarray):
                continue
            declared += value.nbytes
            if digests[id(value)] not in seen:
                seen.add(digests[id(value)])
                stored += value.itemsize if constant_value(compact(value)) is not None else value.nbytes
    return {"declared": declared, "stored": stored}
