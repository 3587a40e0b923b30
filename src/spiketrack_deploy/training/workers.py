"""Several processes that train one network: they draw different samples and average their gradients.

This module decides how workers start, meet and end. It must not know what a step computes. On shared machines one
single-threaded process per core loses less than one process with threads, because a step waits once, not at every
layer.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spiketrack_deploy.errors import EngineError


@dataclass(frozen=True, slots=True)
class Crew:
    """This process's place among ``size`` workers; rank 0 leads: it reports, validates and saves."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def average(self, parameters: Sequence[Tensor], told: float) -> float:
        """Average the gradients of all workers in place; returns the leader's ``told`` to everybody."""
        if self.size == 1:
            return told
        import torch.distributed as dist

        grads = [p.grad.flatten() for p in parameters if p.grad is not None]
        device = grads[0].device if grads else torch.device("cpu")
        flat = torch.cat([*grads, torch.tensor([told * self.leads * self.size], device=device)])
        dist.all_reduce(flat)
        flat /= self.size
        at = 0
        for p in parameters:
            if p.grad is not None:
                p.grad.copy_(flat[at : at + p.numel()].view_as(p))
                at += p.numel()
        return float(flat[-1])


def _join(rank: int, size: int, meeting: str) -> Crew:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    return Crew(rank, size)


def _follow(rank: int, size: int, meeting: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        work(_join(rank, size, meeting), *arguments)
    except (RuntimeError, KeyboardInterrupt):
        # The leader ended or was interrupted; it reports, followers just leave.
        return


def lead(size: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run ``work(crew, *arguments)`` here as rank 0 and in ``size - 1`` new processes; returns rank 0's result.

    A worker that dies makes the leader fail with :class:`EngineError`; the state on disk stays resumable.
    """
    if size == 1:
        return work(Crew(), *arguments)
    import torch.distributed as dist

    torch.set_num_threads(1)
    context = multiprocessing.get_context("spawn")
    followers = []
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        try:
            for rank in range(1, size):
                process = context.Process(target=_follow, args=(rank, size, meeting, work, arguments), daemon=True)
                process.start()
                followers.append(process)
            return work(_join(0, size, meeting), *arguments)
        except RuntimeError as error:
            if (
                any(p.exitcode not in (None, 0) for p in followers)
                or "gloo" in str(error).lower()
                or "Connection" in str(error)
            ):
                raise EngineError(
                    f"a training worker ended unexpectedly ({error}); run the same command again to resume"
                ) from error
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            for process in followers:
                process.join(5)
                if process.is_alive():
                    process.terminate()
