"""The running network: Processes built once, one Lava step per run of a phase, faults found while it runs.

This module decides how the worker drives Lava's runtime. It must not know the parent. Lava reports nothing when a
Process raises, dies or hangs: every other Process waits for ever (docs/loihi.md, "Running Lava"). So a thread looks at
the actors and at the state table, and says which Process failed, with the exception that its actor left behind.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from spiketrack_deploy.engines.lava_worker.frames import Array, Channel
from spiketrack_deploy.engines.lava_worker.plan import CHANNEL_SIZE, LOAD, REPORT, SINK, SOURCE, Plan
from spiketrack_deploy.engines.lava_worker.processes.fused import build
from spiketrack_deploy.engines.lava_worker.segment import Fault, Segment, describe
from spiketrack_deploy.program.types import Program

_LOOK_EVERY = 0.05

Report = Callable[[str, str], None]
"""Gets one sentence and a longer detail (a traceback); called once, from the watching thread."""


def _pipe() -> tuple[Channel, Channel]:
    reading, writing = os.pipe()
    return Channel(reading, None), Channel(None, writing)


class Network:
    """Processes, runtime and watching thread of one program."""

    def __init__(self, program: Program, plan: Plan, step_timeout: float, report: Report) -> None:
        self.program, self.plan, self.report = program, plan, report
        self.step_timeout = step_timeout
        # The first step belongs to the start, on which the parent keeps an eye.
        self._limit = float("inf")
        fault = Fault.from_environment()
        names = list(plan.segments)
        self.table = np.frombuffer(mmap.mmap(-1, max(1, len(names)) * 16), dtype=np.int64).reshape(-1, 2)
        feed, self.to_source = _pipe()
        self.from_sink, drain = _pipe()
        self.reports: dict[str, Channel] = {}
        work: dict[str, Any] = {SOURCE: feed, SINK: drain}
        for index, name in enumerate(names):
            self.reports[name], writer = _pipe()
            keys = {key for ops in plan.segments[name].values() for op in ops for key in op.arrays.values()}
            arrays = {key: program.arrays[key] for key in keys}
            work[name] = Segment(name, plan.segments[name], arrays, writer, self.table[index], fault)
        self.home = {b: {op.name: s for s, w in plan.segments.items() for op in w.get(b, ())} for b in program.phases}
        self.processes = build(plan, work)
        self._started: tuple[str, float] | None = None
        self._closing = False
        self.failed = threading.Event()

    def start(self) -> None:
        """Compile, fork an operating-system process per Process, watch them, run one step that zeroes every state.

        Lava's runtime cannot stop in order before its first step; and what answers once is ready.
        """
        choice, sizes = Loihi2SimCfg(select_tag="fixed_pt"), {"pypy_channel_size": CHANNEL_SIZE}
        self.processes[SOURCE].create_runtime(run_cfg=choice, compile_config=sizes)
        threading.Thread(target=self._watch, daemon=True).start()
        self.load({name: np.zeros(shape, dtype=np.int32) for name, shape in self.plan.states.items()})
        self._limit = self.step_timeout

    @property
    def actors(self) -> list[Any]:
        """The operating-system processes of Lava's runtime: the Processes in build order, then the runtime services."""
        found: list[Any] = self.processes[SOURCE].runtime._messaging_infrastructure.actors
        return found

    def load(self, states: dict[str, Array]) -> None:
        """One step that rewrites every state from outside."""
        self._begin(LOAD, False, False, states)
        self._end()

    def run(
        self, phase: str, inputs: dict[str, Array], count: bool, watch: bool, forward: Callable[[str, Array], None]
    ) -> tuple[dict[str, Array], dict[str, list[int]]]:
        """One step: outputs by public name, counts by operation; ``forward`` gets each operation's integers."""
        self._begin(phase, count, watch, inputs)
        ops = self.program.phases[phase].ops
        if watch:
            # In execution order: a Process with a full pipe waits for earlier operations only, so never in a circle.
            for op in ops:
                header, arrays = self.reports[self.home[phase][op.name]].recv()
                # The time that a reader takes is not the network's.
                self._started = None
                forward(header["op"], arrays["value"])
                self._started = (phase, time.monotonic())
        counts: dict[str, list[int]] = {}
        for name in dict.fromkeys(self.home[phase].values()):
            counts.update(self.reports[name].recv()[0]["counts"])
        _, values = self.from_sink.recv()
        self._end()
        outputs = self.program.phases[phase].outputs
        result = {name: values[REPORT + name if name in self.plan.states else value] for name, value in outputs.items()}
        return result, {op.name: counts[op.name] for op in ops if op.name in counts}

    def stop(self) -> None:
        """End Lava's runtime in its own way."""
        self._closing = True
        self.processes[SOURCE].stop()

    def _begin(self, mode: str, count: bool, watch: bool, arrays: dict[str, Array]) -> None:
        self._started = (mode, time.monotonic())
        self.processes[SOURCE].run(condition=RunSteps(num_steps=1, blocking=False))
        self.to_source.send({"mode": mode, "count": count, "watch": watch}, arrays)

    def _end(self) -> None:
        self.processes[SOURCE].wait()
        self._started = None

    def _watch(self) -> None:
        names = [*(p.name for p in self.processes[SOURCE].runtime._executable.proc_builders), "runtime service"]
        while not self._closing:
            time.sleep(_LOOK_EVERY)
            for name, actor in zip(names, self.actors):
                fault = None if self._closing else _actor_fault(actor)
                if fault:
                    self.failed.set()
                    self.report(f"Lava Process {name} {fault[0]}", fault[1])
                    return
            started = self._started
            if started and time.monotonic() - started[1] > self._limit:
                work = list(self.plan.segments.values())
                place = describe(self.table, list(self.plan.segments), work, started[0])
                self.failed.set()
                self.report(f"the {started[0]} step did not end within {self._limit:g} s; {place}", "")
                return


def _actor_fault(actor: Any) -> tuple[str, str] | None:
    """What is wrong with an operating-system process: the exception it left, or its death."""
    left = actor.exception
    if left:
        error, trace = left
        return f"failed: {error}", str(trace)
    if not actor.is_alive():
        return f"died (exit code {actor.exitcode})", ""
    return None
