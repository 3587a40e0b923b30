"""PyTorch's number of threads while an engine or a float tracker runs.

This module decides what the number is inside and that it is as before outside. PyTorch keeps one number for the process
and one for each thread that has computed, which takes over the former on its first use; so runs that overlap share one
memory of the number to return to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

FLOAT_THREADS = 1
"""Of a float64 tracker where nobody asks for more: PyTorch convolves its depthwise layers channel by channel, which is
too little to share (a frame of spiketrack-nano takes 9 ms with one thread, 19 and more with two)."""

_lock = Lock()
_inside = 0
_before = 0


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """``count`` threads in the calling thread inside the block; ``None``: as many as before any run."""
    global _inside, _before
    import torch

    with _lock:
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
    try:
        _use(_before if count is None else count)
        yield
    finally:
        with _lock:
            _inside -= 1
            _use(_before)


def _use(count: int) -> None:
    import torch

    if torch.get_num_threads() != count:  # a change that is none may still cost a new team of threads
        torch.set_num_threads(count)
