"""Last rewriting pass: writes the integer program, with exponents and units chosen.

This module decides how every real parameter becomes an integer array of the program. It must not choose anything that
costs accuracy except the roundings named in docs/exactness.md: weights, biases, offsets, decays, the gate's table,
and a ``requantise`` behind an upsampling whose unit is finer than the stream it joins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spiketrack_deploy.errors import FitError
from spiketrack_deploy.frontends.spiketrack.recognise import gain_of
from spiketrack_deploy.lowering.calibrate import Choice, quantise
from spiketrack_deploy.lowering.network import FloatNetwork, FloatOp, FloatPhase
from spiketrack_deploy.lowering.thresholds import dyadic_thresholds, gain_thresholds, gain_value
from spiketrack_deploy.lowering.units import CONVS, Key, Streams, pool_bits
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
    TensorSpec,
    states_of,
)

GATE_INDEX_BITS = 8
PIXEL_MAX = 255
_QUERY_SHIFT_MAX = 6


def memory_spec(shape: tuple[int, ...]) -> TensorSpec:
    """A product of two spikes: sixteenths."""
    return TensorSpec("memory", shape, scale=1.0 / SPIKE_MAX**2)


def gate_table() -> AnyArray:
    """``rint(2**15 * exp(-i / 256))`` uint16 until it reaches 0: the exponential of a softmax with its maximum taken
    off.
    """
    values = np.rint(2.0**GATE_BITS * np.exp(-np.arange(1 << 13) / 2.0**GATE_INDEX_BITS))
    return values[: int(np.argmax(values == 0)) + 1].astype(np.uint16)


def stream_bits(network: FloatNetwork, streams: Streams, choices: Mapping[str, Choice]) -> dict[Key, AnyArray]:
    """Fraction bits ``[C]`` of every group: the finest that its convolutions' exponents ask for.

    Spikes are quarters, so a convolution with exponent e writes units of 2^-(e+2); pixels are whole, so 2^-e. A
    projection in front of an upsampling is made finer where the stream behind has room, so that no rounding is needed.
    """
    bits: dict[Key, AnyArray] = {}
    feeds: list[tuple[Key, Key, int]] = []
    for phase in network.phases.values():
        for op in phase.ops:
            key = (phase.name, op.name)
            if op.kind in CONVS:
                root = streams.group[key]
                wanted = choices[op.name].exponent.max(axis=0) + (0 if op.kind == "image_conv" else 2)
                bits[root] = np.maximum(bits[root], wanted) if root in bits else wanted
            elif op.kind == "upsample":
                feeds.append((streams.group[(phase.name, op.inputs[0])], streams.group[key], pool_bits(op)))
    for source, target, extra in feeds:
        bits[source] = np.maximum(bits[source], np.minimum(bits[target] - extra, streams.cap[source]))
    return bits


@dataclass(slots=True)
class _Emitter:
    """Collects operations, values and arrays; equal arrays under one role are stored once for both phases."""

    network: FloatNetwork
    streams: Streams
    choices: Mapping[str, Choice]
    weights: Mapping[str, AnyArray]
    biases: Mapping[str, AnyArray]
    bits: Mapping[Key, AnyArray]
    arrays: dict[str, AnyArray] = field(default_factory=dict)

    def put(self, phase: str, key: str, array: AnyArray) -> str:
        for candidate in (key, f"{phase}.{key}"):
            known = self.arrays.get(candidate)
            if known is None:
                self.arrays[candidate] = array
                return candidate
            if known.dtype == array.dtype and np.array_equal(known, array):
                return candidate
        raise ValueError(f"array {key} has three different contents")


def _integer(values: AnyArray, name: str, what: str) -> AnyArray:
    """Rounded to int32; FitError where an entry leaves signed 24 bits."""
    rounded = np.rint(values)
    if np.abs(rounded).max(initial=0) > INT24_MAX:
        raise FitError(
            f"{name}: {what} needs more than signed 24 bits in the stream's unit; its weights or biases are too large"
        )
    return rounded.astype(np.int32)


class PhaseEmitter:
    """Emits one phase."""

    def __init__(self, shared: _Emitter, phase: FloatPhase) -> None:
        self.shared, self.phase = shared, phase
        self.ops: list[Op] = []
        self.values: dict[str, TensorSpec] = {}
        self.units: dict[str, AnyArray] = {}
        self.scales: dict[str, float] = {}
        self.renamed: dict[str, str] = {}
        self.sources = {op.name: op for op in phase.ops}
        self.readers = phase.readers()

    def emit(self) -> Phase:
        for op in self.phase.ops:
            getattr(self, f"emit_{op.kind}")(op)
        inputs = {
            name: TensorSpec("image", shape, top=PIXEL_MAX) if name == "image" else memory_spec(shape)
            for name, shape in self.phase.inputs.items()
        }
        return Phase(self.phase.name, inputs, tuple(self.ops), self.values, dict(self.phase.outputs))

    def add(
        self,
        op: FloatOp,
        kind: str,
        value_kind: str,
        attrs: dict[str, int],
        arrays: dict[str, AnyArray],
        name: str | None = None,
        inputs: tuple[str, ...] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        own = name or op.name
        keys = {role: self.shared.put(self.phase.name, f"{own}.{role}", array) for role, array in arrays.items()}
        read = tuple(self.renamed.get(i, i) for i in (op.inputs if inputs is None else inputs))
        self.ops.append(Op(own, kind, read, op.block, attrs, keys))
        unit = None
        if value_kind in ("stream", "logits"):
            unit = self.shared.put(self.phase.name, f"{own}.unit", self.units[own].astype(np.int8))
        held = op.shape if shape is None else shape
        if value_kind == "spikes":
            self.values[own] = TensorSpec("spikes", held, scale=1.0 / SPIKE_MAX, top=SPIKE_MAX)
        elif value_kind == "memory":
            self.values[own] = memory_spec(held)
        else:
            self.values[own] = TensorSpec(value_kind, held, unit, self.scales.get(own, 1.0))

    def group_bits(self, name: str) -> AnyArray:
        return self.shared.bits[self.shared.streams.group[(self.phase.name, name)]]

    def source_bits(self, op: FloatOp, index: int = 0) -> AnyArray:
        return self.units[self.renamed.get(op.inputs[index], op.inputs[index])]

    def emit_convolution(self, op: FloatOp, value_kind: str, spike_bits: int) -> None:
        shared, exponent = self.shared, self.shared.choices[op.name].exponent
        bits = self.group_bits(op.name)
        self.units[op.name] = bits
        bias = shared.biases[op.name]
        scale = np.exp2(bits.astype(np.float64))
        scaled = bias * (scale[:, None, None] if bias.ndim == 3 else scale)
        (sy, sx), (py, px), (dy, dx) = op.params["stride"], op.params["padding"], op.params["dilation"]
        attrs = {
            "stride_h": sy,
            "stride_w": sx,
            "padding_h": py,
            "padding_w": px,
            "dilation_h": dy,
            "dilation_w": dx,
            "groups": op.params["groups"],
        }
        arrays = {
            "weight": quantise(shared.weights[op.name], exponent),
            "bias": _integer(scaled, op.name, "a bias"),
            "shift": (bits[None] - exponent - spike_bits).astype(np.int8),
        }
        self.add(op, op.kind, value_kind, attrs, arrays)

    def emit_image_conv(self, op: FloatOp) -> None:
        self.emit_convolution(op, "stream", 0)

    def emit_conv(self, op: FloatOp) -> None:
        self.emit_convolution(op, "stream", 2)

    def emit_head_out(self, op: FloatOp) -> None:
        self.emit_convolution(op, "logits", 2)

    def emit_add(self, op: FloatOp) -> None:
        self.units[op.name] = self.group_bits(op.name)
        self.add(op, "add", "stream", {}, {})

    def emit_avg_pool(self, op: FloatOp) -> None:
        self.units[op.name] = self.source_bits(op) + pool_bits(op)
        self.add(op, "avg_pool", "stream", {"kernel": int(op.params["kernel"])}, {})

    def emit_upsample(self, op: FloatOp) -> None:
        """The upsampled value joins a stream: where its unit is finer than the stream's, a ``requantise`` rounds it."""
        fine, target = self.source_bits(op) + pool_bits(op), self.group_bits(op.name)
        self.units[op.name] = fine
        self.add(op, "upsample", "stream", {"factor": int(op.params["factor"])}, {})
        if np.any(fine > target):
            name = f"{op.name}.requantise"
            self.units[name] = target
            self.add(
                op, "requantise", "stream", {}, {"shift": (fine - target).astype(np.int8)}, name=name, inputs=(op.name,)
            )
            self.renamed[op.name] = name

    def emit_key_value(self, op: FloatOp) -> None:
        self.add(op, "key_value", "memory", {"heads": int(op.params["heads"])}, {})

    def emit_query(self, op: FloatOp) -> None:
        """Attention scores stay integers A in units of gain/64; where a membrane follows, shifted left for a finer
        decay.
        """
        heads = int(op.params["heads"])
        memory = self.phase.inputs.get(op.inputs[1]) or self.sources[op.inputs[1]].shape
        tokens = op.shape[2] * op.shape[3]
        room = INT24_MAX // (SPIKE_MAX**3 * tokens * memory[2])
        membrane = any(r.kind == "ni_lif" and r.steps > 1 for r in self.readers[op.name])
        shift = min(_QUERY_SHIFT_MAX, max(int(np.log2(max(room, 1))) - 1, 0)) if membrane else 0
        self.scales[op.name] = gain_value(gain_of(op.params), memory[2])
        self.units[op.name] = np.full(op.shape[1], 6 + shift)
        self.add(op, "query", "stream", {"heads": heads, "shift": shift}, {})

    def emit_gate_transpose(self, op: FloatOp) -> None:
        self.add(op, "gate_transpose", "spikes", {}, {})

    def emit_gate(self, op: FloatOp) -> None:
        """The output is compared with one half; its integer has no unit that matters, 0 bits by convention."""
        bits = int(self.source_bits(op)[0])
        self.units[op.name] = np.zeros(op.shape[1])
        self.add(op, "gate", "stream", {"shift": max(bits - GATE_INDEX_BITS, 0)}, {"table": gate_table()})

    def emit_ni_lif(self, op: FloatOp) -> None:
        source = self.sources[op.inputs[0]]
        bits = self.source_bits(op)
        arrays: dict[str, AnyArray] = {}
        if source.kind == "gate":
            arrays["thresholds"] = np.array([[1] + [UNREACHABLE] * (SPIKE_MAX - 1)], dtype=np.int32)
            quarter = np.zeros(1)
        elif source.kind == "query":
            head_dim = (self.phase.inputs.get(source.inputs[1]) or self.sources[source.inputs[1]].shape)[2]
            arrays["thresholds"] = gain_thresholds(gain_of(source.params), head_dim, int(bits[0]))
            quarter = np.exp2(bits[:1].astype(np.float64) - 2) / gain_value(gain_of(source.params), head_dim)
        else:
            arrays["thresholds"] = dyadic_thresholds(bits)
            quarter = np.exp2(bits.astype(np.float64) - 2)
        if op.params["offset"] is not None:
            scale = np.exp2(bits.astype(np.float64)) / self.scales.get(op.inputs[0], 1.0)
            arrays["offset"] = _integer(
                op.params["offset"] * scale[None, :, None, None], op.name, "a positional offset"
            )
        if op.steps > 1:
            arrays["decay"] = np.rint(op.params["sigma"] * 2.0**DECAY_BITS).astype(np.uint16)
            arrays["reset"] = _integer(quarter, op.name, "the reset")
        self.add(op, "ni_lif", "spikes", {"steps": op.steps}, arrays)


def emit(
    network: FloatNetwork,
    streams: Streams,
    choices: Mapping[str, Choice],
    weights: Mapping[str, AnyArray],
    biases: Mapping[str, AnyArray],
    meta: Mapping[str, Any],
) -> Program:
    """Write the program. ``weights``, ``biases``: real values per convolution, the image convolution's for raw
    pixels.
    """
    shared = _Emitter(network, streams, choices, weights, biases, stream_bits(network, streams, choices))
    phases = {name: PhaseEmitter(shared, phase).emit() for name, phase in network.phases.items()}
    used = {key for b in phases.values() for op in b.ops for key in op.arrays.values()} | {
        s.unit for b in phases.values() for s in b.values.values() if s.unit
    }
    return Program(phases, {key: shared.arrays[key] for key in sorted(used)}, states_of(phases), meta=meta)
