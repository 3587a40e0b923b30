"""Worker processes that may die: each holds one sequence, and a sequence whose worker died goes to the next.

This module decides how tasks reach processes and come back. It must not know what a task computes. A
``ProcessPoolExecutor`` gives up every pending task when one of its processes is killed, hence this small pool.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import NoReturn

from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.evaluation.run import Failure, Record, Task, attempt
from spiketrack_deploy.evaluation.subjects import Workshop

Done = Callable[[int, Record | Failure], None]
"""``done(index, outcome)``: called in the parent, as sequences finish, in any order."""

ATTEMPTS = 3
_PATIENCE_S = 5.0


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    task: int | None = None


def run_here(tasks: Sequence[Task], done: Done) -> None:
    """All tasks in this process, one after the other."""
    with Workshop() as workshop:
        for index, task in enumerate(tasks):
            done(index, attempt(task, workshop))


def run_processes(tasks: Sequence[Task], jobs: int, done: Done) -> None:
    """All tasks in up to ``jobs`` fresh processes.

    A task whose process died is tried :data:`ATTEMPTS` times in all, then it is a :class:`Failure`. Every process is
    gone when this returns or raises.
    """
    pending, tries = deque(range(len(tasks))), [0] * len(tasks)
    workers: list[_Worker] = []
    try:
        while pending or any(w.task is not None for w in workers):
            _feed(workers, pending, tasks, min(jobs, len(tasks)))
            busy = [w for w in workers if w.task is not None]
            ready = set(wait([x for w in busy for x in (w.pipe, w.process.sentinel)]))
            for worker in busy:
                if worker.pipe in ready or worker.process.sentinel in ready:
                    _collect(worker, workers, pending, tries, tasks, done)
    finally:
        _end(workers)


def _feed(workers: list[_Worker], pending: deque[int], tasks: Sequence[Task], jobs: int) -> None:
    idle = [w for w in workers if w.task is None]
    while pending and (idle or len(workers) < jobs):
        if not idle:
            workers.append(_start())
            idle.append(workers[-1])
        worker = idle.pop()
        worker.task = pending.popleft()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # died while idle: found out when it is read
            worker.pipe.send(tasks[worker.task])


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")  # forking a process that holds PyTorch threads deadlocks
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends when the process does
    return _Worker(process, ours)


def _collect(
    worker: _Worker, workers: list[_Worker], pending: deque[int], tries: list[int], tasks: Sequence[Task], done: Done
) -> None:
    index = worker.task
    if index is None:
        return
    try:
        outcome = worker.pipe.recv()
    except (EOFError, OSError):
        workers.remove(worker)
        worker.process.join()
        tries[index] += 1
        if tries[index] < ATTEMPTS:
            pending.appendleft(index)
        else:
            death = _death(worker.process.exitcode)
            reason = f"its worker process died {ATTEMPTS} times ({death}); is there enough memory for --jobs?"
            done(index, Failure(tasks[index].sequence.name, reason, EngineError.exit_code))
        return
    worker.task = None
    done(index, outcome)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send(None)
        if worker.task is not None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_PATIENCE_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


def _serve(pipe: Connection) -> None:
    """The worker: tasks in, outcomes out, until ``None`` or the end of the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    signal.signal(signal.SIGTERM, _terminated)  # unwinds, so that an engine takes its own processes along
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Workshop() as workshop, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (task := pipe.recv()) is not None:
            pipe.send(attempt(task, workshop))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers; without this one would work on a long sequence for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
