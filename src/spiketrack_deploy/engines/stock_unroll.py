"""A phase whose values have several time steps as one whose values have one: step t of ``name`` is ``name@t``.

This module decides the unrolling, which gives every step Processes of its own, so that inputs are held still as those
of any tracker. It must not know Lava. A neuron that hands its membrane on becomes ``leak`` (``v, n, x`` -> membrane of
this step) and a neuron of one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from spiketrack_deploy.program.bounds import RangeEntry
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program, State, TensorSpec

PER_STEP = ("weight", "bias", "shift", "offset")
"""Arrays that may have a step of their own first; of a bias in three dimensions all steps share the map."""


NEURON = ("integrate", "fire", "reset", "change", "told")
"""Operations of neurons whose membranes are states."""


def has_memory(phase: Phase) -> bool:
    """Whether what it computes depends on the steps before, so that its picture cannot be held still."""
    return any(op.kind in NEURON or op.kind == "remember" for op in phase.ops)


def steps_of(phase: Phase) -> int:
    """Time steps of the longest value; 1: there is nothing to unroll (a delay line's first axis is none of time)."""
    if has_memory(phase):
        return 1
    return max((spec.shape[0] for spec in (*phase.inputs.values(), *phase.values.values())), default=1)


def at(name: str, spec: TensorSpec, step: int) -> str:
    """The name of a step of a value."""
    return f"{name}@{step}" if spec.shape[0] > 1 else name


def split(phase: Phase, values: Mapping[str, AnyArray]) -> dict[str, IntArray]:
    """Values of one run ``[T, ...]`` by the names of their steps, ``[1, ...]`` each."""
    found = {}
    for name, value in values.items():
        for step in range(len(value)):
            found[at(name, phase.spec(name), step)] = np.asarray(value[step : step + 1], dtype=np.int64)
    return found


def unroll(
    program: Program, phase: Phase, ranges: Mapping[str, RangeEntry]
) -> tuple[Program, Phase, dict[str, RangeEntry], dict[str, str]]:
    """Program, phase and ranges of the unrolled phase, and where each of its operations comes from."""
    specs: dict[str, dict[str, TensorSpec]] = {"inputs": {}, "values": {}}
    for kind, given in (("inputs", phase.inputs), ("values", phase.values)):
        for name, spec in given.items():
            for step in range(spec.shape[0]):
                specs[kind][at(name, spec, step)] = replace(spec, shape=(1, *spec.shape[1:]))
    arrays, ops, origin, bounds = dict(program.arrays), list[Op](), dict[str, str](), dict[str, RangeEntry]()
    for op in phase.ops:
        for step in range(phase.values[op.name].shape[0]):
            for made in _step(op, step, phase, arrays):
                ops.append(made)
                origin[made.name], bounds[made.name] = op.name, ranges[op.name]
                specs["values"].setdefault(made.name, specs["values"][at(op.name, phase.values[op.name], step)])
    outputs = {
        at(public, phase.values[value], step): at(value, phase.values[value], step)
        for public, value in phase.outputs.items()
        for step in range(phase.values[value].shape[0])
    }
    states = {
        at(name, state.spec, step): State(replace(state.spec, shape=(1, *state.spec.shape[1:])), state.initial)
        for name, state in program.states.items()
        for step in range(state.spec.shape[0])
    }
    made_phase = replace(phase, inputs=specs["inputs"], ops=tuple(ops), values=specs["values"], outputs=outputs)
    made_program = replace(program, phases={phase.name: made_phase}, arrays=arrays, states=states)
    return made_program, made_phase, bounds, origin


def _step(op: Op, step: int, phase: Phase, arrays: dict[str, AnyArray]) -> list[Op]:
    """One step of an operation."""
    steps = phase.values[op.name].shape[0]
    name = at(op.name, phase.values[op.name], step)
    if op.kind == "gate":
        inputs = tuple(at(n, phase.spec(n), t) for n in op.inputs for t in range(phase.spec(n).shape[0]))
        return [replace(op, inputs=inputs)]
    keys = dict(op.arrays)
    for role, key in op.arrays.items():
        if role in PER_STEP and len(arrays[key]) == steps > 1 and not (op.kind == "image_conv" and role == "bias"):
            keys[role] = f"{key}@{step}"
            arrays[keys[role]] = arrays[key][step : step + 1]
    inputs = tuple(at(n, phase.spec(n), step) for n in op.inputs)
    if op.kind != "ni_lif":
        return [replace(op, name=name, inputs=inputs, arrays=keys)]
    fires = {role: key for role, key in keys.items() if role in ("thresholds", "offset")}
    spikes = Op(name, "ni_lif", inputs, op.block, {"steps": 1}, fires)
    if not step:
        return [spikes]
    arrays[f"{name}.decay"] = arrays[op.arrays["decay"]][step - 1 : step]
    before = f"{op.name}@{step - 1}"
    membrane = f"{before}.v" if step > 1 else at(op.inputs[0], phase.spec(op.inputs[0]), 0)
    left = {"decay": f"{name}.decay", "reset": op.arrays["reset"]}
    leak = Op(f"{name}.v", "leak", (membrane, before, *inputs), op.block, {}, left)
    return [leak, replace(spikes, inputs=(leak.name,))]
