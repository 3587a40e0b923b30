"""When connections of Lava give the integers of an operation, and with which parameters (neurons: stock_neurons).

This module decides exactness, rule by rule of lava-nc 0.10.0 (docs/loihi.md, "Fixed point"). It must not know how
Processes are joined. An answer in words is the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spiketrack_deploy.program.bounds import RangeEntry
from spiketrack_deploy.program.ops.conv import conv_geometry, conv_size, taps
from spiketrack_deploy.program.ops.stream import upsample_matrix
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program

EIGHT = 127
PRODUCT = 2**30
"""Beyond it Sparse, which adds up twice the weights, leaves 32 bits."""
EARLY = "it acts without input, and a delay would hand out what it did before the first one"
"""Where there are delays: a bias, or a threshold that silence reaches."""
DIGIT = 7
"""Bits of a weight without its sign."""


@dataclass
class Part:
    """One Process. ``flat``: it takes and gives vectors; ``before``: constants added to its input; ``fronts``:
    connections, one to one, that stand between the value and this one and add up."""

    process: str
    params: dict[str, Any]
    arrays: dict[str, AnyArray]
    suffix: str = ""
    flat: bool = False
    port: str = "s_in"
    out: str = "a_out"
    before: list[AnyArray] = field(default_factory=list)
    fronts: tuple[Part, ...] = ()


@dataclass
class Answer:
    """Connections whose sum is the operation, and what is added to it (``[C or 1, H or 1, W or 1]``)."""

    parts: list[Part]
    bias: AnyArray | None = None


def worst_of(name: str, program: Program, phase: Phase, ranges: Mapping[str, RangeEntry]) -> int | None:
    """Largest magnitude of a value, of a state that this phase writes, or of an input; ``None``: no bound."""
    state = program.states.get(name)
    written = phase.outputs.get(name, name) if state is not None else name
    if written in ranges:
        start = state.initial if state is not None and state.initial is not None else 0
        first = np.abs(np.asarray(program.arrays[start] if isinstance(start, str) else start, dtype=np.int64)).max()
        return max(-ranges[written].low, ranges[written].high, int(first))
    return None if state is not None else phase.spec(name).top


def synapse_of(
    op: Op, arrays: Mapping[str, AnyArray], program: Program, phase: Phase, ranges: Mapping[str, RangeEntry]
) -> Answer | str:
    """Stock Processes of an operation without memory, or why there are none."""
    shape = phase.spec(op.inputs[0]).shape
    if op.kind in ("conv", "graded_conv", "image_conv", "head_out"):
        return _conv(op, arrays, shape)
    if op.kind == "avg_pool":
        k, channels = op.attrs["kernel"], shape[1]
        params = {
            "input_shape": shape[1:][::-1],
            "stride": (k, k),
            "padding": (0, 0),
            "dilation": (1, 1),
            "groups": channels,
        }
        return Answer([Part("Conv", params, {"weight": np.ones((channels, 1, k, k), np.int64)})])
    if op.kind == "upsample":
        return Answer([_upsample(op.attrs["factor"], shape)])
    if op.kind == "requantise":
        return _requantise(arrays["shift"].astype(np.int64), shape)
    if op.kind == "rescale":
        return _rescale(op, arrays, shape, ranges, worst_of(op.inputs[0], program, phase, ranges))
    if op.kind == "query":
        if op.inputs[1] in phase.inputs:
            return "a product with a matrix that is an input; known beforehand it would be weights"
        return "self-attention: a product of two live activations"
    if op.kind == "gate_transpose":
        return _transposed(shape)
    if op.kind == "leak":
        return "a membrane handed on by n/4096 and rounded toward zero; a LIF keeps six bits more of its own"
    if op.kind == "gate":
        return "a softmax over templates, read from a table"
    if op.kind == "key_value":
        return "an outer product of two live activations"
    return f"no Process of Lava does {op.kind}"


def _bias(arrays: Mapping[str, AnyArray]) -> AnyArray | None:
    bias = arrays["bias"].astype(np.int64)
    return (bias if bias.ndim == 3 else bias.reshape(-1, 1, 1)) if bias.any() else None


def _conv(op: Op, arrays: Mapping[str, AnyArray], shape: Sequence[int]) -> Answer | str:
    """Conv takes weights as they are; a kernel as large as its map is a matrix, where eight bits hold it.

    Conv keeps the number of its groups in a signed byte and wraps around without a word: more are a sparse matrix.
    """
    shift = arrays["shift"][0].astype(np.int64)
    weight = arrays["weight"][0].astype(np.int64)
    stride, padding, dilation, groups = conv_geometry(op)
    matrix = groups == 1 and padding == (0, 0) and weight.shape[2:] == tuple(shape[2:])
    if groups > EIGHT:
        if (shift != shift[0]).any() or np.abs(weight).max(initial=0) > EIGHT:
            return f"{groups} groups, which Lava's Conv counts in 8 bits, and weights of more than 8 bits"
        part = Part("Sparse", {"exp": int(shift[0])}, _unrolled(op, weight, shape), flat=True)
        return Answer([part], _bias(arrays))
    if matrix and (shift == shift[0]).all() and np.abs(weight).max(initial=0) <= EIGHT:
        part = Part("Dense", {"exp": int(shift[0])}, {"weight": weight.reshape(len(weight), -1)}, flat=True)
        return Answer([part], _bias(arrays))
    params = {"input_shape": list(shape[1:][::-1]), "stride": stride[::-1], "padding": padding[::-1],
              "dilation": dilation[::-1], "groups": groups}  # fmt: skip
    return Answer([Part("Conv", params, {"weight": weight << shift[:, None, None, None]})], _bias(arrays))


def _csr(rows: IntArray, cols: IntArray, data: IntArray, shape: tuple[int, int]) -> dict[str, AnyArray]:
    """A sparse matrix in compressed rows."""
    order = np.lexsort((cols, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return {"data": data[order], "indices": cols[order], "indptr": indptr, "shape": np.array(shape)}


def _unrolled(op: Op, weight: IntArray, shape: Sequence[int]) -> dict[str, AnyArray]:
    """A convolution as a matrix between maps in (channels, height, width) order."""
    stride, padding, dilation, groups = conv_geometry(op)
    size, (outputs, fan_in, *kernel) = (shape[2], shape[3]), weight.shape
    high, wide = conv_size(size, (kernel[0], kernel[1]), stride, padding, dilation)
    o, c = (a.reshape(-1, 1) for a in np.indices((outputs, fan_in)))
    channel = o // (outputs // groups) * fan_in + c
    rows, cols, data = [], [], []
    for ky, kx, orow, ocol, irow, icol in taps(size, (high, wide), (kernel[0], kernel[1]), stride, padding, dilation):
        to = (np.arange(high)[orow][:, None] * wide + np.arange(wide)[ocol]).reshape(-1)
        fro = (np.arange(size[0])[irow][:, None] * size[1] + np.arange(size[1])[icol]).reshape(-1)
        rows.append((o * (high * wide) + to).reshape(-1))
        cols.append((channel * (size[0] * size[1]) + fro).reshape(-1))
        data.append(np.repeat(weight[:, :, ky, kx].reshape(-1), to.size))
    everything = [np.concatenate(parts) for parts in (rows, cols, data)]
    kept = everything[2] != 0
    matrix = (outputs * high * wide, shape[1] * size[0] * size[1])
    return _csr(everything[0][kept], everything[1][kept], everything[2][kept], matrix)


def _upsample(factor: int, shape: Sequence[int]) -> Part:
    """Bilinear interpolation, channel by channel."""
    _, channels, height, width = shape
    both = np.kron(upsample_matrix(height, factor), upsample_matrix(width, factor)).astype(np.int64)
    rows, cols = np.nonzero(both)
    channel = np.repeat(np.arange(channels), len(rows))
    all_rows, all_cols = (
        np.tile(rows, channels) + channel * both.shape[0],
        np.tile(cols, channels) + channel * both.shape[1],
    )
    matrix = _csr(
        all_rows, all_cols, np.tile(both[rows, cols], channels), (channels * both.shape[0], channels * both.shape[1])
    )
    return Part("Sparse", {"exp": 0}, matrix, flat=True)


def _transposed(shape: Sequence[int]) -> Answer:
    """Positions become channels: a permutation."""
    _, channels, height, width = shape
    position, channel = (a.reshape(-1) for a in np.indices((height * width, channels)))
    rows, cols = position * channels + channel, channel * height * width + position
    return Answer([Part("Sparse", {"exp": 0}, _csr(rows, cols, np.ones_like(rows), (rows.size,) * 2), flat=True)])


def diagonal(weights: IntArray) -> dict[str, AnyArray]:
    """One weight an element."""
    n = np.arange(weights.size)
    return _csr(n, n, weights.reshape(-1), (weights.size, weights.size))


def _requantise(shift: IntArray, shape: Sequence[int]) -> Answer | str:
    """A one-to-one connection whose exponent shifts to the right; half a unit is added in front."""
    most = int(shift.max())
    if most - int(shift.min()) > 6:
        return f"shifts from {shift.min()} to {most}, more than eight bits of weights level out"
    weights = np.broadcast_to((1 << (most - shift))[:, None, None], shape[1:])
    half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)[:, None, None]
    return Answer([Part("Sparse", {"exp": -most}, diagonal(weights), flat=True, before=[half] if half.any() else [])])


def digits(weights: IntArray, suffix: str) -> tuple[Part, ...]:
    """One-to-one weights of any size, seven bits a Process."""
    parts: list[Part] = []
    rest, sign = np.abs(weights), np.sign(weights)
    while not parts or rest.any():
        exponent = {"exp": DIGIT * len(parts)}
        parts.append(Part("Sparse", exponent, diagonal(sign * (rest & EIGHT)), f"{suffix}{len(parts)}", flat=True))
        rest = rest >> DIGIT
    return tuple(parts)


def _rescale(
    op: Op, arrays: Mapping[str, AnyArray], shape: Sequence[int], ranges: Mapping[str, RangeEntry], worst: int | None
) -> Answer | str:
    """A product, and where it is rounded a second connection whose exponent shifts the sum of the first."""
    factor = np.broadcast_to(arrays["factor"].astype(np.int64), shape[1:])
    entry, shift = ranges[op.name], op.attrs["shift"]
    if op.attrs["limit"] and max(-entry.low, entry.high) >= op.attrs["limit"]:
        return "cuts its values off"
    if not shift:
        return Answer(list(digits(factor, ".digit")))
    half = 1 << (shift - 1)
    if worst is None or worst * int(np.abs(factor).max(initial=0)) + half >= PRODUCT:
        return "rounds a product of more than 31 bits"
    one = diagonal(np.ones(shape[1:], np.int64))
    whole = Part("Sparse", {"exp": -shift}, one, flat=True, before=[np.full((1, 1, 1), half)])
    whole.fronts = digits(factor, ".product")
    return Answer([whole])


def memory_of(memory: IntArray, op: Op, height: int, width: int) -> Answer:
    """A stored matrix ``[1, heads, d, dv]`` as eight-bit weights: seven bits a matrix, as many as it takes."""
    _, heads, d, dv = memory.shape
    head, row, col = (a.reshape(-1) for a in np.indices(memory.shape[1:]))
    positions = np.arange(height * width)
    rows = ((head * dv + col)[:, None] * positions.size + positions).reshape(-1)
    cols = ((head * d + row)[:, None] * positions.size + positions).reshape(-1)
    size = (heads * dv * positions.size, heads * d * positions.size)
    parts, rest, digit = [], memory.reshape(-1).astype(np.int64), 0
    while digit == 0 or rest.any():
        data = np.repeat(rest & EIGHT, positions.size)
        kept = data != 0
        matrix = _csr(rows[kept], cols[kept], data[kept], size)
        parts.append(Part("Sparse", {"exp": 7 * digit + op.attrs["shift"]}, matrix, f".{digit}", flat=True))
        rest, digit = rest >> 7, digit + 1
    return Answer(parts)
