"""How often every synapse is visited, from a few sums per spike tensor.

This module decides which sums a tensor needs; it must not know how bytes are added (``sim_sums``) nor operations other
than as "a convolution of this geometry reads this tensor". A synaptic count is ``sum over c, h, w of n[c,h,w] *
fan[c,h,w]``. Tap (ky, kx) lands inside the output from position (h, w) if ky does from row h and kx from column w, so
positions whose row and column admit the same taps have the same fan-out: they form a class, and a tensor is reduced to
one sum per class and channel. A 3 x 3 convolution has nine classes: corners, edges, the inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from spiketrack_deploy.engines.sim_sums import PLAIN, adders
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray, Op, Phase, Program, TensorSpec

_ROW = 4096
"""Bytes of a row where its length is free."""


Sums = Mapping[str, "list[int]"]
"""Of a tensor: number of non-zero spikes, sum of spikes. Of a convolution: its synaptic and unit operations."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """``shape`` ``[T,H,W,C]`` and the class of each row and column; fan-outs uint32 ``[readers, 1 or T, R, Q, C]``."""

    shape: tuple[int, int, int, int]
    rows: AnyArray
    cols: AnyArray
    fan: AnyArray


def _valid_taps(size: int, kernel: int, stride: int, padding: int, dilation: int) -> AnyArray:
    """``[kernel, size]``: whether some output position reads input position i through tap k."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    origin = np.arange(size)[None] - np.arange(kernel)[:, None] * dilation + padding
    return np.asarray((origin >= 0) & (origin % stride == 0) & (origin // stride < outputs))


def reach(op: Op, weight: AnyArray, spec: TensorSpec) -> AnyArray:
    """Non-zero synapses of every position of one step: int64 ``[C,H,W]``."""
    sides = zip(spec.shape[2:], weight.shape[3:], "hw")
    rows, cols = (
        _valid_taps(size, kernel, *(op.attrs[f"{part}_{letter}"] for part in ("stride", "padding", "dilation")))
        for size, kernel, letter in sides
    )
    _, outputs, fan_in, kh, kw = weight.shape
    groups = op.attrs["groups"]
    taps = (weight.reshape(groups, outputs // groups, fan_in, kh, kw) != 0).sum(axis=1).reshape(-1, kh, kw)
    return np.asarray(np.einsum("ckx,kr,xq->crq", taps, rows.astype(np.int64), cols.astype(np.int64), optimize=True))


def _layout(spec: TensorSpec, readers: Sequence[tuple[Op, AnyArray]]) -> _Layout:
    """``readers``: convolutions of the tensor with their weights ``[1 or T, out, C/groups, kh, kw]``."""
    steps, count, height, width = spec.shape
    valid: tuple[list[AnyArray], list[AnyArray]] = ([], [])
    for op, weight in readers:
        for axis, size, letter in ((0, height, "h"), (1, width, "w")):
            geometry = (op.attrs[f"{part}_{letter}"] for part in ("stride", "padding", "dilation"))
            valid[axis].append(_valid_taps(size, weight.shape[3 + axis], *geometry))
    # A row of ones makes one class of everything where nothing reads the tensor.
    rows, cols = (
        np.unique(np.concatenate([np.ones((1, size), bool), *taps]), axis=1, return_index=True, return_inverse=True)[1:]
        for size, taps in ((height, valid[0]), (width, valid[1]))
    )
    shared = max((len(weight) for _, weight in readers), default=1)
    fan = np.zeros((len(readers), shared, len(rows[0]), len(cols[0]), count), dtype=np.uint32)
    for index, (op, weight) in enumerate(readers):
        shared, outputs, fan_in, kh, kw = weight.shape
        groups = op.attrs["groups"]
        taps = (weight.reshape(shared, groups, outputs // groups, fan_in, kh, kw) != 0).sum(axis=2)
        one = taps.reshape(shared, count, kh, kw)
        fan[index] = np.einsum("tckx,kr,xq->trqc", one, valid[0][index][:, rows[0]], valid[1][index][:, cols[0]])
    if fan.shape[2] * fan.shape[3] > 1:
        return _Layout((steps, height, width, count), rows[1].reshape(-1), cols[1].reshape(-1), fan)
    # One class: any rows will do. These are long enough for the vector unit and short enough for the first-level cache.
    width = max(n for n in range(1, height * width + 1) if height * width % n == 0 and (n == 1 or n * count <= _ROW))
    height = height * spec.shape[3] // width
    return _Layout((steps, height, width, count), np.zeros(height, np.int64), np.zeros(width, np.int64), fan)


class Census:
    """Which sums a phase needs; it keeps nothing of a run. ``names``: what each row of a run's table holds."""

    def __init__(self, program: Program, phase: Phase, tensors: Sequence[str]) -> None:
        """``tensors``: spikes and images of the phase."""
        readers: dict[str, list[tuple[Op, AnyArray]]] = {name: [] for name in tensors}
        for op in phase.ops:
            if "weight" in op.arrays and op.inputs[0] in readers:
                readers[op.inputs[0]].append((op, program.arrays[op.arrays["weight"]]))
        self._layouts = {name: _layout(phase.spec(name), mine) for name, mine in readers.items()}
        self._wide = frozenset(name for name in tensors if phase.spec(name).top > SPIKE_MAX)
        # Pixels count as non-zero or not, and their sums would not fit a byte.
        self._images = frozenset(name for name in tensors if phase.spec(name).kind == "image")
        self._rows: dict[str, slice] = {}
        self.names: list[str] = []
        for name, mine in readers.items():
            self._rows[name] = slice(len(self.names), len(self.names) + 1 + len(mine))
            self.names += [name, *(op.name for op, _ in mine)]

    def table(self) -> AnyArray:
        """Room for the sums of a run: int64 ``[names, 2]``."""
        return np.zeros((len(self.names), 2), dtype=np.int64)

    def take(self, name: str, value: Tensor, table: AnyArray) -> AnyArray:
        """Write the sums of one tensor (uint8 ``[T,C,H,W]``; of an image, those of its non-zero pixels) into ``table``;
        returns uint32 ``[2,T,R,Q,C]``, non-zero spikes and sum of spikes by step, class and channel."""
        layout = self._layouts[name]
        spikes = np.ascontiguousarray(value.numpy().transpose(0, 2, 3, 1)).reshape(layout.shape)
        if name in self._images:
            spikes = (spikes != 0).view(np.uint8)
        add = PLAIN if name in self._wide and name not in self._images else adders()
        return add.by_class(spikes, layout.rows, layout.cols, layout.fan, table[self._rows[name]])

    def sums(self, table: AnyArray) -> Sums:
        """A run's table once every tensor has been taken."""
        return dict(zip(self.names, table.tolist()))
