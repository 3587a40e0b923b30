"""Interval arithmetic over a program: what no input can exceed.

This module decides what is provable about ranges for *any* image and any spikes 0..4 (design 3.3). It must not run
anything. A bound is a pair of int64 arrays ``(low, high)`` of shape ``[C]`` (or broadcastable to the value's channels).
Every partial sum of a weighted sum lies between the sum of its negative and the sum of its positive terms, so the
bounds of the full sum without bias hold for every order of summation too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.semantics import trunc_shift, upsample_matrix
from spiketrack_deploy.program.types import (
    INT24_MAX,
    INT24_MIN,
    SPIKE_MAX,
    Arrays,
    IntArray,
    Op,
    Phase,
    Program,
    TensorSpec,
)

Bound = tuple[IntArray, IntArray]
BoundRule = Callable[[Op, Arrays, "Sequence[Bound]", "Sequence[TensorSpec]"], Bound]


def _channels(low: IntArray, high: IntArray) -> Bound:
    return np.atleast_1d(low).astype(np.int64), np.atleast_1d(high).astype(np.int64)


def conv_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """Inputs are never negative: the positive weights bound the sum above, the negative ones below; then shift and
    bias.
    """
    high_in = 255 if op.kind == "image_conv" else SPIKE_MAX
    w = arrays["weight"].astype(np.int64)
    shift = arrays["shift"].astype(np.int64)
    low = (np.minimum(w, 0).sum(axis=(2, 3, 4)) * high_in) << shift
    high = (np.maximum(w, 0).sum(axis=(2, 3, 4)) * high_in) << shift
    bias = arrays["bias"].astype(np.int64)
    if bias.ndim == 3:
        bias_low, bias_high = bias.min(axis=(1, 2))[None], bias.max(axis=(1, 2))[None]
    else:
        bias_low = bias_high = bias
    # The accumulator passes through the sum before the bias as well as after it.
    return _channels((low + np.minimum(bias_low, 0)).min(axis=0), (high + np.maximum(bias_high, 0)).max(axis=0))


def add_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """Interval sum."""
    return inputs[0][0] + inputs[1][0], inputs[0][1] + inputs[1][1]


def ni_lif_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """Spikes 0..4 (the membrane has a bound of its own: :func:`membrane_bound`)."""
    return _channels(np.array([0]), np.array([SPIKE_MAX]))


def membrane_bound(op: Op, arrays: Arrays, x: Bound) -> Bound:
    """Bound of ``v + offset`` over all steps. The reset only lowers a positive membrane and never below 0.

    n >= 1 requires ``v + offset`` above half a step, and n quarters are at most what was reached, so ``v - n*reset``
    may go below ``v`` by one full step (4 quarters) where an offset lifted the neuron over its thresholds.
    """
    low, high = x
    v_low, v_high = low, high
    steps = op.attrs["steps"]
    all_low, all_high = low, high
    offset = arrays.get("offset")
    for t in range(1, steps):
        reset = SPIKE_MAX * arrays["reset"].astype(np.int64)
        decay = int(arrays["decay"][t - 1])
        v_low = trunc_shift(decay * np.minimum(v_low - reset, v_low), 12) + low
        v_high = trunc_shift(decay * np.maximum(v_high, 0), 12) + high
        all_low, all_high = np.minimum(all_low, v_low), np.maximum(all_high, v_high)
    if offset is not None:
        o = offset.astype(np.int64)
        all_low = all_low + np.minimum(o.min(axis=(0, 2, 3)), 0)
        all_high = all_high + np.maximum(o.max(axis=(0, 2, 3)), 0)
    return _channels(all_low, all_high)


def avg_pool_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """A sum over the window."""
    area = op.attrs["kernel"] ** 2
    low, high = inputs[0]
    return np.minimum(low, 0) * area, np.maximum(high, 0) * area


def upsample_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """Interpolation weights are not negative and add up to ``(2*factor)**2``."""
    gain = int(upsample_matrix(specs[0].shape[2], op.attrs["factor"]).sum(axis=1).max()) ** 2
    low, high = inputs[0]
    return np.minimum(low, 0) * gain, np.maximum(high, 0) * gain


def requantise_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """Monotone: the bounds are requantised."""
    s = arrays["shift"].astype(np.int64)
    half = np.where(s > 0, 1 << np.maximum(s - 1, 0), 0)
    return (inputs[0][0] + half) >> s, (inputs[0][1] + half) >> s


def key_value_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """At most 16 per token."""
    tokens = specs[0].shape[2] * specs[0].shape[3]
    return _channels(np.array([0]), np.array([SPIKE_MAX**2 * tokens]))


def query_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """At most 4 * d entries of a matrix that is itself bounded."""
    return _channels(np.array([0]), (inputs[1][1] * SPIKE_MAX * specs[1].shape[2]) << op.attrs["shift"])


def gate_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """Every term lies between -2 and +2 times the largest table entry."""
    top = 2 * int(arrays["table"].max()) * specs[1].shape[0]
    return _channels(np.array([-top]), np.array([top]))


def same_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Sequence[TensorSpec]) -> Bound:
    """Moves data only."""
    return _channels(np.array([0]), np.array([SPIKE_MAX]))


@dataclass(frozen=True, slots=True)
class RangeEntry:
    """Worst case of one operation's accumulator: ``low``/``high`` over its channels, ``margin_bits`` left of signed
    24.
    """

    op: str
    low: int
    high: int
    margin_bits: float

    @property
    def fits(self) -> bool:
        """Within signed 24 bits."""
        return INT24_MIN <= self.low and self.high <= INT24_MAX


def input_bounds(phase: Phase) -> dict[str, Bound]:
    """Bounds of a phase's inputs: pixels 0..255; a memory entry at most 16 per template token."""
    result = {}
    grid = next((phase.spec(op.inputs[0]).shape for op in phase.ops if op.kind == "query"), None)
    for name, spec in phase.inputs.items():
        if spec.kind == "image":
            high = 255
        else:
            if grid is None:
                raise InputError(f"program: phase {phase.name} has a memory input that nothing queries; export again")
            high = SPIKE_MAX**2 * grid[2] * grid[3]
        result[name] = _channels(np.array([0]), np.array([high]))
    return result


def prove_ranges(program: Program, rules: Mapping[str, BoundRule]) -> dict[str, list[RangeEntry]]:
    """Bounds of every accumulator, stream, membrane and memory, phase by phase, in execution order.

    ``rules``: operation kind -> bound function (``table.OP_TABLE`` passes its own). Proves nothing by itself: the
    caller looks at :attr:`RangeEntry.fits`.
    """
    report = {}
    for phase in program.phases.values():
        bounds = input_bounds(phase)
        entries = []
        for op in phase.ops:
            arrays = program.op_arrays(op)
            specs = [phase.spec(i) for i in op.inputs]
            bound = rules[op.kind](op, arrays, [bounds[i] for i in op.inputs], specs)
            bounds[op.name] = bound
            shown = membrane_bound(op, arrays, bounds[op.inputs[0]]) if op.kind == "ni_lif" else bound
            low, high = int(shown[0].min()), int(shown[1].max())
            largest = max(abs(low), abs(high), 1)
            entries.append(RangeEntry(op.name, low, high, 23.0 - float(np.log2(largest))))
        report[phase.name] = entries
    return report
