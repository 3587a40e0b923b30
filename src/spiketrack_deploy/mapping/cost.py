"""Energy of a mapped network: what only a mapping can count (hops, copies, barriers), billed by ``energy.pricing``.

This module decides what a mapping counts, and how the bill is shown. It has no price of its own. Energies in nanojoules
per run of the phase; nothing without a price is zero, it is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.energy.pricing import Need, Unpriced, bill, lacks
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.vocabulary import PRICES
from spiketrack_deploy.mapping.activity import Activity
from spiketrack_deploy.mapping.latency import VALUE_PER_SPIKE, Latency
from spiketrack_deploy.mapping.types import ChipMapping
from spiketrack_deploy.units import Interval, total

CAMERA_PERIOD_S = 1 / 30
LINES = (
    Need("synops", ("synop", "unit_op"), "synaptic operations"),
    Need("relay_synops", ("relay_synop",), "stream synapses"),
    Need("macs", ("mac",), "image multiply-accumulates"),
    Need("idle_updates", ("neuron_idle",), "idle neuron updates"),
    Need("active_updates", ("neuron_active",), "spiking neuron updates"),
    Need("relay_updates", ("relay_update",), "stream neuron updates"),
    Need("messages", ("message", "unit_message"), "spike messages, every destination core"),
    Need("relay_messages", ("relay_message",), "stream messages, every destination core"),
    Need("hops_ew", ("hop_ew",), "hops east-west"),
    Need("hops_ns", ("hop_ns",), "hops north-south"),
    Need("chip_crossings", (), "messages between chips"),
    Need("host_values", (), "values exchanged with the host beside the image"),
    Need("pixels", (), "pixels entering from the host"),
    Need("barriers", (), "barriers"),
)
"""What a mapping counts, in the order of its lines."""


@dataclass(frozen=True, slots=True)
class Line:
    """``count`` events of one price, or watts over a time: ``energy`` in nanojoules."""

    name: str
    count: float
    energy: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {"name": self.name, "count": self.count, "energy_nj": self.energy.to_dict()}


@dataclass(frozen=True, slots=True)
class MappedEnergy:
    """Energy per run of the phase, nanojoules. ``static_camera``: all chips over one camera frame (1/30 s);
    ``static_step``: over one step, the frame period at full pipelined speed. ``hops``: (east-west, north-south)."""

    lines: tuple[Line, ...]
    static_camera: Interval | None
    static_step: Interval | None
    chips: int
    hops: tuple[float, float]
    unpriced: tuple[Unpriced, ...]
    origin: str

    @property
    def dynamic(self) -> Interval:
        """Sum of all lines."""
        return total(line.energy for line in self.lines)

    @property
    def dominant(self) -> str:
        """Name of the largest nominal term at camera rate, static power among them."""
        terms = {line.name: line.energy.nominal for line in self.lines}
        if self.static_camera:
            terms["static power"] = self.static_camera.nominal
        return max(terms, key=lambda name: terms[name]) if terms else "nothing is priced"

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "activity": self.origin,
            "lines": [line.to_dict() for line in self.lines],
            "dynamic_nj": self.dynamic.to_dict(),
            "static_camera_frame_nj": self.static_camera.to_dict() if self.static_camera else None,
            "static_full_speed_nj": self.static_step.to_dict() if self.static_step else None,
            "chips_powered": self.chips,
            "hops_east_west": self.hops[0],
            "hops_north_south": self.hops[1],
            "dominant_at_camera_rate": self.dominant,
            "unpriced": [item.to_dict() for item in self.unpriced],
        }


def hops(mapping: ChipMapping) -> tuple[float, float]:
    """Messages times hops per run, east-west and north-south."""
    flow, at = mapping.traffic, mapping.placement
    east = np.abs(at.x[flow.source] - at.x[flow.target]) * flow.messages
    south = np.abs(at.y[flow.source] - at.y[flow.target]) * flow.messages
    return float(east.sum()), float(south.sum())


def between_chips(mapping: ChipMapping) -> float:
    """Messages per run that leave their chip."""
    flow, chip = mapping.traffic, mapping.placement.chip
    return float(flow.messages[chip[flow.source] != chip[flow.target]].sum())


def mapped_energy(
    mapping: ChipMapping,
    activity: Activity,
    profile: Profile,
    time: Latency,
    value_per_spike: float = VALUE_PER_SPIKE,
) -> MappedEnergy:
    """Bill a mapping; all chips of a board draw static power, of a chip family those needed.

    ``value_per_spike``: mean spike value, used only where spikes are binary and a spike is so many events.
    """
    per = mapping.network.phase
    counts = mapped_counts(mapping, activity, profile.substeps, value_per_spike)
    parts = bill(counts, profile)
    lines, missing = [], []
    for need in LINES:
        paid = [part for part in parts if part.price in need.prices]
        lack = lacks(need, profile)
        lines += [Line(need.what, part.count, part.energy) for part in paid]
        if lack and counts[need.count]:
            missing.append(Unpriced(need.what, counts[need.count], per, lack))
    listed = {price for need in LINES for price in need.prices}
    lines += [Line(PRICES[p.price][1], p.count, p.energy) for p in parts if p.price not in listed]
    if profile.price("static_power") is None:
        missing.append(Unpriced("static power", mapping.chips, "chip", f"no price static_power in {profile.name}"))
    chips = max(mapping.chips_available or 0, mapping.chips)
    power = profile.price("static_power")
    return MappedEnergy(
        lines=tuple(lines),
        static_camera=power * (chips * CAMERA_PERIOD_S * 1e9) if power else None,
        static_step=_over(power, time.step, chips) if power else None,
        chips=chips,
        hops=hops(mapping),
        unpriced=tuple(missing),
        origin=activity.origin,
    )


def _over(power: Interval, time: Interval, chips: int) -> Interval:
    """Watts times seconds, end by end, in nanojoules."""
    scale = chips * 1e9
    return Interval(power.low * time.low, power.nominal * time.nominal, power.high * time.high) * scale


def mapped_counts(mapping: ChipMapping, activity: Activity, substeps: int, value_per_spike: float) -> dict[str, float]:
    """What happens on the chips in one run, by the names of ``energy.pricing.CHARGES`` and :data:`LINES`.

    Unit operations and messages are those of a spike of value n as n events; where a time step takes several
    ``substeps``, every spike travels and updates its neuron so often.
    """
    network = mapping.network
    binary = 1.0 if substeps == 1 else value_per_spike
    sums = dict.fromkeys(("synops", "relay_synops", "macs", "messages", "relay_messages"), 0.0)
    for index, s in enumerate(network.synapses):
        source = network.populations[s.source]
        streams = s.form in ("identity", "pool", "upsample")
        key = "macs" if source.kind == "image" else "relay_synops" if streams else "synops"
        sums[key] += float(activity.synops[index])
        spikes = source.kind == "neurons" and not streams
        sums["messages" if spikes else "relay_messages"] += float(mapping.messages[index])
    slots = network.slots
    spiking = activity.spiking * binary
    # The matrix of another phase is written when that phase runs, not in every run of this one.
    sources = [network.populations[s.source] for s in network.synapses if s.form == "host"]
    east, north = hops(mapping)
    return {
        **sums,
        "unit_ops": sums["synops"] * value_per_spike,
        "idle_updates": max(0.0, slots.get("neurons", 0) * substeps - spiking),
        "active_updates": spiking,
        "relay_updates": float(slots.get("relay", 0) + slots.get("memory", 0)),
        "unit_messages": sums["messages"] * value_per_spike,
        "hops_ew": east * binary,
        "hops_ns": north * binary,
        "chip_crossings": between_chips(mapping) * binary,
        "host_values": float(sum(p.slots for p in sources if p.kind != "input")),
        "pixels": float(sum(p.slots for p in network.populations if p.kind == "image")),
        "barriers": float(substeps),
    }
