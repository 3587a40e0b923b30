"""How long a run takes: level after level, one run in flight, every step as long as its busiest core.

This module decides the timing model. It must not know energies. All intervals are seconds.

Where the next run needs the result of this one (a tracker's next crop needs this frame's box), nothing overlaps, and a
run lasts as long as all its elapsed steps together::

    L = sum over levels and their steps( max over cores( max(synops t_synop, words t_word, slots t_slot) ) + barrier )

The form of a step is that of Timcheck 2026 (arXiv 2601.10035) and Yik 2025 (arXiv 2511.21549): maxima over cores and
links, then the barrier. Only the working level has synaptic operations, but every occupied slot of every core is
stepped in every step. A product of two live activations takes a step a token; a chip of binary spikes takes
``substeps`` for each. Where a profile tells idle and active neurons apart, all are taken as active. Several independent
targets may be interleaved (:func:`interleaved`): then all levels work at once. Not modelled: :data:`NOT_MODELLED`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.links import busiest_link
from spiketrack_deploy.mapping.types import ChipMapping, FloatArray, Traffic, summed
from spiketrack_deploy.units import ZERO, Interval, total

VALUE_PER_SPIKE = 2.5
"""Mean value of a spike where nothing was measured: the middle of 1..4, assumed."""
NOT_MODELLED = (
    "queueing between routers",
    "waiting for a host between steps",
    "loading weights where phases take turns on the same chips",
)
"""What a run's time leaves out."""
ENDS = ("low", "nominal", "high")
_SLOT = ("t_neuron", "t_neuron_active")
SIDES = {
    "synapses": (("synops", ("t_synop",)), ("entering", ("t_message_in",))),
    "words": (("words", ("t_word",)),),
    "slots": (
        ("native", ("t_slot_native", *_SLOT)),
        ("microcode", ("t_slot_microcode", *_SLOT)),
        ("leaving", ("t_message_out",)),
    ),
}
"""What a core does side by side, the longest of which counts: sums of amount times price (of several names, the first
that a profile has)."""


@dataclass(frozen=True, slots=True)
class CoreWork:
    """What every core does in one elapsed step, float64 ``[cores]`` each: synaptic operations, 64-bit words of synaptic
    memory read, occupied slots of hard-coded and of programmed neurons, messages that enter and leave."""

    synops: FloatArray
    words: FloatArray
    native: FloatArray
    microcode: FloatArray
    entering: FloatArray
    leaving: FloatArray

    @classmethod
    def of(cls, **amounts: ArrayLike) -> CoreWork:
        """What is not named does not happen; single numbers hold for every core."""
        given = {f.name: np.atleast_1d(np.asarray(amounts.get(f.name, 0.0), dtype=np.float64)) for f in fields(cls)}
        return cls(**dict(zip(given, np.broadcast_arrays(*given.values()))))


def core_times(work: CoreWork, profile: Profile) -> dict[str, Interval]:
    """Seconds that the busiest core needs for each of :data:`SIDES` in a step, end by end; what has no time takes 0."""
    found = {}
    for side, terms in SIDES.items():
        priced = [(getattr(work, name), price) for name, names in terms if (price := profile.price(*names))]
        sums = [sum((amount * getattr(price, end) for amount, price in priced), np.zeros(1)) for end in ENDS]
        found[side] = Interval(*(float(np.max(one, initial=0.0)) for one in sums))
    return found


def longest(times: Iterable[Interval]) -> Interval:
    """Maximum, end by end."""
    listed = list(times)
    return Interval(*(max((getattr(time, end) for time in listed), default=0.0) for end in ENDS))


def barrier(profile: Profile, chips: int) -> Interval | None:
    """The barrier at the end of a step, which is also the least that a step takes; ``None`` where it has no price."""
    return profile.price("t_barrier_chip" if chips == 1 else "t_barrier_chips")


def step_time(
    profile: Profile, synops: ArrayLike, words: ArrayLike, slots: ArrayLike, microcode: ArrayLike, chips: int
) -> Interval:
    """Seconds of one elapsed step. Per core (arrays ``[cores]`` or numbers): synaptic operations, words of synaptic
    memory read, occupied slots of hard-coded neurons, occupied slots of programmed ones; ``chips`` that step together.

    ``max over cores( max(synops t_synop, words t_word, slots t_slot) ) + barrier``. What has no time counts as 0.
    """
    work = CoreWork.of(synops=synops, words=words, native=slots, microcode=microcode)
    return longest(core_times(work, profile).values()) + (barrier(profile, chips) or ZERO)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a run: its elapsed ``steps``, what its busiest core does in all of them (synaptic operations, words
    read), slots of the fullest core, messages over the busiest link between chips; ``time`` of all steps, and what sets
    it: ``synapses``, ``words``, ``slots``, ``link``, ``chip link`` or, where nothing else has a time, ``barrier``."""

    number: int
    steps: int
    synops: float
    words: float
    slots: int
    crossing: float
    time: Interval
    set_by: str

    def to_dict(self) -> dict[str, Any]:
        """JSON data, seconds."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "time"} | {
            "time_s": self.time.to_dict()
        }


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A run of one phase, alone on its chips. ``barrier``: of a step. ``untimed``: what happens and has no time."""

    levels: tuple[Level, ...]
    substeps: int
    barrier: Interval
    untimed: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Elapsed steps of a run."""
        return sum(level.steps for level in self.levels)

    @property
    def latency(self) -> Interval:
        """From the first step to the last."""
        return total(level.time for level in self.levels)

    @property
    def set_by(self) -> str:
        """What sets most of the nominal time."""
        sums: dict[str, float] = {}
        for level in self.levels:
            sums[level.set_by] = sums.get(level.set_by, 0.0) + level.time.nominal
        return max(sums, key=lambda what: sums[what], default="barrier")

    def to_dict(self) -> dict[str, Any]:
        """JSON data, seconds."""
        return {
            "latency_s": self.latency.to_dict(),
            "elapsed_steps": self.steps,
            "levels": [level.to_dict() for level in self.levels],
            "substeps": self.substeps,
            "barrier_s": self.barrier.to_dict(),
            "set_by": self.set_by,
            "untimed": list(self.untimed),
            "not_modelled": list(NOT_MODELLED),
        }


def closed_loop(mapping: ChipMapping, profile: Profile, value_per_spike: float = VALUE_PER_SPIKE) -> ClosedLoop:
    """Time of a run. ``value_per_spike``: mean spike value, used only where spikes are binary."""
    binary = value_per_spike if profile.substeps > 1 else 1.0
    steps = serial_steps(mapping)
    levels = []
    for number in range(1, mapping.network.depth + 1):
        elapsed = int(steps[number]) * profile.substeps
        work, flow = level_work(mapping, [number], binary)
        time, set_by = _step(mapping, profile, _shared(work, elapsed), flow, binary / elapsed)
        crossing = busiest_link(mapping.placement, flow, mapping.limits)[1]
        slots = int((work.native + work.microcode).max())
        one = (number, elapsed, float(work.synops.max()), float(work.words.max()), slots, crossing * binary)
        levels.append(Level(*one, time * elapsed, set_by))
    chips = max(mapping.chips, 1)
    return ClosedLoop(tuple(levels), profile.substeps, barrier(profile, chips) or ZERO, _untimed(mapping, profile))


def serial_steps(mapping: ChipMapping) -> FloatArray:
    """Steps of every level, ``[depth + 1]``: one, or as many as a product of two live activations has tokens."""
    network = mapping.network
    steps = np.ones(network.depth + 1)
    for s in network.synapses:
        source = network.populations[s.source]
        if s.form == "product" and source.kind != "memory":
            steps[network.level[s.target]] = max(steps[network.level[s.target]], source.height * source.width)
    return steps


def level_work(mapping: ChipMapping, levels: list[int], binary: float = 1.0) -> tuple[CoreWork, Traffic]:
    """What every core does while ``levels`` work, all their steps together but for the slots, which are those of one
    step; and the messages of these levels. ``binary``: events of a spike."""
    flow = mapping.traffic
    chosen = np.isin(flow.level, levels)
    part = Traffic(flow.source[chosen], flow.target[chosen], flow.level[chosen], flow.messages[chosen])
    native, microcode = slots_per_core(mapping)
    work = CoreWork(
        synops=mapping.synapses.by_level[levels].sum(axis=0) * binary,
        words=mapping.synapses.words[levels].sum(axis=0) * binary,
        native=native,
        microcode=microcode,
        entering=summed(part.target, part.messages, mapping.cores) * binary,
        leaving=summed(part.source, part.messages, mapping.cores) * binary,
    )
    return work, part


def slots_per_core(mapping: ChipMapping) -> tuple[FloatArray, FloatArray]:
    """Occupied slots of hard-coded and of programmed neurons, ``[cores]`` each."""
    width = np.array([p.width for p in mapping.network.populations])
    programmed = np.array(mapping.programmed)
    pieces = mapping.pieces
    slots = (pieces[:, 3] - pieces[:, 2]) * (pieces[:, 5] - pieces[:, 4]) * width[pieces[:, 1]]
    kind = programmed[pieces[:, 1]]
    return (
        summed(pieces[:, 0], slots * ~kind, mapping.cores),
        summed(pieces[:, 0], slots * kind, mapping.cores),
    )


def _shared(work: CoreWork, steps: float) -> CoreWork:
    """A step's part of work that is done in several; slots are stepped in each."""
    return CoreWork(
        work.synops / steps, work.words / steps, work.native, work.microcode, work.entering / steps,
        work.leaving / steps,
    )  # fmt: skip


def _step(mapping: ChipMapping, profile: Profile, work: CoreWork, flow: Traffic, share: float) -> tuple[Interval, str]:
    """Seconds of one step and what sets it. ``share``: part of the messages of ``flow`` that travel in it."""
    times = core_times(work, profile)
    name, load = busiest_link(mapping.placement, flow)
    hop = profile.price("t_hop_ew") if " east" in name or " west" in name else profile.price("t_hop_ns")
    # The time of one hop taken as the time a message occupies the link: an upper bound for a pipelined router.
    times["link"] = (hop or ZERO) * (load * share)
    crossing = busiest_link(mapping.placement, flow, mapping.limits)[1]
    times["chip link"] = (profile.price("t_link") or ZERO) * (crossing * share)
    floor = barrier(profile, mapping.chips) or ZERO
    set_by = max(times, key=lambda what: times[what].nominal)
    return longest(times.values()) + floor, set_by if times[set_by].nominal > floor.nominal else "barrier"


def _untimed(mapping: ChipMapping, profile: Profile) -> tuple[str, ...]:
    """Times that a run would need and the profile does not have."""
    native, microcode = slots_per_core(mapping)
    needed = {
        ("t_synop",): True,
        ("t_slot_native", *_SLOT): bool(native.any()),
        ("t_slot_microcode", *_SLOT): bool(microcode.any()),
        ("t_barrier_chip" if mapping.chips == 1 else "t_barrier_chips",): True,
        ("t_link",): mapping.chips > 1,
    }
    return tuple(names[0] for names, wanted in needed.items() if wanted and profile.price(*names) is None)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Independent targets, one after the other through the same chips. ``interval``: elapsed steps between two of them,
    those of the longest level; ``targets``: how many fill the pipeline; ``period``: time between two results."""

    interval: int
    targets: int
    period: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        rate = 1 / self.period.nominal if self.period.nominal else None
        return {
            "targets_that_fill_the_pipeline": self.targets,
            "steps_between_results": self.interval,
            "period_s": self.period.to_dict(),
            "results_per_second": rate,
        }


def interleaved(
    mapping: ChipMapping, profile: Profile, loop: ClosedLoop, value_per_spike: float = VALUE_PER_SPIKE
) -> Interleaved:
    """All levels work at once, each on another target: a step takes the work of all of them."""
    binary = value_per_spike if profile.substeps > 1 else 1.0
    interval = max((level.steps for level in loop.levels), default=1)
    work, flow = level_work(mapping, list(range(1, mapping.network.depth + 1)), binary)
    time, _ = _step(mapping, profile, _shared(work, interval), flow, binary / interval)
    return Interleaved(interval, -(-loop.steps // interval), time * interval)
