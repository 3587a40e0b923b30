"""The row of an operation: everything that the house needs to know of one kind of operation, in one value.

This module decides which rules a row has and what they are given; the families beside it fill them in. It must not know
any operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.types import AnyArray, Arrays, IntArray, Op, TensorSpec

Shape = tuple[int, ...]
Bound = tuple[IntArray, IntArray]
"""Least and largest value per channel, int64 ``[C]`` or broadcastable to the value's channels."""
Specs = Sequence[TensorSpec]
Defect = "str | None"
"""What is illegal, in words that follow the operation's name; ``None`` where nothing is."""

InputRule = Callable[[Op, Arrays, Specs], "str | None"]
ArrayRule = Callable[[Op, Arrays, Specs, TensorSpec], "str | None"]
ShapeRule = Callable[[Op, Arrays, Specs], Shape]
RunRule = Callable[[Op, Arrays, Sequence[IntArray]], IntArray]
CountRule = Callable[[Op, Arrays, Sequence[IntArray], IntArray], OpCounts]
BoundRule = Callable[[Op, Arrays, Sequence[Bound], Specs], Bound]
SettledRule = Callable[[Op, Arrays, Sequence[Bound], Bound], Bound]

LARGEST_ATTRIBUTE = 1 << 12
"""Larger strides, paddings or windows have no meaning for an image and would only exhaust memory."""
LARGEST_SHIFT = 24
MOST_ELEMENTS = 1 << 26
"""Elements of a value, and of a padded input: half a gigabyte of int64."""


def nothing_wrong(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec | None = None) -> str | None:
    """The rule of an operation that has no further demands."""
    return None


def nothing_counted(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """The count of wiring, or of a shift inside a neuron: nothing that is paid for apart."""
    return OpCounts()


def bound_of(low: AnyArray | int, high: AnyArray | int) -> Bound:
    """A bound from numbers or arrays per channel."""
    return np.atleast_1d(low).astype(np.int64), np.atleast_1d(high).astype(np.int64)


@dataclass(frozen=True, slots=True)
class OpKind:
    """One kind of operation.

    ``inputs``, ``output``: kinds of value; ``a|b``: either; ``same``: that of the first input, with its largest level.
    ``roles``: its arrays (``?`` marks optional ones). ``attrs``: name -> least and largest legal value. ``equation``,
    ``text``: what the documents print. ``inputs_legal`` is asked before the shape rule, ``arrays_legal`` after it.
    ``bound``: of the output, partial sums included; ``accumulator``: of what is held inside where that is more (a
    membrane). ``settled``: what a state comes to at most that this operation reads as its first input and writes, given
    bounds of its inputs and what is added on the way back. ``rank``: axes of its values. ``weighted``: has synapses of
    its own, weights that a chip must store.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    equation: str
    text: str
    shape: ShapeRule
    run: RunRule
    bound: BoundRule
    count: CountRule = nothing_counted
    roles: tuple[str, ...] = ()
    attrs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    inputs_legal: InputRule = nothing_wrong
    arrays_legal: ArrayRule = nothing_wrong
    accumulator: BoundRule | None = None
    settled: SettledRule | None = None
    rank: int = 4
    weighted: bool = False
