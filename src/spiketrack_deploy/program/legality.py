"""What makes a program legal: wiring, states, kinds, attributes, shapes, dtypes and arrays, before anything computes.

This module decides what is refused and says it in words. Programs come from files that anybody may have written, so no
attribute or array is used before its range and type are known. It must not run anything; what only one operation knows
stands in its row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.row import MOST_ELEMENTS, OpKind
from spiketrack_deploy.program.types import LEVELLED, VALUE_KINDS, Arrays, Op, Phase, Program, TensorSpec

WIDTHS = (8, 32)
"""Least and largest accumulator width; wider ones have no kernel whose sums are exact."""
LARGEST_TOP = 255
MOST_EXPONENT = 64
"""Of a unit or scale, either sign: products of both stay far within a float64."""
_AGAIN = "export the bundle again"


def spec_defect(spec: TensorSpec, program: Program) -> str | None:
    """What is illegal about a value's specification, in words; ``None`` if nothing is."""
    if spec.kind not in VALUE_KINDS:
        return f"has unknown kind {spec.kind!r}"
    if len(spec.shape) < 2 or any(n < 1 for n in spec.shape):
        return f"has shape {spec.shape}; a value has time steps, channels and perhaps more, each 1 or more"
    if math.prod(spec.shape) > MOST_ELEMENTS:
        return f"has shape {spec.shape}, more than the {MOST_ELEMENTS:,} elements that a value may have"
    if not 2.0**-MOST_EXPONENT <= spec.scale <= 2.0**MOST_EXPONENT:
        return f"has scale {spec.scale}; it must be above 0, within 2 to the {MOST_EXPONENT}"
    if not (1 <= spec.top <= LARGEST_TOP if spec.kind in LEVELLED else spec.top == 0 or spec.kind == "stream"):
        return f"has a largest level of {spec.top}; images and spikes have 1 to {LARGEST_TOP}, other values none"
    if spec.unit is None:
        return None
    if spec.kind not in ("stream", "logits"):
        return f"is {spec.kind} and has a unit; only streams and logits have one"
    unit = program.arrays.get(spec.unit)
    if unit is None or unit.shape != (spec.shape[1],) or not np.issubdtype(unit.dtype, np.integer):
        return f"has unit {spec.unit!r}, which is not an integer array of {spec.shape[1]} channels"
    if unit.min() < -MOST_EXPONENT or unit.max() > MOST_EXPONENT:
        return f"has unit {spec.unit!r} with exponents beyond {MOST_EXPONENT}"
    return None


def op_defect(op: Op, phase: Phase, program: Program) -> str | None:
    """What is illegal about one operation, in words; ``None`` if nothing is. Its inputs and arrays exist."""
    row = OP_TABLE.get(op.kind)
    if row is None:
        return f"is of unknown kind {op.kind!r}"
    output = phase.values[op.name]
    specs = [phase.spec(name) for name in op.inputs]
    arrays = program.op_arrays(op)
    defect = spec_defect(output, program) or _row_defect(op, row, arrays, specs, output)
    if defect:
        return defect
    defect = row.inputs_legal(op, arrays, specs)
    if defect:
        return defect
    shape = row.shape(op, arrays, specs)
    if tuple(shape) != tuple(output.shape):
        return f"writes shape {tuple(output.shape)}, its inputs give {tuple(shape)}"
    return row.arrays_legal(op, arrays, specs, output)


def _row_defect(op: Op, row: OpKind, arrays: Arrays, specs: Sequence[TensorSpec], output: TensorSpec) -> str | None:
    """Kinds, ranks, names of arrays and attributes, ranges of attributes, integer arrays."""
    if len(specs) != len(row.inputs) or any(s.kind not in kinds.split("|") for s, kinds in zip(specs, row.inputs)):
        return f"reads {[s.kind for s in specs]}, a {op.kind} reads {list(row.inputs)}"
    flat = next((s.shape for s in (*specs, output) if len(s.shape) != row.rank), None)
    if flat is not None:
        return f"has a value of shape {flat}; a {op.kind} works on {row.rank} axes"
    required = {r for r in row.roles if not r.endswith("?")}
    allowed = {r.rstrip("?") for r in row.roles}
    if not required <= set(op.arrays) <= allowed:
        return f"has arrays {sorted(op.arrays)}, a {op.kind} has {list(row.roles)}"
    if set(op.attrs) != set(row.attrs):
        return f"has attributes {sorted(op.attrs)}, a {op.kind} has {list(row.attrs)}"
    wanted = specs[0].kind if row.output == "same" else row.output
    if output.kind != wanted or (row.output == "same" and output.top != specs[0].top):
        return f"writes {output.kind}, a {op.kind} writes {wanted}"
    if output.kind == "stream" and output.top and row.output != "same":
        return f"has a largest level of {output.top}; only a stream that comes from outside has one"
    for name, (least, most) in row.attrs.items():
        if not least <= op.attrs[name] <= most:
            return f"has {name} {op.attrs[name]}; it must be {least} to {most}"
    for role, array in arrays.items():
        if not np.issubdtype(array.dtype, np.integer):
            return f"has {role} of {array.dtype}; arrays of a program are integers"
    return None


def check_program(program: Program) -> None:
    """Raise InputError naming phase and operation where the program is not legal."""
    if not WIDTHS[0] <= program.width <= WIDTHS[1]:
        raise InputError(
            f"program: accumulators of {program.width} bits; {WIDTHS[0]} to {WIDTHS[1]} are possible; {_AGAIN}"
        )
    for phase in program.phases.values():
        _check_phase(phase, program)
    _check_states(program)


def _check_phase(phase: Phase, program: Program) -> None:
    for name, spec in phase.inputs.items():
        defect = spec_defect(spec, program)
        if defect is None and name not in program.states and not spec.top:
            defect = f"is {spec.kind} and no state; what comes from outside has a largest level"
        if defect:
            raise InputError(f"program: {phase.name} input {name} {defect}; {_AGAIN}")
    known = set(phase.inputs)
    for op in phase.ops:
        missing = [i for i in op.inputs if i not in known]
        absent = [key for key in op.arrays.values() if key not in program.arrays]
        if missing or absent or op.name in known or op.name not in phase.values:
            raise InputError(
                f"program: {phase.name} {op.name} reads {missing or absent or 'its own name'}, which does not "
                f"exist before it; {_AGAIN}"
            )
        defect = op_defect(op, phase, program)
        if defect:
            raise InputError(f"program: {phase.name} {op.name} {defect}; {_AGAIN}")
        known.add(op.name)
    lost = [v for v in phase.outputs.values() if v not in phase.values]
    shown = [value for public, value in phase.outputs.items() if public not in program.states]
    if lost or not phase.outputs or len(shown) != len(set(shown)):
        what = f"outputs {lost} that nothing computes" if lost else "no outputs, or one of two names"
        raise InputError(f"program: {phase.name} has {what}; {_AGAIN}")
    if phase.cadence.every is not None and phase.cadence.every < 1:
        raise InputError(f"program: {phase.name} runs every {phase.cadence.every} results; at least 1 is possible")


def _check_states(program: Program) -> None:
    """Every state is written by one phase, and what is read and written has its kind and shape."""
    for name, state in program.states.items():
        writers = program.writers(name)
        if len(writers) != 1 or not program.readers(name):
            raise InputError(
                f"program: state {name} is written by {list(writers)} and read by {list(program.readers(name))}; one "
                f"phase writes a state and at least one reads it; {_AGAIN}"
            )
        writer = program.phases[writers[0]]
        read = [program.phases[reader].inputs[name] for reader in program.readers(name)]
        seen = [writer.values.get(writer.outputs[name]), *read]
        for spec in seen:
            if spec is None or (spec.kind, spec.shape) != (state.spec.kind, state.spec.shape):
                raise InputError(f"program: state {name} is not everywhere of its kind and shape; {_AGAIN}")
        if isinstance(state.initial, str):
            content = program.arrays.get(state.initial)
            if content is None or content.shape != state.spec.shape or not np.issubdtype(content.dtype, np.integer):
                raise InputError(f"program: state {name} begins with {state.initial!r}, not of its shape; {_AGAIN}")
