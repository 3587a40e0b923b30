"""What a spike more or less changes in the energy of a frame: the verdict's derivative, operation by operation.

This module decides which parts of the verdict move with spikes. Slots, levels and stored entries do not, stream values
are sent whatever they are, and time is that of the frame as it was mapped. What moves: a synaptic operation; a spike's
messages, to as many cores as the mapping sends it to, with their mean number of hops; and where a host runs the first
layer, the time that each of its spikes takes to enter, which the chips are powered for, as long as a frame takes longer
than its period. It must not know training.
"""

from __future__ import annotations

from collections.abc import Mapping

from spiketrack_deploy.energy.frames import CAMERA_PERIOD_S, STEADY, result_cost
from spiketrack_deploy.energy.layers import main_phase, runs_per_result
from spiketrack_deploy.energy.pricing import bill
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.report import MappingReport, map_phase
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.training.penalty import SpikePrices


def spike_prices(program: Program, target: Target, first_layer: str = "chip") -> SpikePrices:
    """Nominal prices of the spikes that convolutions of the main phase read. ``first_layer``: see ``mapping.entry``.

    UsageError: a target without cores, or no first layer that a host could run.
    """
    return prices_of(map_phase(program, main_phase(runs_per_result(program)), target, way=Way(first_layer)))


def prices_of(report: MappingReport) -> SpikePrices:
    """The same of a phase that is mapped already."""
    mapping, network = report.mapping, report.mapping.network
    sent = float(mapping.messages.sum())
    hops = {name: report.run.whole[name] / sent if sent else 0.0 for name in ("hops_ew", "hops_ns")}
    message = _energy(report, {"messages": 1.0, "unit_messages": report.value_per_spike, **hops})
    way = _entering(report)
    cores: dict[str, float] = {}
    read: dict[str, int] = {}
    enters: set[str] = set()
    for index, s in enumerate(network.synapses):
        source = network.populations[s.source]
        if s.form == "conv" and source.kind in ("neurons", "entry"):
            cores[s.op] = cores.get(s.op, 0.0) + float(mapping.copies[index])
            read[s.op] = read.get(s.op, 0) + source.slots
            enters |= {s.op} if source.kind == "entry" else set()
    spike = {op: cores[op] / read[op] * message + (way if op in enters else 0.0) for op in cores}
    return SpikePrices(_energy(report, {"synops": 1.0, "unit_ops": report.value_per_spike}), spike)


def _energy(report: MappingReport, counts: Mapping[str, float]) -> float:
    return sum(part.energy.nominal for part in bill(counts, report.profile))


def _entering(report: MappingReport) -> float:
    """Nanojoules of the chips while one value enters, where the frame is longer than its period."""
    profile, chips = report.profile, report.mapping.powered
    cost = result_cost(STEADY, [report.run], profile, chips, CAMERA_PERIOD_S)
    power, way = profile.price("static_power"), profile.price("t_image")
    if power is None or way is None or cost.latency.nominal <= cost.period_s:
        return 0.0
    return power.nominal * way.nominal * chips * 1e9
