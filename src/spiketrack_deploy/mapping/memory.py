"""What synapses take of a core: words of synaptic memory and input axons.

This module decides how bundles of synapses are counted, group by group and kernel by kernel. How one row of them lies
in memory is the chip family's (``families``). It must not know how a population is split, nor any profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from spiketrack_deploy.mapping.families import FAMILIES, Family
from spiketrack_deploy.mapping.types import CoreLimits, IntArray, Population, Synapses
from spiketrack_deploy.program.ops.stream import upsample_matrix

Intervals = Sequence[tuple[int, int]]
"""Disjoint channel ranges ``[a, b)`` of a target population."""


@dataclass(frozen=True, slots=True)
class SynapseMemory:
    """Words and axons of a bundle of synapses on chips of ``family``.

    ``weight_bits``: widest native weight; wider ones are chained. ``neurons``: neurons of a core, which an index may
    have to address.
    """

    family: Family
    weight_bits: int | None
    neurons: int

    @classmethod
    def of(cls, limits: CoreLimits) -> SynapseMemory:
        """The memory of a core with these limits."""
        return cls(FAMILIES[limits.family], limits.weight_bits, limits.neurons)

    def row_words(self, outputs: int, taps: int, bits: int) -> int:
        """Words of one input channel towards ``outputs`` channels of a core, all ``taps`` of the kernel."""
        if not outputs:
            return 0
        chain = -(-bits // self.weight_bits) if self.weight_bits else 1
        bits = min(bits, self.weight_bits) if self.weight_bits else bits
        return chain * self.family.row_words(outputs, taps, bits, self.neurons)

    def words(self, s: Synapses, source: Population, target: Population, channels: Intervals) -> int:
        """Words of synaptic memory for the part of ``s`` that ends in ``channels`` of ``target``."""
        if s.form in ("product", "host") or source.kind == "host":
            return 0
        taps = s.kernel[0] * s.kernel[1]
        if s.form == "upsample":
            taps = border_taps(source.height, s.stride[0]) * border_taps(source.width, s.stride[1])
        return input_channels(s, source) // s.groups * self._rows(s, target, channels, taps)

    def words_read(self, s: Synapses, target: Population, channels: Intervals) -> int:
        """Words read where one position of the source's group visits ``channels`` of ``target`` by one tap."""
        return self._rows(s, target, channels, 1)

    def _rows(self, s: Synapses, target: Population, channels: Intervals, taps: int) -> int:
        return sum(
            times * self.row_words(outputs, taps, s.bits)
            for outputs, times in group_sizes(channels, target.channels // s.groups).items()
        )

    def axons(self, s: Synapses, source: Population, rows: int) -> int:
        """Input axons for ``rows`` rows as the kernel sees them (channels of the source where ``s`` is transposed)."""
        if source.kind == "host" or s.form == "host":
            return 0
        return rows * input_size(s, source)[1] * self.family.axon_slots(input_channels(s, source))


@cache
def border_taps(size: int, factor: int) -> int:
    """Taps of all kernels of an interpolation along one axis; first and last position of a source have their own."""
    matrix = upsample_matrix(size, factor)
    return sum(len(kernel) for kernel in {tuple(column[column != 0].tolist()) for column in matrix.T})


def input_channels(s: Synapses, source: Population) -> int:
    """Input channels as the kernel sees them."""
    return source.height * source.width if s.transposed else source.channels


def input_size(s: Synapses, source: Population) -> tuple[int, int]:
    """Input height and width as the kernel sees them."""
    return (source.channels, 1) if s.transposed else (source.height, source.width)


def group_sizes(channels: Intervals, per_group: int) -> dict[int, int]:
    """How many groups have how many of their ``per_group`` outputs in ``channels``: size -> number of groups."""
    edges: dict[int, int] = {}
    full = 0
    for a, b in channels:
        first, last = -(-a // per_group), b // per_group
        full += max(0, last - first)
        if first > last:  # inside one group
            edges[a // per_group] = edges.get(a // per_group, 0) + b - a
            continue
        if a % per_group:
            edges[a // per_group] = edges.get(a // per_group, 0) + first * per_group - a
        if b % per_group:
            edges[last] = edges.get(last, 0) + b - last * per_group
    sizes = {per_group: full} if full else {}
    for size in edges.values():
        sizes[size] = sizes.get(size, 0) + 1
    return sizes


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Channel ranges, joined where they touch."""
    found: list[tuple[int, int]] = []
    for c0, c1 in sorted(ranges):
        if found and c0 <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], c1))
        else:
            found.append((c0, c1))
    return found


def valid_taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> IntArray:
    """``[kernel, out]``, 1 where the tap of an output falls on a pixel and not on the padding."""
    at = np.arange(out)[None] * stride + np.arange(kernel)[:, None] * dilation - padding
    return ((at >= 0) & (at < size)).astype(np.int64)


def columns_read(s: Synapses, source: Population, target: Population) -> int:
    """Columns of the source that any target reads (a kernel smaller than its stride leaves some out)."""
    if s.transposed or s.form in ("product", "host", "upsample"):
        return source.width
    at = np.arange(target.width)[:, None] * s.stride[1] + np.arange(s.kernel[1])[None] * s.dilation[1] - s.padding[1]
    return int(np.unique(at[(at >= 0) & (at < source.width)]).size)


def rows_read(s: Synapses, source: Population, target: Population) -> IntArray:
    """``[target rows, source rows]`` (as the kernel sees them), 1 where a target row reads a source row."""
    if s.transposed:
        return np.eye(target.height, source.channels, dtype=np.int64)
    if s.form in ("product", "host"):
        return np.ones((target.height, source.height), dtype=np.int64)
    if s.form == "upsample":
        nonzero: IntArray = (upsample_matrix(source.height, s.stride[0]) != 0).astype(np.int64)
        # A scaled network (mapping.fixes) may round a target to more rows than its source gives: the last one again.
        return nonzero[np.minimum(np.arange(target.height), len(nonzero) - 1)]
    at = np.arange(target.height)[:, None] * s.stride[0] + np.arange(s.kernel[0])[None] * s.dilation[0] - s.padding[0]
    found = np.zeros((target.height, source.height), dtype=np.int64)
    row, tap = np.nonzero((at >= 0) & (at < source.height))
    found[row, at[row, tap]] = 1
    return found
