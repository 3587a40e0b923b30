"""Interval arithmetic over a program: what no input can exceed.

This module decides what is provable about ranges for *any* image and any spikes up to their largest level. It must not
run anything, nor know what an operation does: its row bounds it. A bound is a pair of int64 arrays ``(low, high)`` per
channel. A state is bounded by what its phase writes and by its initial content; phases that feed themselves are
repeated until nothing grows, and what keeps growing is not proved. A leak would take thousands of rounds, so a row may
say where its state settles (``|v| <= |x| * 4096 / (4096 - decay)``, plus what a reset adds); that is a guess until a
further round writes nothing beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import VerificationError
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.row import Bound, bound_of
from spiketrack_deploy.program.types import Phase, Program, State

_ROUNDS = 64
"""Passes over the phases before a state that still grows is called unbounded."""


@dataclass(frozen=True, slots=True)
class RangeEntry:
    """Worst case of one operation's accumulator: ``low``/``high`` over its channels, ``margin_bits`` left of ``width``
    signed bits."""

    op: str
    low: int
    high: int
    width: int

    @property
    def margin_bits(self) -> float:
        """Bits between the worst case and the accumulator's largest value; negative where it leaves the width."""
        return self.width - 1 - float(np.log2(max(abs(self.low), abs(self.high), 1)))

    @property
    def fits(self) -> bool:
        """Within the signed width."""
        return self.within(self.width)

    def within(self, bits: int) -> bool:
        """Whether so many signed bits hold the worst case."""
        return -(1 << (bits - 1)) <= self.low and self.high < 1 << (bits - 1)


def _hull(a: Bound | None, b: Bound) -> Bound:
    return b if a is None else (np.minimum(a[0], b[0]), np.maximum(a[1], b[1]))


def _same(a: Bound | None, b: Bound) -> bool:
    return a is not None and all(bool(np.array_equal(x, y)) for x, y in zip(a, b))


def _initial(program: Program, state: State) -> Bound | None:
    if state.initial is None:
        return None
    content = np.asarray(program.arrays[state.initial] if isinstance(state.initial, str) else state.initial)
    return bound_of(content.min(), content.max())


def _walk(program: Program, phase: Phase, states: Mapping[str, Bound]) -> tuple[list[RangeEntry], dict[str, Bound]]:
    """The phase's accumulators, and bounds of all its values."""
    bounds = {name: bound_of(*spec.extremes) for name, spec in program.external(phase).items()}
    bounds |= {name: states[name] for name in phase.inputs if name in states}
    entries = []
    for op in phase.ops:
        row, arrays = OP_TABLE[op.kind], program.op_arrays(op)
        specs, inputs = [phase.spec(i) for i in op.inputs], [bounds[i] for i in op.inputs]
        bounds[op.name] = row.bound(op, arrays, inputs, specs)
        low, high = row.accumulator(op, arrays, inputs, specs) if row.accumulator else bounds[op.name]
        entries.append(RangeEntry(op.name, int(low.min()), int(high.max()), program.width))
    return entries, bounds


def _settled(program: Program, phase: Phase, bounds: Mapping[str, Bound], growing: set[str]) -> dict[str, Bound]:
    """Where growing states that an operation reads as its first input settle, given the bounds of a walk."""
    found = {}
    for op in phase.ops:
        settled, name = OP_TABLE[op.kind].settled, op.inputs[0]
        if settled is not None and name in growing and name in phase.outputs:
            (low, high), (new_low, new_high) = bounds[op.name], bounds[phase.outputs[name]]
            added = np.minimum(new_low - low, 0), np.maximum(new_high - high, 0)
            found[name] = settled(op, program.op_arrays(op), [bounds[i] for i in op.inputs], added)
    return found


def state_bounds(program: Program) -> dict[str, Bound]:
    """Bound of every state, whatever has happened before. A state that never stops growing gets a bound that no
    accumulator holds; what depends on it is bounded with that."""
    beyond = 2 ** (program.width + 1)
    found: dict[str, Bound] = {}
    for name, state in program.states.items():
        initial = _initial(program, state)
        if initial is not None:
            found[name] = initial
    for _ in range(_ROUNDS):
        grown: set[str] = set()
        for phase in program.phases.values():
            if any(name in program.states and name not in found for name in phase.inputs):
                continue  # a state it reads has no bound yet: the phase that writes it comes first
            bounds = _walk(program, phase, found)[1]
            here = set()
            for public, value in phase.outputs.items():
                if public in program.states:
                    hull = _within(_hull(found.get(public), bounds[value]), beyond)
                    if not _same(found.get(public), hull):
                        found[public] = hull
                        here.add(public)
            for public, bound in _settled(program, phase, bounds, here).items():
                found[public] = _within(_hull(found[public], bound), beyond)
            grown |= here
        if not grown:
            return found
    return found | {name: bound_of(-beyond, beyond) for name in grown}


def _within(bound: Bound, most: int) -> Bound:
    return np.maximum(bound[0], -most), np.minimum(bound[1], most)


def prove_ranges(program: Program) -> dict[str, list[RangeEntry]]:
    """Bounds of every accumulator, stream, membrane and memory, phase by phase, in execution order.

    Proves nothing by itself: the caller looks at :attr:`RangeEntry.fits`, or asks :func:`demand_ranges`.
    """
    states = state_bounds(program)
    return {name: _walk(program, phase, states)[0] for name, phase in program.phases.items()}


def demand_ranges(program: Program, because: str, bits: int | None = None) -> Mapping[str, Sequence[RangeEntry]]:
    """The proof, where it holds for ``bits`` signed bits (the program's width unless told). VerificationError naming
    the first operations that may leave them; ``because``: what relies on it and what to do, the sentence's end."""
    ranges, bits = prove_ranges(program), program.width if bits is None else bits
    failed = [
        f"{name} {e.op} [{e.low}, {e.high}]" for name, entries in ranges.items() for e in entries if not e.within(bits)
    ]
    if failed:
        raise VerificationError(
            f"program: {len(failed)} operations may leave signed {bits} bits ({'; '.join(failed[:3])}); {because}"
        )
    return ranges
