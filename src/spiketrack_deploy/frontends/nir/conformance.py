"""The conformance suite: small graphs, their inputs, and what they do under every convention.

Decides what is in the folder. Must not know integers: the expected values are those of the float64 reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.nir.build import build
from spiketrack_deploy.frontends.nir.conventions import PRESETS, Convention
from spiketrack_deploy.frontends.nir.drawn_graphs import GRAPHS
from spiketrack_deploy.frontends.nir.inputs import drawn
from spiketrack_deploy.frontends.nir.network import NEURONS, FloatArray, Network
from spiketrack_deploy.frontends.nir.reference import simulate
from spiketrack_deploy.frontends.nir.suggest import check
from spiketrack_deploy.frontends.nir.tables import convention_page
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.nir_graph.data import write_data
from spiketrack_deploy.nir_graph.tree_writer import write_tree

STEPS, RATE, DT = 40, 0.4, 1e-3


def write_suite(folder: Path, marker: str) -> dict[str, Any]:
    """Write ``GRAPH.nir``, ``GRAPH.input.h5`` and ``GRAPH.CONVENTION.h5`` (NIRData: the ``value`` of every neuron and
    Output node, and the ``v`` of neurons before their reset), README.md, and the list of all of it as ``marker``."""
    answers: dict[str, dict[str, str]] = {}
    for name, (_, make) in GRAPHS.items():
        tree = make()
        write_tree(tree, folder / f"{name}.nir")
        network = build(tree, folder / f"{name}.nir").network
        given = drawn(network, STEPS, RATE, sum(name.encode()))
        write_data(folder / f"{name}.input.h5", {key: {"spikes": value} for key, value in given.values.items()}, DT)
        answers[name] = {}
        for preset, convention in conventions().items():
            answers[name][preset] = _answer(folder, name, preset, convention, network, given.values)
    words = {name: asdict(convention) for name, convention in conventions().items()}
    listed = {"steps": STEPS, "conventions": words, "graphs": answers}
    write_whole(folder / marker, json.dumps(listed, indent=1) + "\n")
    write_whole(folder / "README.md", _page(answers))
    count = sum(answer.endswith(".h5") for row in answers.values() for answer in row.values())
    return {"graphs": len(GRAPHS), "answers": count, "conventions": list(words)}


def conventions() -> dict[str, Convention]:
    """Every preset with the suite's step, so that one input serves all."""
    return {name: replace(convention, dt=DT) for name, convention in PRESETS.items()}


def _answer(
    folder: Path, name: str, preset: str, convention: Convention, network: Network, given: Mapping[str, FloatArray]
) -> str:
    """The file of one answer, or why the convention does not apply to the graph."""
    try:
        check(network, convention)
    except InputError as error:
        return str(error).split(": ", 1)[1]
    moments = list(simulate(network, convention, given))
    recorded: dict[str, dict[str, FloatArray]] = {}
    for key, node in network.nodes.items():
        if node.kind in (*NEURONS, "Output"):
            recorded[key] = {"value": np.stack([moment.values[key] for moment in moments])}
        if node.kind in NEURONS:
            recorded[key]["v"] = np.stack([moment.membranes[key] for moment in moments])
    file = f"{name}.{preset}.h5"
    write_data(folder / file, recorded, DT)
    return file


def _page(answers: Mapping[str, Mapping[str, str]]) -> str:
    rows = [f"| `{name}` | {GRAPHS[name][0]} |" for name in answers]
    without = [
        f"| `{name}` | {preset} | {why} |"
        for name, row in answers.items()
        for preset, why in row.items()
        if not why.endswith(".h5")
    ]
    return "\n".join(
        [
            "# NIR conformance suite",
            "",
            f"Small NIR graphs with {STEPS} steps of input and what they do under each convention, in float64. "
            "`GRAPH.nir` opens with `nir.read`; the other files are NIRData (`nir.read_data`): `GRAPH.input.h5` holds "
            "the `spikes` of every Input node, `GRAPH.CONVENTION.h5` the `value` of every neuron and Output node and "
            "the membrane `v` of every neuron before its reset. Values of a node of several axes are flattened in C "
            "order. Spikes must be equal; membranes agree to rounding.",
            "",
            "`type_check=False` is needed for `conv2d` (nir 1.0.8 refuses every grouped convolution and every kernel "
            "that is not square) and for `old_file`, whose stored shapes have a batch axis.",
            "",
            "| graph | what it shows |",
            "| --- | --- |",
            *rows,
            "",
            convention_page(),
            "",
            "## Where a convention does not apply",
            "",
            "| graph | convention | why |",
            "| --- | --- | --- |",
            *without,
            "",
        ]
    )
