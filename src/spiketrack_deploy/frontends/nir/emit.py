"""Collects the operations, states and arrays of a program of one phase, with what every value may come to.

Decides names, specifications and bookkeeping. Must not know NIR, nor how scales are chosen: whoever calls says which
real number an integer stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeAlias

import numpy as np

from spiketrack_deploy.frontends.nir.network import FloatArray, Shape
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.row import Bound, bound_of
from spiketrack_deploy.program.types import AnyArray, Op, Phase, Program, State, TensorSpec

PHASE = "step"
Map: TypeAlias = "tuple[int, int, int]"


def canonical(shape: Shape) -> Map:
    """``(channels, height, width)`` of a NIR value without axis of steps, row-major: (N) -> (N, 1, 1), (C, L) ->
    (C, 1, L), (C, H, W), and of more axes the middle ones together."""
    if len(shape) < 2:
        return (prod(shape), 1, 1)
    return shape[0], prod(shape[1:-1]), shape[-1]


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value of the program: ``integer * factor`` is real. ``factor`` has three axes, each of the map's size or 1.
    ``low``, ``high``: int64 ``[C]``, what it may come to."""

    name: str
    shape: Map
    kind: str
    top: int
    factor: FloatArray
    low: AnyArray
    high: AnyArray

    @property
    def largest(self) -> AnyArray:
        """Largest magnitude per channel ``[C]``."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def full_factor(self) -> FloatArray:
        """The factor of every element."""
        return np.array(np.broadcast_to(self.factor, self.shape))


@dataclass
class Emitter:
    """The program so far. ``taken``: names that nothing may have besides its owner."""

    width: int
    taken: set[str]
    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    values: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, AnyArray] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """Largest integer of the accumulators."""
        return int(2 ** (self.width - 1)) - 1

    def name(self, wish: str) -> str:
        """``wish``, or something like it that is free."""
        while wish in self.taken:
            wish += "'"
        self.taken.add(wish)
        return wish

    def input(self, name: str, shape: Map, kind: str, top: int, factor: float) -> Value:
        """What comes from outside."""
        spec = TensorSpec(kind, (1, *shape), scale=_common(factor), top=top)
        self.inputs[name] = spec
        ends = [np.full(shape[0], end) for end in spec.extremes]
        return Value(name, shape, kind, top, np.full((1, 1, 1), factor), *ends)

    def state(self, wish: str, like: Value, initial: AnyArray | int = 0, length: int = 1) -> Value:
        """A value of the step before with specification and bounds of ``like``; ``length``: as so many steps."""
        name = self.name(wish)
        spec = TensorSpec(like.kind, (length, *like.shape), scale=_common(like.factor), top=like.top)
        start: int | str = 0
        if np.any(initial):
            start = f"{name}.initial"
            self.arrays[start] = np.broadcast_to(np.asarray(initial, dtype=np.int32), spec.shape).copy()
            ends = np.asarray(self.arrays[start])
            like = replace(like, low=np.minimum(like.low, ends.min()), high=np.maximum(like.high, ends.max()))
        self.inputs[name], self.states[name] = spec, State(spec, start)
        return replace(like, name=name)

    def write(self, state: Value, value: Value) -> None:
        """``value`` is what the state holds in the next step."""
        self.outputs[state.name] = value.name

    def op(
        self,
        wish: str,
        kind: str,
        inputs: Sequence[Value],
        block: str,
        factor: FloatArray,
        attrs: Mapping[str, int] | None = None,
        arrays: Mapping[str, AnyArray] | None = None,
        bound: Bound | None = None,
    ) -> Value:
        """Add an operation; ``wish`` is its name where it is free or the node's own (:meth:`own`)."""
        row, name = OP_TABLE[kind], self.name(wish)
        keys = {role: f"{name}.{role}" for role in arrays or {}}
        self.arrays |= {keys[role]: array for role, array in (arrays or {}).items()}
        op = Op(name, kind, tuple(v.name for v in inputs), block, dict(attrs or {}), keys)
        held, specs = dict(arrays or {}), [self.spec(v.name) for v in inputs]
        shape = row.shape(op, held, specs)
        low, high = bound or row.bound(op, held, [(v.low, v.high) for v in inputs], specs)
        out_kind = inputs[0].kind if row.output == "same" else row.output
        top = inputs[0].top if row.output == "same" else op.attrs.get("most", 0)
        self.ops.append(op)
        self.values[name] = TensorSpec(out_kind, tuple(shape), scale=_common(factor), top=top)
        ends = [np.broadcast_to(end, shape[1]) for end in bound_of(low, high)]
        return Value(name, (shape[1], shape[2], shape[3]), out_kind, top, factor, *ends)

    def spec(self, name: str) -> TensorSpec:
        """Specification of a value or input."""
        return self.inputs[name] if name in self.inputs else self.values[name]

    def own(self, name: str) -> str:
        """Let an operation have the name of a node."""
        self.taken.discard(name)
        return name

    def program(self, outputs: Mapping[str, str]) -> Program:
        """What was collected; ``outputs``: public name -> value."""
        phase = Phase(PHASE, self.inputs, tuple(self.ops), self.values, {**self.outputs, **outputs})
        return Program({PHASE: phase}, self.arrays, self.states, self.width)


def _common(factor: FloatArray | float) -> float:
    """The factor of all elements where they have one within a program's limits, else 1."""
    flat = np.unique(np.asarray(factor))
    return float(flat[0]) if len(flat) == 1 and 2.0**-64 <= flat[0] <= 2.0**64 else 1.0
