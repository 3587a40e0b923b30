"""How busy every bundle of synapses is: share of its source that sends, and synaptic operations, per run of a phase.

This module decides how counts of a run (or an assumed density) are laid on the synapses of a mapped network. It must
not know cores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.mapping.fanin import fan_in
from spiketrack_deploy.mapping.types import FloatArray, IntArray, Population, PopulationGraph, Synapses
from spiketrack_deploy.program.types import Arrays

ASSUMED_DENSITY = 0.5
"""Share of neurons that spike in a run where nothing was measured: in the middle of the 0.23 to 0.91 that published
energies imply (docs/loihi.md, "What a chip counts"); a figure made with it is labelled as assumed."""

Density = float | Callable[[Population], float]
"""An assumed share of neurons that spike in a run: one for all, or one for each population."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Per bundle of synapses, float64 ``[synapses]``: ``rate``, the share of source neurons that send in a run;
    ``synops``, synapses visited in a run. ``measured``: from counts of a run; ``origin`` says so in words.
    ``spiking``: operation -> its neurons that spike in a run.

    ``share``: per bundle ``[channels, height]`` of the target, non-zero synapses per row. ``extra_relays``: messages of
    stream neurons to NI-LIF neurons, which the program's counts do not have (there, a stream is read where it lies).
    """

    rate: FloatArray
    synops: FloatArray
    share: tuple[IntArray, ...]
    measured: bool
    origin: str
    extra_relays: float
    spiking: Mapping[str, float]


def assumed(network: PopulationGraph, arrays: Arrays, density: Density = ASSUMED_DENSITY) -> Activity:
    """Every NI-LIF, and every input of spikes, spikes with probability ``density``; every stream value and pixel is
    non-zero. InputError: not within 0..1."""
    if not callable(density) and not 0 <= density <= 1:
        raise InputError(f"the assumed spike density is {density}, must be between 0 and 1.")
    of = density if callable(density) else (lambda population: density)
    share = tuple(fan_in(network, s, arrays) for s in network.synapses)
    rate = np.ones(len(network.synapses))
    synops = np.zeros(len(network.synapses))
    for index, s in enumerate(network.synapses):
        source, target = network.populations[s.source], network.populations[s.target]
        if source.kind in ("neurons", "entry", "input") and s.form != "identity":
            rate[index] = of(source)
        synops[index] = rate[index] * share[index].sum()
        if s.form == "product":  # two bundles share the operation: half of its visits each
            meeting = math.prod(of(p) for p in _multiplied(network, s.op))
            pairs = source.height * source.width if target.kind == "memory" else _depth(network, s.op)
            synops[index] = meeting * pairs * target.slots / 2
        elif s.form == "host":
            rate[index] = 0.0
    extra = _extra(network, rate)
    how = "a share by kind of layer" if callable(density) else f"{density:g}"
    origin = f"assumed: {how} of the neurons spike in a frame"
    spiking: dict[str, float] = {}
    for p in network.populations:
        if p.kind == "neurons":
            spiking[p.op] = spiking.get(p.op, 0.0) + of(p) * p.slots
    return Activity(rate, synops, share, False, origin, extra, spiking)


def _multiplied(network: PopulationGraph, op: str) -> list[Population]:
    """Populations of spikes that one step of a product multiplies."""
    sources = [network.populations[s.source] for s in network.synapses if s.op == op and s.form == "product"]
    step = sources[0].step if sources else 0
    return [p for p in sources if p.kind in ("neurons", "entry", "input") and p.step == step]


def measured(
    network: PopulationGraph, arrays: Arrays, layers: Iterable[LayerCounts], share: tuple[IntArray, ...] | None = None
) -> Activity:
    """From the mean counts of a run, by operation. ``share``: of another run of the same network, where it is known.

    InputError where an operation of the network has no counts: they are another program's.
    """
    counts = {layer.name: layer for layer in layers}
    missing = [s.op for s in network.synapses if s.op not in counts]
    if missing:
        raise InputError(f"the trace has no counts of operation {missing[0]}: it was made by another program.")
    if share is None:
        share = tuple(fan_in(network, s, arrays) for s in network.synapses)
    rate, synops = np.ones(len(network.synapses)), np.zeros(len(network.synapses))
    by_op: dict[str, list[int]] = {}
    for index, s in enumerate(network.synapses):
        by_op.setdefault(s.op, []).append(index)
    for op, bundles in by_op.items():
        _lay(network, bundles, counts[op], share, rate, synops)
    _stream_rates(network, rate, synops, share, counts)
    spiking = {op: float(counts[op]["neuron_spiking"]) for op in _neuron_ops(network) if op in counts}
    return Activity(rate, synops, share, True, "counts of a run", _extra(network, rate), spiking)


def _neuron_ops(network: PopulationGraph) -> list[str]:
    return list(dict.fromkeys(p.op for p in network.populations if p.kind == "neurons"))


def _depth(network: PopulationGraph, op: str) -> int:
    """Inner dimension of a query's product: rows of one head's matrix."""
    for s in network.synapses:
        source = network.populations[s.source]
        if s.op == op and source.kind == "memory":
            return source.channels // s.groups
    return 1


def _lay(
    network: PopulationGraph,
    bundles: list[int],
    count: LayerCounts,
    share: tuple[IntArray, ...],
    rate: FloatArray,
    synops: FloatArray,
) -> None:
    """Counts of one operation on its bundles: visits in proportion to the synapses, sending shares alike."""
    form = network.synapses[bundles[0]].form
    if any(network.synapses[i].form in ("conv", "matrix", "product") for i in bundles):
        own = [i for i in bundles if network.synapses[i].form in ("conv", "matrix", "product")]
        # A convolution that several readers sum has all its bundles once for each of them.
        same = Counter((network.synapses[i].source, network.populations[network.synapses[i].target].step) for i in own)
        visits = (count["synops"] + count["macs"]) * max(same.values())
        weights = np.array([max(share[i].sum(), 1) for i in own], dtype=np.float64)
        synops[own] = visits * weights / weights.sum()
        spikes = [i for i in own if network.populations[network.synapses[i].source].kind in ("neurons", "entry")]
        rate[spikes] = count["events"] / count["input_size"] if count["input_size"] else 0.0
    elif form in ("pool", "upsample"):
        slots = sum(network.populations[network.synapses[i].source].slots for i in bundles)
        rate[bundles] = count["relays"] / slots
        weights = np.array([share[i].sum() for i in bundles], dtype=np.float64)
        synops[bundles] = count["relay_synops"] * weights / weights.sum()
    for i in bundles:
        if network.synapses[i].form == "host":
            rate[i], synops[i] = 0.0, 0.0


def _stream_rates(
    network: PopulationGraph,
    rate: FloatArray,
    synops: FloatArray,
    share: tuple[IntArray, ...],
    counts: Mapping[str, LayerCounts],
) -> None:
    """One-to-one messages: an addition counts how many values of its stream are not zero; its other readers read the
    same values. Where no addition reads a stream, and for membranes, every value is taken as sent."""
    known: dict[str, float] = {}
    by_op: dict[str, list[Synapses]] = {}
    for s in network.synapses:
        if s.form == "identity":
            by_op.setdefault(s.op, []).append(s)
    for s in network.synapses:
        source = network.populations[s.source]
        stream = source.kind == "relay" or source.keeps
        if s.form == "identity" and stream and counts[s.op]["relays"]:
            values = sum(network.populations[o.source].slots for o in by_op[s.op])
            known[source.name] = min(1.0, counts[s.op]["relays"] / values)
    for index, s in enumerate(network.synapses):
        if s.form == "identity":
            rate[index] = known.get(network.populations[s.source].name, 1.0)
            synops[index] = rate[index] * share[index].sum()


def _extra(network: PopulationGraph, rate: FloatArray) -> float:
    """Messages of streams and membranes to NI-LIF neurons."""
    return float(
        sum(
            rate[i] * network.populations[s.source].slots
            for i, s in enumerate(network.synapses)
            if s.form == "identity" and network.populations[s.target].kind == "neurons"
        )
    )
