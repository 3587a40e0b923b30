"""NI-LIF neurons with a membrane, several steps in one pass over memory, as one compiled loop.

This module decides how a membrane is carried from step to step where numba compiles; ``sim_kernels`` has the same with
PyTorch's operations. It must not know which operation wrote the current.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from spiketrack_deploy.engines.sim_jit import Compiled, compile_loops
from spiketrack_deploy.program.types import DECAY_BITS, SPIKE_MAX, AnyArray

_TOP = np.float32(SPIKE_MAX)
_NONE = np.float32(0)


def _fire(
    x: AnyArray,
    offset: AnyArray,
    gain: AnyArray,
    reset: AnyArray,
    decay: AnyArray,
    unit: AnyArray,
    spikes: AnyArray,
    group: int,
) -> None:
    """Currents float32 ``[1 or T,M,C]``, offsets float32 ``[0 or T,M,C]``; ``gain``, ``reset``, ``unit`` float32
    ``[C]``, ``decay`` float64 ``[T-1,C]``; writes ``spikes[:, :, group]`` of uint8 ``[T,M,G,C]``. The leak's product
    needs 36 bits, so it is float64; the conversion to integers truncates toward zero, as the chip does."""
    steps, rows, _, count = spikes.shape
    v, n = np.empty(count, np.float32), np.empty(count, np.float32)
    for m in range(rows):
        for t in range(steps):
            current, out = x[t % x.shape[0], m], spikes[t, m, group]
            if t == 0:
                v[:] = current
            else:
                leak = decay[t - 1]
                for c in range(count):
                    kept = np.int32(np.float64(v[c] - n[c] * reset[c]) * leak[c])
                    v[c] = np.float32(kept) * unit[c] + current[c]
            if offset.shape[0] > 0:
                shift = offset[t, m]
                for c in range(count):
                    n[c] = (v[c] + shift[c]) * gain[c]
            else:
                for c in range(count):
                    n[c] = v[c] * gain[c]
            for c in range(count):
                level = n[c] if n[c] > _NONE else _NONE
                n[c] = np.rint(level if level < _TOP else _TOP)
                out[c] = np.uint8(n[c])


def _signature(numba: Any) -> Any:
    three, one = numba.float32[:, :, ::1], numba.float32[::1]
    return numba.void(three, three, one, one, numba.float64[:, ::1], one, numba.uint8[:, :, :, ::1], numba.int64)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., None] | None:
    found = compile_loops([(_fire, _signature)], _is_right)
    return None if found is None else found[0]


def _is_right(made: Compiled) -> bool:
    """Two steps of integers in units of 1/8 with a decay of 3/4: 9 fires a tie, leaves and leaks below and above 0."""
    x = np.array([[12, 4, -9, 63], [9, 0, 5, -63]], dtype=np.float32).reshape(2, 1, 4) / 8
    spikes = np.zeros((2, 1, 1, 4), dtype=np.uint8)
    one, leak = np.ones(4, np.float32), np.full((1, 4), 0.75 * 8)
    made[0](x, x[:0], one, one / 4, leak, one / 8, spikes, 0)
    return bool(spikes.reshape(2, 4).tolist() == [[2, 0, 0, 4], [2, 0, 0, 0]])


Fire = Callable[[AnyArray, AnyArray, int], None]
"""``fire(x, spikes, group)``: currents float32 ``[1 or T,M,C]`` to ``spikes[:, :, group]`` of uint8 ``[T,M,G,C]``."""


def membrane_loop(
    count: int, gain: AnyArray, reset: AnyArray, decay: AnyArray, bits: AnyArray, offset: AnyArray | None
) -> Fire | None:
    """The loop for neurons of one population, ``count`` channels held with ``bits`` (``[count]`` or ``[1]``).

    ``gain``: factors ``[count]`` or ``[1]`` after which rounding is firing; ``reset`` integers; ``decay`` ``[T-1]`` in
    2**-12; ``offset`` float32 ``[T,M,count]``. ``None`` where nothing compiles.
    """
    run = _compiled()
    if run is None:
        return None
    unit = 2.0 ** -bits.astype(np.float64)
    gains, resets, units = (np.broadcast_to(row, count).astype(np.float32) for row in (gain, reset * unit, unit))
    leak = np.array(np.broadcast_to(decay[:, None] * 2.0**-DECAY_BITS / unit, (len(decay), count)), dtype=np.float64)
    added = np.zeros((0, 0, 0), np.float32) if offset is None else np.array(offset)
    return lambda x, spikes, group: run(x, added, gains, resets, leak, units, spikes, group)
