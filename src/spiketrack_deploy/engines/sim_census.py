"""Sums over spike tensors, in one cheap pass: what exact event counts need, without a second convolution.

This module decides how spikes are added up; it must not know operations other than as "a convolution of this geometry
reads this tensor". A synaptic count is ``sum over c, h, w of n[c,h,w] * fan[c,h,w]``, and the fan-out is bilinear in
which kernel taps land inside the image along either axis, ``fan = sum_k nonzero[c,ky,kx] * rows[ky,h] * cols[kx,w]``.
Away from the borders ``rows`` and ``cols`` depend on the position modulo the stride only. So a tensor is reduced to a
few sums per channel (all positions of each phase, and the border rows and columns once more), and each reader is one
small dot product. Tensors of equal size are collected side by side and reduced together: eight spikes per 64-bit lane,
byte by byte, because fewer than 64 spikes of at most 4 fit a byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.engines.sim_fan import Axis, Reader, axis_of, reader_of
from spiketrack_deploy.engines.sim_tensors import nhwc
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray, Phase, Program

_GROUP_BYTES = 1 << 19
"""Tensors are collected until this size: their sums then run in the second-level cache."""
Size = tuple[int, int, int]
"""Steps, height, width."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A tensor's place in its group: channels ``first .. first + count``."""

    name: str
    first: int
    count: int
    readers: tuple[Reader, ...]


_Key = tuple[Size, Axis, Axis]
"""What the tensors of a group have in common."""


class Sums(NamedTuple):
    """What is known of one tensor: non-zero spikes, sum of spikes, and per reader ``(synaptic operations, unit
    operations)``. A plain tuple, because a frame makes some two hundred."""

    events: int
    total: int
    visits: Mapping[str, tuple[int, int]]
    plane: AnyArray
    """``[2, T, all channels]`` of which ``span`` are this tensor's"""
    span: slice

    def channels(self, steps: int) -> AnyArray:
        """Non-zero spikes and sum of spikes per step and channel: ``[2, T, C]``."""
        return self.plane[:, :steps, self.span]


def _chunk(rows: int) -> int:
    """Largest divisor of ``rows`` whose byte sums stay below 256."""
    return max(n for n in range(1, min(rows, 255 // SPIKE_MAX) + 1) if rows % n == 0)


def _runs(positions: Sequence[int]) -> list[slice]:
    """Consecutive positions as slices."""
    runs: list[slice] = []
    for i in positions:
        if runs and runs[-1].stop == i:
            runs[-1] = slice(runs[-1].start, i + 1)
        else:
            runs.append(slice(i, i + 1))
    return runs


class _Scratch:
    """Memory that all groups use in turn, so that it stays in the cache."""

    def __init__(self) -> None:
        self._held: dict[torch.dtype, Tensor] = {}
        self._asked: list[tuple[torch.dtype, int]] = []

    def take(self, dtype: torch.dtype, *shape: int) -> Tensor:
        """Zeros of ``shape``, which alias every other request of this type."""
        size = int(np.prod(shape))
        if dtype not in self._held or self._held[dtype].numel() < size:
            self._held[dtype] = torch.zeros(size, dtype=dtype)
        return self._held[dtype][:size].view(shape)


class _Group:
    """Tensors of one size and geometry, side by side in ``[T, H, W, C]``, and their sums.

    Everything is a view made once; :meth:`flush` is a dozen library calls. ``values`` and ``masks``: memory that groups
    share; a lone tensor is read where it lies, so its ``values`` are never used.
    """

    def __init__(self, key: _Key, members: Sequence[_Member], values: Tensor, masks: Tensor, scratch: _Scratch) -> None:
        (self.steps, height, width), rows, cols = key
        self.members = tuple(members)
        self.plain = _is_plain(key)
        self.count = _padded(members, key)
        block = values[: self.steps * height * width * self.count].view(self.steps, height, width, self.count)
        self.slots = {m.name: block[..., m.first : m.first + m.count].permute(0, 3, 1, 2) for m in members}
        if self.plain:
            height, width = height * width, 1
        self.lines = (self.steps, height, width * self.count)
        self.chunk = _chunk(height // rows.phases)
        self.base = height // self.chunk
        self.row_runs = _runs(rows.border)
        size = block.numel()
        self._sum_rows(rows, scratch)
        self.sources = [self._views(flat[:size]) for flat in (masks, values)]
        self.ranks = _ranks(members)
        self.visited = torch.empty(0)
        if self.plain:
            self.fan = self._fan_out(rows, cols)[:, :, 0, 0]
        else:
            self._sum_columns(cols, width, scratch)
            self._weigh(rows, cols, scratch)

    def _sum_rows(self, rows: Axis, scratch: _Scratch) -> None:
        """``byte_sums`` ``[2, T, classes, W*C]``: masks and values, added over the rows of a class."""
        self.classes = self.base + len(rows.border)
        self.byte_sums = scratch.take(torch.uint8, 2, self.steps, self.classes, self.lines[2])
        chunks = self.base // rows.phases
        self.room = (self.steps, chunks, self.chunk, rows.phases * self.lines[2] // 8)
        self.lanes = [half[:, : self.base].view(torch.int64).view(*self.room[:2], -1) for half in self.byte_sums]
        lengths = [run.stop - run.start for run in self.row_runs]
        self.border_rows = [list(half[:, self.base :].split(lengths, 1)) if lengths else [] for half in self.byte_sums]

    def _views(self, flat: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Bytes; the same as 64-bit lanes ``[T, chunks, rows, lanes]``; their border rows, run by run."""
        runs = [flat.view(self.lines)[:, run] for run in self.row_runs]
        return flat, flat.view(torch.int64).view(self.room), runs

    def _sum_columns(self, cols: Axis, width: int, scratch: _Scratch) -> None:
        """``reduced`` ``[2, T, classes*parts, C]``, below 2**24 like every sum of one channel: float32 holds it."""
        parts = cols.phases + len(cols.border)
        lines = (2 * self.steps, self.classes)
        self.reduced = scratch.take(torch.float32, 2, self.steps, self.classes * parts, self.count)
        target = self.reduced.view(*lines, parts, self.count)
        by_phase = self.byte_sums.view(*lines, width // cols.phases, cols.phases, self.count)
        self.col_sum = (by_phase, target[:, :, : cols.phases])
        self.border_cols: list[tuple[Tensor, Tensor]] = []
        by_column = self.byte_sums.view(*lines, width, self.count)
        place = cols.phases
        for run in _runs(cols.border):
            stop = place + run.stop - run.start
            self.border_cols.append((target[:, :, place:stop], by_column[:, :, run]))
            place = stop

    def _fan_out(self, rows: Axis, cols: Axis) -> AnyArray:
        """Fan-outs ``[ranks-1, T, row parts, column parts, C]`` of the members' first, second ... readers."""
        parts = (rows.phases + len(rows.border), cols.phases + len(cols.border))
        fan = np.zeros((self.ranks - 1, self.steps, *parts, self.count))
        for member in self.members:
            for rank, reader in enumerate(member.readers):
                one = np.einsum("tckx,rk,qx->trqc", reader.taps, rows.factors(reader.rows), cols.factors(reader.cols))
                fan[rank, ..., member.first : member.first + member.count] = one
        return fan

    def _weigh(self, rows: Axis, cols: Axis, scratch: _Scratch) -> None:
        """``weights`` ``[ranks, 1, T, classes*parts, C]``: rank 0 adds everything once, the others are fan-outs."""
        fan = self._fan_out(rows, cols)
        chunks = self.base // rows.phases
        every = [np.tile(fan[:, :, : rows.phases], (1, 1, chunks, 1, 1)), fan[:, :, rows.phases :]]
        weights = np.zeros((self.ranks, self.steps, self.classes, *fan.shape[3:]))
        weights[0, :, : self.base, : cols.phases] = 1
        weights[1:] = np.concatenate(every, axis=2)
        self.weights = torch.from_numpy(weights.reshape(self.ranks, 1, self.steps, -1, self.count))
        self.products = scratch.take(torch.float64, self.ranks, 2, *self.weights.shape[2:])

    def flush(self, direct: Tensor | None = None) -> None:
        """Reduce the slots, or ``direct`` (a lone tensor's bytes, flat), to ``visited`` ``[ranks, 2, T, C]``.

        Rank 0 are plain sums, the others one per reader; those of a plain group are left to the census.
        """
        masks, values = self.sources
        if direct is not None:
            values = self._views(direct)
        torch.clamp(values[0], max=1, out=masks[0])
        for half, (_, lanes, runs) in enumerate((masks, values)):
            torch.sum(lanes, dim=2, out=self.lanes[half])
            for target, source in zip(self.border_rows[half], runs, strict=True):
                target.copy_(source)
        if self.plain:
            torch.sum(self.byte_sums, dim=2, dtype=torch.float64, out=self.visited[0])
            return
        torch.sum(self.col_sum[0], dim=2, dtype=torch.float32, out=self.col_sum[1])
        for target, source in self.border_cols:
            target.copy_(source)
        torch.mul(self.reduced, self.weights, out=self.products)
        torch.sum(self.products, dim=3, out=self.visited)


def _is_plain(key: _Key) -> bool:
    """Whether every position has the same fan-out: 1 x 1 kernels without stride, or no convolution at all."""
    return all(axis.phases == 1 and not axis.border for axis in key[1:])


def _ranks(members: Sequence[_Member]) -> int:
    """Plain sums, and one more for the most readers that a member has."""
    return 1 + max(len(m.readers) for m in members)


def _padded(members: Sequence[_Member], key: _Key) -> int:
    """Channels of a group, such that a row fills whole 64-bit lanes; what lies in the padding has no weight."""
    width = 1 if _is_plain(key) else key[0][2]
    count = members[-1].first + members[-1].count
    while width * count % 8:
        count += 1
    return count


class Census:
    """Collects every spike and image tensor of a phase as it is computed."""

    def __init__(self, program: Program, phase: Phase, order: Sequence[str]) -> None:
        """``order``: names of values in the order in which they will be taken."""
        readers: dict[str, list[Reader]] = {}
        for op in phase.ops:
            arrays = program.op_arrays(op)
            if "weight" in arrays:
                readers.setdefault(op.inputs[0], []).append(reader_of(op, arrays["weight"], phase.spec(op.inputs[0])))
        waiting: dict[_Key, list[_Member]] = {}
        closed: list[tuple[_Key, list[_Member]]] = []
        for name in order:
            steps, count, height, width = phase.spec(name).shape
            mine = tuple(readers.get(name, ()))
            rows = axis_of(height, [(r.stride[0], r.rows) for r in mine])
            cols = axis_of(width, [(r.stride[1], r.cols) for r in mine])
            key = ((steps, height, width), rows, cols)
            group = waiting.setdefault(key, [])
            if group and (group[-1].first + group[-1].count + count) * steps * height * width > _GROUP_BYTES:
                closed.append((key, group))
                waiting[key] = group = []
            group.append(_Member(name, group[-1].first + group[-1].count if group else 0, count, mine))
        # Plain groups first, those with most readers in front: each rank of readers is then one product at the end.
        closed.extend(waiting.items())
        self._build(sorted(closed, key=lambda pair: (not _is_plain(pair[0]), -_ranks(pair[1]))))

    def _build(self, closed: Sequence[tuple[_Key, list[_Member]]]) -> None:
        """Groups of one key never fill at the same time, so they share memory; masks live only during a flush."""
        rooms = [int(np.prod(key[0])) * _padded(members, key) for key, members in closed]
        masks = torch.zeros(max(rooms, default=0), dtype=torch.uint8)
        scratch = _Scratch()
        pools: dict[_Key, Tensor] = {}
        for (key, _), room in zip(closed, rooms, strict=True):
            if key not in pools or len(pools[key]) < room:
                pools[key] = torch.zeros(room, dtype=torch.uint8)
        groups = [_Group(key, members, pools[key], masks, scratch) for key, members in closed]
        self._slots: dict[str, Tensor] = {}
        self._alone: dict[str, _Group] = {}
        self._last: dict[str, _Group] = {}
        for group in groups:
            last = group.members[-1]
            if len(group.members) == 1 and last.count == group.count:
                self._alone[last.name] = group
            else:
                self._slots.update(group.slots)
                self._last[last.name] = group
        self._connect(groups)

    def _connect(self, groups: Sequence[_Group]) -> None:
        """Sums of the plain groups ``[1, 2, T, channels]`` and of the others ``[ranks, 2, T, channels]``."""
        steps = max((g.steps for g in groups), default=1)
        self._plain = _Plane([g for g in groups if g.plain], 1, steps)
        others = [g for g in groups if not g.plain]
        self._others = _Plane(others, max((g.ranks for g in others), default=1), steps)
        self._fans = [self._plain.fan(rank) for rank in range(1, max((g.ranks for g in groups if g.plain), default=1))]

    def take(self, name: str, value: Tensor) -> None:
        """Add one tensor (uint8 ``[T,C,H,W]``)."""
        alone = self._alone.get(name)
        if alone is not None:
            alone.flush(nhwc(value).view(-1))
            return
        self._slots[name].copy_(value)
        group = self._last.get(name)
        if group is not None:
            group.flush()

    def sums(self) -> dict[str, Sums]:
        """All sums, once every tensor has been taken. Arrays in it hold until the next tensor is taken."""
        totals = self._plain.visited[0]
        ranked = [self._plain.add_up(totals)]
        for fan, product in self._fans:
            np.multiply(totals[:, :, : fan.shape[1]], fan, out=product)
            ranked.append(self._plain.add_up(product))
        result = self._plain.named(ranked)
        result.update(self._others.named([self._others.add_up(v) for v in self._others.visited]))
        return result


class _Plane:
    """Sums of several groups side by side: ``visited`` float64 ``[ranks, 2, T, channels]``, and who lies where."""

    def __init__(self, groups: Sequence[_Group], ranks: int, steps: int) -> None:
        visited = torch.zeros((ranks, 2, steps, sum(g.count for g in groups)), dtype=torch.float64)
        self.visited = visited.numpy()
        self.groups = groups
        self.places: list[tuple[str, slice, tuple[str, ...]]] = []
        first = 0
        for g in groups:
            g.visited = visited[: g.ranks, :, : g.steps, first : first + g.count]
            for m in g.members:
                span = slice(first + m.first, first + m.first + m.count)
                self.places.append((m.name, span, tuple(r.op for r in m.readers)))
            first += g.count
        self.starts = np.array([span.start for _, span, _ in self.places], dtype=np.int64)

    def fan(self, rank: int) -> tuple[AnyArray, AnyArray]:
        """Fan-outs ``[T, C]`` of the plain groups with readers of ``rank``, which come first; room for a product."""
        groups = [g for g in self.groups if g.ranks > rank]
        steps = self.visited.shape[2]
        fan = np.zeros((steps, sum(g.count for g in groups)))
        first = 0
        for g in groups:
            fan[: g.steps, first : first + g.count] = g.fan[rank - 1]
            first += g.count
        return fan, np.zeros((2, *fan.shape))

    def add_up(self, sums: AnyArray) -> list[tuple[int, int]]:
        """``[2, T, C]``, or its leading channels, to one pair of integers for each tensor."""
        starts = self.starts[: np.searchsorted(self.starts, sums.shape[2])]
        if not len(starts):
            return []
        first, second = np.add.reduceat(sums, starts, axis=2).sum(axis=1).astype(np.int64).tolist()
        return list(zip(first, second))

    def named(self, ranked: Sequence[Sequence[tuple[int, int]]]) -> dict[str, Sums]:
        """Rank by rank, tensor by tensor -> by name."""
        result = {}
        for index, (name, span, ops) in enumerate(self.places):
            visits = {op: ranked[rank][index] for rank, op in enumerate(ops, start=1)}
            result[name] = Sums(*ranked[0][index], visits, self.visited[0], span)
        return result
