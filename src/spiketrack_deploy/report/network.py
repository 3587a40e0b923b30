"""The network as a graph of its blocks: where each box stands, what flows between them, what each costs.

This module decides places and figures of the picture. It must not know how it is drawn (:mod:`network_picture`), nor
what a phase or a block is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.report import PhaseEnergy
from spiketrack_deploy.mapping.types import ChipMapping
from spiketrack_deploy.report.data import Json
from spiketrack_deploy.units import Interval

COUNT_OF = {"stream": "relays", "memory": "memory_reads"}
"""Kind of value -> the count of the operation that reads it that says how many messages that takes; else events."""


@dataclass(frozen=True, slots=True)
class Row:
    """A layer: ``energy`` nanojoules of a mean run; ``differing``: share of its spikes that differ from the float
    network's when it is fed with that one's, ``None`` where it has none; ``cores`` that hold a part of it, ``None``
    without chips."""

    counts: LayerCounts
    energy: Interval
    differing: float | None
    cores: int | None


@dataclass(frozen=True, slots=True)
class Box:
    """A block, or an input from outside (no rows). ``rank``: steps from the inputs; ``column`` within the rank."""

    name: str
    rank: int
    column: int
    rows: tuple[Row, ...]
    cores: int | None
    differing: float | None

    @property
    def energy(self) -> float:
        """Nominal nanojoules of a mean run."""
        return sum(row.energy.nominal for row in self.rows)

    @property
    def synops(self) -> float:
        """Synaptic operations of a mean run, multiply-accumulates of an image among them."""
        return sum(row.counts["synops"] + row.counts["macs"] for row in self.rows)


@dataclass(frozen=True, slots=True)
class Link:
    """Messages of a mean run from one box to another (indices)."""

    source: int
    target: int
    messages: float


@dataclass(frozen=True, slots=True)
class Network:
    """One phase."""

    phase: str
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Columns and ranks."""
        return max(b.column for b in self.boxes) + 1, max(b.rank for b in self.boxes) + 1


def network(phase: PhaseEnergy, described: Json, parity: Sequence[Json], mapping: ChipMapping | None) -> Network:
    """``described``: the phase of ``program.describe``; ``parity``: layers of parity.json; ``mapping``: of this phase,
    where it was mapped."""
    names = list(described["blocks"])
    outside = [link["from"] for link in described["links"] if link["from"] not in names]
    order = [*dict.fromkeys(outside), *names]
    place = {name: index for index, name in enumerate(order)}
    counts = {layer.name: layer for layer in phase.counts}
    links = tuple(
        Link(place[x["from"]], place[x["to"]], sum(_messages(counts[op], kind) for op, kind in x["reads"]))
        for x in described["links"]
    )
    rank = _ranks(len(order), [(link.source, link.target) for link in links])
    column = _columns(rank, links, {place[name] for name in outside})
    differing = {row["name"]: row for row in parity if row["phase"] == phase.name and row["spikes"]}
    by_op, by_block = _cores(mapping)
    rows: dict[str, list[Row]] = {name: [] for name in order}
    for layer, cost in zip(phase.counts, phase.layers, strict=True):
        cores = by_op.get(layer.name, 0) if mapping else None
        rows[layer.block].append(Row(layer, cost.total, _share([differing.get(layer.name)]), cores))
    boxes = tuple(
        Box(
            name,
            rank[index],
            column[index],
            tuple(rows[name]),
            by_block.get(name, 0) if mapping and rows[name] else None,
            _share([differing.get(row.counts.name) for row in rows[name]]),
        )
        for index, name in enumerate(order)
    )
    return Network(phase.name, boxes, links)


def _messages(layer: LayerCounts, kind: str) -> float:
    return layer[COUNT_OF.get(kind, "events")]


def _share(rows: Sequence[Json | None]) -> float | None:
    found = [row for row in rows if row]
    spikes = sum(row["spikes"] for row in found)
    return sum(row["forced_mismatches"] for row in found) / spikes if spikes else None


def _ranks(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Longest way from the inputs. Links against the order of execution (a block may be entered twice) do not count; an
    input stands one above its first reader."""
    rank = [0] * count
    for target in range(count):
        rank[target] = max((rank[s] + 1 for s, t in links if t == target and s < target), default=0)
    for source in range(count):
        if not any(t == source for _, t in links):
            rank[source] = max(0, min((rank[t] - 1 for s, t in links if s == source), default=0))
    return rank


def _columns(rank: Sequence[int], links: Sequence[Link], outside: set[int]) -> list[int]:
    """Within a rank: the box that most messages reach stands first, inputs last, so that the main way is straight."""
    flow = [0.0] * len(rank)
    for link in links:
        flow[link.target] += link.messages
    column = [0] * len(rank)
    for one in set(rank):
        members = sorted((i for i in range(len(rank)) if rank[i] == one), key=lambda i: (i in outside, -flow[i], i))
        for place, index in enumerate(members):
            column[index] = place
    return column


def _cores(mapping: ChipMapping | None) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Cores that hold a part of an operation, and of a block."""
    if mapping is None:
        return {}, {}
    held: dict[str, set[int]] = {}
    blocks: dict[str, set[int]] = {}
    populations = mapping.network.populations
    for core, index, *_ in mapping.pieces.tolist():
        held.setdefault(populations[index].op, set()).add(core)
        blocks.setdefault(populations[index].block, set()).add(core)
    return {name: len(cores) for name, cores in held.items()}, {name: len(cores) for name, cores in blocks.items()}
