"""The fan-out of an input position, split along the two image axes.

This module decides which kernel taps land inside an image from where; it must not know tensors or sums. A tap (ky, kx)
lands inside from position (h, w) if ky does from row h and kx from column w; away from the borders that depends on the
position modulo the stride only. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

from spiketrack_deploy.program.types import AnyArray, Op, TensorSpec


@dataclass(frozen=True, slots=True)
class Axis:
    """Classes of positions along one image axis: ``phases`` classes ``i % phases``, each with a ``typical`` position,
    and the ``border`` positions that differ from their phase's."""

    phases: int
    typical: tuple[int, ...]
    border: tuple[int, ...]

    def factors(self, valid: AnyArray) -> AnyArray:
        """``[phases + borders, kernel]``: taps of a phase; for a border position the difference from its phase."""
        base = valid[:, list(self.typical)].astype(np.int64)
        extra = valid[:, list(self.border)].astype(np.int64) - base[:, [b % self.phases for b in self.border]]
        return np.concatenate([base, extra], axis=1).T


def valid_taps(size: int, kernel: int, stride: int, padding: int, dilation: int) -> AnyArray:
    """``[kernel, size]``: whether some output position reads input position i through tap k."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    origin = np.arange(size)[None] - np.arange(kernel)[:, None] * dilation + padding
    return np.asarray((origin >= 0) & (origin % stride == 0) & (origin // stride < outputs))


def axis_of(size: int, readers: Sequence[tuple[int, AnyArray]]) -> Axis:
    """The classes that serve all ``readers`` (stride and :func:`valid_taps` of each)."""
    phases = lcm(*(stride for stride, _ in readers)) if readers else 1
    if size % phases:
        phases = 1
    columns = [b"".join(valid[:, i].tobytes() for _, valid in readers) for i in range(size)]
    typical = []
    for phase in range(phases):
        mine = columns[phase::phases]
        usual = max(sorted(set(mine)), key=mine.count)
        typical.append(phase + phases * mine.index(usual))
    border = tuple(i for i in range(size) if columns[i] != columns[typical[i % phases]])
    return Axis(phases, tuple(typical), border)


@dataclass(frozen=True, slots=True)
class Reader:
    """A convolution that reads a tensor: taps per channel ``[1 or T, C, kh, kw]`` (non-zero weights over the output
    channels of the group) and valid taps of both axes."""

    op: str
    taps: AnyArray
    stride: tuple[int, int]
    rows: AnyArray
    cols: AnyArray


def reader_of(op: Op, weight: AnyArray, spec: TensorSpec) -> Reader:
    """What the census must know of a convolution."""
    _, count, height, width = spec.shape
    shared, outputs, fan_in, kh, kw = weight.shape
    a = op.attrs
    groups = a["groups"]
    taps = (weight.reshape(shared, groups, outputs // groups, fan_in, kh, kw) != 0).sum(axis=2)
    rows = valid_taps(height, kh, a["stride_h"], a["padding_h"], a["dilation_h"])
    cols = valid_taps(width, kw, a["stride_w"], a["padding_w"], a["dilation_w"])
    return Reader(op.name, taps.reshape(shared, count, kh, kw), (a["stride_h"], a["stride_w"]), rows, cols)
