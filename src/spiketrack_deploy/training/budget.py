"""What a configuration needs of a chip, before anything is trained: slots, relays, words, cores, multiply-accumulates.

This module decides how a search phase is counted against a chip's limits; the limits come from a hardware profile. The
network is walked with shapes only, so that the count cannot drift from the tracker. Rules:
docs/training.md, docs/loihi.md. It must not know weights nor where a core lies (``mapping``).

    slots   one per output of every NI-LIF neuron call of a search frame
    relays  one per element of every residual sum ``x + f(x)``, where a stream is passed on as graded neurons
    words   64-bit words, kh kw C_in ceil((C_out_of_the_core b + h) / 64) of a convolution, b = 9 and h = 10 bits
            (weight plus one, as measured rows suggest), and a template's matrix as the synapses of both its queries
    cores   greedy in execution order: a core is filled with positions of one operation after the other while neurons,
            words and neuron groups last; every core that holds part of a convolution holds its own copy of the words
    alone   cores if no two operations and no relays shared one: the fewest (channel x position) slices of each
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_WALK, REQUIRED_STAGES, TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.neuron import NILIF

WEIGHT_BITS, ROW_BITS, WORD_BITS = 9, 10, 64
FREE_SHARE = 0.15
"""Share of the slots to keep free for what a real mapping adds (docs/training.md)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """One chip: cores, and of a core its neurons, its 64-bit synapse words and its neuron groups."""

    cores: int
    neurons: int
    words: int
    groups: int

    @property
    def slots(self) -> int:
        """Neurons of the whole chip."""
        return self.cores * self.neurons


@dataclass(frozen=True, slots=True)
class Operation:
    """Something whose outputs are neurons of cores: ``rows`` synapse rows that each reach ``fan`` outputs at one
    position."""

    name: str
    channels: int
    positions: int
    rows: int
    fan: int

    def words(self, channels: int) -> int:
        """Words of a core that holds ``channels`` output channels."""
        reached = min(self.fan, channels)
        rows = self.rows if self.fan > 1 else math.ceil(self.rows * channels / self.channels)
        return rows * math.ceil((reached * WEIGHT_BITS + ROW_BITS) / WORD_BITS)

    def split(self, limits: Limits) -> tuple[int, int]:
        """(cores for this operation alone, channels of a core)."""
        best: tuple[int, int] | None = None
        for slices in range(1, self.channels + 1):
            channels = math.ceil(self.channels / slices)
            fits = limits.neurons // channels
            if fits == 0 or self.words(channels) > limits.words:
                continue
            cores = math.ceil(self.channels / channels) * math.ceil(self.positions / fits)
            if best is None or cores < best[0]:
                best = (cores, channels)
        if best is None:
            raise InputError(
                f"{self.name}: one output channel alone needs {self.words(1)} words, a core has {limits.words}"
            )
        return best


@dataclass(frozen=True, slots=True)
class Budget:
    """The counts of one search phase. ``macs``: dense, padding counted, products with key-value matrices included."""

    name: str
    slots: int
    relays: int
    words: int
    words_with_copies: int
    cores: int
    cores_alone: int
    macs: int
    parameters: int

    def free(self, limits: Limits) -> float:
        """Share of the chip's slots that stays free behind neurons and relays."""
        return 1 - (self.slots + self.relays) / limits.slots

    def fits(self, limits: Limits) -> bool:
        """Whether neurons and relays are within one chip, neighbours sharing cores."""
        return self.cores <= limits.cores

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def chip_limits(profile: str = "loihi2") -> Limits:
    """Limits of a hardware profile; :class:`InputError` where it has none (``cpu``)."""
    found = load_profile(profile).limits
    names = ("cores_per_chip", "neurons_per_core_compiler", "synaptic_words_per_core", "neuron_groups_per_core")
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"profile {profile} has no limit {', '.join(missing)}, so nothing can be counted against it")
    cores, neurons, words, groups = (int(found[name].value) for name in names)
    return Limits(cores, neurons, words, groups)


class _Walk:
    """Watches a search frame of shapes."""

    def __init__(self, config: TrackerConfig) -> None:
        self.slots, self.macs, self.called = 0, 0, 0
        self.operations: list[Operation] = []
        with torch.device("meta"):
            self.model = SpikeTrack(config).eval()
        self._calls: dict[str, int] = {}
        for path, module in self.model.named_modules():
            if isinstance(module, NILIF):
                module.tap = self._neuron(path)
            elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
                module.register_forward_hook(self._conv(path))
        self._run(config)

    def _run(self, config: TrackerConfig) -> None:
        with torch.no_grad(), torch.device("meta"):
            side = config.resolution
            memories = {}
            for stage in config.walk:
                if stage.startswith("mrm."):
                    width = config.width(stage)
                    d = width // config.heads
                    shape = (config.templates, 1, config.heads, d, config.value_ratio * d)
                    memories[int(stage[4:])] = torch.zeros(shape)
            self.model.search_branch(torch.zeros(1, 1, 3, side, side), memories)

    def _neuron(self, path: str) -> Any:
        def tap(spikes: Tensor) -> None:
            self.slots += spikes.numel()
            self._calls[path] = self._calls.get(path, 0) + 1
            second = path.endswith("retriever.q_spike") and self._calls[path] == 2
            if second or path.endswith("attn_spike"):
                self._product(path, spikes, memory="retriever" in path)

        return tap

    def _product(self, path: str, spikes: Tensor, memory: bool) -> None:
        """``q M``, and for attention of a frame with itself ``k^T v`` as well: channels times d per position."""
        channels, positions = spikes.shape[2], spikes.shape[3:].numel() * spikes.shape[0]
        d = self._head_width(path)
        self.macs += channels * positions * d * (1 if memory else 2)
        heads = self.model.config.heads
        rows = d * heads if memory else 0
        self.operations.append(Operation(path, channels, positions, rows, channels // heads))

    def _head_width(self, path: str) -> int:
        stage = ".".join(path.split(".")[1:3])
        return self.model.config.width(stage) // self.model.config.heads

    def _conv(self, path: str) -> Any:
        def count(conv: nn.Conv2d, _: object, out: Tensor) -> None:
            taps = math.prod(conv.kernel_size)
            positions = out.shape[2:].numel() * out.shape[0]
            self.macs += conv.out_channels * positions * taps * conv.in_channels // conv.groups
            fan = conv.out_channels // conv.groups
            self.operations.append(Operation(path, conv.out_channels, positions, taps * conv.in_channels, fan))

        return count


def budget(config: TrackerConfig, limits: Limits) -> Budget:
    """Count the search phase of ``config`` against one chip of ``limits``."""
    walk = _Walk(config)
    relays = [
        Operation(f"{s} relay", config.width(s), config.side(s) ** 2, 0, 1)
        for s in config.walk
        for _ in range(_sums(s))
    ]
    together = [*walk.operations, *relays]
    cores, copies = pack(together, limits)
    return Budget(
        config.name,
        walk.slots,
        sum(op.channels * op.positions for op in relays),
        sum(op.words(op.channels) for op in walk.operations),
        copies,
        cores,
        sum(op.split(limits)[0] for op in together),
        walk.macs,
        sum(p.numel() for p in walk.model.parameters()),
    )


def pack(operations: Sequence[Operation], limits: Limits) -> tuple[int, int]:
    """(cores, words with copies) of the greedy rule: neighbours share what a core has left."""
    cores, copies = 1, 0
    neurons, words, groups = limits.neurons, limits.words, limits.groups
    for op in operations:
        channels = op.split(limits)[1]
        for first in range(0, op.channels, channels):
            width = min(channels, op.channels - first)
            need, left = op.words(width), op.positions
            while left:
                here = min(left, neurons // width) if groups and words >= need else 0
                if here == 0:
                    cores += 1
                    neurons, words, groups = limits.neurons, limits.words, limits.groups
                    continue
                neurons, words, groups, left = neurons - here * width, words - need, groups - 1, left - here
                copies += need
    return cores, copies


def _sums(stage: str) -> int:
    """Residual sums of a stage."""
    if stage.startswith(("ConvBlock", "mrm.")):
        return 2
    return 3 if stage.startswith("block") else 0


OPTIONAL_SETS: tuple[tuple[str, ...], ...] = (
    ("mrm.2",),
    ("mrm.3",),
    ("mrm.2", "mrm.3"),
    ("block3.0", "mrm.3"),
    ("mrm.2", "block3.0", "mrm.3"),
    ("mrm.2", "block3.0", "mrm.3", "block3.3"),
)
CONV_SETS: tuple[tuple[str, ...], ...] = (
    ("ConvBlock2_1.0",),
    ("ConvBlock1_2.0", "ConvBlock2_1.0"),
    ("ConvBlock2_1.0", "ConvBlock2_2.0"),
    ("ConvBlock1_2.0", "ConvBlock2_1.0", "ConvBlock2_2.0"),
)
WIDTHS: tuple[tuple[int, int, int], ...] = (
    (16, 32, 64),
    (24, 48, 64),
    (24, 48, 96),
    (32, 64, 96),
    (24, 64, 96),
    (32, 64, 128),
)
SIDES = (96, 112, 128)


def candidates(base: TrackerConfig) -> Iterator[TrackerConfig]:
    """The searched space: sides, widths d0 d1 d2, conv blocks, retrievers and transformer blocks, expansions of 2
    and 4."""
    for side, widths, convs, late, expansion in product(SIDES, WIDTHS, CONV_SETS, OPTIONAL_SETS, (2, 4)):
        wanted = {*REQUIRED_STAGES, *convs, *late}
        walk = tuple(stage for stage in OFFICIAL_WALK if stage in wanted)
        name = f"{side}_{'-'.join(map(str, widths))}_{'+'.join(convs)}_{'+'.join(late)}_e{expansion}"
        yield replace(
            base,
            name=name[:100],
            dims=(*widths, base.dims[3]),
            resolution=side,
            walk=walk,
            head_width=min(base.head_width, widths[2]),
            conv_expansion=expansion,
            mlp_expansion=expansion,
        )


def search(base: TrackerConfig, limits: Limits, told: Callable[[int], None] = lambda done: None) -> list[Budget]:
    """Of every side and set of retrievers and blocks the fitting candidate with most multiply-accumulates, most first.

    Fitting: one chip, relays included, and neurons alone leave :data:`FREE_SHARE` of it free. ``told`` gets the number
    of candidates counted so far.
    """
    best: dict[tuple[int, tuple[str, ...]], Budget] = {}
    for done, candidate in enumerate(candidates(base), start=1):
        found = budget(candidate, limits)
        told(done)
        if not found.fits(limits) or found.slots > (1 - FREE_SHARE) * limits.slots:
            continue
        kind = candidate.resolution, tuple(s for s in candidate.walk if s.startswith(("mrm.", "block")))
        if kind not in best or found.macs > best[kind].macs:
            best[kind] = found
    return sorted(best.values(), key=lambda b: -b.macs)
