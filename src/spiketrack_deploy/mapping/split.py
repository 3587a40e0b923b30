"""Splits populations over neurocores: channels x rows, within every limit of a core.

This module decides which neurons share a core. It must not know where cores lie, nor what anything costs.

A population is cut into blocks of channels whose kernels take at most :data:`BLOCK_WORDS` words, so that a core has
room for many positions of them; within a block its rows follow one another, all channels of a row first. The *unit* is
one channel of one row. The units of all populations, in execution order, form one sequence, and every core takes the
longest run of it that stays within the limits. For a given sequence this greedy cut is optimal, because every part of a
run that fits fits too; and because the sequence does not depend on the limits, a tighter limit never needs fewer cores.

With a cap on the expected synaptic operations of a core (``Work``) the busiest core, which sets the time of a step,
does less, and more cores are used: a unit above the cap still gets a core to itself.

``power_of_two`` is the other rule: rows per core are powers of two, channels are halved until they fit, and cores are
not shared, as public logs of the vendor's compiler show (YOLO-KP 574 cores, the convolutions of PilotNet 59:
docs/loihi.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.mapping.memory import SynapseMemory, merged, rows_read
from spiketrack_deploy.mapping.types import CoreLimits, FloatArray, IntArray, Population, PopulationGraph, Synapses

RULES = ("contiguous", "power_of_two")
BLOCK_WORDS = 7500
"""Just under half of the smallest synaptic memory (16,000 words): a core that straddles two blocks still fits."""


@dataclass(frozen=True, slots=True)
class Overflow:
    """A unit that no core can hold: ``used`` of ``limit`` by rule ``rule``."""

    rule: str
    population: int
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Work:
    """Expected synaptic operations: per population ``[channels, height]``, and the most that one core shall do."""

    rows: Sequence[FloatArray]
    cap: float


@dataclass(frozen=True, slots=True)
class Split:
    """``pieces`` int64 ``[n, 6]`` (core, population, c0, c1, y0, y1), sorted by core; within a core and block they are
    disjoint in channels. ``neurons``, ``words``, ``axons_in``, ``groups``: per core."""

    pieces: IntArray
    neurons: IntArray
    words: IntArray
    axons_in: IntArray
    groups: IntArray
    overflows: tuple[Overflow, ...]

    @property
    def cores(self) -> int:
        """Number of cores."""
        return int(self.neurons.size)


class PopulationUnits:
    """One population's units and what a run of them takes."""

    def __init__(
        self,
        index: int,
        network: PopulationGraph,
        incoming: Sequence[int],
        model: SynapseMemory,
        work: Work | None = None,
    ) -> None:
        self.index, self.model = index, model
        self.population = network.populations[index]
        self.incoming: list[tuple[Synapses, Population]] = []
        self.rows: list[IntArray] = []
        self.spans: list[tuple[list[int], list[int], bool]] = []
        for number in incoming:
            s = network.synapses[number]
            source = network.populations[s.source]
            self.incoming.append((s, source))
            self._add_rows(rows_read(s, source, self.population))
        self.block = self._block()
        self.count = self.population.channels * self.population.height
        self.done: FloatArray | None = None if work is None else self._done(work.rows[index])

    def _add_rows(self, read: IntArray) -> None:
        """First and last row read per target row; ``solid``: runs of target rows read every row between."""
        first = np.where(read.any(axis=1), read.argmax(axis=1), read.shape[1])
        last = np.where(read.any(axis=1), read.shape[1] - read[:, ::-1].argmax(axis=1), 0)
        solid = bool(np.all(read.sum(axis=1) == np.maximum(last - first, 0)) and np.all(first[1:] <= last[:-1]))
        self.rows.append(read)
        self.spans.append((first.tolist(), last.tolist(), solid))

    def _done(self, rows: FloatArray) -> FloatArray:
        """Work of all units before each unit, ``[units + 1]``."""
        blocks = [rows[c : c + self.block].T.ravel() for c in range(0, self.population.channels, self.block)]
        return np.concatenate([np.zeros(1), np.cumsum(np.concatenate(blocks))])

    def affordable(self, start: int, budget: float) -> int:
        """The end of the longest run from ``start`` whose work is within ``budget``."""
        if self.done is None:
            return self.count
        return int(np.searchsorted(self.done, self.done[start] + max(budget, 0.0), side="right")) - 1

    def _block(self) -> int:
        """Channels of a block: as few blocks as keep a block's kernels within BLOCK_WORDS."""
        channels = self.population.channels
        for blocks in range(1, channels + 1):
            size = -(-channels // blocks)
            if self.words([(0, size)]) <= BLOCK_WORDS:
                return size
        return 1

    def words(self, channels: Sequence[tuple[int, int]]) -> int:
        return sum(self.model.words(s, source, self.population, channels) for s, source in self.incoming)

    def parts(self, start: int, end: int) -> list[tuple[int, int, int, int]]:
        """``(c0, c1, y0, y1)`` of the units ``[start, end)``: rectangles, disjoint in channels."""
        height, found = self.population.height, []
        span = self.block * height
        for number in range(start // span, (end - 1) // span + 1):
            base = number * self.block
            size = min(self.block, self.population.channels - base)
            first, last = max(start - number * span, 0), min(end - number * span, size * height)
            y0, a = divmod(first, size)
            y1, b = divmod(last, size)
            for c0, c1 in _cut(size, a, b):
                top, bottom = y0 + (c0 < a), y1 + (c0 < b)
                if top < bottom:
                    found.append((base + c0, base + c1, top, bottom))
        return found

    def load(self, start: int, end: int) -> tuple[int, int]:
        """``(words, input axons)`` of the units ``[start, end)``."""
        parts = self.parts(start, end)
        words = self.words(merged((c0, c1) for c0, c1, _, _ in parts))
        axons = 0
        for number, (s, source) in enumerate(self.incoming):
            axons += self.model.axons(s, source, self._source_rows(number, parts))
        return words, axons

    def _source_rows(self, number: int, parts: Sequence[tuple[int, int, int, int]]) -> int:
        first, last, solid = self.spans[number]
        if solid and len(parts) < 4:
            runs = sorted((first[y0], last[y1 - 1]) for _, _, y0, y1 in parts)
            total, reached = 0, 0
            for a, b in runs:
                total += max(0, b - max(a, reached))
                reached = max(reached, b)
            return total
        read = self.rows[number]
        rows = np.zeros(read.shape[1], dtype=bool)
        for _, _, y0, y1 in parts:
            rows |= read[y0:y1].any(axis=0)
        return int(rows.sum())


def _cut(size: int, a: int, b: int) -> list[tuple[int, int]]:
    """Channels of a block at the marks where its first and its last row begin and end."""
    marks = sorted({0, size, a, b})
    return list(itertools.pairwise(marks))


class _Filler:
    """Fills core after core with runs of units."""

    def __init__(self, limits: CoreLimits, work: Work | None = None) -> None:
        self.limits = limits
        self.cap = float("inf") if work is None else work.cap
        self.work = 0.0
        self.pieces: list[tuple[int, ...]] = []
        self.loads: list[tuple[int, int, int, int]] = []
        self.overflows: list[Overflow] = []
        self.used = [0, 0, 0, 0]

    def close(self) -> None:
        if self.used[3]:
            self.loads.append((self.used[0], self.used[1], self.used[2], self.used[3]))
        self.used = [0, 0, 0, 0]
        self.work = 0.0

    def fits(self, units: PopulationUnits, start: int, end: int) -> bool:
        added = units.load(start, end)
        words, axons = self.used[1] + added[0], self.used[2] + added[1]
        limits, neurons = self.limits, self.used[0] + (end - start) * units.population.width
        return (
            (limits.words is None or words <= limits.words)
            and (limits.axons_in is None or axons <= limits.axons_in)
            and (limits.memory is None or limits.bytes_of(words, neurons, axons) <= limits.memory)
        )

    def reach(self, units: PopulationUnits, start: int) -> int:
        """The end of the longest run from ``start`` that the open core can take."""
        if self.limits.groups is not None and self.used[3] >= self.limits.groups:
            return start
        end = min(units.count, start + (self.limits.neurons - self.used[0]) // units.population.width)
        if units.done is not None:
            end = min(end, units.affordable(start, self.cap - self.work))
        if end <= start or self.fits(units, start, end):
            return max(end, start)
        low, high = start, end
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(units, start, middle) else (low, middle)
        return low

    def take(self, units: PopulationUnits, start: int, end: int) -> None:
        words, axons = units.load(start, end)
        core = len(self.loads)
        self.pieces.extend((core, units.index, *part) for part in units.parts(start, end))
        added = ((end - start) * units.population.width, words, axons, 1)
        self.used = [old + new for old, new in zip(self.used, added)]
        if units.done is not None:
            self.work += float(units.done[end] - units.done[start])

    def fill(self, units: PopulationUnits) -> None:
        start = 0
        while start < units.count:
            end = self.reach(units, start)
            if end == start:
                if self.used[3]:
                    self.close()
                    continue
                end = start + 1
                self._overflow(units, start)
            self.take(units, start, end)
            start = end
            if start < units.count:
                self.close()

    def _overflow(self, units: PopulationUnits, unit: int) -> None:
        words, axons = units.load(unit, unit + 1)
        neurons = units.population.width
        used = {"neurons": neurons, "words": words, "axons_in": axons, "groups": 1}
        used["memory"] = self.limits.bytes_of(words, neurons, axons)
        for rule, amount in used.items():
            limit = getattr(self.limits, rule)
            if limit is not None and amount > limit:
                self.overflows.append(Overflow(rule, units.index, amount, limit))


def split(network: PopulationGraph, limits: CoreLimits, rule: str = "contiguous", work: Work | None = None) -> Split:
    """Split ``network`` over as many cores as it takes. ``rule``: ``contiguous`` or ``power_of_two`` (see the module).

    Deterministic. What no core can hold (one row of one channel) still gets a core, and an :class:`Overflow`.
    ``work``: cap on the work of a core (rule ``contiguous`` alone). UsageError for another rule.
    """
    if rule not in RULES:
        raise UsageError(f"there is no split rule {rule!r}; choose one of {', '.join(RULES)}")
    model = SynapseMemory.of(limits)
    incoming = network.incoming()
    filler = _Filler(limits, work)
    for index, population in enumerate(network.populations):
        if not population.on_chip:
            continue
        units = PopulationUnits(index, network, incoming[index], model, work)
        if rule == "power_of_two":
            _tiles(filler, units)
        else:
            filler.fill(units)
    filler.close()
    loads = np.array(filler.loads, dtype=np.int64).reshape(-1, 4)
    pieces = np.array(filler.pieces, dtype=np.int64).reshape(-1, 6)
    return Split(pieces, loads[:, 0], loads[:, 1], loads[:, 2], loads[:, 3], tuple(filler.overflows))


def _tiles(filler: _Filler, units: PopulationUnits) -> None:
    """Halve the channels until one row's neurons and the kernels fit, then double the rows while they fit."""
    filler.close()
    p, limits = units.population, filler.limits

    def fits(channels: int, rows: int) -> bool:
        words, neurons = units.words([(0, min(channels, p.channels))]), min(channels, p.channels) * rows * p.width
        inside = limits.words is None or words <= limits.words
        inside &= limits.memory is None or limits.bytes_of(words, neurons, 0) <= limits.memory
        return inside and neurons <= limits.neurons

    channels = p.channels
    while channels > 1 and not fits(channels, 1):
        channels = -(-channels // 2)
    rows = 1
    while rows < p.height and fits(channels, 2 * rows):
        rows *= 2
    for c0 in range(0, p.channels, channels):
        for y0 in range(0, p.height, rows):
            c1, y1 = min(c0 + channels, p.channels), min(y0 + rows, p.height)
            words = units.words([(c0, c1)])
            axons = sum(
                units.model.axons(s, source, units._source_rows(n, [(c0, c1, y0, y1)]))
                for n, (s, source) in enumerate(units.incoming)
            )
            filler.pieces.append((len(filler.loads), units.index, c0, c1, y0, y1))
            filler.used = [(c1 - c0) * (y1 - y0) * p.width, words, axons, 1]
            filler.close()
