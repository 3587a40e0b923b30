"""When a Process of Lava gives the integers of an operation, and with which parameters.

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

WRAP = 2**17
"""Of an input of a LIF: shifted by six bits it must stay within 24."""
EIGHT = 127
LIMIT = 2**23 - 1
SHIFT = 6
EARLY = "it acts without input, and a delay would hand out what it did before the first one"
"""Where there are delays: a bias, or a threshold that silence reaches."""


@dataclass
class Part:
    """One connection. ``flat``: it takes and gives vectors; ``before``: constants added to its input."""

    process: str
    params: dict[str, Any]
    arrays: dict[str, AnyArray]
    suffix: str = ""
    flat: bool = False
    port: str = "s_in"
    out: str = "a_out"
    before: list[AnyArray] = field(default_factory=list)


@dataclass
class Answer:
    """Connections whose sum is the operation, and what is added to it (``[C or 1, H or 1, W or 1]``)."""

    parts: list[Part]
    bias: AnyArray | None = None


@dataclass
class Lif:
    """A LIF. ``drive``: the value that it integrates; ``spikes``: its output; ``biased``: it acts on its own."""

    drive: str
    spikes: str
    params: dict[str, Any]
    arrays: dict[str, AnyArray]
    biased: bool


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
        return _rescale(op, arrays, shape, ranges)
    if op.kind == "ni_lif":
        return _thermometer(op, arrays, phase, ranges)
    if op.kind == "query":
        if op.inputs[1] in phase.inputs:
            return "a product with a matrix that is an input; known beforehand it would be weights"
        return "self-attention: a product of two live activations"
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


def _diagonal(weights: IntArray) -> dict[str, AnyArray]:
    n = np.arange(weights.size)
    return _csr(n, n, weights.reshape(-1), (weights.size, weights.size))


def _requantise(shift: IntArray, shape: Sequence[int]) -> Answer | str:
    """A one-to-one connection whose exponent shifts to the right; half a unit is added in front."""
    most = int(shift.max())
    if most - int(shift.min()) > 6:
        return f"shifts from {shift.min()} to {most}, more than eight bits of weights level out"
    weights = np.broadcast_to((1 << (most - shift))[:, None, None], shape[1:])
    half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)[:, None, None]
    return Answer([Part("Sparse", {"exp": -most}, _diagonal(weights), flat=True, before=[half] if half.any() else [])])


def _rescale(
    op: Op, arrays: Mapping[str, AnyArray], shape: Sequence[int], ranges: Mapping[str, RangeEntry]
) -> Answer | str:
    factor = np.broadcast_to(arrays["factor"].astype(np.int64), shape[1:])
    entry = ranges[op.name]
    if op.attrs["shift"]:
        return "rounds after a product"
    if op.attrs["limit"] and max(-entry.low, entry.high) >= op.attrs["limit"]:
        return "cuts its values off"
    if np.abs(factor).max(initial=0) > EIGHT:
        return f"a factor of {np.abs(factor).max()}, more than eight bits"
    return Answer([Part("Sparse", {"exp": 0}, _diagonal(factor), flat=True)])


def _thermometer(
    op: Op, arrays: Mapping[str, AnyArray], phase: Phase, ranges: Mapping[str, RangeEntry]
) -> Answer | str:
    """A neuron of several levels without memory: one LIF a level, whose spikes add up."""
    shape = phase.values[op.name].shape
    if shape[0] != 1:
        return "a membrane that keeps what is above its threshold over unrolled steps"
    entry = ranges.get(op.inputs[0])
    offset = arrays["offset"][0].astype(np.int64) if "offset" in arrays else None
    room = 0 if offset is None else int(np.abs(offset).max())
    if offset is not None and room >= 2**15:
        return f"an embedding of {room}, more than a bias of 16 bits"
    if entry is None or max(-entry.low, entry.high) + room >= WRAP:
        far = "an input without bound" if entry is None else f"a stream up to {max(-entry.low, entry.high)}"
        return f"{far}; a LIF is exact below {WRAP}"
    parts = []
    for k in range(arrays["thresholds"].shape[1]):
        threshold = np.clip(arrays["thresholds"][:, k].astype(np.int64), -WRAP, WRAP)[:, None, None]
        params = {"shape": list(shape[1:][::-1]), "du": 4095, "dv": 4096}
        numbers = {"vth": threshold - 1}
        if offset is not None:
            params["bias_exp"], numbers["bias_mant"] = SHIFT, offset
        parts.append(Part("LIF", params, numbers, f".{k + 1}", port="a_in", out="s_out"))
    return Answer(parts)


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


def lif_of(
    group: Sequence[Op], program: Program, phase: Phase, ranges: Mapping[str, RangeEntry], delays: bool
) -> Lif | str:
    """A LIF that is this neuron, or why none is."""
    kinds = sorted(op.kind for op in group)
    fires = [op for op in group if op.kind == "fire"]
    if kinds == ["fire"]:
        return _stateless(fires[0], program, phase, ranges, delays)
    if kinds not in (["fire", "integrate", "reset"], ["fire", "integrate", "integrate", "reset"]):
        what = "sigma-delta with messages that are shifted" if "change" in kinds else (
            "Lava's LIF has no port for its membrane" if not fires else "a reset that acts a step late")  # fmt: skip
        return what
    fire, reset = fires[0], next(op for op in group if op.kind == "reset")
    v = next(op for op in group if op.name == fire.inputs[0])
    others = [op for op in group if op.kind == "integrate" and op is not v]
    u = others[0] if others else None
    if v.kind != "integrate" or reset.inputs != (v.name, fire.name):
        return "a reset that acts a step late"
    if v.name in phase.outputs.values() and v.attrs["readout"]:
        return "its membrane is read, and Lava's LIF has no port for it"
    return _reset_lif(u, v, fire, reset, program, phase, ranges, delays)


def _drive_defect(name: str, phase: Phase, ranges: Mapping[str, RangeEntry]) -> str | None:
    entry = ranges.get(name)
    worst = max(-entry.low, entry.high) if entry is not None else phase.spec(name).top
    return f"inputs up to {worst}; a LIF is exact below {WRAP}" if worst >= WRAP else None


def _stateless(fire: Op, program: Program, phase: Phase, ranges: Mapping[str, RangeEntry], delays: bool) -> Lif | str:
    defect = _drive_defect(fire.inputs[0], phase, ranges)
    if defect or fire.attrs["most"] != 1:
        return defect or "several spikes a step"
    first = np.clip(program.op_arrays(fire)["first"].astype(np.int64), -WRAP, WRAP)
    if delays and first.min() < 1:
        return EARLY
    return Lif(fire.inputs[0], fire.name, {"du": 4095, "dv": 4096}, {"vth": first - 1}, False)


def _reset_lif(
    u: Op | None, v: Op, fire: Op, reset: Op, program: Program, phase: Phase, ranges: Mapping[str, RangeEntry],
    delays: bool,
) -> Lif | str:  # fmt: skip
    arrays, first = program.op_arrays(v), program.op_arrays(fire)["first"].astype(np.int64)
    source = u or v
    defect = _drive_defect(source.inputs[1], phase, ranges)
    decay = arrays["decay"].astype(np.int64)
    steady = bool(np.isin(decay, (0, 4096)).all()) and u is None and "bias" not in arrays
    if defect:
        return defect
    if fire.attrs["most"] != 1:
        return "several spikes a step"
    if reset.attrs["subtract"] or program.op_arrays(reset)["level"].any():
        return "a reset otherwise than to 0"
    if any(program.states[s].initial != 0 for s in (v.inputs[0], *((u.inputs[0],) if u else ()))):
        return "a membrane that begins elsewhere than at 0"
    if (source.attrs["shift"] != SHIFT and not (steady and source.attrs["shift"] <= SHIFT)) or (
        u is not None and v.attrs["shift"]
    ):
        return f"a membrane of {source.attrs['shift']} fraction bits; Lava's has {SHIFT}"
    if v.attrs["limit"] not in (0, LIMIT):
        return f"a membrane that is cut off at {v.attrs['limit']}"
    if u is not None and ("bias" in program.op_arrays(u) or max(-ranges[u.name].low, ranges[u.name].high) >= LIMIT):
        return "a current that is cut off or has a bias; Lava's wraps around"
    gain = 1 << (SHIFT - source.attrs["shift"])
    if not steady and ((first - 1) % (1 << SHIFT)).any():
        return f"a threshold that is no whole unit of {1 << SHIFT}"
    # A membrane without leak holds whole units: those above the threshold are those from the next whole one on.
    threshold = -(-first * gain // (1 << SHIFT)) - 1
    if threshold.min() < 0 or threshold.max() >= WRAP:
        return f"thresholds from {threshold.min()} to {threshold.max()}"
    numbers: dict[str, AnyArray] = {"vth": threshold, "dv": 4096 - decay}
    numbers["du"] = np.full((1, 1, 1), 4095) if u is None else 4095 - program.op_arrays(u)["decay"].astype(np.int64)
    params: dict[str, Any] = {}
    if "bias" in arrays:
        bias = arrays["bias"].astype(np.int64) * gain
        if delays:
            return EARLY
        params["bias_exp"] = 0 if np.abs(bias).max() < 2**15 else SHIFT
        numbers["bias_mant"] = bias >> params["bias_exp"]
        if np.abs(numbers["bias_mant"]).max() >= 2**15 or (bias % (1 << params["bias_exp"])).any():
            return "a bias that 16 bits do not hold"
    return Lif(source.inputs[1], fire.name, params, numbers, True)
