"""Graded messages: ``graded_conv`` (a stream through weights), ``rescale`` (one weight a neuron), ``reshape``.

This module decides how signed graded values are weighted in integers. It must not know networks or a faster way. The
rule of the weighted sum is that of ``conv``; what differs is that a value has a sign and more bits than a spike.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.conv import (
    CONV_ATTRS,
    bias_bounds,
    conv_arrays_legal,
    conv_counts,
    conv_inputs_legal,
    conv_run,
    conv_shape,
)
from spiketrack_deploy.program.ops.row import MOST_ELEMENTS, Bound, OpKind, Specs, bound_of
from spiketrack_deploy.program.ops.state import LARGEST_LIMIT, clip, per_channel, same_shape, sizes_defect
from spiketrack_deploy.program.types import Arrays, IntArray, Op, TensorSpec

MOST_FACTOR = 2**20
"""Products with a value of 24 bits stay exact in a float64."""


def _graded_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Every tap at its worst end; partial sums begin at 0, and so does what lies in the padding."""
    w, groups = arrays["weight"].astype(np.int64)[0], op.attrs["groups"]
    outputs, fan_in = w.shape[:2]
    ends = [np.broadcast_to(end, specs[0].shape[1]).reshape(groups, 1, fan_in) for end in inputs[0]]
    plus, minus = (part.sum(axis=(2, 3)).reshape(groups, -1, fan_in) for part in (np.maximum(w, 0), np.minimum(w, 0)))
    least, most = np.minimum(ends[0], 0), np.maximum(ends[1], 0)
    shift = arrays["shift"].astype(np.int64)[0]
    low = (plus * least + minus * most).sum(axis=2).reshape(outputs) << shift
    high = (plus * most + minus * least).sum(axis=2).reshape(outputs) << shift
    bias_low, bias_high = bias_bounds(arrays)
    return bound_of(low + np.minimum(bias_low[0], 0), high + np.maximum(bias_high[0], 0))


def _graded_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    if specs[0].shape[0] != 1:
        return f"reads {specs[0].shape[0]} steps; it works on one"
    return conv_inputs_legal(op, arrays, specs)


def _product(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    shift = op.attrs["shift"]
    return (x[0] * arrays["factor"].astype(np.int64) + ((1 << shift) >> 1)) >> shift


def rescale(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``(x * factor + 2^(shift-1)) >> shift``: rounds half up; clipped to the limit."""
    return clip(_product(op, arrays, x), op.attrs["limit"])


def _rescale_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Every non-zero value is sent once, to the neuron of its place."""
    sent = int(np.count_nonzero(inputs[0]))
    clipped = int(np.count_nonzero(out != _product(op, arrays, inputs))) if op.attrs["limit"] else 0
    return OpCounts(relays=sent, relay_synops=sent, saturated=clipped)


def _rescale_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    shift, limit = op.attrs["shift"], op.attrs["limit"]
    ends = [(end * f + ((1 << shift) >> 1)) >> shift for end in inputs[0] for f in per_channel(arrays["factor"])]
    return bound_of(clip(np.minimum.reduce(ends), limit), clip(np.maximum.reduce(ends), limit))


def _rescale_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    if np.abs(arrays["factor"].astype(np.int64)).max(initial=0) > MOST_FACTOR:
        return f"factor must lie within {MOST_FACTOR}, either sign"
    return sizes_defect(arrays, ("factor",), output.shape)


def _reshape_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Channel by channel where every new channel lies within one old one."""
    old, new = specs[0].shape[1], op.attrs["channels"]
    low, high = inputs[0]
    if new % old:
        return bound_of(low.min(), high.max())
    return tuple(np.repeat(np.broadcast_to(end, old), new // old) for end in (low, high))  # type: ignore[return-value]


def _reshape_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    asked = [op.attrs[key] for key in ("channels", "height", "width")]
    if prod(asked) != prod(specs[0].shape[1:]):
        return f"turns {specs[0].shape[1:]} into {tuple(asked)}, which has not as many elements"
    return None


ROWS = (
    OpKind(
        "graded_conv",
        ("stream",),
        "stream",
        "y[o,p] = (sum w[o,c,k] * x[c,p*stride+k*dilation-padding]) << shift[o] + bias[o]",
        "integer weights on signed graded messages",
        shape=conv_shape,
        run=conv_run,
        bound=_graded_bound,
        count=conv_counts,
        roles=("weight", "bias", "shift"),
        attrs=CONV_ATTRS,
        inputs_legal=_graded_legal,
        arrays_legal=conv_arrays_legal,
        weighted=True,
    ),
    OpKind(
        "rescale",
        ("spikes|stream",),
        "stream",
        "y = (x * factor + 2^(shift-1)) >> shift: rounds half up; within -limit..limit where there is one",
        "one weight for every neuron; a factor of one turns spikes into a stream",
        shape=same_shape,
        run=rescale,
        bound=_rescale_bound,
        count=_rescale_counts,
        roles=("factor",),
        attrs={"shift": (0, 40), "limit": (0, LARGEST_LIMIT)},
        arrays_legal=_rescale_legal,
    ),
    OpKind(
        "reshape",
        ("spikes|stream",),
        "same",
        "the same values in another shape, row-major",
        "wiring",
        shape=lambda op, arrays, specs: (
            specs[0].shape[0],
            op.attrs["channels"],
            op.attrs["height"],
            op.attrs["width"],
        ),
        run=lambda op, arrays, x: x[0].reshape(len(x[0]), op.attrs["channels"], op.attrs["height"], op.attrs["width"]),
        bound=_reshape_bound,
        attrs=dict.fromkeys(("channels", "height", "width"), (1, MOST_ELEMENTS)),
        inputs_legal=_reshape_legal,
    ),
)
