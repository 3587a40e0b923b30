"""Convolutions: ``image_conv`` (pixels into a stream), ``conv`` (spikes into a stream), ``head_out`` (into logits).

This module decides their integer rule, counts and bounds in plain int64 NumPy. It must not know a faster way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.row import (
    LARGEST_ATTRIBUTE,
    LARGEST_SHIFT,
    MOST_ELEMENTS,
    Bound,
    OpKind,
    Shape,
    Specs,
    bound_of,
)
from spiketrack_deploy.program.types import AnyArray, Arrays, IntArray, Op, TensorSpec

WEIGHT_TYPES = ("int8", "int16")
Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, Pair, int]
CONV_ATTRS = {
    **{f"{name}_{axis}": (least, LARGEST_ATTRIBUTE) for name, least in (("stride", 1), ("padding", 0), ("dilation", 1))
       for axis in "hw"},
    "groups": (1, 1 << 16),
}  # fmt: skip


def conv_geometry(op: Op) -> Geometry:
    """``(stride, padding, dilation, groups)`` of a convolution, in (height, width) order."""
    a = op.attrs
    return (
        (a["stride_h"], a["stride_w"]),
        (a["padding_h"], a["padding_w"]),
        (a["dilation_h"], a["dilation_w"]),
        a["groups"],
    )


def conv_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Output height and width of a convolution (floor rule)."""
    h, w = ((size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
    return h, w


def taps(
    size: Pair, out: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> list[tuple[int, int, slice, slice, slice, slice]]:
    """For every kernel tap ``(ky, kx)``: the output rows and columns whose input pixel exists, and those input pixels.

    Output ``o`` of tap ``k`` reads input ``o*stride + k*dilation - padding``; taps that fall on the zero padding are
    left out. Returns ``(ky, kx, out_rows, out_cols, in_rows, in_cols)`` with slices of equal length.
    """

    def axis(n: int, m: int, k: int, s: int, p: int, d: int) -> tuple[slice, slice]:
        first = max(0, -((k * d - p) // s))
        last = min(m - 1, (n - 1 - k * d + p) // s)
        count = max(0, last - first + 1)
        start = first * s + k * d - p
        return slice(first, first + count), slice(start, start + (count - 1) * s + 1 if count else start, s)

    result = []
    for ky in range(kernel[0]):
        rows = axis(size[0], out[0], ky, stride[0], padding[0], dilation[0])
        for kx in range(kernel[1]):
            cols = axis(size[1], out[1], kx, stride[1], padding[1], dilation[1])
            result.append((ky, kx, rows[0], cols[0], rows[1], cols[1]))
    return result


def weighted_sum(x: IntArray, weight: AnyArray, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> IntArray:
    """``y[t,o,i,j] = sum_c,k weight[t,o,c,k] * x[t,c,i*stride+k*dilation-padding]``: cross-correlation, zero padding.

    ``x`` ``[T,C,H,W]``; ``weight`` int8 ``[G,O,C/groups,kh,kw]``, G = 1 (shared by all steps) or T.
    """
    steps, channels, height, width = x.shape
    shared, outputs, fan_in, kh, kw = weight.shape
    out = conv_size((height, width), (kh, kw), stride, padding, dilation)
    w = weight.astype(np.int64).reshape(shared, groups, outputs // groups, fan_in, kh, kw)
    grouped = x.reshape(steps, groups, channels // groups, height, width)
    y = np.zeros((steps, groups, outputs // groups, *out), dtype=np.int64)
    for ky, kx, orow, ocol, irow, icol in taps((height, width), out, (kh, kw), stride, padding, dilation):
        patch = grouped[..., irow, icol]
        flat = patch.reshape(steps, groups, fan_in, -1)
        y[..., orow, ocol] += np.matmul(w[..., ky, kx], flat).reshape(*y.shape[:3], *patch.shape[-2:])
    return y.reshape(steps, outputs, *out)


def conv(
    x: IntArray,
    weight: AnyArray,
    bias: AnyArray,
    shift: AnyArray,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> IntArray:
    """``(weighted_sum << shift[t,o]) + bias[t,o]``: spikes (or pixels) into a stream's unit.

    ``bias`` int32 ``[G,O]``, or ``[O,Ho,Wo]`` for the image convolution, whose zero padding comes after the
    normalisation, so that the folded bias differs at the borders; ``shift`` int8 ``[G,O]``, never negative.
    """
    y = weighted_sum(x, weight, stride, padding, dilation, groups) << shift.astype(np.int64)[:, :, None, None]
    b = bias.astype(np.int64)
    return y + (b[None] if b.ndim == 3 else b[:, :, None, None])


def fan_out(weight: AnyArray, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> IntArray:
    """Non-zero synapses of every input position: ``[G, C, H, W]`` for ``weight`` ``[G,O,C/groups,kh,kw]``."""
    shared, outputs, fan_in, kh, kw = weight.shape
    out = conv_size(size, (kh, kw), stride, padding, dilation)
    per_tap = (
        (weight.reshape(shared, groups, outputs // groups, fan_in, kh, kw) != 0)
        .sum(axis=2)
        .reshape(shared, groups * fan_in, kh, kw)
    )
    result = np.zeros((shared, groups * fan_in, *size), dtype=np.int64)
    for ky, kx, _, _, irow, icol in taps(size, out, (kh, kw), stride, padding, dilation):
        result[:, :, irow, icol] += per_tap[:, :, ky, kx, None, None]
    return result


def dense_macs(arrays: Arrays, out: IntArray) -> int:
    """Multiply-accumulates of the dense twin, padding taps counted."""
    return int(np.prod(arrays["weight"].shape[2:])) * out.size


def conv_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Spikes or signed graded messages into a stream: events, synaptic operations, and both by magnitude."""
    x = np.abs(inputs[0])
    fan = fan_out(arrays["weight"], (x.shape[2], x.shape[3]), *conv_geometry(op))
    return OpCounts(
        events=int(np.count_nonzero(x)),
        synops=int(((x > 0) * fan).sum()),
        unit_ops=int((x * fan).sum()),
        dense_macs=dense_macs(arrays, out),
        input_sum=int(x.sum()),
        input_size=x.size,
    )


def image_conv_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Pixels into a stream: multiply-accumulates with a real-valued operand."""
    (x,) = inputs
    fan = fan_out(arrays["weight"], (x.shape[2], x.shape[3]), *conv_geometry(op))
    return OpCounts(
        events=int(np.count_nonzero(x)), macs=int(((x > 0) * fan).sum()), dense_macs=dense_macs(arrays, out)
    )


def conv_shape(op: Op, arrays: Arrays, specs: Specs) -> Shape:
    """Shape of a convolution's output."""
    weight = arrays["weight"]
    stride, padding, dilation, _ = conv_geometry(op)
    steps, _, height, width = specs[0].shape
    return (steps, weight.shape[1], *conv_size((height, width), weight.shape[3:], stride, padding, dilation))


def conv_run(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """:func:`conv` of an operation."""
    return conv(x[0], arrays["weight"], arrays["bias"], arrays["shift"], *conv_geometry(op))


def bias_bounds(arrays: Arrays) -> tuple[IntArray, IntArray]:
    """Least and largest bias ``[1 or T, O]`` each; a map has both over its positions."""
    bias = arrays["bias"].astype(np.int64)
    return (bias.min(axis=(1, 2))[None], bias.max(axis=(1, 2))[None]) if bias.ndim == 3 else (bias, bias)


def _bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Inputs are never negative: the positive weights bound the sum above, the negative ones below; then shift and
    bias. Every partial sum lies between the sum of its negative and the sum of its positive terms, so this holds for
    every order of summation, before the bias as well as after it."""
    w = arrays["weight"].astype(np.int64)
    shift = arrays["shift"].astype(np.int64)
    top = int(inputs[0][1].max())
    low = (np.minimum(w, 0).sum(axis=(2, 3, 4)) * top) << shift
    high = (np.maximum(w, 0).sum(axis=(2, 3, 4)) * top) << shift
    bias_low, bias_high = bias_bounds(arrays)
    return bound_of((low + np.minimum(bias_low, 0)).min(axis=0), (high + np.maximum(bias_high, 0)).max(axis=0))


def conv_inputs_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    """Weights of a legal type and shape that fit the input."""
    weight, groups = arrays["weight"], op.attrs["groups"]
    steps, channels, height, width = specs[0].shape
    shared = (1,) if op.kind == "image_conv" else (1, steps)
    types = ("int8",) if op.kind == "image_conv" else WEIGHT_TYPES
    if weight.dtype.name not in types or weight.ndim != 5 or weight.shape[0] not in shared or 0 in weight.shape:
        return (
            f"weight must be {' or '.join(types)} [{' or '.join(map(str, shared))}, O, I, kh, kw], is {weight.dtype} "
            f"{weight.shape}"
        )
    if weight.shape[2] * groups != channels or weight.shape[1] % groups:
        return f"weight {weight.shape} with {groups} groups does not fit {channels} input channels"
    for name, size, kernel in (("h", height, weight.shape[3]), ("w", width, weight.shape[4])):
        if size + 2 * op.attrs[f"padding_{name}"] < op.attrs[f"dilation_{name}"] * (kernel - 1) + 1:
            return f"kernel {weight.shape[3:]} is larger than its padded input {height} x {width}"
    padded = channels * (height + 2 * op.attrs["padding_h"]) * (width + 2 * op.attrs["padding_w"])
    if padded > MOST_ELEMENTS:
        return f"pads its input to {padded:,} elements, more than the {MOST_ELEMENTS:,} that are possible"
    return None


def conv_arrays_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    """Shift and bias of their shapes."""
    weight, shift, bias = arrays["weight"], arrays["shift"], arrays["bias"]
    if shift.shape != weight.shape[:2] or shift.min() < 0 or shift.max() > LARGEST_SHIFT:
        return f"shift must be {weight.shape[:2]} and 0 to {LARGEST_SHIFT}"
    want = output.shape[1:] if op.kind == "image_conv" else weight.shape[:2]
    return None if bias.shape == want else f"bias must be {want}, is {bias.shape}"


def _row(name: str, source: str, output: str, equation: str, text: str) -> OpKind:
    return OpKind(
        name,
        (source,),
        output,
        equation,
        text,
        shape=conv_shape,
        run=conv_run,
        bound=_bound,
        count=image_conv_counts if source == "image" else conv_counts,
        roles=("weight", "bias", "shift"),
        attrs=CONV_ATTRS,
        inputs_legal=conv_inputs_legal,
        arrays_legal=conv_arrays_legal,
        weighted=True,
    )


ROWS = (
    _row(
        "image_conv",
        "image",
        "stream",
        "y[o,p] = (sum w[o,c,k] * pixel[c,p*stride+k*dilation-padding]) << shift[o] + bias[o,p]",
        "int8 weights on raw pixels; the normalisation is folded, so the bias is a map that differs at the borders",
    ),
    _row(
        "conv",
        "spikes",
        "stream",
        "y[t,o,p] = (sum w[t,o,c,k] * n[t,c,p*stride+k*dilation-padding]) << shift[t,o] + bias[t,o]",
        "int8 weights on spikes, shifted into the stream's unit",
    ),
    _row(
        "head_out",
        "spikes",
        "logits",
        "as conv; the integers leave for the host, which decodes them in float64",
        "the last convolution of a head",
    ),
)
