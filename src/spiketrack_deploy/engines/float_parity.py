"""How far the integer network is from the float tracker, neuron layer by neuron layer.

This module decides the two comparisons and their figures. *Teacher-forced*: every layer reads the spikes that the float
tracker emitted, so a layer answers for its own rounding only. *Free-running*: layers read what the program computed, so
early differences spread. It must not know the float tracker (its spikes are handed in) nor how an engine computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray, IntArray, Op


@dataclass(frozen=True, slots=True)
class LayerParity:
    """One NI-LIF layer against the float tracker's spikes over all frames.

    ``mismatches`` of ``neurons`` neuron-steps differ; ``signal``/``noise`` are sums of n^2 and of (n - n_float)^2;
    ``saturated`` counts neuron-steps at the highest spike, 4.
    """

    phase: str
    name: str
    neurons: int
    mismatches: int
    signal: int
    noise: int
    saturated: int

    @property
    def rate(self) -> float:
        """Share of neuron-steps that differ, 0..1."""
        return self.mismatches / self.neurons

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantisation-noise ratio of the spikes in dB; None without noise or signal."""
        return float(10 * np.log10(self.signal / self.noise)) if self.noise and self.signal else None

    def __add__(self, other: LayerParity) -> LayerParity:
        return LayerParity(
            self.phase,
            self.name,
            self.neurons + other.neurons,
            self.mismatches + other.mismatches,
            self.signal + other.signal,
            self.noise + other.noise,
            self.saturated + other.saturated,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form, rate and SQNR included."""
        return {**asdict(self), "rate": self.rate, "sqnr_db": self.sqnr_db}


@dataclass(frozen=True, slots=True)
class Recording:
    """One run of one phase by the float tracker: integer inputs and NI-LIF name -> its spikes, int8 in the
    program's axes. ``inputs`` hold the states that the phase reads as well.
    """

    phase: str
    inputs: Mapping[str, AnyArray]
    spikes: Mapping[str, AnyArray]


def _compare(phase: str, name: str, mine: IntArray, theirs: IntArray) -> LayerParity:
    difference = mine - theirs
    return LayerParity(
        phase,
        name,
        mine.size,
        int(np.count_nonzero(difference)),
        int((mine * mine).sum()),
        int((difference * difference).sum()),
        int((mine == SPIKE_MAX).sum()),
    )


def _run(engine: Engine, recording: Recording, force: bool) -> list[LayerParity]:
    layers: list[LayerParity] = []

    def watch(op: Op, value: IntArray) -> IntArray | None:
        if op.kind != "ni_lif":
            return None
        found = recording.spikes.get(op.name)
        if found is None or found.shape != value.shape:
            raise InputError(
                f"recorded spikes of {op.name} are {'missing' if found is None else found.shape}, the program's are "
                f"{value.shape}; record them with the same model"
            )
        theirs = found.astype(np.int64)
        layers.append(_compare(recording.phase, op.name, value, theirs))
        return theirs if force else None

    engine.run(recording.phase, recording.inputs, count=False, watch=watch)
    return layers


def layer_parity(engine: Engine, recordings: Sequence[Recording], *, teacher_forced: bool) -> list[LayerParity]:
    """Per-layer parity over all recordings, in execution order (template phase first where it was recorded first).

    EngineError where teacher forcing is asked of an engine that cannot replace values.
    """
    if teacher_forced and not engine.can_replace:
        raise EngineError(
            f"engine {engine.name} cannot be fed another network's spikes; use reference or sim for the "
            "teacher-forced parity"
        )
    merged: dict[tuple[str, str], LayerParity] = {}
    for recording in recordings:
        for layer in _run(engine, recording, teacher_forced):
            key = (layer.phase, layer.name)
            merged[key] = merged[key] + layer if key in merged else layer
    return list(merged.values())


def summary(layers: Sequence[LayerParity]) -> dict[str, Any]:
    """Mean and worst mismatch rate (mean over layers, each counted once), and the worst layer's name."""
    if not layers:
        return {"layers": 0, "mean_rate": None, "worst_rate": None, "worst_layer": None}
    worst = max(layers, key=lambda layer: layer.rate)
    return {
        "layers": len(layers),
        "mean_rate": float(np.mean([layer.rate for layer in layers])),
        "worst_rate": worst.rate,
        "worst_layer": f"{worst.phase} {worst.name}",
    }
