"""The Lava engine: real Lava Processes in a worker process, under a watchdog.

This module decides how the worker is started, asked and ended, seen from the parent. It must not know Lava
(``lava_worker`` does) and imports NumPy and the standard library only. Lava's runtime hangs without a word on any fault
and leaves processes and shared memory behind (docs/loihi.md, "Running Lava"); so the worker leads a process group of
its own, every wait has a wall-clock limit, and the whole group is killed on every way out: error, time limit, Ctrl-C,
end of the interpreter. Where the parent itself is killed, the worker notices and kills the group.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from spiketrack_deploy.engines.base import BaseEngine
from spiketrack_deploy.engines.lava_interpreter import VARIABLE, lava_python
from spiketrack_deploy.engines.lava_worker.frames import Array, Channel
from spiketrack_deploy.engines.lava_worker.plan import make_plan
from spiketrack_deploy.errors import EngineError, SpiketrackError
from spiketrack_deploy.program.counts import COUNT_FIELDS, OpCounts
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.run import PhaseResult, Watch, check_inputs
from spiketrack_deploy.program.store import save_program
from spiketrack_deploy.program.types import AnyArray, Op, Program

_WORKER = Path(__file__).resolve().parent / "lava_worker" / "__main__.py"
_SHARED_MEMORY = Path("/dev/shm")
_GRACE = 5.0
"""Seconds that the parent waits beyond the worker's own limit, and for an orderly end."""
_LOG_LINES, _LOG_BYTES = 6, 4096
_SOCKET_ROOM = 70
"""A socket's path holds 107 characters; Python appends 32 to the temporary folder."""


class LavaEngine(BaseEngine):
    """Runs a program as a network of Lava Processes, one per block and one per state (``lava_worker.plan``).

    ``python``: interpreter of the worker (see :func:`lava_python`). ``step_timeout``: seconds for one phase run
    (with a watcher: between two values; the watcher's own time does not count).
    ``start_timeout``: seconds from the start of the worker to the first step. ``processes``: number of Lava Processes;
    ``start_seconds``: measured. EngineError: no interpreter, Lava does not start, a Process fails, dies or hangs.

    The states live in the network: the phase that writes them rewrites them in place, and a phase that reads what was
    written last reads it there. A run with other content costs one more step that loads it (``state_loads`` counts).
    """

    name = "lava"
    can_replace = False

    def __init__(
        self,
        program: Program,
        python: str | os.PathLike[str] | None = None,
        step_timeout: float = 60.0,
        start_timeout: float = 120.0,
    ) -> None:
        check_program(program)
        plan = make_plan(program)
        self.program = program
        self.step_timeout, self.start_timeout = step_timeout, start_timeout
        self.python = lava_python(python)
        _check_room(plan.shared_bytes)
        self.python_version = ""
        self.processes = len(plan.processes)
        self.state_loads = 0
        self._held: dict[str, Array] = {name: np.zeros(shape, dtype=np.int64) for name, shape in plan.states.items()}
        self._ops: dict[str, dict[str, Op]] = {b.name: {op.name: op for op in b.ops} for b in program.phases.values()}
        self._worker: _Worker | None = None
        start = time.monotonic()
        self._worker = _Worker(self.python, program, step_timeout, start_timeout)
        self.start_seconds = time.monotonic() - start
        self.python_version = self._worker.python_version
        atexit.register(self.close)

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """See :class:`~spiketrack_deploy.engines.base.Engine`.

        EngineError: a Process failed, died or hangs, a value leaves signed 24 bits, ``watch`` wants to replace a value.
        After any exception but InputError (wrong inputs) the engine is closed.
        """
        worker = self._alive()
        given = check_inputs(self.program.phases[phase], inputs)
        # The wire carries int32; anything beyond signed 24 bits is refused by the source Process anyway.
        arrays = {name: np.clip(a.astype(np.int64), -(2**31), 2**31 - 1).astype(np.int32) for name, a in given.items()}
        states = {name: arrays.pop(name) for name in tuple(arrays) if name in self._held}
        try:
            if any(not np.array_equal(a, self._held[name]) for name, a in states.items()):
                self._load(worker, states)
            request = {"type": "run", "phase": phase, "count": count, "watch": watch is not None}
            worker.ask(request, arrays, self.step_timeout)
            header, values = worker.answer(self.step_timeout)
            while header["type"] == "value":
                op = self._ops[phase][header["op"]]
                if watch is not None and watch(op, values["value"].astype(np.int64)) is not None:
                    raise EngineError("the Lava engine cannot replace a value; force values on another engine")
                header, values = worker.answer(self.step_timeout)
        except BaseException:
            # Also Ctrl-C, and an error of whoever watches: what is under way in the worker has no reader any more.
            self.close(orderly=False)
            raise
        outputs = {name: value.astype(np.int64) for name, value in values.items()}
        self._held.update({name: value for name, value in outputs.items() if name in self._held})
        counts = {op: OpCounts(**dict(zip(COUNT_FIELDS, numbers))) for op, numbers in header["counts"].items()}
        return PhaseResult(outputs, counts)

    def close(self, *, orderly: bool = True) -> None:
        """End Lava's runtime, then kill what is left of the process group; may be called twice."""
        worker, self._worker = self._worker, None
        if worker is not None:
            atexit.unregister(self.close)
            worker.end(orderly)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(orderly=kind is None)

    @property
    def process_group(self) -> int | None:
        """Process group of the worker and all Lava Processes; ``None`` once closed."""
        return None if self._worker is None else self._worker.group

    def _alive(self) -> _Worker:
        if self._worker is None:
            raise EngineError("the Lava engine is closed (after an error, or by its owner); make a new one")
        return self._worker

    def _load(self, worker: _Worker, states: Mapping[str, Array]) -> None:
        whole = {name: states.get(name, held.astype(np.int32)) for name, held in self._held.items()}
        worker.ask({"type": "load"}, whole, self.step_timeout)
        worker.answer(self.step_timeout)
        self._held = {name: value.astype(np.int64) for name, value in whole.items()}
        self.state_loads += 1


class _Worker:
    """The worker process: its group, its log, the connection to it."""

    def __init__(self, python: Path, program: Program, step_timeout: float, start_timeout: float) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="spiketrack-lava-"))
        self._prefix = f"psm_st{os.getpid()}_{secrets.token_hex(4)}_"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = (self._folder / "log").open("wb")
        self._channel: Channel | None = None
        self._deadline, self._limit = 0.0, 0.0
        try:
            save_program(program, self._folder / "program")
            self._start(python, step_timeout)
            self.python_version = str(self.answer(start_timeout, grace=0.0)[0]["python"])
            shutil.rmtree(self._folder / "program", ignore_errors=True)
        except BaseException:
            self.end(orderly=False)
            raise

    @property
    def group(self) -> int | None:
        """Its process group: it leads its own."""
        return None if self._process is None else self._process.pid

    def ask(self, header: Mapping[str, Any], arrays: Mapping[str, Array], timeout: float) -> None:
        """Send a request within the time limit."""
        self._allow(timeout + _GRACE)
        try:
            self._open().send(header, arrays, self._check)
        except OSError as error:
            raise self._death(error) from None

    def answer(self, timeout: float, grace: float = _GRACE) -> tuple[dict[str, Any], dict[str, Array]]:
        """Next message of the worker; EngineError if it is an error, does not come in time, or cannot come any more.

        The worker keeps the same limit and knows more: it is given a moment to speak first.
        """
        self._allow(timeout + grace)
        try:
            header, arrays = self._open().recv(self._check)
        except (OSError, ValueError, KeyError) as error:
            raise self._death(error) from None
        if header["type"] == "error":
            if header["detail"]:
                self._log.write(header["detail"].encode())
                self._log.flush()
            raise self._failure(header["message"])
        return header, arrays

    def end(self, orderly: bool) -> None:
        """Ask it to stop if ``orderly``; kill the group; remove shared memory, log and folder."""
        if orderly and self._channel is not None:
            with contextlib.suppress(SpiketrackError):
                self.ask({"type": "stop"}, {}, 0.0)
                self.answer(0.0)
        process, self._process = self._process, None
        if process is not None:
            # Killed before it is reaped: until then its number, and so the group's, belongs to nobody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _await_group(process.pid)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._log.close()
        if _SHARED_MEMORY.is_dir():
            for left in _SHARED_MEMORY.glob(self._prefix + "*"):
                left.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, python: Path, step_timeout: float) -> None:
        ours, theirs = socket.socketpair()
        # One thread each: the Processes are many, and BLAS threads do not survive Lava's forks.
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
        if python != Path(sys.executable):
            # Another interpreter must not look for its packages among ours.
            for variable in ("PYTHONPATH", "PYTHONHOME"):
                environment.pop(variable, None)
        if len(str(self._folder)) <= _SOCKET_ROOM:
            # Lava's shared-memory manager leaves the folder of its socket behind when it is killed.
            environment["TMPDIR"] = str(self._folder)
        arguments = (theirs.fileno(), os.getpid(), self._folder, self._prefix, step_timeout)
        command = [str(part) for part in (python, _WORKER, *arguments)]
        with theirs:
            self._channel = Channel(*[ours.detach()] * 2)
            try:
                # A file, not a pipe: what outlives the worker would keep a pipe open for ever.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, cwd=self._folder,
                    env=environment, pass_fds=[theirs.fileno()], start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                sentence = f"lava: {python} does not start ({error}); set {VARIABLE} to a Python 3.10 with lava-nc"
                raise EngineError(sentence) from None

    def _allow(self, seconds: float) -> None:
        self._limit, self._deadline = seconds, time.monotonic() + seconds

    def _open(self) -> Channel:
        if self._channel is None:
            raise EngineError("the Lava worker has ended; make a new engine")
        return self._channel

    def _check(self) -> None:
        status = self._status()
        if status:
            raise self._failure(f"the worker died ({status})")
        if time.monotonic() > self._deadline:
            raise self._failure(f"the worker did not answer within {self._limit:g} s")

    def _status(self) -> str:
        """How the worker ended; empty while it runs."""
        if self._process is None:
            return "it was ended"
        # WNOWAIT: seen, not reaped (see `end`).
        dead = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if dead is None:
            return ""
        killed = dead.si_code != os.CLD_EXITED
        return f"signal {signal.Signals(dead.si_status).name}" if killed else f"exit code {dead.si_status}"

    def _death(self, error: Exception) -> EngineError:
        """The connection broke: a closed socket is seen a moment before the end of the process that held it."""
        limit = time.monotonic() + 1.0
        while not (status := self._status()) and time.monotonic() < limit:
            time.sleep(0.01)
        return self._failure(f"the worker died ({status or error})")

    def _failure(self, cause: str) -> EngineError:
        path = self._folder / "log"
        tail = b""
        if path.is_file():
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - _LOG_BYTES))
                tail = log.read()
        lines = [line for line in tail.decode(errors="replace").splitlines() if line.strip()][-_LOG_LINES:]
        shown = "; last lines of its log:\n  " + "\n  ".join(lines) if lines else ""
        return EngineError(f"lava: {cause}; the sim engine runs the same program without Lava{shown}")


def _check_room(needed: int) -> None:
    """EngineError if the channels do not fit into shared memory, where Lava would die of a bus error within a step."""
    if _SHARED_MEMORY.is_dir():
        room = os.statvfs(_SHARED_MEMORY)
        free = room.f_bavail * room.f_frsize
        if free < needed:
            raise EngineError(
                f"lava: the channels need {needed / 2**20:.0f} MiB in {_SHARED_MEMORY}, {free / 2**20:.0f} MiB are "
                "free; enlarge it (docker: --shm-size) or use the sim engine"
            )


def _await_group(group: int) -> None:
    """Wait, at most two seconds, until no process of a killed group runs any more."""
    end = time.monotonic() + 2.0
    while time.monotonic() < end and group_members(group):
        time.sleep(0.01)


def group_members(group: int) -> list[int]:
    """Living processes (no zombies) of a process group, from ``/proc``; empty where there is no ``/proc``."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name, in parentheses, may hold anything; state and group follow it.
            state, _, member_of = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if state not in "ZX" and int(member_of) == group:
            found.append(int(stat.parent.name))
    return found
