"""What a chip can do of each operation: natively, with a program of its own, or only on the host.

This module decides that every operation gets a verdict. The verdicts are those of the chip's family.
"""

from __future__ import annotations

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.types import CoreLimits, Verdict
from spiketrack_deploy.program.types import Phase


def verdicts(phase: Phase, limits: CoreLimits) -> tuple[Verdict, ...]:
    """One verdict per operation of the phase, in execution order; InputError for a kind that the family lacks."""
    rules, bits = FAMILIES[limits.family].verdicts, limits.weight_bits or 8
    unknown = next((op for op in phase.ops if op.kind not in rules), None)
    if unknown is not None:
        raise InputError(
            f"operation {unknown.name} of kind {unknown.kind}: nobody has said what a chip of family {limits.family} "
            "can do of it"
        )
    return tuple(Verdict(op.name, op.kind, *rules[op.kind](op, phase, bits)) for op in phase.ops)
