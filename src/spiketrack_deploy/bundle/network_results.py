"""What a run of a NIR network showed: agreement with float64 node by node, outputs, what the report draws.

This module decides the content of ``parity.json`` and ``outputs.npz`` of such a bundle. It must not run anything.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.bundle.agreement import Agreement
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.frontends.nir.diagnose import Diagnostic
from spiketrack_deploy.frontends.nir.lower import Lowered
from spiketrack_deploy.frontends.nir.network import SPIKING, FloatArray
from spiketrack_deploy.frontends.nir.prepare import FloatRun, Prepared
from spiketrack_deploy.frontends.nir.suggest import describe
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.program.bounds import prove_ranges
from spiketrack_deploy.program.describe import describe_ranges

SCHEMA = "spiketrack-network-parity/1"
SHOWN_NEURONS = 64


@dataclass(slots=True)
class Ran:
    """All steps on one engine, in real units. ``values``: of Output nodes and traced neurons; ``membranes``: of those
    whose membrane is kept; ``runs``: counts of every step."""

    values: dict[str, list[FloatArray]]
    membranes: dict[str, list[FloatArray]]
    runs: list[list[LayerCounts]] = field(default_factory=list)


def afterwards(prepared: Prepared, floats: FloatRun, ran: Ran, lowered: Lowered) -> list[Diagnostic]:
    """What the run showed: neurons that never spiked, integers that ran into a limit."""
    silent = [name for name in prepared.network.neurons
              if prepared.network.nodes[name].kind in SPIKING and not floats.outputs[name].any()]  # fmt: skip
    found = [
        Diagnostic("silent", name, "it never spiked on this input: nothing is known of its spikes") for name in silent
    ]
    clipped = {name: sum(layer.counts.get("saturated", 0) for run in ran.runs for layer in run if layer.name == name)
               for name in lowered.clipped}  # fmt: skip
    found += [
        Diagnostic("saturated", name, f"its integers ran into the limit of their width {count} times")
        for name, count in clipped.items()
        if count
    ]
    return found


def parity(
    prepared: Prepared,
    lowered: Lowered,
    agreement: Agreement,
    checked: Sequence[Mapping[str, Any]],
    diagnostics: Sequence[Diagnostic],
) -> dict[str, Any]:
    """The content of ``parity.json``: per node what quantisation did to its parameters, and how its values agree."""
    lost: dict[str, list[dict[str, Any]]] = {}
    for loss in lowered.layers:
        row = asdict(loss)
        lost.setdefault(row.pop("node"), []).append(row)
    values = {row["node"]: row for row in agreement.rows}
    nodes = [
        {"node": node.name, "kind": node.kind, "shape": list(node.shape), "parameters": lost.get(node.name, []),
         "agreement": {k: v for k, v in values[node.name].items() if k != "node"} if node.name in values else None}
        for node in prepared.network.nodes.values()
    ]  # fmt: skip
    return {
        "schema": SCHEMA,
        "network": prepared.network.name,
        "steps": prepared.given.steps,
        "input": prepared.given.source,
        "inputs": lowered.program.meta["workload"]["inputs"],
        "preset": prepared.preset,
        "convention": {**asdict(prepared.convention), "text": describe(prepared.convention)},
        "diagnostics": [one.to_dict() for one in diagnostics],
        "back_edges": [[edge.source, edge.target] for edge in prepared.network.back_edges],
        "spike_error": agreement.share(),
        "outputs": {name: values[name] for name in prepared.network.outputs},
        "nodes": nodes,
        "engines": list(checked),
        "limits": list(lowered.clipped),
        "ranges": describe_ranges(prove_ranges(lowered.program)),
    }


def write_outputs(path: Path, prepared: Prepared, floats: FloatRun, ran: Ran, trace: Sequence[str]) -> None:
    """``NAME`` and ``NAME.float`` of Output nodes and traced neurons, ``NAME.v`` and ``NAME.v.float``: [steps, ...]."""
    arrays: dict[str, Any] = {}
    for name in [*prepared.network.outputs, *trace]:
        arrays[name], arrays[f"{name}.float"] = np.stack(ran.values[name]), floats.outputs[name].astype(np.float64)
    for name in trace:
        arrays[f"{name}.v"], arrays[f"{name}.v.float"] = np.stack(ran.membranes[name]), floats.membranes[name]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(sorted(arrays.items())))
    write_whole(path, buffer.getvalue())


def pictures(
    prepared: Prepared, floats: FloatRun, ran: Ran, drawn: Sequence[str]
) -> list[tuple[str, str, FloatArray, FloatArray]]:
    """What the report draws: (kind, node, float, integer), [steps, neurons] each, a few neurons of every node."""
    found = [("input", name, _flat(values), _flat(values)) for name, values in prepared.given.values.items()]
    for name in prepared.network.outputs:
        found.append(("values", name, _flat(floats.outputs[name]), _flat(np.stack(ran.values[name]))))
    for name in dict.fromkeys(drawn):
        found.append(("membrane", name, _flat(floats.membranes[name]), _flat(np.stack(ran.membranes[name]))))
    return found


def _flat(values: FloatArray) -> FloatArray:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)[:, :SHOWN_NEURONS]
