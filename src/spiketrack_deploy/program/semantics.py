"""The integer rule of every operation, in plain int64 NumPy: the reference that every engine must equal.

This module decides what each operation means. It must not know programs, files or engines, and no engine but the
reference (and the Lava Processes, which prove the wiring) calls it. Every function takes and returns int64 arrays
``[T, C, H, W]`` unless it says otherwise. Equations: facts/spiketrack.md sections 2 to 5; integer forms:
docs/exactness.md.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.program.types import DECAY_BITS, SPIKE_MAX, AnyArray, IntArray

Pair = tuple[int, int]


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


def conv_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Output height and width of a convolution (floor rule)."""
    h, w = ((size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
    return h, w


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


def add(a: IntArray, b: IntArray) -> IntArray:
    """Sum of two streams of one unit; one step is broadcast over T."""
    return a + b


def trunc_shift(x: IntArray, bits: int) -> IntArray:
    """``x / 2**bits`` rounded toward zero, the rule of Loihi's decays (facts/lava.md 2.1)."""
    y: IntArray = np.sign(x) * (np.abs(x) >> bits)
    return y


def fire(v: IntArray, thresholds: AnyArray, offset: AnyArray | None) -> IntArray:
    """Number of thresholds ``thresholds[c, 0..3]`` that ``v + offset`` reaches (``>=``): the graded spike 0..4.

    ``v`` ``[C,H,W]``, ``offset`` ``[C,H,W]`` or ``None`` (the positional embedding in stream units).
    """
    level = v if offset is None else v + offset
    n = np.zeros(v.shape, dtype=np.int64)
    for k in range(SPIKE_MAX):
        n += level >= thresholds.astype(np.int64)[:, k, None, None]
    return n


def leak(v: IntArray, n: IntArray, decay: int, reset: AnyArray) -> IntArray:
    """``trunc0(decay * (v - n * reset) / 2**12)``: the membrane that a step hands to the next. ``reset`` ``[C]``: a
    quarter.
    """
    return trunc_shift(decay * (v - n * reset.astype(np.int64)[:, None, None]), DECAY_BITS)


def ni_lif(
    x: IntArray,
    steps: int,
    thresholds: AnyArray,
    offset: AnyArray | None,
    decay: AnyArray | None,
    reset: AnyArray | None,
) -> IntArray:
    """``v[0] = x[0]; v[t] = leak(v[t-1], n[t-1]) + x[t]; n[t] = fire(v[t])`` (facts/spiketrack.md section 2).

    ``x`` has ``steps`` steps, or one that every step receives. ``thresholds`` int32 ``[C or 1, 4]``, ``offset`` int32
    ``[steps,C,H,W]``, ``decay`` uint16 ``[steps-1]`` in 1/4096, ``reset`` int32 ``[C or 1]``. Stateless at one step.
    """
    n = np.zeros((steps, *x.shape[1:]), dtype=np.int64)
    v = np.zeros(x.shape[1:], dtype=np.int64)
    for t in range(steps):
        current = x[t if x.shape[0] > 1 else 0]
        if t and decay is not None and reset is not None:
            v = leak(v, n[t - 1], int(decay[t - 1]), reset) + current
        else:
            v = current
        n[t] = fire(v, thresholds, None if offset is None else offset[t].astype(np.int64))
    return n


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


def key_value(k: IntArray, v: IntArray, heads: int) -> IntArray:
    """``M[t,h] = k[t,h]^T v[t,h]``: ``[T,heads,d,dv]`` from spikes ``k`` ``[T,heads*d,H,W]`` and ``v``
    ``[T,heads*dv,H,W]``.
    """
    steps = k.shape[0]
    tokens = k.shape[2] * k.shape[3]
    y: IntArray = np.matmul(k.reshape(steps, heads, -1, tokens), v.reshape(steps, heads, -1, tokens).swapaxes(2, 3))
    return y


def query(q: IntArray, memory: IntArray, heads: int, shift: int) -> IntArray:
    """``(q[t,h] M[t,h]) << shift`` as ``[T,heads*dv,H,W]``; the attention gain stays in the unit of the result."""
    steps, _, height, width = q.shape
    rows = np.matmul(memory.swapaxes(2, 3), q.reshape(steps, heads, -1, height * width))
    y: IntArray = rows.reshape(steps, -1, height, width) << shift
    return y


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
    y: IntArray = (e[:, :, None, None] * (spikes - 2)).sum(axis=0, keepdims=True)
    return y
