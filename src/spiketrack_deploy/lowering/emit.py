"""Pass `emit`: writes the integer program, with exponents and units chosen.

This module decides how every real parameter becomes an integer array of the program. It must not choose anything that
costs accuracy except the roundings named in docs/exactness.md: weights, biases, offsets, decays, the gate's table,
and a ``requantise`` behind an upsampling whose unit is finer than the stream it joins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.errors import FitError
from spiketrack_deploy.lowering.calibrate import Choice, dequantise, quantise
from spiketrack_deploy.lowering.convs import Conv, by_use, image_bias
from spiketrack_deploy.lowering.network import FloatNetwork, FloatOp, FloatPhase, Key
from spiketrack_deploy.lowering.thresholds import dyadic_thresholds, gain_thresholds, gain_value
from spiketrack_deploy.lowering.units import Streams, pool_bits
from spiketrack_deploy.program.types import (
    DECAY_BITS,
    GATE_BITS,
    INT24_MAX,
    SPIKE_MAX,
    UNREACHABLE,
    AnyArray,
    Op,
    Phase,
    Program,
    State,
    TensorSpec,
)

GATE_INDEX_BITS = 8
PIXEL_MAX = 255
_QUERY_SHIFT_MAX = 6


def value_spec(kind: str, shape: tuple[int, ...], unit: str | None = None, scale: float = 1.0) -> TensorSpec:
    """The value of that kind: its largest level, and for what is made of quarters what one integer step is worth."""
    tops = {"image": PIXEL_MAX, "spikes": SPIKE_MAX}
    steps = {"spikes": 1.0 / SPIKE_MAX, "memory": 1.0 / SPIKE_MAX**2}
    return TensorSpec(kind, shape, unit, steps.get(kind, scale), tops.get(kind, 0))


def gate_table() -> AnyArray:
    """``rint(2**15 * exp(-i / 256))`` uint16 until it reaches 0: the exponential of a softmax with its maximum taken
    off.
    """
    values = np.rint(2.0**GATE_BITS * np.exp(-np.arange(1 << 13) / 2.0**GATE_INDEX_BITS))
    return values[: int(np.argmax(values == 0)) + 1].astype(np.uint16)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the passes before have decided; ``bits``: fraction bits ``[C]`` of every group of streams."""

    network: FloatNetwork
    convs: Mapping[Key, Conv]
    choices: Mapping[str, Choice]
    streams: Streams
    bits: Mapping[Key, AnyArray]


@dataclass(frozen=True, slots=True)
class Emitted:
    """A value as the program has it: its name there, and its unit: fraction bits ``[C]`` and common factor."""

    name: str
    bits: AnyArray | None = None
    scale: float = 1.0


class _Emitter:
    """One phase while it is written. ``arrays`` belongs to the program: equal arrays under one role are stored once."""

    def __init__(self, chosen: Chosen, phase: FloatPhase, arrays: dict[str, AnyArray]) -> None:
        self.chosen, self.phase, self.arrays = chosen, phase, arrays
        self.emitted: dict[str, Emitted] = {}
        self.ops: list[Op] = []
        self.specs: dict[str, TensorSpec] = {}

    def run(self) -> Phase:
        """Every operation by the row of its kind, then the phase's ends."""
        for op in self.phase.ops:
            EMITTERS[op.kind](self, op)
        states, read = self.chosen.network.states, {name for op in self.phase.ops for name in op.inputs}
        inputs = {name: value_spec(given.kind, given.shape) for name, given in self.phase.inputs.items()}
        inputs |= {name: value_spec(state.kind, state.shape) for name, state in states.items() if name in read}
        written = {name: state.writer[1] for name, state in states.items() if state.writer[0] == self.phase.name}
        outputs = {public: self.value(name).name for public, name in {**self.phase.outputs, **written}.items()}
        return Phase(self.phase.name, inputs, tuple(self.ops), self.specs, outputs, self.phase.cadence)

    def value(self, name: str) -> Emitted:
        """What stands for an operation's value, an input or a state (those have no unit)."""
        return self.emitted.get(name, Emitted(name))

    def bits(self, op: FloatOp) -> AnyArray:
        """Fraction bits of the first value that ``op`` reads."""
        bits = self.value(op.inputs[0]).bits
        if bits is None:
            raise ValueError(f"{op.name} reads {op.inputs[0]}, which has no unit")
        return bits

    def group_bits(self, op: FloatOp) -> AnyArray:
        """Fraction bits of the group of streams that ``op`` writes."""
        return self.chosen.bits[self.chosen.streams.group[self.phase.name, op.name]]

    def put(self, key: str, array: AnyArray) -> str:
        """Store an array and return its key: the plain one, or this phase's own where the plain one holds another."""
        known = self.arrays.setdefault(key, array)
        if known.dtype == array.dtype and np.array_equal(known, array):
            return key
        self.arrays[f"{self.phase.name}.{key}"] = array
        return f"{self.phase.name}.{key}"

    def add(
        self,
        op: FloatOp,
        kind: str,
        value_kind: str,
        attrs: Mapping[str, int],
        arrays: Mapping[str, AnyArray],
        *,
        bits: AnyArray | None = None,
        scale: float = 1.0,
        part: str = "",
        stored: str | None = None,
    ) -> None:
        """Append the operation. ``part`` names a second operation behind the first one, which it reads; ``stored`` the
        key under which its arrays lie where that is not its name.
        """
        name = op.name + part
        own = name if stored is None else stored
        keys = {role: self.put(f"{own}.{role}", array) for role, array in arrays.items()}
        read = (op.name,) if part else tuple(self.value(i).name for i in op.inputs)
        self.ops.append(Op(name, kind, read, op.block, attrs, keys))
        unit = None if bits is None else self.put(f"{name}.unit", bits.astype(np.int8))
        self.specs[name] = value_spec(value_kind, op.shape, unit, scale)
        self.emitted[op.name] = Emitted(name, bits, scale)


def _integer(values: AnyArray, name: str, what: str) -> AnyArray:
    """Rounded to int32; FitError where an entry leaves signed 24 bits."""
    rounded = np.rint(values)
    if np.abs(rounded).max(initial=0) > INT24_MAX:
        raise FitError(
            f"{name}: {what} needs more than signed 24 bits in the stream's unit; its weights or biases are too large"
        )
    return rounded.astype(np.int32)


def _convolution(e: _Emitter, op: FloatOp) -> None:
    conv = e.chosen.convs[e.phase.name, op.name]
    exponent, bits = e.chosen.choices[conv.key].exponent, e.group_bits(op)
    weight, scale = quantise(conv.weight, exponent), np.exp2(bits.astype(np.float64))
    if conv.pixels:
        bias = image_bias(conv.op, dequantise(weight, exponent), conv.image) * scale[:, None, None]
    else:
        bias = conv.bias * scale
    attrs = {
        f"{field}_{axis}": int(size)
        for field in ("stride", "padding", "dilation")
        for axis, size in zip("hw", op.params[field], strict=True)
    }
    arrays = {
        "weight": weight,
        "bias": _integer(bias, op.name, "a bias"),
        "shift": (bits[None] - exponent - conv.spike_bits).astype(np.int8),
    }
    value_kind = "logits" if op.kind == "head_out" else "stream"
    e.add(op, op.kind, value_kind, {**attrs, "groups": op.params["groups"]}, arrays, bits=bits, stored=conv.key)


def _add(e: _Emitter, op: FloatOp) -> None:
    e.add(op, "add", "stream", {}, {}, bits=e.group_bits(op))


def _avg_pool(e: _Emitter, op: FloatOp) -> None:
    e.add(op, "avg_pool", "stream", {"kernel": int(op.params["kernel"])}, {}, bits=e.bits(op) + pool_bits(op))


def _upsample(e: _Emitter, op: FloatOp) -> None:
    """The upsampled value joins a stream: where its unit is finer than the stream's, a ``requantise`` rounds it."""
    fine, target = e.bits(op) + pool_bits(op), e.group_bits(op)
    e.add(op, "upsample", "stream", {"factor": int(op.params["factor"])}, {}, bits=fine)
    if np.any(fine > target):
        shift = (fine - target).astype(np.int8)
        e.add(op, "requantise", "stream", {}, {"shift": shift}, bits=target, part=".requantise")


def _key_value(e: _Emitter, op: FloatOp) -> None:
    e.add(op, "key_value", "memory", {"heads": int(op.params["heads"])}, {})


def _query(e: _Emitter, op: FloatOp) -> None:
    """Scores stay integers A in units of gain/64; where a membrane follows, shifted left for a finer decay."""
    head_dim = e.chosen.network.shape(e.phase, op.inputs[1])[2]
    tokens = op.shape[2] * op.shape[3]
    room = INT24_MAX // (SPIKE_MAX**3 * tokens * head_dim)
    membrane = any(r.kind == "ni_lif" and r.steps > 1 for r in e.phase.readers(op.name))
    shift = min(_QUERY_SHIFT_MAX, max(int(np.log2(max(room, 1))) - 1, 0)) if membrane else 0
    attrs = {"heads": int(op.params["heads"]), "shift": shift}
    scale = gain_value(op.params["gain"], head_dim)
    e.add(op, "query", "stream", attrs, {}, bits=np.full(op.shape[1], 6 + shift), scale=scale)


def _gate_transpose(e: _Emitter, op: FloatOp) -> None:
    e.add(op, "gate_transpose", "spikes", {}, {})


def _gate(e: _Emitter, op: FloatOp) -> None:
    """The output is compared with one half; its integer has no unit that matters, 0 bits by convention."""
    attrs = {"shift": max(int(e.bits(op)[0]) - GATE_INDEX_BITS, 0)}
    e.add(op, "gate", "stream", attrs, {"table": gate_table()}, bits=np.zeros(op.shape[1]))


Drive = Callable[[_Emitter, FloatOp, AnyArray], tuple[AnyArray, AnyArray]]


def _dyadic(e: _Emitter, source: FloatOp, bits: AnyArray) -> tuple[AnyArray, AnyArray]:
    return dyadic_thresholds(bits), np.exp2(bits.astype(np.float64) - 2)


def _after_query(e: _Emitter, source: FloatOp, bits: AnyArray) -> tuple[AnyArray, AnyArray]:
    gain, head_dim = source.params["gain"], e.chosen.network.shape(e.phase, source.inputs[1])[2]
    quarter = np.exp2(bits[:1].astype(np.float64) - 2) / gain_value(gain, head_dim)
    return gain_thresholds(gain, head_dim, int(bits[0])), quarter


def _after_gate(e: _Emitter, source: FloatOp, bits: AnyArray) -> tuple[AnyArray, AnyArray]:
    return np.array([[1] + [UNREACHABLE] * (SPIKE_MAX - 1)], dtype=np.int32), np.zeros(1)


DRIVES: Mapping[str, Drive] = {
    "image_conv": _dyadic,
    "conv": _dyadic,
    "add": _dyadic,
    "avg_pool": _dyadic,
    "upsample": _dyadic,
    "query": _after_query,
    "gate": _after_gate,
}
"""Kind of the operation that drives a neuron -> its thresholds ``[1 or C,4]`` and a quarter of a step ``[1 or C]``."""


def _ni_lif(e: _Emitter, op: FloatOp) -> None:
    source = e.phase.op(op.inputs[0])
    if source is None or source.kind not in DRIVES:
        raise ValueError(f"{op.name} is driven by {op.inputs[0]}, which is no stream")
    bits = e.bits(op)
    thresholds, quarter = DRIVES[source.kind](e, source, bits)
    arrays: dict[str, AnyArray] = {"thresholds": thresholds}
    if op.params["offset"] is not None:
        scale = np.exp2(bits.astype(np.float64)) / e.value(op.inputs[0]).scale
        offset = op.params["offset"] * scale[None, :, None, None]
        arrays["offset"] = _integer(offset, op.name, "a positional offset")
    if op.steps > 1:
        arrays["decay"] = np.rint(op.params["sigma"] * 2.0**DECAY_BITS).astype(np.uint16)
        arrays["reset"] = _integer(quarter, op.name, "the reset")
    e.add(op, "ni_lif", "spikes", {"steps": op.steps}, arrays)


EMITTERS: Mapping[str, Callable[[_Emitter, FloatOp], None]] = {
    "image_conv": _convolution,
    "conv": _convolution,
    "head_out": _convolution,
    "add": _add,
    "ni_lif": _ni_lif,
    "avg_pool": _avg_pool,
    "upsample": _upsample,
    "key_value": _key_value,
    "query": _query,
    "gate_transpose": _gate_transpose,
    "gate": _gate,
}
"""Kind of a real-valued operation -> how it is written."""


def emit(
    network: FloatNetwork,
    convs: Mapping[str, Conv],
    choices: Mapping[str, Choice],
    streams: Streams,
    bits: Mapping[Key, AnyArray],
    meta: Mapping[str, Any],
) -> Program:
    """Write the program; FitError where a bias or offset leaves signed 24 bits in its stream's unit."""
    chosen, arrays = Chosen(network, by_use(convs), choices, streams, bits), dict[str, AnyArray]()
    phases = {name: _Emitter(chosen, phase, arrays).run() for name, phase in network.phases.items()}
    states = {name: State(value_spec(state.kind, state.shape)) for name, state in network.states.items()}
    return Program(phases, {key: arrays[key] for key in sorted(arrays)}, states, meta=meta)
