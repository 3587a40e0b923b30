"""What an integer program is made of: values with a shape and a unit, operations, phases, states.

This module decides the data; it must not know how an operation computes (``ops``), who runs it (``engines``), or what a
phase means to anybody. The first axis of a value is the network's time steps T, the second its channels; maps are
``[T, C, H, W]``, a memory is ``[T, heads, d, dv]``.

    image    uint8                  raw pixels, 0 to ``top``
    spikes   uint8                  graded spikes n, 0 to ``top`` (4 for a NI-LIF neuron); their real value is n * scale
    stream   int32 in the width     real value: integer * scale * 2**-unit[c], channel by channel
    memory   int32                  k^T v, real value: integer * scale
    logits   int32                  as stream; leaves the program for the host
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
AnyArray = NDArray[Any]
Arrays = Mapping[str, AnyArray]

VALUE_KINDS = ("image", "spikes", "stream", "memory", "logits")
LEVELLED = ("image", "spikes")
"""Kinds of value that run from 0 to a largest level."""
ACCUMULATOR_BITS = 24
"""Signed bits of an accumulator unless a program says otherwise (Loihi's membranes have 24)."""
SPIKE_MAX = 4
"""Largest spike of a NI-LIF neuron."""
INT24_MIN, INT24_MAX = -(2**23), 2**23 - 1
UNREACHABLE = 2**23
"""A threshold that no signed 24-bit value reaches."""
DECAY_BITS = 12
GATE_BITS = 15


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Kind, shape and unit of a value.

    ``unit``: key of an int8 array ``[C]`` of fraction bits (streams and logits only, else ``None``). ``scale``: a
    factor common to all channels, 1 except for spikes (a quarter), memories (products of spikes) and behind a
    ``query``, whose attention gain may be irrational. ``top``: largest value of an image or of spikes, largest
    magnitude of a stream that comes from outside, else 0.
    """

    kind: str
    shape: tuple[int, ...]
    unit: str | None = None
    scale: float = 1.0
    top: int = 0

    @property
    def size(self) -> int:
        """Number of elements, all time steps."""
        return int(np.prod(self.shape))

    @property
    def extremes(self) -> tuple[int, int]:
        """Least and largest integer of a value that comes from outside."""
        return (-self.top if self.kind == "stream" else 0), self.top


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Its output value has its own name: the module path of the network it came from.

    ``inputs``: names of operations, phase inputs or states. ``block``: the block of the network it belongs to (reports,
    Lava Processes). ``attrs``: small integers of the operation's row. ``arrays``: role -> key in the program.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    block: str
    attrs: Mapping[str, int] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a phase runs. A *result* is what the program is run for: a tracked frame, a classified step.

    ``start``: once when a session begins. ``every``: then before or with every so many results; ``None``: never again.
    """

    start: bool = False
    every: int | None = 1

    @property
    def per_result(self) -> float:
        """Runs per result in the long run; what happens at the start alone does not count."""
        return 0.0 if self.every is None else 1.0 / self.every


@dataclass(frozen=True, slots=True)
class Phase:
    """A feed-forward list of operations in execution order: a pure function of its inputs.

    ``inputs``: name -> value; a name that the program declares as a state is read from it. ``outputs``: public name ->
    operation; a name that the program declares as a state is written to it when the phase has run.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    ops: tuple[Op, ...]
    values: Mapping[str, TensorSpec]
    outputs: Mapping[str, str]
    cadence: Cadence = Cadence()

    def spec(self, name: str) -> TensorSpec:
        """Spec of a phase input or of an operation's output."""
        return self.inputs[name] if name in self.inputs else self.values[name]

    def last_uses(self) -> dict[str, int]:
        """Index of the last operation that reads each value (outputs are never released)."""
        last = {name: index for index, op in enumerate(self.ops) for name in op.inputs}
        return {name: index for name, index in last.items() if name not in self.outputs.values()}


@dataclass(frozen=True, slots=True)
class State:
    """A value that outlives a run: a template's memory, a membrane. Phases that have its name among their inputs read
    it, the one that has it among its outputs writes it.

    ``initial``: what it holds when a session begins, a number everywhere or the key of an array of its shape; ``None``:
    nothing, so that it must be written before it is read.
    """

    spec: TensorSpec
    initial: int | str | None = None


def states_of(phases: Mapping[str, Phase]) -> dict[str, State]:
    """The names that one phase writes and another (or the same) reads, as states without initial content."""
    written = {name: phase.spec(value) for phase in phases.values() for name, value in phase.outputs.items()}
    read = dict.fromkeys(name for phase in phases.values() for name in phase.inputs if name in written)
    return {name: State(written[name]) for name in read}


@dataclass(frozen=True, slots=True)
class Program:
    """Phases, the states that they hand to one another, and the arrays that all of them use.

    ``width``: signed bits of every accumulator, stream and membrane, on which the range proof and the choice of kernels
    rest. ``meta``: JSON data carried along (workload, recipe of the quantisation); it decides nothing here, and the
    program's hash does not cover it.
    """

    phases: Mapping[str, Phase]
    arrays: Arrays
    states: Mapping[str, State] = field(default_factory=dict)
    width: int = ACCUMULATOR_BITS
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> tuple[int, int]:
        """Least and largest integer of the accumulator width."""
        return -(2 ** (self.width - 1)), 2 ** (self.width - 1) - 1

    def op_arrays(self, op: Op) -> dict[str, AnyArray]:
        """Role -> array of one operation."""
        return {role: self.arrays[key] for role, key in op.arrays.items()}

    def real_unit(self, spec: TensorSpec) -> NDArray[np.float64]:
        """Real value of one integer step, per channel ``[C]``, or ``[1]`` where all channels have the same."""
        if spec.unit is None:
            return np.array([spec.scale])
        return spec.scale * 2.0 ** -self.arrays[spec.unit].astype(np.float64)

    def external(self, phase: Phase) -> dict[str, TensorSpec]:
        """Inputs of a phase that come from outside: those that are no states."""
        return {name: spec for name, spec in phase.inputs.items() if name not in self.states}

    def readers(self, state: str) -> tuple[str, ...]:
        """Names of the phases that read a state."""
        return tuple(name for name, phase in self.phases.items() if state in phase.inputs)

    def writers(self, state: str) -> tuple[str, ...]:
        """Names of the phases that write a state; a legal program has exactly one."""
        return tuple(name for name, phase in self.phases.items() if state in phase.outputs)
