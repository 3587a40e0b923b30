"""From a NIR file and what was asked for to everything that a run needs: network, convention, input, what was assumed.

Decides how given words become a convention, and when a diagnostic is an error. Must not know integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.frontends.nir import inputs
from spiketrack_deploy.frontends.nir.build import read_network
from spiketrack_deploy.frontends.nir.conventions import PRESETS, Convention
from spiketrack_deploy.frontends.nir.diagnose import Diagnostic
from spiketrack_deploy.frontends.nir.network import NEURONS, SPIKING, FloatArray, Network
from spiketrack_deploy.frontends.nir.reference import Simulation
from spiketrack_deploy.frontends.nir.suggest import assumed, check
from spiketrack_deploy.inputs.progress import Tell

MAX_KEPT = 1 << 28
"""Values of a float run that are kept for comparison."""


@dataclass(frozen=True, slots=True)
class Words:
    """What was asked for. ``preset``: name of a convention, None where nothing was said; ``fields``: single fields of
    :class:`Convention`; ``input``: a file, None for drawn spikes of ``rate`` and ``seed``; ``trace``: nodes."""

    preset: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    input: Path | None = None
    steps: int | None = None
    rate: float | None = None
    seed: int | None = None
    strict: bool = False
    trace: Sequence[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A network that can be run: ``diagnostics`` in the order in which they were found."""

    network: Network
    convention: Convention
    given: inputs.Given
    diagnostics: tuple[Diagnostic, ...]
    preset: str | None


def prepare(path: Path, words: Words) -> Prepared:
    """Read, decide the convention, get the input. InputError names what is unusable; UsageError what was asked wrongly;
    with ``strict`` every diagnostic is an InputError."""
    read = read_network(path)
    network = read.network
    convention = replace(PRESETS[words.preset or "euler"], **dict(words.fields))
    unknown = [name for name in words.trace if name not in network.nodes or network.nodes[name].kind not in NEURONS]
    if unknown:
        raise UsageError(f"--trace {unknown[0]}: is no neuron of {path.name}; it has {', '.join(network.neurons[:20])}")
    found = [*read.diagnostics, *assumed(network, words.preset, words.fields, convention), *check(network, convention)]
    given = _given(network, words, convention, found)
    if words.strict:
        demand_none(path, found)
    return Prepared(network, convention, given, tuple(found), words.preset)


def demand_none(path: Path, found: Sequence[Diagnostic]) -> None:
    """InputError with all of ``found`` where there is one."""
    if found:
        raise InputError(f"{path}: --strict makes an error of every diagnostic: {'; '.join(map(str, found))}")


def _given(network: Network, words: Words, convention: Convention, found: list[Diagnostic]) -> inputs.Given:
    if words.input is not None:
        if words.rate is not None or words.seed is not None:
            raise UsageError("--rate and --seed are for drawn input; drop them, or --input")
        return inputs.read_inputs(words.input, network, words.steps, convention.dt)
    rate = inputs.DEFAULT_RATE if words.rate is None else words.rate
    given = inputs.drawn(network, words.steps or inputs.DEFAULT_STEPS, rate, words.seed or inputs.DEFAULT_SEED)
    if words.rate is None:
        found.append(Diagnostic("drawn-input", "", f"no --input was given: {given.source}; --rate states one"))
    return given


@dataclass(frozen=True, slots=True, eq=False)
class FloatRun:
    """What the float64 reference did. ``outputs``: of every neuron and Output node [steps, *shape]; ``membranes``: of
    the traced ones; ``largest``: |value| of every node, and under ``NODE.v`` of every membrane."""

    outputs: Mapping[str, FloatArray]
    membranes: Mapping[str, FloatArray]
    largest: Mapping[str, float]


def float_run(prepared: Prepared, trace: Sequence[str] = (), tell: Tell | None = None) -> FloatRun:
    """Run the reference over all steps; spikes are kept small, voltages in full."""
    network, given = prepared.network, prepared.given
    kept = [name for name, node in network.nodes.items() if node.kind in (*NEURONS, "Output")]
    size = sum(int(np.prod(network.nodes[name].shape)) for name in [*kept, *trace])
    if size * given.steps > MAX_KEPT:
        raise InputError(
            f"{network.name}: {given.steps} steps of {size} values are too many to compare; run fewer steps"
        )
    simulation, largest = Simulation(network, prepared.convention), dict[str, float]()
    outputs = {name: np.empty((given.steps, *network.nodes[name].shape), _kept_as(network, name)) for name in kept}
    membranes = {name: np.empty((given.steps, *network.nodes[name].shape)) for name in trace}
    for step in range(given.steps):
        if tell and step % 16 == 0:
            tell("float64 reference", step, given.steps)
        moment = simulation.step({name: values[step] for name, values in given.values.items()})
        for name in kept:
            outputs[name][step] = moment.values[name]
        for name in membranes:
            membranes[name][step] = moment.membranes[name]
        for name, value in moment.values.items():
            largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max()))
        for name, value in moment.membranes.items():
            largest[f"{name}.v"] = max(largest.get(f"{name}.v", 0.0), float(np.abs(value).max()))
    overflow = sorted(name for name, value in largest.items() if not np.isfinite(value))
    if overflow:
        raise InputError(f"{network.name}: node '{overflow[0]}' leaves the range of float64 on this input")
    return FloatRun(outputs, membranes, largest)


def _kept_as(network: Network, name: str) -> str:
    return "<f4" if network.nodes[name].kind in SPIKING else "<f8"


def spike_valued(network: Network) -> set[str]:
    """Nodes whose values are counts of spikes: spiking neurons, Thresholds, and what only gathers or moves these."""
    found: set[str] = set()
    for name, node in network.nodes.items():
        sources = [edge.source for edge in network.into(name)]
        moves = node.kind in ("Output", "Flatten", "Delay", "SumPool2d")
        if node.kind in (*SPIKING, "Threshold") or (moves and sources and all(source in found for source in sources)):
            found.add(name)
    return found
