"""Walks a phase in order with the reference semantics: the engine that is obviously right.

This module decides the order of execution and what is handed to whoever watches. It must not know a faster way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program

Watch = Callable[[Op, IntArray], IntArray | None]
"""Sees every operation's output; what it returns instead of ``None`` replaces the value (teacher forcing)."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """Outputs by public name (int64), and counts by operation where they were asked for."""

    outputs: Mapping[str, IntArray]
    counts: Mapping[str, OpCounts]


def check_inputs(phase: Phase, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """The phase's inputs in their declared shapes, or InputError."""
    for name, spec in phase.inputs.items():
        if name not in inputs:
            raise InputError(f"{phase.name} phase: input {name} is missing")
        if tuple(inputs[name].shape) != tuple(spec.shape) or not np.issubdtype(inputs[name].dtype, np.integer):
            raise InputError(
                f"{phase.name} phase: input {name} must be integers {tuple(spec.shape)}, is {inputs[name].dtype} "
                f"{tuple(inputs[name].shape)}"
            )
    return {name: inputs[name] for name in phase.inputs}


def iterate(
    program: Program, phase: Phase, inputs: Mapping[str, AnyArray], replace: Watch | None = None
) -> Iterator[tuple[Op, list[IntArray], IntArray]]:
    """Yield ``(operation, its inputs, its output)`` in execution order; values are released after their last use."""
    values = {name: value.astype(np.int64) for name, value in check_inputs(phase, inputs).items()}
    last = phase.last_uses()
    for index, op in enumerate(phase.ops):
        args = [values[name] for name in op.inputs]
        out = OP_TABLE[op.kind].run(op, program.op_arrays(op), args)
        forced = replace(op, out) if replace else None
        values[op.name] = out if forced is None else forced
        yield op, args, out
        for name in {n for n in op.inputs if last.get(n) == index}:
            del values[name]


def run_phase(
    program: Program, name: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
) -> PhaseResult:
    """Execute one phase with the reference semantics.

    ``inputs``: integer arrays by input name. ``watch`` may replace a value (see :data:`Watch`); counts are then
    those of the replaced inputs and the original output.
    """
    phase = program.phases[name]
    counts: dict[str, OpCounts] = {}
    shown = set(phase.outputs.values())
    made: dict[str, IntArray] = {}
    for op, args, out in iterate(program, phase, inputs, watch):
        if count:
            counts[op.name] = OP_TABLE[op.kind].count(op, program.op_arrays(op), args, out)
        if op.name in shown:
            made[op.name] = out
    return PhaseResult({public: made[value] for public, value in phase.outputs.items()}, counts)
