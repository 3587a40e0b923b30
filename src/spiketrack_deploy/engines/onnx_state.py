"""Neurons, delay lines and graded messages in standard ONNX operators, as :mod:`onnx_export` asks for them.

This module decides how the operations of ``program.ops.state``, ``message`` and ``sigma_delta`` are written; it must
not know who collects the nodes. What is multiplied by a decay, level or factor is float64 while it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spiketrack_deploy.program.types import DECAY_BITS, AnyArray, Arrays, Op

Graph = Any
"""``onnx_export._Graph``, which imports this module."""


def _wide(g: Graph, array: AnyArray) -> str:
    return str(g.constant(array.astype(np.float64)[None]))


def _limited(g: Graph, op: Op, y: str, out: str) -> None:
    limit = float(op.attrs["limit"])
    if limit:
        y = g.node("Clip", y, g.number(-limit, np.float64), g.number(limit, np.float64))
    g.cast(y, np.float32, out=out)


def _integrate(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    state, given = (g.cast(name, np.float64) for name in op.inputs)
    leaked = g.node("Mul", state, _wide(g, arrays["decay"] / 2.0**DECAY_BITS))
    kept = g.node("Mul", g.node("Sign", leaked), g.node("Floor", g.node("Abs", leaked)))
    y = g.node("Add", kept, g.node("Mul", given, g.number(2.0 ** op.attrs["shift"], np.float64)))
    _limited(g, op, g.node("Add", y, _wide(g, arrays["bias"])) if "bias" in arrays else y, out)


def _fire(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    if op.attrs["most"] == 1:
        reached = g.node("GreaterOrEqual", g.cast(op.inputs[0], np.float64), _wide(g, arrays["first"]))
        g.cast(reached, np.float32, out=out)
        return
    above = g.node("Sub", g.cast(op.inputs[0], np.float64), _wide(g, arrays["first"]))
    levels = g.node("Floor", g.node("Div", above, _wide(g, arrays["step"])))
    counted = g.node("Add", levels, g.number(1.0, np.float64))
    clipped = g.node("Clip", counted, g.number(0.0, np.float64), g.number(float(op.attrs["most"]), np.float64))
    g.cast(clipped, np.float32, out=out)


def _reset(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    v, n = (g.cast(name, np.float64) for name in op.inputs)
    level = _wide(g, arrays["level"])
    if op.attrs["subtract"]:
        y = g.node("Sub", v, g.node("Mul", n, level))
    else:
        y = g.node("Where", g.node("Greater", n, g.number(0.0, np.float64)), level, v)
    _limited(g, op, y, out)


def _remember(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    ring, x = op.inputs
    length = g.shape(ring)[0]
    if length == 1:
        g.node("Identity", x, out=out)
        return
    ends = [g.constant(np.array([n], dtype=np.int64), f"shape.{[n]}") for n in (0, length - 1, 0)]
    g.node("Concat", x, g.node("Slice", ring, *ends), out=out, axis=0)


def _delayed(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    steps = np.broadcast_to(arrays["steps"].astype(np.int64), g.shape(op.inputs[0])[1:])
    g.node("GatherElements", op.inputs[0], g.constant(steps[None]), out=out, axis=0)


def _rescale(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    scaled = g.node("Mul", g.cast(op.inputs[0], np.float64), _wide(g, arrays["factor"] / 2.0 ** op.attrs["shift"]))
    if op.attrs["shift"]:
        scaled = g.node("Floor", g.node("Add", scaled, g.number(0.5, np.float64)))
    _limited(g, op, scaled, out)


def _reshape(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    g.reshape(op.inputs[0], g.shape(op.name), out)


def _sent(g: Graph, op: Op, arrays: Arrays) -> tuple[str, str]:
    """What a sigma-delta neuron sends, and what it had told, as float64."""
    sigma, said = (g.cast(name, np.float64) for name in op.inputs)
    act = g.node("Add", sigma, _wide(g, arrays["bias"])) if "bias" in arrays else sigma
    if op.attrs["rectified"]:
        act = g.node("Max", act, g.number(0.0, np.float64))
    delta = g.node("Sub", act, said)
    reached = g.node("GreaterOrEqual", g.node("Abs", delta), _wide(g, arrays["threshold"]))
    y = g.node("Where", reached, delta, g.number(0.0, np.float64))
    limit = float(op.attrs["limit"])
    return (g.node("Clip", y, g.number(-limit, np.float64), g.number(limit, np.float64)) if limit else y), said


def _change(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    scaled = g.node("Mul", _sent(g, op, arrays)[0], g.number(2.0 ** -op.attrs["shift"], np.float64))
    g.cast(g.node("Floor", scaled), np.float32, out=out)


def _told(g: Graph, op: Op, arrays: Arrays, out: str) -> None:
    g.cast(g.node("Add", *_sent(g, op, arrays)), np.float32, out=out)


STATE_WRITERS: dict[str, Callable[[Graph, Op, Arrays, str], None]] = {
    "integrate": _integrate,
    "fire": _fire,
    "reset": _reset,
    "remember": _remember,
    "delayed": _delayed,
    "rescale": _rescale,
    "reshape": _reshape,
    "change": _change,
    "told": _told,
}
