"""Any two engines, operation by operation, integer by integer.

This module decides what counts as a difference and how the first one is named. It must not know how an
engine computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.errors import VerificationError
from spiketrack_deploy.program.run import PhaseResult
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Program

Run = tuple[str, Mapping[str, AnyArray]]
"""A phase's name and its inputs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first integer that differs: ``step`` and ``index`` (channel and position) in ``[T, ...]``, or the name of a
    count. ``first``/``second``: what the two engines computed."""

    run: int
    phase: str
    op: str
    kind: str
    step: int
    index: tuple[int, ...]
    count: str
    first: int
    second: int

    def sentence(self, first: str, second: str) -> str:
        """One sentence for a person."""
        where = f"its count {self.count}" if self.count else f"step {self.step} index {self.index}"
        return (
            f"run {self.run}, {self.phase} phase, {self.op} ({self.kind}), {where}: "
            f"{first} computes {self.first}, {second} computes {self.second}"
        )


@dataclass(frozen=True, slots=True)
class ParityResult:
    """What was compared: operations and integers over all runs, how many differ, the first that does.

    ``seconds``: wall time per run of either engine without watching, median, by phase.
    """

    engines: tuple[str, str]
    runs: int
    operations: int
    integers: int
    differing_integers: int
    counts: int
    differing_counts: int
    first: Difference | None
    seconds: Mapping[str, tuple[float, float]]

    @property
    def equal(self) -> bool:
        """Every integer and every count."""
        return self.first is None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "equal": self.equal}

    def demand(self) -> None:
        """VerificationError naming the first difference, if there is one."""
        if self.first is not None:
            total = self.differing_integers + self.differing_counts
            raise VerificationError(
                f"engines {self.engines[0]} and {self.engines[1]} differ in {total} of {self.integers + self.counts} "
                f"integers, first in {self.first.sentence(*self.engines)}"
            )


class _Tally:
    """Running totals over all runs."""

    def __init__(self) -> None:
        self.operations = self.integers = self.differing = self.counts = self.differing_counts = 0
        self.first: Difference | None = None

    def values(self, run: int, phase: str, op: Op, a: IntArray | None, b: IntArray | None) -> None:
        """Two values of one operation; an engine that shows none, or another shape, differs everywhere."""
        self.operations += 1
        shown = a if a is not None else b
        self.integers += 0 if shown is None else shown.size
        if a is None or b is None or a.shape != b.shape:
            self.differing += 0 if shown is None else shown.size
            self._note(
                Difference(
                    run,
                    phase,
                    op.name,
                    op.kind,
                    0,
                    (),
                    "values shown",
                    0 if a is None else a.size,
                    0 if b is None else b.size,
                )
            )
            return
        unequal = a != b
        if unequal.any():
            self.differing += int(unequal.sum())
            place = tuple(int(i) for i in np.argwhere(unequal)[0])
            self._note(Difference(run, phase, op.name, op.kind, place[0], place[1:], "", int(a[place]), int(b[place])))

    def result(self, run: int, phase: str, ops: Mapping[str, Op], a: PhaseResult, b: PhaseResult) -> None:
        """Counts of every operation."""
        for name, op in ops.items():
            one, two = a.counts[name].to_dict(), b.counts[name].to_dict()
            self.counts += len(one)
            for key, value in one.items():
                if value != two[key]:
                    self.differing_counts += 1
                    self._note(Difference(run, phase, name, op.kind, 0, (), key, value, two[key]))

    def _note(self, difference: Difference) -> None:
        if self.first is None:
            self.first = difference


def _watched(engine: Engine, run: Run) -> tuple[PhaseResult, dict[str, IntArray]]:
    values: dict[str, IntArray] = {}

    def watch(op: Op, value: IntArray) -> None:
        values[op.name] = value

    return engine.run(run[0], run[1], count=True, watch=watch), values


def _timed(engine: Engine, run: Run) -> tuple[PhaseResult, float]:
    start = perf_counter()
    result = engine.run(run[0], run[1], count=True)
    return result, perf_counter() - start


def compare(
    engine_a: Engine, engine_b: Engine, program: Program, frames: Iterable[Run], timed: bool = True
) -> ParityResult:
    """Run both engines on every frame and compare every operation's output, the phase outputs and all counts.

    ``frames``: runs of phases. Each run is watched, and where ``timed`` repeated unwatched: engines may take other
    kernels then, so its outputs and counts are compared as well.
    """
    tally = _Tally()
    times: dict[str, tuple[list[float], list[float]]] = {}
    runs = 0
    for number, run in enumerate(frames):
        runs += 1
        phase = program.phases[run[0]]
        ops = {op.name: op for op in phase.ops}
        (a, values_a), (b, values_b) = _watched(engine_a, run), _watched(engine_b, run)
        for name, op in ops.items():
            tally.values(number, phase.name, op, values_a.get(name), values_b.get(name))
        pairs = [(a, b)]
        if timed:
            (c, first), (d, second) = _timed(engine_a, run), _timed(engine_b, run)
            times.setdefault(phase.name, ([], []))[0].append(first)
            times[phase.name][1].append(second)
            pairs += [(a, c), (b, d)]
        for one, two in pairs:
            for public, name in phase.outputs.items():
                tally.values(number, phase.name, ops[name], one.outputs[public], two.outputs[public])
            tally.result(number, phase.name, ops, one, two)
    seconds = {name: (float(np.median(x)), float(np.median(y))) for name, (x, y) in times.items()}
    return ParityResult(
        (engine_a.name, engine_b.name),
        runs,
        tally.operations,
        tally.integers,
        tally.differing,
        tally.counts,
        tally.differing_counts,
        tally.first,
        seconds,
    )
