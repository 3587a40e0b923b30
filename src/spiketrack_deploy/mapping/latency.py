"""How long one time step takes, and with it a frame (a run): the busiest core, the busiest link, the barrier.

This module decides the timing model. It must not know energies. All intervals are seconds.

Model (Timcheck 2026, arXiv 2601.10035; Yik 2025, arXiv 2511.21549: the maximum over cores sets the pace, not the total;
SANA-FE's ``simple`` model: maximum, then the barrier)::

    t_step = max(max over cores of synapses, max over cores of neurons, busiest link) + barrier

In a core, synapses (messages in, synaptic operations) and neurons (updates, messages out) overlap; where a profile
tells idle and active neurons apart, all are taken as active. A chip of binary spikes runs ``substeps`` of them per time
step of the network. One frame enters per step (pipelined), so a frame is on the chip for as many steps as the network
is deep, and a new result leaves every step. Not modelled: host input and output (54 times the chip's own latency in one
published measurement), self-attention's tokens one after the other, queueing in the network, rates of synaptic memory
reads (published as a plot only).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.loads import messages_per_core
from spiketrack_deploy.mapping.types import BoolArray, ChipMapping, FloatArray, IntArray
from spiketrack_deploy.units import ZERO, Interval

VALUE_PER_SPIKE = 2.5
"""Mean value of a spike where nothing was measured: the middle of 1..4, assumed."""
NOT_MODELLED = (
    "host input and output",
    "self-attention's tokens one after the other",
    "queueing between routers",
    "reads of synaptic memory",
)
"""What a step's time leaves out."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What could set the pace: ``what`` (synapses, neurons, link, barrier), where, how much of it, and how long.

    ``time`` is ``None`` where the profile has no price for it: the amount is stated, the time is unknown.
    """

    what: str
    where: str
    amount: float
    time: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Seconds with band."""
        time = self.time.to_dict() if self.time else None
        return {"cause": self.what, "where": self.where, "amount": self.amount, "time_s": time}


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one mapping in seconds. ``depth``: steps that a frame is on the chip."""

    causes: tuple[Cause, ...]
    step: Interval
    depth: int
    substeps: int

    @property
    def frame(self) -> Interval:
        """From a frame's entry to its result, pipelined or not."""
        return self.step * self.depth

    @property
    def bottleneck(self) -> Cause | None:
        """The cause that sets the nominal pace; ``None`` where the profile has no time at all."""
        timed = [c for c in self.causes if c.time is not None]
        return max(timed, key=lambda c: c.time.nominal if c.time else 0.0, default=None)

    @property
    def frames_per_second(self) -> Interval | None:
        """Pipelined: one frame per step. ``None`` where the step time is 0 at one end."""
        if self.step.low <= 0:
            return None
        return Interval(1 / self.step.high, 1 / self.step.nominal, 1 / self.step.low)

    def to_dict(self) -> dict[str, Any]:
        """JSON data, seconds."""
        rate = self.frames_per_second
        return {
            "step_s": self.step.to_dict(),
            "causes": [cause.to_dict() for cause in self.causes],
            "bottleneck": self.bottleneck.to_dict() if self.bottleneck else None,
            "depth_steps": self.depth,
            "substeps": self.substeps,
            "frame_latency_s": self.frame.to_dict(),
            "pipelined_frames_per_second": rate.to_dict() if rate else None,
            "fall_through_frames_per_second": 1 / self.frame.nominal if self.frame.nominal else None,
            "not_modelled": list(NOT_MODELLED),
        }


def latency(mapping: ChipMapping, profile: Profile, value_per_spike: float = VALUE_PER_SPIKE) -> Latency:
    """Time of a step and of a frame. ``value_per_spike``: mean spike value, used only where spikes are binary."""
    substeps = profile.substeps
    binary = value_per_spike if substeps > 1 else 1.0
    causes = [
        *_core_causes(mapping, profile, substeps, binary),
        _link_cause(mapping, profile, binary),
        _barrier(mapping, profile, substeps),
    ]
    work = [c.time for c in causes if c.time is not None and c.what != "barrier"]
    pace = Interval(*(max((getattr(t, end) for t in work), default=0.0) for end in ("low", "nominal", "high")))
    barrier = causes[-1].time or ZERO
    return Latency(tuple(causes), pace + barrier, mapping.network.depth, substeps)


def _core_causes(mapping: ChipMapping, profile: Profile, substeps: int, binary: float) -> list[Cause]:
    flow, cores = mapping.traffic, mapping.cores
    entering = messages_per_core(flow.target, flow.messages, cores) * binary
    leaving = messages_per_core(flow.source, flow.messages, cores) * binary
    synapses = (
        (mapping.synapses.synops * binary, profile.price("t_synop")),
        (entering, profile.price("t_message_in")),
    )
    neurons = (
        (mapping.loads.neurons.astype(np.float64) * substeps, profile.price("t_neuron", "t_neuron_active")),
        (leaving, profile.price("t_message_out")),
    )
    return [_busiest(mapping, "synapses", synapses), _busiest(mapping, "neurons", neurons)]


def _busiest(mapping: ChipMapping, what: str, terms: tuple[tuple[FloatArray, Interval | None], ...]) -> Cause:
    """The core with the longest nominal time; each end of the band is the maximum over cores at that end."""
    priced = [(amount, price) for amount, price in terms if price is not None]
    if not priced:
        core = int(np.argmax(terms[0][0]))
        return Cause(what, _core_name(mapping, core), float(terms[0][0][core]), None)
    ends = [sum(amount * getattr(price, end) for amount, price in priced) for end in ("low", "nominal", "high")]
    core = int(np.argmax(ends[1]))
    return Cause(
        what, _core_name(mapping, core), float(terms[0][0][core]), Interval(*(float(np.max(end)) for end in ends))
    )


def _core_name(mapping: ChipMapping, core: int) -> str:
    layers = mapping.layers_of(core)
    more = f" and {len(layers) - 2} more" if len(layers) > 2 else ""
    return f"core {core} on chip {int(mapping.placement.chip[core])}: {', '.join(layers[:2])}{more}"


def _link_cause(mapping: ChipMapping, profile: Profile, binary: float) -> Cause:
    name, load = busiest_link(mapping)
    price = profile.price("t_hop_ew") if " east" in name or " west" in name else profile.price("t_hop_ns")
    # The time of one hop taken as the time a message occupies the link: an upper bound for a pipelined router.
    return Cause("link", name, load * binary, price * (load * binary) if price else None)


def _barrier(mapping: ChipMapping, profile: Profile, substeps: int) -> Cause:
    name = "t_barrier_chip" if mapping.chips == 1 else "t_barrier_chips"
    price = profile.price(name)
    where = "one chip" if mapping.chips == 1 else f"{mapping.chips} chips"
    return Cause("barrier", where, substeps, price * substeps if price else None)


def link_loads(mapping: ChipMapping) -> dict[str, FloatArray]:
    """Messages per run on every link, ``[rows, columns]`` of the mesh: ``east`` leads from a router to the next
    column, ``west`` back to it, ``south`` to the next row, ``north`` back. Columns first, then rows."""
    place, flow = mapping.placement, mapping.traffic
    xs, ys = place.x[flow.source], place.y[flow.source]
    xt, yt = place.x[flow.target], place.y[flow.target]
    shape = (int(place.y.max(initial=0)) + 1, int(place.x.max(initial=0)) + 1)
    return {
        "east": _runs(shape, ys, xs, xt, flow.messages, xt > xs),
        "west": _runs(shape, ys, xt, xs, flow.messages, xt < xs),
        "south": _runs(shape[::-1], xt, ys, yt, flow.messages, yt > ys).T,
        "north": _runs(shape[::-1], xt, yt, ys, flow.messages, yt < ys).T,
    }


def _runs(
    shape: tuple[int, int], line: IntArray, start: IntArray, end: IntArray, messages: FloatArray, which: BoolArray
) -> FloatArray:
    steps = np.zeros((shape[0], shape[1] + 1))
    np.add.at(steps, (line[which], start[which]), messages[which])
    np.add.at(steps, (line[which], end[which]), -messages[which])
    # Sums of floats leave dust where everything cancels.
    return np.maximum(np.cumsum(steps, axis=1)[:, : shape[1]], 0.0)


def busiest_link(mapping: ChipMapping) -> tuple[str, float]:
    """Name and messages per run of the busiest link between routers."""
    best = ("no message leaves a router", 0.0)
    for direction, load in link_loads(mapping).items():
        row, column = np.unravel_index(int(np.argmax(load)), load.shape)
        if load[row, column] > best[1] + 0.5:
            best = (f"link {direction} at router column {column}, row {row}", float(load[row, column]))
    return best
