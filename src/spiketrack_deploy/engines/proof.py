"""What an engine of float32 or int8 kernels must ask before it runs: is every value proved to stay within 24 bits?

This module decides what is refused and says why; it must not know engines or kernels. Below 2**24 a float32 holds every
integer and every sum of them in any order, beyond it silently rounds.
"""

from __future__ import annotations

from collections.abc import Mapping

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.bounds import demand_ranges, state_bounds
from spiketrack_deploy.program.run import check_inputs
from spiketrack_deploy.program.types import AnyArray, Phase, Program

FLOAT_BITS = 24
"""Signed bits that float32 sums hold exactly, whatever the program's own accumulators are."""


class Proof:
    """The range proof of a program, and what it leaves out. VerificationError names the operations that fail it."""

    def __init__(self, program: Program) -> None:
        because = "only the reference engine is exact there, so use --engine reference or export again"
        demand_ranges(program, because, min(program.width, FLOAT_BITS))
        self._bounds = {name: (int(low.min()), int(high.max())) for name, (low, high) in state_bounds(program).items()}

    def inputs(self, phase: Phase, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """The phase's inputs. InputError: one is missing, has another shape, or holds a value that the proof leaves out
        (it covers what an image or spikes can be, and what a state can come to hold)."""
        given = check_inputs(phase, inputs)
        for name, spec in phase.inputs.items():
            array, (low, high) = given[name], self._bounds.get(name, spec.extremes)
            if array.size and (int(array.min()) < low or int(array.max()) > high):
                raise InputError(
                    f"{phase.name} phase: input {name} must lie in {low}..{high}, is {array.min()}..{array.max()}"
                )
        return given
