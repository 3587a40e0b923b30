"""How true an integer program is to its NIR network: node by node against the float64 reference, step by step.

Decides what is compared and what of it is kept. Must not know files of a bundle or how a report shows them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spiketrack_deploy.frontends.nir.network import FloatArray, Network
from spiketrack_deploy.frontends.nir.prepare import FloatRun, spike_valued

_STILL = 1e-12


@dataclass(slots=True)
class Tally:
    """One node so far. ``spikes``: its values are counts, which agree or do not; else errors of real values are summed.
    ``first``: step, index and both values of the first disagreement."""

    name: str
    spikes: bool
    values: int = 0
    differing: int = 0
    first: dict[str, Any] | None = None
    worst: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(self, step: int, want: FloatArray, got: FloatArray) -> None:
        """One step of the float64 reference and of the program."""
        apart = got != want
        error = got - want
        self.values += want.size
        self.sums[0] += float(np.sum(want))
        self.sums[1] += float(np.sum(got))
        self.noise += float(np.sum(error**2))
        self.signal += float(np.sum(np.square(want)))
        self.worst = max(self.worst, float(np.abs(error).max()))
        if self.spikes and apart.any():
            self.differing += int(apart.sum())
            if self.first is None:
                index = [int(i) for i in np.unravel_index(int(np.argmax(apart)), apart.shape)]
                values = {"float": float(want[tuple(index)]), "integer": float(got[tuple(index)])}
                self.first = {"step": step, "index": index, **values}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``snr_db`` of real values, null where nothing differs."""
        row: dict[str, Any] = {"node": self.name, "spikes": self.spikes, "values": self.values}
        if self.spikes:
            share = self.differing / max(self.values, 1)
            mean = [total / max(self.values, 1) for total in self.sums]
            row |= {"differing": self.differing, "share": share, "first": self.first}
            return row | {"mean_float": mean[0], "mean_integer": mean[1]}
        snr = 10 * math.log10(self.signal / self.noise) if self.noise > _STILL * self.signal > 0 else None
        rms = math.sqrt(self.noise / max(self.values, 1))
        return row | {
            "worst_error": self.worst,
            "rms_error": rms,
            "rms": math.sqrt(self.signal / self.values),
            "snr_db": snr,
        }


class Agreement:
    """Compares while a program runs; see :meth:`add`."""

    def __init__(self, network: Network, floats: FloatRun) -> None:
        counted = spike_valued(network)
        self.floats = floats
        self.tallies = {name: Tally(name, name in counted) for name in floats.outputs}
        self.outputs = network.outputs

    def add(self, step: int, values: Mapping[str, FloatArray]) -> None:
        """What nodes sent in a step, in real units."""
        for name, value in values.items():
            if name in self.tallies:
                self.tallies[name].add(step, self.floats.outputs[name][step].astype(np.float64), value)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every neuron and Output node that was compared, in order of execution."""
        return [tally.to_dict() for tally in self.tallies.values() if tally.values]

    def judged(self) -> Sequence[Tally]:
        """What a budget of differing spikes is about: the outputs that are spikes, or where none is, all neurons that
        spike."""
        of_outputs = [self.tallies[name] for name in self.outputs if self.tallies[name].spikes]
        return of_outputs or [tally for tally in self.tallies.values() if tally.spikes]

    def share(self) -> float:
        """Share of differing values over :meth:`judged`; 0 where there is none."""
        judged = self.judged()
        return sum(tally.differing for tally in judged) / max(sum(tally.values for tally in judged), 1)
