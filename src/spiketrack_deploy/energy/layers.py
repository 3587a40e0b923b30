"""Counts of layers, checked and summed: the exact-integer side of an energy.

This module decides what a valid set of counts is and sums it over runs; it must not know any price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.counts import COUNT_FIELDS
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.types import Program

COUNTS = COUNT_FIELDS
"""Names of the counts, as the program defines them."""

Number = int | float


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """Exact sums of one operation's counts over ``runs`` runs of its phase. Counts that are left out are 0.

    Indexed by a count's name it gives the mean of a run: the sum divided once, correctly rounded, an integer where
    it is one.
    """

    name: str
    kind: str
    block: str
    counts: Mapping[str, int]
    runs: int = 1

    def __post_init__(self) -> None:
        for key, value in self.counts.items():
            if key not in COUNTS:
                raise InputError(f"counts of layer {self.name}: unknown count {key!r}; known are {', '.join(COUNTS)}.")
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"counts of layer {self.name}: {key} is {value!r}, must be an integer of at least 0.")
        if isinstance(self.runs, bool) or not isinstance(self.runs, int) or self.runs < 1:
            raise InputError(f"counts of layer {self.name}: its runs are {self.runs!r}, must be at least 1.")

    def __getitem__(self, key: str) -> Number:
        value = self.counts.get(key, 0)
        return value // self.runs if value % self.runs == 0 else value / self.runs

    def means(self) -> dict[str, Number]:
        """Means of the counts that are not 0."""
        return {key: self[key] for key, value in self.counts.items() if value}


class _HasCounts(Protocol):
    def to_dict(self) -> dict[str, int]: ...


class _HasOp(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def block(self) -> str: ...


def layer_counts(ops: Sequence[_HasOp], counts: Mapping[str, _HasCounts]) -> list[LayerCounts]:
    """Join a phase's operations with the counts of one run (``program.run.PhaseResult.counts``, by operation)."""
    missing = [op.name for op in ops if op.name not in counts]
    if missing:
        raise InputError(
            f"trace: {len(missing)} operations have no counts, first {missing[0]}; run it with counting on."
        )
    return [LayerCounts(op.name, op.kind, op.block, counts[op.name].to_dict()) for op in ops]


def shape_counts(program: Program, phase: str) -> list[LayerCounts]:
    """What shapes alone decide, by the program's own counting rules on zeros: dense multiply-accumulates, positions
    read, neuron updates. The image's own taps are dense."""
    ops = program.phases[phase]

    def nothing(name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.broadcast_to(np.int64(0), ops.spec(name).shape)

    found = []
    for op in ops.ops:
        inputs = [nothing(name) for name in op.inputs]
        counts = OP_TABLE[op.kind].count(op, program.op_arrays(op), inputs, nothing(op.name)).to_dict()
        found.append(LayerCounts(op.name, op.kind, op.block, {name: n for name, n in counts.items() if n}))
    return found


def runs_per_result(program: Program) -> dict[str, float]:
    """Phase -> how often a result takes it in the long run; 0 where it runs at the start alone."""
    return {name: phase.cadence.per_result for name, phase in program.phases.items()}


def main_phase(per_result: Mapping[str, float]) -> str:
    """The phase that runs most often for a result; of several, the first."""
    return max(per_result, key=lambda name: per_result[name])


def add_runs(runs: Sequence[Sequence[LayerCounts]], phase: str) -> list[LayerCounts]:
    """Sum every layer over ``runs`` of the phase called ``phase``, in the order of the first; empty for no run.

    Raises InputError when two runs do not have the same layers, or one names a layer twice.
    """
    if not runs:
        return []
    first = [(layer.name, layer.kind, layer.block) for layer in runs[0]]
    if len({name for name, _, _ in first}) != len(first):
        raise InputError(f"energy: run 0 of {phase} names a layer twice; every layer needs its own name.")
    for index, run in enumerate(runs):
        if [(layer.name, layer.kind, layer.block) for layer in run] != first:
            raise InputError(
                f"energy: run {index} of {phase} has other layers than run 0; all runs must be of one program."
            )
    return [_added([run[index] for run in runs]) for index in range(len(first))]


def _added(layers: Sequence[LayerCounts]) -> LayerCounts:
    known = [key for key in COUNTS if any(key in layer.counts for layer in layers)]
    sums = {key: sum(layer.counts.get(key, 0) for layer in layers) for key in known}
    return replace(layers[0], counts=sums, runs=sum(layer.runs for layer in layers))


def whole(layers: Sequence[LayerCounts]) -> LayerCounts:
    """All layers of a phase as one: sums over its layers, of as many runs as each has."""
    keys = [key for key in COUNTS if any(key in layer.counts for layer in layers)]
    sums = {key: sum(layer.counts.get(key, 0) for layer in layers) for key in keys}
    return LayerCounts("", "", "", sums, layers[0].runs if layers else 1)
