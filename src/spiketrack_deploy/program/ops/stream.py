"""Streams: ``add``, ``avg_pool``, ``upsample``, ``requantise``.

This module decides what happens between a convolution and a neuron, in integers. It must not know networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.row import LARGEST_SHIFT, Bound, OpKind, Shape, Specs
from spiketrack_deploy.program.types import AnyArray, Arrays, IntArray, Op, TensorSpec


def add(a: IntArray, b: IntArray) -> IntArray:
    """Sum of two streams of one unit; one step is broadcast over T."""
    return a + b


def avg_pool(x: IntArray, kernel: int) -> IntArray:
    """Sum over ``kernel x kernel`` windows; the mean is exact in a unit finer by ``2 log2(kernel)`` bits."""
    steps, channels, height, width = x.shape
    y: IntArray = x.reshape(steps, channels, height // kernel, kernel, width // kernel, kernel).sum(axis=(3, 5))
    return y


def upsample_matrix(size: int, factor: int) -> IntArray:
    """Bilinear interpolation along one axis (align_corners False) as integers ``[size*factor, size]`` in 1/(2*factor).

    Source coordinate ``(j + 0.5) / factor - 0.5``, clamped below at 0, neighbour clamped at ``size - 1``.
    """
    matrix = np.zeros((size * factor, size), dtype=np.int64)
    for j in range(size * factor):
        position = max(2 * j + 1 - factor, 0)
        left, fraction = divmod(position, 2 * factor)
        matrix[j, left] += 2 * factor - fraction
        matrix[j, min(left + 1, size - 1)] += fraction
    return matrix


def upsample(x: IntArray, factor: int) -> IntArray:
    """Bilinear upsampling with integer weights; the unit is finer by ``2 log2(2 factor)`` bits (x4: 1/64, x2: 1/16)."""
    rows, cols = upsample_matrix(x.shape[2], factor), upsample_matrix(x.shape[3], factor)
    y: IntArray = np.matmul(np.matmul(rows, x), cols.T)
    return y


def requantise(x: IntArray, shift: AnyArray) -> IntArray:
    """``(x + 2**(shift-1)) >> shift`` per channel: the only operation that rounds (half up). ``shift`` int8 ``[C]``."""
    s = shift.astype(np.int64)[None, :, None, None]
    half = np.where(s > 0, 1 << np.maximum(s - 1, 0), 0)
    return (x + half) >> s


def add_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """The first operand is the stream that is passed on; the second arrives as synaptic input of the new population."""
    relayed = int(np.count_nonzero(inputs[0])) * (out.shape[0] // inputs[0].shape[0])
    return OpCounts(relays=relayed, relay_synops=relayed)


def avg_pool_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Every non-zero stream value is sent once, to the one window that holds it."""
    relayed = int(np.count_nonzero(inputs[0]))
    return OpCounts(relays=relayed, relay_synops=relayed)


def upsample_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Every non-zero value is sent once and reaches the positions whose interpolation weight is not 0."""
    (x,) = inputs
    rows = np.count_nonzero(upsample_matrix(x.shape[2], op.attrs["factor"]), axis=0)
    cols = np.count_nonzero(upsample_matrix(x.shape[3], op.attrs["factor"]), axis=0)
    return OpCounts(relays=int(np.count_nonzero(x)), relay_synops=int(((x != 0) * np.outer(rows, cols)).sum()))


def _add_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    a, b = (s.shape for s in specs)
    if a[1:] != b[1:] or (a[0] != b[0] and 1 not in (a[0], b[0])):
        return f"adds {a} and {b}; sizes must agree, and steps too unless one operand has a single step"
    return None


def _pool_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    kernel, (height, width) = op.attrs["kernel"], specs[0].shape[2:]
    return f"windows of {kernel} do not divide {height} x {width}" if height % kernel or width % kernel else None


def _requantise_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    shift: AnyArray = arrays["shift"]
    if shift.shape != (output.shape[1],) or shift.min() < 0 or shift.max() > LARGEST_SHIFT:
        return f"shift must be [{output.shape[1]}] and 0 to {LARGEST_SHIFT}"
    return None


def _pool_shape(op: Op, arrays: Arrays, specs: Specs) -> Shape:
    t, c, h, w = specs[0].shape
    return t, c, h // op.attrs["kernel"], w // op.attrs["kernel"]


def _up_shape(op: Op, arrays: Arrays, specs: Specs) -> Shape:
    t, c, h, w = specs[0].shape
    return t, c, h * op.attrs["factor"], w * op.attrs["factor"]


def _scaled(bound: Bound, gain: int) -> Bound:
    """Sum of ``gain`` terms of either sign: partial sums start at 0."""
    low, high = bound
    return np.minimum(low, 0) * gain, np.maximum(high, 0) * gain


def _up_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Interpolation weights are not negative and add up to ``(2*factor)**2``."""
    return _scaled(inputs[0], int(upsample_matrix(specs[0].shape[2], op.attrs["factor"]).sum(axis=1).max()) ** 2)


def _requantise_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Monotone: the bounds are requantised."""
    s = arrays["shift"].astype(np.int64)
    half = np.where(s > 0, 1 << np.maximum(s - 1, 0), 0)
    return (inputs[0][0] + half) >> s, (inputs[0][1] + half) >> s


ROWS = (
    OpKind(
        "add",
        ("stream", "stream"),
        "stream",
        "y[t] = a[t] + b[t]; one step is broadcast over T",
        "exact: both operands have one unit",
        shape=lambda op, arrays, specs: (max(specs[0].shape[0], specs[1].shape[0]), *specs[0].shape[1:]),
        run=lambda op, arrays, x: add(x[0], x[1]),
        bound=lambda op, arrays, inputs, specs: (inputs[0][0] + inputs[1][0], inputs[0][1] + inputs[1][1]),
        count=add_counts,
        inputs_legal=_add_legal,
    ),
    OpKind(
        "avg_pool",
        ("stream",),
        "stream",
        "y[c,i,j] = sum over the kernel x kernel window, unit finer by 2 log2(kernel) bits",
        "exact in a finer unit",
        shape=_pool_shape,
        run=lambda op, arrays, x: avg_pool(x[0], op.attrs["kernel"]),
        bound=lambda op, arrays, inputs, specs: _scaled(inputs[0], op.attrs["kernel"] ** 2),
        count=avg_pool_counts,
        attrs={"kernel": (1, 64)},
        inputs_legal=_pool_legal,
    ),
    OpKind(
        "upsample",
        ("stream",),
        "stream",
        "y = U x U^T with bilinear integer weights, unit finer by 2 log2(2 factor) bits",
        "exact in a finer unit",
        shape=_up_shape,
        run=lambda op, arrays, x: upsample(x[0], op.attrs["factor"]),
        bound=_up_bound,
        count=upsample_counts,
        attrs={"factor": (1, 64)},
    ),
    OpKind(
        "requantise",
        ("stream",),
        "stream",
        "y[c] = (x[c] + 2^(shift[c]-1)) >> shift[c]: rounds half up",
        "the only operation that rounds",
        shape=lambda op, arrays, specs: specs[0].shape,
        run=lambda op, arrays, x: requantise(x[0], arrays["shift"]),
        bound=_requantise_bound,
        roles=("shift",),
        arrays_legal=_requantise_legal,
    ),
)
