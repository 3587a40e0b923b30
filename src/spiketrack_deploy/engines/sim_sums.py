"""The loops that add up spikes, and plain NumPy with the same sums for where nothing compiles.

This module decides how bytes are added; it must not know operations, phases or what the sums are for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from spiketrack_deploy.engines.sim_jit import Loop, compile_loops
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray

_ROWS = 255 // SPIKE_MAX
"""Rows of spikes whose sums fit a byte."""


class Adders(NamedTuple):
    """Four sums over contiguous arrays.

    ``by_class(x, rows, cols, fan, found)``: spikes uint8 ``[T,H,W,C]``, the class of each row and column (int64),
    fan-outs uint32 ``[K,1 or T,R,Q,C]`` by class. Writes to int64 ``found`` ``[1+K,2]`` the number of non-zero spikes
    and the sum of spikes, plain and weighted by each fan-out; returns both by class, uint32 ``[2,T,R,Q,C]``.
    ``pairs(k, v)``: spikes uint8 ``[N,d]`` and ``[N,e]``; products of non-zero numbers, and of sums, over N.
    ``reads(memory, classes)``: float32 ``[T,D,E]`` and such sums of its queries, ``[2,T,R,Q,D]``: each query visits the
    non-zero entries of its row, alone and times its spike. ``nonzero(x)``: how many of float32 ``[N]`` are not 0.
    """

    by_class: Callable[[AnyArray, AnyArray, AnyArray, AnyArray, AnyArray], AnyArray]
    pairs: Callable[[AnyArray, AnyArray], tuple[int, int]]
    reads: Callable[[AnyArray, AnyArray], tuple[int, int]]
    nonzero: Callable[[AnyArray], int]


# Slices keep numba from minding negative indices, which would cost the vector instructions.
def _by_class(x: AnyArray, rows: AnyArray, cols: AnyArray, fan: AnyArray, found: AnyArray) -> AnyArray:
    """One pass: the rows of a class are added byte by byte, before they overflow to the sums of their columns."""
    steps, height, width, count = x.shape
    classes = np.zeros((2, steps, *fan.shape[2:]), np.uint32)
    held = np.zeros((2, width * count), np.uint8)
    events, values = held[0], held[1]
    for t in range(steps):
        for r in range(fan.shape[2]):
            added = 0
            for h in range(height):
                if rows[h] == r:
                    row = x[t, h].reshape(-1)
                    for i in range(row.size):
                        events[i] += row[i] != 0
                        values[i] += row[i]
                    added += 1
                if added == _ROWS or (added > 0 and h == height - 1):
                    for half in range(2):
                        for w in range(width):
                            total, part = classes[half, t, r, cols[w]], held[half, w * count : (w + 1) * count]
                            for c in range(count):
                                total[c] += part[c]
                    held[:] = 0
                    added = 0
    for half in range(2):
        found[0, half] = classes[half].sum()
        for k in range(fan.shape[0]):
            visits = np.uint64(0)
            for t in range(steps):
                reach, seen = fan[k, t % fan.shape[1]].reshape(-1), classes[half, t].reshape(-1)
                for i in range(reach.size):
                    visits += np.uint64(reach[i]) * np.uint64(seen[i])
            found[1 + k, half] = visits
    return classes


def _pairs(k: AnyArray, v: AnyArray) -> tuple[int, int]:
    events = total = 0
    for n in range(k.shape[0]):
        one, other = k[n], v[n]
        a = b = c = d = np.int32(0)
        for i in range(one.size):
            a += np.int32(one[i] != 0)
            b += np.int32(one[i])
        for i in range(other.size):
            c += np.int32(other[i] != 0)
            d += np.int32(other[i])
        events += np.int64(a) * c
        total += np.int64(b) * d
    return events, total


def _reads(memory: AnyArray, classes: AnyArray) -> tuple[int, int]:
    events = total = 0
    for t in range(memory.shape[0]):
        for d in range(memory.shape[1]):
            row = memory[t, d]
            entries = np.int32(0)
            for i in range(row.size):
                entries += np.int32(row[i] != 0)
            for r in range(classes.shape[2]):
                for q in range(classes.shape[3]):
                    events += np.int64(classes[0, t, r, q, d]) * entries
                    total += np.int64(classes[1, t, r, q, d]) * entries
    return events, total


def _nonzero(x: AnyArray) -> int:
    found = 0
    for i in range(x.size):
        found += x[i] != 0
    return found


def _plain_by_class(x: AnyArray, rows: AnyArray, cols: AnyArray, fan: AnyArray, found: AnyArray) -> AnyArray:
    """Two matrix products, whose sums a float32 holds while they stay below 2**24; any byte."""
    steps, height, width, count = x.shape
    kind = np.float32 if 255 * height * width < 2**24 else np.float64
    by_row = (rows == np.arange(fan.shape[2])[:, None]).astype(kind)
    by_col = (cols == np.arange(fan.shape[3])[:, None]).astype(kind)
    both = np.stack([x != 0, x], dtype=kind, casting="unsafe").reshape(2, steps, height, width * count)
    classes = by_col @ (by_row @ both).reshape(2, steps, len(by_row), width, count)
    for row, reach in zip(found, [np.ones(1), *fan.astype(np.float64)]):
        row[:] = (classes * reach).sum(axis=(1, 2, 3, 4))
    return classes.astype(np.uint32)


def _plain_pairs(k: AnyArray, v: AnyArray) -> tuple[int, int]:
    events, total = ((f(k) * f(v)).sum() for f in (lambda x: (x != 0).sum(axis=1), lambda x: x.sum(axis=1, dtype=int)))
    return int(events), int(total)


def _plain_reads(memory: AnyArray, classes: AnyArray) -> tuple[int, int]:
    visits = classes.sum(axis=(2, 3), dtype=np.int64) * np.count_nonzero(memory, axis=2)
    events, total = visits.sum(axis=(1, 2)).tolist()
    return events, total


def _plain_nonzero(x: AnyArray) -> int:
    """Block by block, because a mask that stays in the first-level cache is several times faster."""
    return sum(int(np.count_nonzero(x[i : i + 65536] != 0)) for i in range(0, x.size, 65536))


PLAIN = Adders(_plain_by_class, _plain_pairs, _plain_reads, _plain_nonzero)


def _loops() -> list[Loop]:
    def by_class(numba: Any) -> Any:
        indices, table = numba.int64[::1], numba.uint32[:, :, :, :, ::1]
        return table(numba.uint8[:, :, :, ::1], indices, indices, table, numba.int64[:, ::1])

    def two(numba: Any) -> Any:
        return numba.types.UniTuple(numba.int64, 2)

    return [
        (_by_class, by_class),
        (_pairs, lambda numba: two(numba)(numba.uint8[:, ::1], numba.uint8[:, ::1])),
        (_reads, lambda numba: two(numba)(numba.float32[:, :, ::1], numba.uint32[:, :, :, :, ::1])),
        (_nonzero, lambda numba: numba.int64(numba.float32[::1])),
    ]


@lru_cache(maxsize=1)
def adders() -> Adders:
    """The compiled loops where they can be made and agree with NumPy on a small case, else :data:`PLAIN`."""
    made = compile_loops(_loops(), lambda loops: _small_case(Adders(*loops)) == _small_case(PLAIN))
    return PLAIN if made is None else Adders(*made)


def _small_case(adders: Adders) -> list[Any]:
    """More rows than a byte holds of the largest spike, two classes on either axis, step by step fan-outs."""
    x = np.full((2, 3 * _ROWS, 3, 5), SPIKE_MAX, dtype=np.uint8)
    x[:, ::3, 1] = 0
    rows, cols = np.minimum(np.arange(x.shape[1]), 1), np.array([1, 0, 1])
    fan = np.arange(2 * 2 * 2 * 2 * 5, dtype=np.uint32).reshape(2, 2, 2, 2, 5)
    tokens, real, found = x.reshape(-1, 15), x.astype(np.float32), np.zeros((3, 2), np.int64)
    classes = adders.by_class(x, rows, cols, fan, found)
    reads = adders.reads(real.reshape(2, 5, -1), classes)
    return [classes.tolist(), found.tolist(), adders.pairs(tokens, tokens), reads, adders.nonzero(real.ravel())]
