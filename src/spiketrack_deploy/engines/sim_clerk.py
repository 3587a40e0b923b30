"""Counting beside computing: who adds up spikes while the next kernels run.

This module decides in which thread counting happens, and that it happens in order. It must not know what is counted.
Counting is a sixth to a third of a frame and uses one core, so with two threads or more it moves beside the kernels;
with one thread it stays in line, so that one thread means one.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Protocol

import torch

Job = Callable[[], None]


class Clerk(Protocol):
    """Does jobs one after the other, in the order given."""

    def do(self, job: Job) -> None:
        """Do ``job`` now or later; it may only read values that nobody overwrites."""

    def finish(self) -> None:
        """Return when every job is done; raise what one of them raised."""


class InLine:
    """Does every job at once, in the caller's thread."""

    def do(self, job: Job) -> None:
        """See :class:`Clerk`."""
        job()

    def finish(self) -> None:
        """Nothing is left to do."""


class Beside:
    """Does jobs in a thread of its own, with one PyTorch thread, until :meth:`finish`."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._error: BaseException | None = None
        ready = Event()
        self._thread = Thread(target=self._work, args=(ready,), name="spiketrack-counts", daemon=True)
        self._thread.start()
        # The worker limits itself to one thread; part of that setting is the process's, so it is put back here.
        ready.wait()
        torch.set_num_threads(threads)

    def _work(self, ready: Event) -> None:
        torch.set_num_threads(1)
        ready.set()
        with torch.inference_mode():
            while (job := self._jobs.get()) is not None:
                if self._error is None:
                    try:
                        job()
                    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the counts
                        self._error = error

    def do(self, job: Job) -> None:
        """See :class:`Clerk`."""
        self._jobs.put(job)

    def finish(self) -> None:
        """See :class:`Clerk`; ends the thread."""
        self._jobs.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
