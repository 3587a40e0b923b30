"""What makes an operation legal: kinds, attributes, shapes, dtypes and arrays, before anything computes with them.

This module decides what is refused and says it in words. Programs come from files that anybody may have written, so no
attribute or array is used before its range and type are known. It must not run anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from spiketrack_deploy.program.table import OP_TABLE, OpKind
from spiketrack_deploy.program.types import (
    DECAY_BITS,
    SPIKE_MAX,
    VALUE_KINDS,
    AnyArray,
    Arrays,
    Op,
    Phase,
    Program,
    TensorSpec,
)

LEAST = {
    "stride_h": 1,
    "stride_w": 1,
    "padding_h": 0,
    "padding_w": 0,
    "dilation_h": 1,
    "dilation_w": 1,
    "groups": 1,
    "steps": 1,
    "kernel": 1,
    "factor": 1,
    "heads": 1,
    "shift": 0,
}
"""Smallest legal value of every attribute."""
MOST = {"shift": 24}
MOST_OTHERS = 1 << 16
"""Larger attributes have no meaning for an image and would only exhaust memory."""


def spec_defect(spec: TensorSpec, program: Program) -> str | None:
    """What is illegal about a value's specification, in words; ``None`` if nothing is."""
    if spec.kind not in VALUE_KINDS:
        return f"has unknown kind {spec.kind!r}"
    if len(spec.shape) != 4 or any(n < 1 for n in spec.shape):
        return f"has shape {spec.shape}; a value has four sizes of 1 or more"
    if not (np.isfinite(spec.scale) and spec.scale > 0):
        return f"has scale {spec.scale}; it must be finite and above 0"
    if spec.unit is None:
        return None
    if spec.kind not in ("stream", "logits"):
        return f"is {spec.kind} and has a unit; only streams and logits have one"
    unit = program.arrays.get(spec.unit)
    if unit is None or unit.shape != (spec.shape[1],) or not np.issubdtype(unit.dtype, np.integer):
        return f"has unit {spec.unit!r}, which is not an integer array of {spec.shape[1]} channels"
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
    if op.kind in _INPUT_RULES:
        defect = _INPUT_RULES[op.kind](op, arrays, specs)
        if defect:
            return defect
    shape = row.shape(op, arrays, specs)
    if tuple(shape) != tuple(output.shape):
        return f"writes shape {tuple(output.shape)}, its inputs give {tuple(shape)}"
    return _ARRAY_RULES[op.kind](op, arrays, specs, output) if op.kind in _ARRAY_RULES else None


def _row_defect(op: Op, row: OpKind, arrays: Arrays, specs: Sequence[TensorSpec], output: TensorSpec) -> str | None:
    """Kinds, names of arrays and attributes, ranges of attributes, integer arrays."""
    if tuple(s.kind for s in specs) != row.inputs:
        return f"reads {[s.kind for s in specs]}, a {op.kind} reads {list(row.inputs)}"
    required = {r for r in row.roles if not r.endswith("?")}
    allowed = {r.rstrip("?") for r in row.roles}
    if not required <= set(op.arrays) <= allowed:
        return f"has arrays {sorted(op.arrays)}, a {op.kind} has {list(row.roles)}"
    if set(op.attrs) != set(row.attrs):
        return f"has attributes {sorted(op.attrs)}, a {op.kind} has {list(row.attrs)}"
    if output.kind != row.output:
        return f"writes {output.kind}, a {op.kind} writes {row.output}"
    for name, value in op.attrs.items():
        if not LEAST.get(name, 0) <= value <= MOST.get(name, MOST_OTHERS):
            return f"has {name} {value}; it must be {LEAST.get(name, 0)} to {MOST.get(name, MOST_OTHERS)}"
    for role, array in arrays.items():
        if not np.issubdtype(array.dtype, np.integer):
            return f"has {role} of {array.dtype}; arrays of a program are integers"
    return None


def _conv_inputs(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> str | None:
    weight, groups = arrays["weight"], op.attrs["groups"]
    steps, channels, height, width = specs[0].shape
    shared = (1,) if op.kind == "image_conv" else (1, steps)
    if weight.dtype != np.int8 or weight.ndim != 5 or weight.shape[0] not in shared or 0 in weight.shape:
        return f"weight must be int8 [{' or '.join(map(str, shared))}, O, I, kh, kw], is {weight.dtype} {weight.shape}"
    if weight.shape[2] * groups != channels or weight.shape[1] % groups:
        return f"weight {weight.shape} with {groups} groups does not fit {channels} input channels"
    for name, size, kernel in (("h", height, weight.shape[3]), ("w", width, weight.shape[4])):
        if size + 2 * op.attrs[f"padding_{name}"] < op.attrs[f"dilation_{name}"] * (kernel - 1) + 1:
            return f"kernel {weight.shape[3:]} is larger than its padded input {height} x {width}"
    return None


def _conv_arrays(op: Op, arrays: Arrays, specs: Sequence[TensorSpec], output: TensorSpec) -> str | None:
    weight, shift, bias = arrays["weight"], arrays["shift"], arrays["bias"]
    if shift.shape != weight.shape[:2] or shift.min() < 0 or shift.max() > MOST["shift"]:
        return f"shift must be {weight.shape[:2]} and 0 to {MOST['shift']}"
    want = output.shape[1:] if op.kind == "image_conv" else weight.shape[:2]
    return None if bias.shape == want else f"bias must be {want}, is {bias.shape}"


def _add_inputs(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> str | None:
    a, b = (s.shape for s in specs)
    if a[1:] != b[1:] or (a[0] != b[0] and 1 not in (a[0], b[0])):
        return f"adds {a} and {b}; sizes must agree, and steps too unless one operand has a single step"
    return None


def _ni_lif_arrays(op: Op, arrays: Arrays, specs: Sequence[TensorSpec], output: TensorSpec) -> str | None:
    steps, channels, thresholds = op.attrs["steps"], output.shape[1], arrays["thresholds"]
    if thresholds.shape not in ((1, SPIKE_MAX), (channels, SPIKE_MAX)):
        return f"thresholds must be [1 or {channels}, {SPIKE_MAX}], are {thresholds.shape}"
    if np.any(np.diff(thresholds.astype(np.int64), axis=1) < 0):
        return "thresholds must not fall"
    if specs[0].shape[0] not in (1, steps):
        return f"has {steps} steps and cannot read a stream of {specs[0].shape[0]} steps"
    if "offset" in arrays and arrays["offset"].shape != output.shape:
        return f"offset must be {output.shape}, is {arrays['offset'].shape}"
    if steps == 1:
        return None
    if not {"decay", "reset"} <= set(arrays):
        return f"has {steps} steps, which need reset and decay"
    decay, reset = arrays["decay"], arrays["reset"]
    if decay.shape != (steps - 1,) or decay.min() < 0 or decay.max() > 1 << DECAY_BITS:
        return f"decay must be {steps - 1} numbers 0 to {1 << DECAY_BITS}"
    if reset.shape not in ((1,), (channels,)) or reset.min() < 0:
        return f"reset must be [1 or {channels}] and not negative"
    return None


def _pool_inputs(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> str | None:
    kernel, (height, width) = op.attrs["kernel"], specs[0].shape[2:]
    return f"windows of {kernel} do not divide {height} x {width}" if height % kernel or width % kernel else None


def _requantise_arrays(op: Op, arrays: Arrays, specs: Sequence[TensorSpec], output: TensorSpec) -> str | None:
    shift: AnyArray = arrays["shift"]
    if shift.shape != (output.shape[1],) or shift.min() < 0 or shift.max() > MOST["shift"]:
        return f"shift must be [{output.shape[1]}] and 0 to {MOST['shift']}"
    return None


def _key_value_inputs(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> str | None:
    (k, v), heads = (s.shape for s in specs), op.attrs["heads"]
    if k[0] != v[0] or k[2:] != v[2:]:
        return f"reads keys {k} and values {v}; steps and positions must agree"
    return (
        f"has {heads} heads, which do not divide {k[1]} and {v[1]} channels" if k[1] % heads or v[1] % heads else None
    )


def _query_inputs(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> str | None:
    (q, memory), heads = (s.shape for s in specs), op.attrs["heads"]
    if memory[1] != heads or q[1] != heads * memory[2] or q[0] != memory[0]:
        return f"reads queries {q} and a memory {memory}, which do not fit {heads} heads"
    return None


def _gate_inputs(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> str | None:
    logits, spikes = (s.shape for s in specs)
    if logits != (spikes[0], 1, 1, spikes[1]):
        return f"reads logits {logits}, needs {(spikes[0], 1, 1, spikes[1])}"
    table = arrays["table"]
    if table.ndim != 1 or not table.size or table.min() < 0:
        return "table must be a list of numbers that are not negative"
    return None


InputRule = Callable[[Op, Arrays, Sequence[TensorSpec]], "str | None"]
ArrayRule = Callable[[Op, Arrays, Sequence[TensorSpec], TensorSpec], "str | None"]
_INPUT_RULES: dict[str, InputRule] = {
    "image_conv": _conv_inputs,
    "conv": _conv_inputs,
    "head_out": _conv_inputs,
    "add": _add_inputs,
    "avg_pool": _pool_inputs,
    "key_value": _key_value_inputs,
    "query": _query_inputs,
    "gate": _gate_inputs,
}
"""What the inputs must satisfy before the shape rule may look at them."""
_ARRAY_RULES: dict[str, ArrayRule] = {
    "image_conv": _conv_arrays,
    "conv": _conv_arrays,
    "head_out": _conv_arrays,
    "ni_lif": _ni_lif_arrays,
    "requantise": _requantise_arrays,
}
