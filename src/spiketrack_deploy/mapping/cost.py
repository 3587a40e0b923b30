"""Energy of a mapped network: counts times prices where the hops, destination cores and chips are known.

This module decides which count of a mapping meets which price. It must not know how anything was mapped. Energies in
nanojoules per search frame; nothing without a price is zero, it is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.energy.pricing import Unpriced
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.activity import Activity
from spiketrack_deploy.mapping.latency import VALUE_PER_SPIKE, Latency
from spiketrack_deploy.mapping.types import ChipMapping
from spiketrack_deploy.units import Interval, total

CAMERA_PERIOD_S = 1 / 30
IMAGE_CHANNELS = 3


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
    """Energy per search frame, nanojoules. ``static_camera``: all chips over one camera frame (1/30 s);
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
    """Messages times hops per frame, east-west and north-south."""
    flow, at = mapping.traffic, mapping.placement
    east = np.abs(at.x[flow.source] - at.x[flow.target]) * flow.messages
    south = np.abs(at.y[flow.source] - at.y[flow.target]) * flow.messages
    return float(east.sum()), float(south.sum())


def between_chips(mapping: ChipMapping) -> float:
    """Messages per frame that leave their chip."""
    flow, chip = mapping.traffic, mapping.placement.chip
    return float(flow.messages[chip[flow.source] != chip[flow.target]].sum())


def mapped_energy(
    mapping: ChipMapping,
    activity: Activity,
    profile: Profile,
    time: Latency,
    *,
    powered: int | None = None,
    value_per_spike: float = VALUE_PER_SPIKE,
) -> MappedEnergy:
    """Price a mapping. ``powered``: chips that draw static power (default: all of the board, or those needed).

    ``value_per_spike``: mean spike value, used only where spikes are binary and a spike is so many events.
    """
    counts = event_counts(mapping, activity, 1.0 if profile.substeps == 1 else value_per_spike, profile.substeps)
    lines, missing = [], []
    for name, (prices, count) in counts.items():
        price = next((profile.price(p) for p in prices if profile.price(p) is not None), None)
        if price is not None:
            lines.append(Line(name, count, price * count))
        elif count:
            wanted = f"no price {' or '.join(prices)} in {profile.name}" if prices else "no energy was published"
            missing.append(Unpriced(name, count, "search frame", wanted))
    if profile.price("static_power") is None:
        missing.append(Unpriced("static power", mapping.chips, "chip", f"no price static_power in {profile.name}"))
    chips = powered or max(mapping.chips_available or 0, mapping.chips)
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


Counted = dict[str, tuple[tuple[str, ...], float]]


def event_counts(mapping: ChipMapping, activity: Activity, events_per_spike: float, substeps: int) -> Counted:
    """Line -> (prices that fit, of which the first known counts; number per search frame)."""
    network = mapping.network
    sums = dict.fromkeys(("synop", "relay_synop", "mac", "message", "relay_message"), 0.0)
    for index, s in enumerate(network.synapses):
        source = network.populations[s.source]
        streams = s.form in ("identity", "pool", "upsample")
        synops, messages = float(activity.synops[index]), float(mapping.messages[index])
        key = "mac" if source.kind == "input" else "relay_synop" if streams else "synop"
        sums[key] += synops
        sums["message" if source.kind == "neurons" and not streams else "relay_message"] += messages
    slots = network.slots
    spiking = activity.spiking * events_per_spike
    # A template's matrix is written at template updates, not in every frame.
    sources = [network.populations[s.source] for s in network.synapses if s.form == "host"]
    host = sum(p.slots for p in sources if p.kind != "input")
    pixels = sum(p.slots for p in network.populations if p.kind == "input" and p.channels <= IMAGE_CHANNELS)
    e, n = hops(mapping)
    return {
        "synaptic operations": (("synop", "unit_op"), sums["synop"] * events_per_spike),
        "stream synapses": (("relay_synop",), sums["relay_synop"]),
        "image multiply-accumulates": (("mac",), sums["mac"]),
        "idle neuron updates": (("neuron_idle",), max(0.0, slots.get("neurons", 0) * substeps - spiking)),
        "spiking neuron updates": (("neuron_active",), spiking),
        "stream neuron updates": (("relay_update",), float(slots.get("relay", 0) + slots.get("memory", 0))),
        "spike messages, every destination core": (("message", "unit_message"), sums["message"] * events_per_spike),
        "stream messages, every destination core": (("relay_message",), sums["relay_message"]),
        "hops east-west": (("hop_ew",), e * events_per_spike),
        "hops north-south": (("hop_ns",), n * events_per_spike),
        "messages between chips": ((), between_chips(mapping) * events_per_spike),
        "values exchanged with the host beside the image": ((), float(host)),
        "pixels entering from the host": ((), float(pixels)),
        "barriers": ((), float(substeps)),
    }
