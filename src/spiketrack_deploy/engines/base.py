"""What an engine is, the session that keeps its states, and the reference engine.

An engine runs one phase of a program, a pure function of inputs and states, and gives the same integers as every other;
a session carries the states from one step to the next. This module must not know files, trackers or prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.run import PhaseResult, Watch, run_phase
from spiketrack_deploy.program.types import AnyArray, IntArray, Program

Self = TypeVar("Self", bound="BaseEngine")


class Engine(Protocol):
    """Runs the phases of one program.

    ``run(phase, inputs, count=..., watch=...)``: integer arrays by input name in, the states that the phase reads among
    them; outputs (int64) out, the states that it writes among them, and counts. ``watch(op, value)`` sees every
    operation's output as int64; a returned array replaces it where the engine says so (``can_replace``). Engines are
    context managers: leaving one ends every process it started.
    """

    name: str
    can_replace: bool
    program: Program

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """Execute one phase."""

    def session(self) -> Session:
        """A new session: states as the program declares them, shared with nobody."""

    def close(self) -> None:
        """Release processes and memory; may be called twice."""

    def __enter__(self) -> Engine:
        """The engine itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


class Session:
    """A program being run step by step, on any engine: the states between the steps.

    Two sessions of one engine share nothing that changes. ``states``: what each state holds now, int64 by name; one
    without initial content is absent until its phase has run.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._program = engine, engine.program
        self.states: dict[str, AnyArray] = {}
        self.reset()

    def reset(self) -> None:
        """Back to the initial states."""
        self.states = {}
        for name, state in self._program.states.items():
            if isinstance(state.initial, str):
                self.states[name] = self._program.arrays[state.initial].astype(np.int64)
            elif state.initial is not None:
                self.states[name] = np.full(state.spec.shape, state.initial, dtype=np.int64)

    def step(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """Run ``phase`` on what comes from outside; the states it writes are kept, its other outputs returned.

        InputError: there is no such phase, an input is missing, misshaped or a state, or a state that the phase reads
        has not been written yet (the sentence names the phase that writes it).
        """
        program = self._program
        if phase not in program.phases:
            raise InputError(f"the program has no phase {phase!r}; it has {', '.join(program.phases) or 'none'}")
        part = program.phases[phase]
        foreign = sorted(set(inputs) - set(program.external(part)))
        if foreign:
            raise InputError(f"{phase} phase: {foreign[0]} is no input of it; it takes {list(program.external(part))}")
        given = dict(inputs)
        for name in part.inputs:
            if name in program.states:
                if name not in self.states:
                    raise InputError(
                        f"{phase} phase: state {name} holds nothing yet; run {program.writers(name)[0]} first"
                    )
                given[name] = self.states[name]
        result = self._engine.run(phase, given, count=count, watch=watch)
        written: dict[str, IntArray] = {n: v for n, v in result.outputs.items() if n in program.states}
        self.states.update(written)
        return PhaseResult({n: v for n, v in result.outputs.items() if n not in written}, result.counts)


class BaseEngine:
    """What every engine does alike: sessions, and closing as a context manager."""

    name: str
    can_replace: bool

    def __init__(self, program: Program) -> None:
        self.program = program

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """See :class:`Engine`."""
        raise NotImplementedError

    def session(self) -> Session:
        """See :class:`Engine`."""
        return Session(self)

    def close(self) -> None:
        """See :class:`Engine`: nothing to release."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ReferenceEngine(BaseEngine):
    """Plain int64 NumPy (``program.ops``): slow, and the definition of right."""

    name = "reference"
    can_replace = True

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """See :class:`Engine`."""
        return run_phase(self.program, phase, inputs, count=count, watch=watch)
