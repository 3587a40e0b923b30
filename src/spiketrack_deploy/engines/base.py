"""What an engine is, and the reference engine.

An engine runs one phase of a program and gives the same integers as every other. This module must not know files,
trackers or prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from spiketrack_deploy.program.run import PhaseResult, Watch, run_phase
from spiketrack_deploy.program.types import AnyArray, Program


class Engine(Protocol):
    """Runs phases of one program.

    ``run(phase, inputs, count=..., watch=...)``: integer arrays by input name in, outputs (int64) and counts out.
    ``watch(op, value)`` sees every operation's output as int64; a returned array replaces it where the engine says so
    (``can_replace``). Engines are context managers: leaving one ends every process it started.
    """

    name: str
    can_replace: bool

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """Execute one phase."""

    def close(self) -> None:
        """Release processes and memory; may be called twice."""

    def __enter__(self) -> Engine:
        """The engine itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


class ReferenceEngine:
    """Plain int64 NumPy (``program.semantics``): slow, and the definition of right."""

    name = "reference"
    can_replace = True

    def __init__(self, program: Program) -> None:
        self.program = program

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """See :class:`Engine`."""
        return run_phase(self.program, phase, inputs, count=count, watch=watch)

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> ReferenceEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
