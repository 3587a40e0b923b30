"""What a mapped network is made of: populations, synapses, pieces on cores, breaches, verdicts.

This module decides the data that ``mapping`` hands around. It must not know how a network is split (``split``), placed
(``placement``) or timed (``latency``), nor any chip. Everything here is plain data with a ``to_dict`` for JSON; the
pieces of a large network (over 100,000) are columns of one array and become :class:`Piece` only when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Geometry = tuple[int, int]
NEURON_PARTS = ("integrate", "reset", "fire")
"""Kinds of operations that are parts of a neuron."""


def summed(where: IntArray, weights: FloatArray, size: int) -> FloatArray:
    """Sums of ``weights`` by index ``where``, ``[size]``."""
    sums: FloatArray = np.bincount(where, weights=weights, minlength=size).astype(np.float64)
    return sums


@dataclass(frozen=True, slots=True)
class Population:
    """Neurons ``[channels, height, width]`` of one operation at one unrolled time step ``step``.

    ``op``: operation of the program; ``block``: block of the network. ``kind``: ``neurons`` (NI-LIF), ``relay`` (stream
    accumulators that pass their value on), ``memory`` (entries of a matrix k^T v), ``host`` (operations of the host),
    ``image``, ``entry`` and ``input`` (pixels, what a first layer on the host makes of them, and a state of another
    phase, which enter from outside). The last four take no core. ``keeps``: operation whose stream these neurons sum
    and pass on beside their spikes (``populations.MERGED``).
    """

    name: str
    op: str
    phase: str
    block: str
    kind: str
    channels: int
    height: int
    width: int
    step: int = 0
    keeps: str = ""

    @property
    def slots(self) -> int:
        """Neurons of the population."""
        return self.channels * self.height * self.width

    @property
    def on_chip(self) -> bool:
        """Takes neurons of a core."""
        return self.kind not in ("host", "image", "entry", "input")

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Synapses:
    """A bundle of synapses from population ``source`` to population ``target`` (indices into the network).

    ``op``: the operation whose weights they are (or that causes the wiring). ``form``: ``conv`` (shared kernel),
    ``identity`` (one to one: stream relays, membranes carried to the next unrolled step), ``pool`` (sums over a
    window), ``upsample`` (bilinear), ``matrix`` (a state's matrix as rewritable synapses), ``product`` (of two live
    activations), ``host`` (messages to or from the host). ``transposed``: the source's position
    (row-major) is the target's input channel and the source's channel the target's row (gate). ``weight``: key of
    the program's array and ``shared`` the step's index in it; ``None`` where every weight is fixed by ``form``.
    ``bits``: bits of a weight, sign included. ``delay``: steps that a message waits so that frames in the pipeline
    stay apart (0: arrives in the next step).
    """

    name: str
    op: str
    form: str
    source: int
    target: int
    kernel: Geometry = (1, 1)
    stride: Geometry = (1, 1)
    padding: Geometry = (0, 0)
    dilation: Geometry = (1, 1)
    groups: int = 1
    bits: int = 8
    weight: str | None = None
    shared: int = 0
    transposed: bool = False
    delay: int = 0


@dataclass(frozen=True, slots=True)
class PopulationGraph:
    """Populations in execution order and the synapses between them. ``phase``: which phase of the program."""

    phase: str
    populations: tuple[Population, ...]
    synapses: tuple[Synapses, ...]
    depth: int
    """populations on the longest way from the image to an output: the levels that a run passes"""
    level: tuple[int, ...] = ()
    """level of every population: 0 enters from outside, else one above the highest that it reads"""

    @property
    def slots(self) -> dict[str, int]:
        """Kind -> neurons, kinds that take cores."""
        sums: dict[str, int] = {}
        for p in self.populations:
            if p.on_chip:
                sums[p.kind] = sums.get(p.kind, 0) + p.slots
        return sums

    def incoming(self) -> list[list[int]]:
        """Per population the indices of the synapses that end in it."""
        found: list[list[int]] = [[] for _ in self.populations]
        for index, synapses in enumerate(self.synapses):
            found[synapses.target].append(index)
        return found


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """What one core and one chip hold; ``None``: the profile states no such limit."""

    neurons: int
    words: int | None
    axons_in: int | None
    axons_out: int | None
    groups: int | None
    weight_bits: int | None
    payload_bits: int | None
    cores_per_chip: int
    cores_per_tile: int
    tiles_x: int
    tiles_y: int
    neurons_compiler: bool = False
    """``neurons`` is what the vendor's compiler allows, which is less than the core holds"""
    family: str = field(kw_only=True)
    """family of the chip, a key of ``families.FAMILIES``"""
    usable: tuple[int, int] | None = None
    """least and most cores of a chip that a network can be placed on, where sources disagree"""
    built: int | None = None
    """cores of a chip on paper, where that is more"""
    memory: int | None = None
    """bytes of a core that synapses, neuron state and input axons share"""
    state_bytes: int = 0
    axon_bytes: int = 0

    def chips_for(self, cores: int, per_chip: int | None = None) -> int:
        """Chips that hold so many cores, at least one. ``per_chip``: another number of usable cores."""
        return max(1, -(-cores // (per_chip or self.cores_per_chip)))

    def bytes_of(self, words: int, neurons: int, axons: int) -> int:
        """Bytes of a core's memory that so many words of synapses, neurons and input axons take together."""
        return 8 * words + self.state_bytes * neurons + self.axon_bytes * axons

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Piece:
    """Channels ``[c0, c1)`` of rows ``[y0, y1)`` of a population, all columns, on one core."""

    core: int
    population: int
    c0: int
    c1: int
    y0: int
    y1: int


@dataclass(frozen=True, slots=True)
class CoreLoads:
    """Loads per core, one int64 array ``[cores]`` each. ``words``: 64-bit words of synaptic memory. ``axons_out``:
    entries of the axon map, one per position of the core's neurons and destination core. ``groups``: populations."""

    neurons: IntArray
    words: IntArray
    axons_in: IntArray
    axons_out: IntArray
    groups: IntArray

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Largest and mean load."""
        return {
            key: {"max": int(value.max(initial=0)), "mean": float(value.mean()) if value.size else 0.0}
            for key in ("neurons", "words", "axons_in", "axons_out", "groups")
            for value in [getattr(self, key)]
        }


@dataclass(frozen=True, slots=True)
class Fix:
    """A change that would help, and its computed effect."""

    change: str
    effect: str
    cores: int | None = None
    chips: int | None = None
    fits: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that is exceeded: ``used`` of ``limit``, by which operation, and what would help."""

    rule: str
    op: str
    used: int
    limit: int
    remedy: str
    fatal: bool = True
    """``False``: another way exists (a capability that the chip lacks), so it alone does not end in exit code 4"""

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON data, with the part in excess."""
        return asdict(self) | {"over_by": self.used - self.limit}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the chip can do one operation: ``native``, ``microcode`` or ``host``, and why."""

    op: str
    kind: str
    verdict: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Fields as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where every core lies: router column and row on the mesh that spans all chips, and the chip, ``[cores]`` each.

    ``hops``: messages times hops. ``row_major``: the same for cores in program order, chip by chip, row by row.
    ``bound``: what no placement on this mesh can undercut (``placement.lower_bound``).
    """

    x: IntArray
    y: IntArray
    chip: IntArray
    chips_x: int
    chips_y: int
    hops: float
    row_major: float
    bound: float

    def to_dict(self) -> dict[str, Any]:
        """Totals and ratios."""
        return {
            "weighted_hops": self.hops,
            "row_major_hops": self.row_major,
            "lower_bound_hops": self.bound,
            "saved_over_row_major": 1 - self.hops / self.row_major if self.row_major else 0.0,
            "gap_to_lower_bound": self.hops / self.bound - 1 if self.bound else None,
            "chips_x": self.chips_x,
            "chips_y": self.chips_y,
        }


@dataclass(frozen=True, slots=True)
class Traffic:
    """Messages between cores: edge ``i`` carries ``messages[i]`` a run from ``source[i]`` to ``target[i]``, all of them
    for populations of level ``level[i]``."""

    source: IntArray
    target: IntArray
    level: IntArray
    messages: FloatArray


@dataclass(frozen=True, slots=True)
class CoreSynapses:
    """Synapses per core. ``nonzero`` int64 ``[cores]``: non-zero synapses that end in the core, borders respected;
    ``by_level``, ``words`` float64 ``[depth + 1, cores]``: how many of them are visited in a run while a level works,
    and 64-bit words of synaptic memory read then. ``words_a_visit`` float64 ``[synapses]``: words that a
    visit of one non-zero synapse of a bundle reads in the mean."""

    nonzero: IntArray
    by_level: FloatArray
    words: FloatArray
    words_a_visit: FloatArray

    @property
    def synops(self) -> FloatArray:
        """Visits of a run, ``[cores]``."""
        total: FloatArray = self.by_level.sum(axis=0)
        return total


@dataclass(frozen=True, slots=True)
class ChipMapping:
    """A network on cores. ``pieces``: int64 ``[n, 6]`` with the columns of :class:`Piece`, sorted by core.

    ``chips``: chips it takes. ``chips_available``: chips of the board, ``None`` for a chip family, which takes as many
    as needed. ``rule``: by which layers were split. ``messages``: per bundle of synapses, messages per run, every
    destination core counted; ``copies``: the same if every source neuron sent.
    """

    network: PopulationGraph
    limits: CoreLimits
    target: str
    rule: str
    chips_available: int | None
    pieces: IntArray
    loads: CoreLoads
    synapses: CoreSynapses
    traffic: Traffic
    messages: FloatArray
    copies: FloatArray
    placement: Placement
    breaches: tuple[Breach, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def cores(self) -> int:
        """Number of cores used."""
        return int(self.loads.neurons.size)

    @property
    def chips(self) -> int:
        """Chips that hold so many cores."""
        return self.limits.chips_for(self.cores)

    @property
    def powered(self) -> int:
        """Chips that draw power: those of the board, of a chip family those that it takes."""
        return max(self.chips_available or 0, self.chips)

    @property
    def holds(self) -> bool:
        """No limit is exceeded for which there is no other way."""
        return not any(breach.fatal for breach in self.breaches)

    @property
    def host_operations(self) -> int:
        """Operations that the chip leaves to a host."""
        return sum(verdict.verdict == "host" for verdict in self.verdicts)

    @property
    def programmed(self) -> list[bool]:
        """Per population, whether its neurons run a program (else they are hard-coded)."""
        native = {verdict.op for verdict in self.verdicts if verdict.verdict == "native"}
        # Parts of a neuron that are operations of their own make every neuron of the network a program.
        parts = any(v.kind in NEURON_PARTS and v.op not in native for v in self.verdicts)
        known = self.network.populations
        return [parts or p.kind != "neurons" or bool(p.keeps) or p.op not in native for p in known]

    def iter_pieces(self) -> Iterator[Piece]:
        """The rows of ``pieces`` as values."""
        for row in self.pieces.tolist():
            yield Piece(*row)

    def layers_of(self, core: int) -> list[str]:
        """Names of the populations that a core holds part of."""
        held = self.pieces[self.pieces[:, 0] == core, 1]
        return [self.network.populations[i].name for i in dict.fromkeys(held.tolist())]
