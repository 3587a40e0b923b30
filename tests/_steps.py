"""A drawn program of one phase: every operation of ``program.ops.state`` and ``program.ops.message``; its inputs.

Spikes and graded messages, a neuron with current, membrane, leak, reset and spikes that come back, delays of either
kind, a read-out behind weights on graded messages; odd maps, limits that are reached.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.program.types import AnyArray, Op, Phase, Program, State, TensorSpec

KINDS = {"integrate", "fire", "reset", "remember", "delayed", "graded_conv", "rescale", "reshape"}
SIGMA_DELTA = {"change", "told"}
"""Kinds of ``program.ops.sigma_delta``, which are tested elsewhere."""
SPIKES, LIMIT = 7, 2**22
C, H, W = 4, 5, 3


def geometry(padding: int = 1, groups: int = 1, stride: int = 1) -> dict[str, int]:
    pairs = {"stride": stride, "padding": padding, "dilation": 1}
    return {f"{key}_{axis}": n for key, n in pairs.items() for axis in "hw"} | {"groups": groups}


def step_arrays(rng: np.random.Generator) -> dict[str, AnyArray]:
    def drawn(low: int, high: int, shape: tuple[int, ...] = (C, H, W)) -> AnyArray:
        return rng.integers(low, high, shape).astype(np.int32)

    return {
        "w": rng.integers(-3000, 3000, (1, C, 2, 3, 3)).astype(np.int16),
        "back": rng.integers(-50, 50, (1, C, C, 1, 1)).astype(np.int8),
        "graded": rng.integers(-9, 9, (1, 6, 2, 2, 2)).astype(np.int8),
        "b": drawn(-500, 500, (1, C)),
        "b6": drawn(-50, 50, (1, 6)),
        "s": np.ones((1, C), np.int8),
        "s6": np.zeros((1, 6), np.int8),
        "decay.i": drawn(2000, 3000),
        "decay.v": drawn(3000, 4090),
        "decay.out": drawn(3000, 4000, (6, 3, 2)),
        "leak": drawn(-900, 900),
        "first": drawn(20000, 90000),
        "step": drawn(20000, 30000),
        "level": drawn(10000, 30000),
        "v0": drawn(-900, 900, (1, C, H, W)),
        "steps": drawn(0, 4),
        "steps6": drawn(0, 3, (6, 1, 1)),
        "factor": drawn(-900, 900, (C, 1, W)),
    }


def step_ops(subtract: int) -> tuple[Op, ...]:
    weights = {"weight": "w", "bias": "b", "shift": "s"}
    back, graded = weights | {"weight": "back"}, {"weight": "graded", "bias": "b6", "shift": "s6"}

    def integrator(name: str, state: str, x: str, shift: int, limit: int, readout: int = 0, **arrays: str) -> Op:
        return Op(name, "integrate", (state, x), "b", {"shift": shift, "limit": limit, "readout": readout}, arrays)

    return (
        Op("in", "conv", ("x",), "b", geometry(), weights),
        Op("again", "conv", ("before",), "b", geometry(0), back),
        Op("sum", "add", ("in", "again"), "b"),
        integrator("i", "current", "sum", 6, LIMIT, decay="decay.i"),
        integrator("v", "membrane", "i", 0, LIMIT, decay="decay.v", bias="leak"),
        Op("n", "fire", ("v",), "b", {"most": SPIKES}, {"first": "first", "step": "step"}),
        Op("left", "reset", ("v", "n"), "b", {"subtract": subtract, "limit": LIMIT}, {"level": "level"}),
        Op("line", "remember", ("ring", "n"), "b"),
        Op("late", "delayed", ("line",), "b", {}, {"steps": "steps"}),
        Op("seen", "rescale", ("v",), "b", {"shift": 20, "limit": 1000}, {"factor": "factor"}),
        Op("far", "graded_conv", ("seen",), "b", geometry(groups=2, stride=2), graded),
        Op("line6", "remember", ("ring6", "far"), "b"),
        Op("late6", "delayed", ("line6",), "b", {}, {"steps": "steps6"}),
        integrator("out", "read", "late6", 2, 0, 1, decay="decay.out"),
        Op("flat", "reshape", ("out",), "b", {"channels": 18, "height": 2, "width": 1}),
        Op("scaled", "rescale", ("late",), "b", {"shift": 0, "limit": 0}, {"factor": "factor"}),
        Op("real", "graded_conv", ("y",), "b", geometry(), weights),
        Op("shrunk", "rescale", ("real",), "b", {"shift": 9, "limit": 0}, {"factor": "factor"}),
    )


def step_program(seed: int) -> Program:
    """Resets to a level for even seeds, by subtraction for odd ones."""
    stream, spikes = TensorSpec("stream", (1, C, H, W)), TensorSpec("spikes", (1, C, H, W), top=SPIKES)
    ring, ring6 = TensorSpec("spikes", (4, C, H, W), top=SPIKES), TensorSpec("stream", (3, 6, 3, 2))
    six, ops = TensorSpec("stream", (1, 6, 3, 2)), step_ops(seed % 2)
    values = {op.name: stream for op in ops} | {"n": spikes, "late": spikes, "line": ring, "line6": ring6}
    values |= dict.fromkeys(("far", "late6", "out"), six) | {"flat": TensorSpec("stream", (1, 18, 2, 1))}
    states = {"current": stream, "membrane": stream, "before": spikes, "ring": ring, "ring6": ring6, "read": six}
    given = {"x": TensorSpec("spikes", (1, 2, H, W), top=3), "y": TensorSpec("stream", (1, 2, H, W), top=30)}
    written = {"current": "i", "membrane": "left", "before": "n", "ring": "line", "ring6": "line6", "read": "out"}
    shown = {"flat": "flat", "scaled": "scaled", "shrunk": "shrunk", "late": "late"}
    phase = Phase("step", given | states, ops, values, written | shown)
    initial = {name: State(spec, "v0" if name == "membrane" else 0) for name, spec in states.items()}
    return Program({"step": phase}, step_arrays(np.random.default_rng(seed)), initial)


def step_inputs(rng: np.random.Generator) -> dict[str, AnyArray]:
    return {"x": rng.integers(0, 4, (1, 2, H, W)), "y": rng.integers(-30, 31, (1, 2, H, W))}
