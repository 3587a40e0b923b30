"""What a result costs where a network lies on chips: dynamic, static and input, added up; the first result, one in
between, one with an update.

This module decides what a result is charged for. It must not know how a network was placed (``mapping`` brings runs)
nor what a phase is for. Energies in nanojoules, times in seconds, all with their band, added end by end.

    latency   time on the chip + values that enter * t_image            one run in flight: nothing overlaps
    dynamic   counts * prices of every run that the result takes
    static    static_power * chips * max(frame period, time on the chip)
    input     static_power * chips * (max(frame period, latency) - max(frame period, time on the chip))

so that static and input together are the power of all chips over the time that a result really takes. The whole board's
power over the same time is another line and in no sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.pricing import Unpriced, add_counts, bill, bill_by_words, covering, payable
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.units import ZERO, Interval, total

CAMERA_PERIOD_S = 1 / 30
"""Frame period of an ordinary camera, seconds: the time over which chips are powered for a result that takes less."""
START, STEADY, UPDATE = "start", "steady", "update"
"""Kinds of results: what a session begins with; one of most; one that a phase joins that runs every so many results."""


@dataclass(frozen=True)
class Run:
    """One run of a phase on its chips. ``operations``: operation -> what it is charged for, by the names of
    ``pricing.CHARGES``; ``whole``: what belongs to no operation. ``chips``: powered for it; ``time``: seconds on them;
    ``entering``: pixels, or spikes of a first layer outside."""

    phase: str
    operations: Mapping[str, Mapping[str, float]]
    whole: Mapping[str, float]
    chips: int
    time: Interval
    entering: float

    @cached_property
    def counts(self) -> dict[str, float]:
        """All of it together."""
        every: dict[str, float] = {}
        for counts in (*self.operations.values(), self.whole):
            add_counts(every, counts)
        return every

    def dynamic(self, profile: Profile) -> Interval:
        """Nanojoules; the band covers both structures of synaptic energy."""
        return covering(self.counts, profile)

    def structures(self, profile: Profile) -> dict[str, Interval]:
        """Dynamic energy by operations and, where words have a price, by words of synaptic memory read."""
        words = bill_by_words(self.counts, profile)
        found = {"operations": total(part.energy for part in bill(self.counts, profile))}
        return found if words is None else found | {"words": total(part.energy for part in words)}


def counted_run(phase: str, layers: Iterable[LayerCounts], profile: Profile) -> Run:
    """A run that lies on no chip: what the program's own counts say, without time."""
    operations = {layer.name: payable(layer, profile.substeps) for layer in layers}
    return Run(phase, operations, {}, 0, ZERO, 0)


@dataclass(frozen=True, slots=True)
class ResultCost:
    """One result. ``on_chip`` and ``image``: seconds on the chip and of the image's way there (``None``: no price);
    ``dynamic``, ``static``, ``input``: nanojoules, ``board``: the whole board instead of ``static`` and ``input``;
    ``None`` where the profile has no price."""

    kind: str
    phases: tuple[str, ...]
    chips: int
    on_chip: Interval
    image: Interval | None
    period_s: float
    dynamic: Interval
    static: Interval | None
    input: Interval | None
    board: Interval | None

    @property
    def latency(self) -> Interval:
        """Seconds from the image to the result."""
        return self.on_chip + (self.image or ZERO)

    @property
    def total(self) -> Interval:
        """Dynamic, static and input."""
        return self.dynamic + (self.static or ZERO) + (self.input or ZERO)

    def to_dict(self) -> dict[str, Any]:
        """JSON data: seconds and nanojoules."""
        named = {"total_nj": self.total, "dynamic_nj": self.dynamic, "static_nj": self.static, "input_nj": self.input}
        named |= {"board_nj": self.board, "latency_s": self.latency, "on_chip_s": self.on_chip, "image_s": self.image}
        return {
            "kind": self.kind,
            "phases": list(self.phases),
            "chips": self.chips,
            "frame_period_s": self.period_s,
            **{name: value.to_dict() if value else None for name, value in named.items()},
        }


def result_cost(
    kind: str, runs: Sequence[Run], profile: Profile, chips: int, period_s: float = CAMERA_PERIOD_S
) -> ResultCost:
    """A result that takes ``runs``, one after the other, on ``chips`` powered chips; 0 where they lie on none."""
    on_chip = total(run.time for run in runs)
    way = profile.price("t_image")
    image = way * sum(run.entering for run in runs) if way else None
    power, board = (profile.price(name) if chips else None for name in ("static_power", "board_power"))
    busy, whole = at_least(on_chip, period_s), at_least(on_chip + (image or ZERO), period_s)
    static = over(power, busy, chips) if power else None
    return ResultCost(
        kind=kind,
        phases=tuple(run.phase for run in runs),
        chips=chips,
        on_chip=on_chip,
        image=image,
        period_s=period_s,
        dynamic=total(run.dynamic(profile) for run in runs),
        static=static,
        input=_less(over(power, whole, chips), static) if power and static and image else None,
        board=over(board, whole, chips) if board else None,
    )


def at_least(time: Interval, period_s: float) -> Interval:
    """The time, or the period where that is longer."""
    return Interval(max(time.low, period_s), max(time.nominal, period_s), max(time.high, period_s))


def over(power: Interval, time: Interval, chips: int) -> Interval:
    """Watts times seconds, end by end, in nanojoules."""
    return Interval(power.low * time.low, power.nominal * time.nominal, power.high * time.high) * (chips * 1e9)


def _less(whole: Interval, part: Interval) -> Interval:
    """What is left of ``whole``, end by end; the ends are ordered because longer ways only add."""
    return Interval(whole.low - part.low, whole.nominal - part.nominal, whole.high - part.high)


@dataclass(frozen=True, slots=True)
class Placed:
    """A workload on chips, as ``mapping.whole`` placed it. ``runs``: phase -> a mean run; ``sentence``: fit, chips and
    what is assumed of phases beside the main one; ``camera``: whether it keeps up; ``results``: kind -> cost; ``mean``:
    of a result in the long run; ``way``: how it was mapped, choice by choice (``mapping.ways``); ``unpriced``: what
    happens there without a price."""

    runs: Mapping[str, Run]
    sentence: str
    camera: tuple[str, ...]
    chips: int
    chips_band: tuple[int, int]
    results: Mapping[str, ResultCost]
    mean: ResultCost
    way: Mapping[str, str]
    unpriced: tuple[Unpriced, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "sentence": self.sentence,
            "camera": list(self.camera),
            "chips": self.chips,
            "chips_band": list(self.chips_band),
            "cost": self.mean.to_dict(),
            "results": {kind: cost.to_dict() for kind, cost in self.results.items()},
            "way": dict(self.way),
        }


def mean_cost(costs: Mapping[str, ResultCost], update_share: float) -> ResultCost:
    """The mean result in the long run: a steady one, and every so often one with an update."""
    steady, update = costs[STEADY], costs.get(UPDATE)
    if update is None or not update_share:
        return steady

    def mean(one: Interval | None, other: Interval | None) -> Interval | None:
        return one * (1 - update_share) + other * update_share if one and other else None

    pairs: dict[str, Any] = {
        name: mean(getattr(steady, name), getattr(update, name))
        for name in ("on_chip", "image", "dynamic", "static", "input", "board")
    }
    fixed: dict[str, Any] = {"phases": update.phases, "chips": steady.chips, "period_s": steady.period_s}
    return ResultCost(kind="mean", **fixed, **pairs)


def phases_of_results(program: Program) -> dict[str, tuple[str, ...]]:
    """Kind of result -> the phases that it takes, in the program's order; kinds that never happen are left out."""
    often = {name: phase.cadence.per_result for name, phase in program.phases.items()}
    steady = max(often.values())
    found = {
        START: tuple(name for name, phase in program.phases.items() if phase.cadence.start),
        STEADY: tuple(name for name, share in often.items() if share == steady),
        UPDATE: tuple(name for name, share in often.items() if share),
    }
    if found[UPDATE] == found[STEADY]:
        del found[UPDATE]
    return {kind: phases for kind, phases in found.items() if phases}


def update_share(program: Program) -> float:
    """Share of results with an update in the long run."""
    often = sorted({phase.cadence.per_result for phase in program.phases.values()}, reverse=True)
    return next((share for share in often[1:] if share), 0.0)
