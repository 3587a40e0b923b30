"""The gate over templates: ``gate_transpose`` (wiring) and ``gate`` (softmax over T, weighted sum, compared with 1/2).

This module decides the gate in integers. It must not know where in a network it stands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.row import LARGEST_SHIFT, Bound, OpKind, Shape, Specs, bound_of
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray, Arrays, IntArray, Op


def gate_transpose(x: IntArray) -> IntArray:
    """``[T,C,H,W] -> [T,H*W,1,C]``: the gate's 1-D convolution treats positions as channels. Moves data only."""
    steps, channels, height, width = x.shape
    y: IntArray = x.reshape(steps, channels, height * width).swapaxes(1, 2)[:, :, None, :]
    return y


def gate(logits: IntArray, spikes: IntArray, table: AnyArray, shift: int) -> IntArray:
    """Softmax over the T templates, weighted sum of their spikes, compared with one half: ``[1,C,H,W]``.

    ``logits`` ``[T,1,1,C]``, ``spikes`` ``[T,C,H,W]``. With ``e[t] = table[min((max_t L - L[t]) >> shift, last)]``,
    a 15-bit ``exp``, the weighted mean of the values n/4 exceeds 1/2 exactly if ``sum_t e[t] * (n[t] - 2) > 0``:
    that sum is the output, so no division is needed; the mean never exceeds 1, so the neuron behind it emits 0 or 1.
    """
    level = logits.reshape(logits.shape[0], -1)
    index = np.minimum((level.max(axis=0, keepdims=True) - level) >> shift, table.size - 1)
    e = table.astype(np.int64)[index]
    y: IntArray = (e[:, :, None, None] * (spikes - SPIKE_MAX // 2)).sum(axis=0, keepdims=True)
    return y


def gate_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """One table look-up per template and channel, one product per spike position."""
    logits, spikes = inputs
    return OpCounts(
        events=int(np.count_nonzero(spikes)),
        host_ops=logits.size + spikes.size,
        input_sum=int(spikes.sum()),
        input_size=spikes.size,
    )


def _gate_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    logits, spikes = (s.shape for s in specs)
    if logits != (spikes[0], 1, 1, spikes[1]):
        return f"reads logits {logits}, needs {(spikes[0], 1, 1, spikes[1])}"
    if specs[1].top != SPIKE_MAX:
        return f"reads spikes up to {specs[1].top}; one half is a level only of spikes up to {SPIKE_MAX}"
    table = arrays["table"]
    if table.ndim != 1 or not table.size or table.min() < 0:
        return "table must be a list of numbers that are not negative"
    return None


def _transpose_shape(op: Op, arrays: Arrays, specs: Specs) -> Shape:
    t, c, h, w = specs[0].shape
    return t, h * w, 1, c


def _gate_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Every term lies between -2 and +2 times the largest table entry."""
    top = SPIKE_MAX // 2 * int(arrays["table"].max()) * specs[1].shape[0]
    return bound_of(-top, top)


ROWS = (
    OpKind(
        "gate_transpose",
        ("spikes",),
        "spikes",
        "y[t,p,0,c] = x[t,c,p]: wiring only",
        "positions become channels",
        shape=_transpose_shape,
        run=lambda op, arrays, x: gate_transpose(x[0]),
        bound=lambda op, arrays, inputs, specs: bound_of(0, inputs[0][1].max()),
    ),
    OpKind(
        "gate",
        ("stream", "spikes"),
        "stream",
        "y[c,p] = sum_t e[t,c] * (n[t,c,p] - 2), e[t,c] = table[min((max_t L - L[t,c]) >> shift, last)]",
        "softmax over templates by a table, without a division",
        shape=lambda op, arrays, specs: (1, *specs[1].shape[1:]),
        run=lambda op, arrays, x: gate(x[0], x[1], arrays["table"], op.attrs["shift"]),
        bound=_gate_bound,
        count=gate_counts,
        roles=("table",),
        attrs={"shift": (0, LARGEST_SHIFT)},
        inputs_legal=_gate_legal,
    ),
)
