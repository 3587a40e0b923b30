"""Several processes that train one network: they draw different samples and average their gradients.

This module decides how workers start, meet and end. It must not know what a step computes. On shared machines one
single-threaded process per core loses less than one process with threads, because a step waits once, not at every
layer. Gradients travel through pipes rather than ``torch.distributed``: whoever waits at a pipe hears signals and sees
at once that the other side has died, while its rendezvous and collectives wait, deaf, for the end of a time limit.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
from torch import Tensor

from spiketrack_deploy.errors import SIGNALS, EngineError, SpiketrackError


class _LeaderGone(Exception):
    """The leader ended; followers just leave."""


@dataclass(frozen=True, slots=True)
class Crew:
    """This process's place among ``size`` workers; rank 0 leads: it reports, validates and saves.

    ``links``: the leader's pipes to the followers in the order of their ranks, a follower's one pipe to the leader.
    """

    rank: int = 0
    size: int = 1
    links: tuple[Connection, ...] = ()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def average(self, parameters: Sequence[Tensor], told: float) -> float:
        """Average the gradients of all workers in place; returns the leader's ``told`` to everybody.

        Raises in the leader what a follower raised, or :class:`EngineError` where one has died.
        """
        if self.size == 1:
            return told
        grads = [p.grad for p in parameters if p.grad is not None]
        own = torch.cat([torch.empty(0), *(g.flatten().cpu() for g in grads)])
        mean, told = self._gather(own, told) if self.leads else self._report(own)
        for grad, part in zip(grads, mean.split([g.numel() for g in grads])):
            grad.copy_(part.view_as(grad))
        return told

    def _gather(self, total: Tensor, told: float) -> tuple[Tensor, float]:
        try:
            for link in self.links:
                found = link.recv()
                if isinstance(found, SpiketrackError):
                    raise found
                total += torch.from_numpy(found)
            total /= self.size
            for link in self.links:
                link.send((total.numpy(), told))
        except (EOFError, OSError) as error:
            raise EngineError(
                "a training worker died; is there memory for all workers? The same command goes on from the last save"
            ) from error
        return total, told

    def _report(self, own: Tensor) -> tuple[Tensor, float]:
        try:
            self.links[0].send(own.numpy())
            mean, told = self.links[0].recv()
        except (EOFError, OSError) as error:
            raise _LeaderGone from error
        return torch.from_numpy(mean), told


def _follow(crew: Crew, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        work(crew, *arguments)
    except _LeaderGone:
        return
    except SpiketrackError as error:
        crew.links[0].send(error)


def lead(size: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run ``work(crew, *arguments)`` here as rank 0 and in ``size - 1`` new processes; returns rank 0's result.

    However ``work`` ends here, no other process is left behind; the state on disk stays resumable.
    """
    if size == 1:
        return work(Crew(), *arguments)
    torch.set_num_threads(1)
    followers: list[SpawnProcess] = []
    links: list[Connection] = []
    try:
        for rank in range(1, size):
            _start(rank, size, work, arguments, followers, links)
        return work(Crew(0, size, tuple(links)), *arguments)
    finally:
        # They hold nothing worth keeping, and may be in the middle of a long step.
        for process in followers:
            process.kill()
        for process in followers:
            process.join()


def _start(
    rank: int,
    size: int,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    followers: list[SpawnProcess],
    links: list[Connection],
) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_follow, args=(Crew(rank, size, (theirs,)), work, arguments), daemon=True)
    resource_tracker.ensure_running()  # starting it later would unblock the signals below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited: the leader decides for all
    try:
        process.start()
        followers.append(process)
        links.append(ours)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the pipe ends when the follower does
