"""What a program did in one sequence: exact sums per phase and operation.

This module decides how counts are added while frames go by, and how a record stores them: a long video has too many
frames to keep them apart. It must not know prices or what a phase is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spiketrack_deploy.program.counts import OpCounts

Sums = dict[str, dict[str, int]]
"""Operation -> count -> exact sum; counts that are 0 are left out."""


@dataclass(slots=True)
class PhaseTally:
    """``sums`` over ``runs`` runs of one phase."""

    runs: int = 0
    sums: Sums = field(default_factory=dict)

    def add(self, op: str, counts: Mapping[str, int]) -> None:
        """Add the counts of one operation."""
        into = self.sums.setdefault(op, {})
        for key, value in counts.items():
            if value:
                into[key] = into.get(key, 0) + value


@dataclass(slots=True)
class Tally:
    """``frames``: frames that were tracked, the one with the given box not among them."""

    frames: int = 0
    phases: dict[str, PhaseTally] = field(default_factory=dict)

    def add_run(self, phase: str, counts: Mapping[str, OpCounts]) -> None:
        """Add one run of a phase."""
        into = self.phases.setdefault(phase, PhaseTally())
        into.runs += 1
        for op, one in counts.items():
            into.add(op, one.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """As a record stores it."""
        return {
            "frames": self.frames,
            "phases": {name: {"runs": one.runs, "sums": one.sums} for name, one in self.phases.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """What :meth:`to_dict` gave. KeyError, TypeError, ValueError or AttributeError where it is something else."""
        phases = {name: PhaseTally(_natural(one["runs"]), dict(one["sums"])) for name, one in data["phases"].items()}
        for phase in phases.values():
            for counts in phase.sums.values():
                for value in counts.values():
                    _natural(value)
        return cls(_natural(data["frames"]), phases)


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
