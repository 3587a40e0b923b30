"""Counts of layers, checked and summed: the exact-integer side of an energy.

This module decides what a valid set of counts is and sums it over frames; it must not know any price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spiketrack_deploy.errors import InputError

COUNTS = (
    "events",
    "synops",
    "unit_ops",
    "macs",
    "dense_macs",
    "neuron_updates",
    "neuron_spiking",
    "relays",
    "relay_synops",
    "memory_reads",
    "memory_writes",
    "host_ops",
    "input_sum",
    "input_size",
    "output_sum",
)
"""Counts that energy knows, as ``program.counts`` defines them. ``output_sum`` (sum of the spikes that a NI-LIF emits)
is needed only where one step takes several binary sub-steps."""


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """Counts of one operation in one search frame or one template update. Counts that are left out are 0."""

    name: str
    kind: str
    block: str
    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        for key, value in self.counts.items():
            if key not in COUNTS:
                raise InputError(f"counts of layer {self.name}: unknown count {key!r}; known are {', '.join(COUNTS)}.")
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"counts of layer {self.name}: {key} is {value!r}, must be an integer of at least 0.")

    def __getitem__(self, key: str) -> int:
        return self.counts.get(key, 0)


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


@dataclass(frozen=True, slots=True)
class Mean:
    """Exact sums of one layer's counts over ``runs`` runs; a mean is a sum divided once, correctly rounded."""

    name: str
    kind: str
    block: str
    sums: Mapping[str, int]
    runs: int

    def __getitem__(self, key: str) -> float:
        return self.sums.get(key, 0) / self.runs

    def means(self) -> dict[str, int | float]:
        """Means of the counts that are not 0; integers stay integers."""
        return {k: v // self.runs if v % self.runs == 0 else v / self.runs for k, v in self.sums.items() if v}


def mean_layers(runs: Sequence[Sequence[LayerCounts]], what: str) -> list[Mean]:
    """Sum every layer over ``runs`` (search frames or template updates), in the order of the first run.

    Raises InputError when there is no run, or when two runs do not have the same layers.
    """
    if not runs:
        raise InputError(f"energy: there is no {what} to average over; run at least one.")
    first = [(layer.name, layer.kind, layer.block) for layer in runs[0]]
    if len({name for name, _, _ in first}) != len(first):
        raise InputError(f"energy: {what} 0 names a layer twice; every layer needs its own name.")
    for index, run in enumerate(runs):
        if [(layer.name, layer.kind, layer.block) for layer in run] != first:
            raise InputError(f"energy: {what} {index} has other layers than {what} 0; all runs must be of one program.")
    layers = []
    for index, identity in enumerate(first):
        known = [key for key in COUNTS if any(key in run[index].counts for run in runs)]
        sums = {key: sum(run[index][key] for run in runs) for key in known}
        layers.append(Mean(*identity, sums, len(runs)))
    return layers


def sum_counts(layers: Sequence[Mean]) -> dict[str, int | float]:
    """Mean counts of a whole phase: sums over its layers, divided once."""
    if not layers:
        return {}
    keys = [key for key in COUNTS if any(key in layer.sums for layer in layers)]
    sums = {key: sum(layer.sums.get(key, 0) for layer in layers) for key in keys}
    return Mean("", "", "", sums, layers[0].runs).means()
