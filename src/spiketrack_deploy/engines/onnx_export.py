"""A phase of a program as a plain ONNX model of standard operators, which any runtime executes to the same integers.

This module decides how each operation is written in ONNX; it must not know who runs the model, and uses NumPy and onnx
only. Values between operators are integers held in float32: the range proof keeps every sum below 2**24, so a float32
Conv or MatMul is exact in any order of summation. Membranes over several steps need 36 bits and are float64. Weights
are stored as int8 and cast. The bytes of a file depend on the program alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.engines.onnx_state import STATE_WRITERS
from spiketrack_deploy.engines.sim_levels import rounding_bits
from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.program.store import content_hash
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray, Arrays, Op, Phase, Program

OPSET = 18
IR_VERSION = 8
"""What ONNX Runtime 1.18 and later read."""
HELD = "held:"
"""Prefix of a phase input once it is float32, and of an operation that has the name of a phase output."""
NEXT = "next:"
"""Prefix of an output that is a state which the phase reads as well: the input has the state's own name."""
TEXT_UNITS = "spiketrack.logit_units"
TEXT_HASH = "spiketrack.program_hash"


class _Graph:
    """Collects nodes and constants; names of values are those of the program's operations."""

    def __init__(self, phase: Phase, onnx: Any) -> None:
        self.phase, self.onnx = phase, onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._count = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.phase.spec(name.removeprefix(HELD)).shape

    def constant(self, array: AnyArray, name: str | None = None) -> str:
        """An initialiser; equal names are stored once."""
        key = name or f"constant.{len(self.constants)}"
        if key not in self.constants:
            self.constants[key] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), key)
        return key

    def node(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """One operator; returns the name of its output."""
        self._count += 1
        name = out or f"{kind}.{self._count}"
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), [name], name=f"node.{self._count}", **attributes)
        )
        return name

    def number(self, value: float, dtype: type = np.float32) -> str:
        """A scalar constant."""
        return self.constant(np.array(value, dtype=dtype), f"number.{np.dtype(dtype).name}.{value!r}")

    def per_channel(self, values: AnyArray, dtype: type = np.float32) -> str:
        """Numbers ``[C]`` as ``[1,C,1,1]``."""
        return self.constant(np.asarray(values, dtype=dtype).reshape(1, -1, 1, 1))

    def reshape(self, x: str, shape: Sequence[int], out: str | None = None) -> str:
        """``x`` in another shape."""
        return self.node("Reshape", x, self.constant(np.array(shape, dtype=np.int64), f"shape.{list(shape)}"), out=out)

    def step(self, x: str, t: int) -> str:
        """``x[t:t+1]``."""
        bounds = [self.constant(np.array([v], dtype=np.int64), f"shape.{[v]}") for v in (t, t + 1, 0)]
        return self.node("Slice", x, *bounds)

    def cast(self, x: str, dtype: type, out: str | None = None) -> str:
        """``x`` as another type."""
        return self.node("Cast", x, to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), out=out)


Writer = Callable[[_Graph, Op, Arrays, str], Any]
"""Writes an operation; the last argument is the name of its output."""


def _weights(g: _Graph, op: Op, arrays: Arrays, t: int) -> str:
    """int8 weights of step t as float32, shifted into the stream's unit."""
    stem = f"{op.arrays['weight']}.{t}"
    known = g.cast(g.constant(arrays["weight"][t], stem), np.float32)
    shift = arrays["shift"][t].astype(np.int64)
    return (
        g.node("Mul", known, g.constant(np.exp2(shift)[:, None, None, None].astype(np.float32)))
        if shift.any()
        else known
    )


def _conv(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    a, source = op.attrs, op.inputs[0]
    geometry: dict[str, Any] = {
        "strides": [a["stride_h"], a["stride_w"]],
        "pads": [a["padding_h"], a["padding_w"]] * 2,
        "dilations": [a["dilation_h"], a["dilation_w"]],
        "group": a["groups"],
        "kernel_shape": list(arrays["weight"].shape[3:]),
    }
    bias = arrays["bias"].astype(np.float32)
    if bias.ndim == 3:
        y = g.node("Conv", source, _weights(g, op, arrays, 0), **geometry)
        g.node("Add", y, g.constant(bias[None]), out=out)
        return
    shared = arrays["weight"].shape[0] == 1
    parts = []
    for t in range(arrays["weight"].shape[0]):
        x = source if shared else g.step(source, t)
        parts.append(
            g.node("Conv", x, _weights(g, op, arrays, t), g.constant(bias[t]), out=out if shared else None, **geometry)
        )
    if not shared:
        g.node("Concat", *parts, out=out, axis=0)


def _fire(g: _Graph, level: str, thresholds: AnyArray, out: str | None = None) -> str:
    """Spikes as float32 from a float32 level: a rounding where the thresholds are one, else comparisons."""
    bits = rounding_bits(thresholds)
    if bits is not None:
        real = g.node("Mul", level, g.per_channel(np.exp2(-bits.astype(np.float64))))
        return g.node("Round", g.node("Clip", real, g.number(0.0), g.number(float(SPIKE_MAX))), out=out)
    reached = [g.cast(g.node("GreaterOrEqual", level, g.per_channel(column)), np.float32) for column in thresholds.T]
    return g.node("Sum", *reached, out=out)


def _ni_lif(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    steps, x = op.attrs["steps"], op.inputs[0]
    thresholds = arrays["thresholds"]
    offset = arrays["offset"].astype(np.float32) if "offset" in arrays else None
    if steps == 1:
        _fire(g, x if offset is None else g.node("Add", x, g.constant(offset)), thresholds, out)
        return
    spikes: list[str] = []
    v = ""
    for t in range(steps):
        current = x if g.shape(x)[0] == 1 else g.step(x, t)
        v = current if t == 0 else _leaked(g, arrays, v, spikes[-1], t, current)
        spikes.append(_fire(g, v if offset is None else g.node("Add", v, g.constant(offset[t : t + 1])), thresholds))
    g.node("Concat", *spikes, out=out, axis=0)


def _leaked(g: _Graph, arrays: Arrays, v: str, spike: str, t: int, current: str) -> str:
    """``trunc0(decay * (v - n * reset) / 2**12) + x``: float64 holds the 36-bit product; float32 again after."""
    taken = g.node("Mul", g.cast(spike, np.float64), g.per_channel(arrays["reset"], np.float64))
    left = g.node("Sub", g.cast(v, np.float64), taken)
    real = g.node("Mul", left, g.number(float(arrays["decay"][t - 1]) / 2.0**12, np.float64))
    whole = g.node("Mul", g.node("Sign", real), g.node("Floor", g.node("Abs", real)))
    return g.node("Add", g.cast(whole, np.float32), current)


def _add(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    g.node("Add", *op.inputs, out=out)


def _avg_pool(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    steps, channels, height, width = g.shape(op.inputs[0])
    k = op.attrs["kernel"]
    windows = g.reshape(op.inputs[0], (steps, channels, height // k, k, width // k, k))
    g.node("ReduceSum", windows, g.constant(np.array([3, 5], dtype=np.int64), "shape.[3, 5]"), out=out, keepdims=0)


def _interpolation(size: int, factor: int) -> AnyArray:
    """Bilinear weights ``[size*factor, size]`` times ``2*factor``: integers."""
    matrix = np.zeros((size * factor, size), dtype=np.float32)
    for row in range(size * factor):
        twice = max(2 * row + 1 - factor, 0)
        left = twice // (2 * factor)
        share = twice % (2 * factor)
        matrix[row, left] += 2 * factor - share
        matrix[row, min(left + 1, size - 1)] += share
    return matrix


def _upsample(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    _, _, height, width = g.shape(op.inputs[0])
    factor = op.attrs["factor"]
    rows = g.constant(_interpolation(height, factor), f"rows.{height}.{factor}")
    cols = g.constant(_interpolation(width, factor).T, f"cols.{width}.{factor}")
    g.node("MatMul", g.node("MatMul", rows, op.inputs[0]), cols, out=out)


def _requantise(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    shift = arrays["shift"].astype(np.float64)
    half = np.where(shift > 0, np.exp2(shift - 1), 0)
    raised = g.node("Add", op.inputs[0], g.per_channel(half))
    g.node("Floor", g.node("Mul", raised, g.per_channel(np.exp2(-shift))), out=out)


def _heads(g: _Graph, name: str, heads: int) -> str:
    """``[T,C,H,W]`` as ``[T,heads,C/heads,H*W]``."""
    steps, channels, height, width = g.shape(name)
    return g.reshape(name, (steps, heads, channels // heads, height * width))


def _key_value(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    heads = op.attrs["heads"]
    values = g.node("Transpose", _heads(g, op.inputs[1], heads), perm=[0, 1, 3, 2])
    g.node("MatMul", _heads(g, op.inputs[0], heads), values, out=out)


def _query(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    rows = g.node(
        "MatMul", g.node("Transpose", op.inputs[1], perm=[0, 1, 3, 2]), _heads(g, op.inputs[0], op.attrs["heads"])
    )
    flat = g.reshape(rows, g.shape(op.name))
    g.node("Mul", flat, g.number(2.0 ** op.attrs["shift"]), out=out)


def _gate_transpose(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    steps, channels, height, width = g.shape(op.inputs[0])
    moved = g.node("Transpose", g.reshape(op.inputs[0], (steps, channels, height * width)), perm=[0, 2, 1])
    g.reshape(moved, (steps, height * width, 1, channels), out)


def _gate(g: _Graph, op: Op, arrays: Arrays, out: str) -> None:
    steps, channels = g.shape(op.inputs[1])[:2]
    level = g.reshape(op.inputs[0], (steps, channels))
    top = g.node("ReduceMax", level, g.constant(np.array([0], dtype=np.int64), "shape.[0]"), keepdims=1)
    steps_down = g.node("Floor", g.node("Mul", g.node("Sub", top, level), g.number(2.0 ** -op.attrs["shift"])))
    last = float(arrays["table"].size - 1)
    index = g.cast(g.node("Clip", steps_down, g.number(0.0), g.number(last)), np.int64)
    weights = g.node(
        "Gather", g.constant(arrays["table"].astype(np.float32), f"table.{op.arrays['table']}"), index, axis=0
    )
    centred = g.node("Sub", op.inputs[1], g.number(2.0))
    products = g.node("Mul", centred, g.reshape(weights, (steps, channels, 1, 1)))
    g.node("ReduceSum", products, g.constant(np.array([0], dtype=np.int64), "shape.[0]"), out=out, keepdims=1)


WRITERS: dict[str, Writer] = {
    "image_conv": _conv,
    "conv": _conv,
    "head_out": _conv,
    "add": _add,
    "ni_lif": _ni_lif,
    "avg_pool": _avg_pool,
    "upsample": _upsample,
    "requantise": _requantise,
    "key_value": _key_value,
    "query": _query,
    "gate_transpose": _gate_transpose,
    "gate": _gate,
    "graded_conv": _conv,
    **STATE_WRITERS,
}


def output_name(phase: Phase, public: str) -> str:
    """Name of a phase's output in the model."""
    return NEXT + public if public in phase.inputs else public


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise EngineError(f"ONNX export needs the package onnx ({error}); install onnx") from None
    return onnx


def build_model(program: Program, branch_name: str, all_outputs: bool = False) -> Any:
    """The ``onnx.ModelProto`` of one phase.

    Inputs: the phase's, an image uint8, all others int32 (a ``memory.<i>`` ``[T,heads,d,dv]`` in 1/16), the states that
    it reads among them. Outputs: the phase's public names (:func:`output_name`), int32; with ``all_outputs``
    every operation's value besides, int32, named ``value:<operation>``. Metadata: the program's hash, and the real
    value of one integer of every output channel. EngineError: onnx is missing, or
    an operation has no ONNX form; InputError: no such phase.
    """
    if branch_name not in program.phases:
        raise InputError(f"program: it has no {branch_name} phase; it has {', '.join(program.phases)}")
    phase = program.phases[branch_name]
    onnx = _onnx()
    g = _Graph(phase, onnx)
    integers = onnx.TensorProto.INT32
    inputs = []
    for name, spec in phase.inputs.items():
        kind = onnx.TensorProto.UINT8 if spec.kind == "image" else integers
        inputs.append(onnx.helper.make_tensor_value_info(name, kind, list(spec.shape)))
    held = {name: g.cast(name, np.float32, out=HELD + name) for name in phase.inputs}
    held.update({op.name: HELD + op.name for op in phase.ops if op.name in phase.outputs})
    for op in phase.ops:
        if op.kind not in WRITERS:
            raise EngineError(f"operation kind {op.kind!r} of {op.name} has no ONNX form; use another engine")
        sources = tuple(held.get(name, name) for name in op.inputs)
        WRITERS[op.kind](g, replace(op, inputs=sources), program.op_arrays(op), held.get(op.name, op.name))
    outputs = []
    shown = {output_name(phase, public): name for public, name in phase.outputs.items()}
    if all_outputs:
        shown.update({f"value:{op.name}": op.name for op in phase.ops})
    for public, name in shown.items():
        g.cast(held.get(name, name), np.int32, out=public)
        outputs.append(onnx.helper.make_tensor_value_info(public, integers, list(phase.spec(name).shape)))
    graph = onnx.helper.make_graph(g.nodes, f"spiketrack_{branch_name}", inputs, outputs, list(g.constants.values()))
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="spiketrack-deploy"
    )
    model.ir_version = IR_VERSION
    units = {public: program.real_unit(phase.spec(name)).tolist() for public, name in phase.outputs.items()}
    onnx.helper.set_model_props(
        model, {TEXT_HASH: content_hash(program), TEXT_UNITS: json.dumps(units, sort_keys=True)}
    )
    return model


def export_onnx(program: Program, path: Path, phase: str, all_outputs: bool = False) -> None:
    """Write one phase (see :func:`build_model`) to ``path``; the same program gives the same bytes."""
    model = build_model(program, phase, all_outputs)
    write_whole(path, model.SerializeToString(deterministic=True))
