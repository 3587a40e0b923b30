"""What a configuration needs of a target, before anything is trained: neurons, relays, words, cores, MACs.

This module decides what is stated. Cores are the mapper's: the configuration is
compiled, with drawn weights where there are none yet, and its main phase is split by ``mapping.split`` within the
limits that ``spiketrack map`` uses. Weights decide one thing alone: whether a stream is rounded behind an upsampling,
which takes a population of its own. This module must not know where a core lies.

    neurons, relays, matrix   neurons of cores: every output of a NI-LIF neuron, stream accumulators that pass their
                              value on, entries of matrices that are written while the phase runs
    words                     64-bit words of synaptic memory, one copy of every kernel; with copies: as the cores hold
                              them
    cores alone               cores if no two populations shared one
    MACs                      dense, padding counted, products with matrices included
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from spiketrack_deploy.energy.layers import main_phase, runs_per_result, shape_counts
from spiketrack_deploy.frontends.compile import compile
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.limits import core_limits
from spiketrack_deploy.mapping.memory import SynapseMemory
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.mapping.types import CoreLimits, PopulationGraph
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.draw import draw_state
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack


@dataclass(frozen=True, slots=True)
class Room:
    """What a target offers: so many chips (of a chip family: one) with so many cores each."""

    name: str
    limits: CoreLimits
    chips: int

    @classmethod
    def of(cls, target: Target) -> Room:
        """ProfileError where nothing can be mapped to the target."""
        return cls(target.name, core_limits(target.profile), target.profile.chips or 1)

    @property
    def cores(self) -> int:
        """Cores of all chips."""
        return self.chips * self.limits.cores_per_chip

    @property
    def slots(self) -> int:
        """Neurons of all chips."""
        return self.cores * self.limits.neurons


@dataclass(frozen=True, slots=True)
class Budget:
    """The counts of one configuration's main phase. ``over``: names of layers of which a single row exceeds a core."""

    name: str
    neurons: int
    relays: int
    matrix: int
    words: int
    words_with_copies: int
    cores: int
    cores_alone: int
    macs: int
    parameters: int
    over: tuple[str, ...]

    @property
    def slots(self) -> int:
        """Neurons of cores that it takes, of every kind."""
        return self.neurons + self.relays + self.matrix

    def free(self, room: Room) -> float:
        """Share of the slots that stays free."""
        return 1 - self.slots / room.slots

    def fits(self, room: Room) -> bool:
        """Whether the target holds it, neighbours sharing cores."""
        return self.cores <= room.cores and not self.over

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "slots": self.slots}


def budget(config: TrackerConfig, room: Room, weights: Path | None = None) -> Budget:
    """Count the main phase of ``config`` against a target. ``weights``: its checkpoint, where it has one."""
    program = compile(weights or drawn(config)).program
    phase = main_phase(runs_per_result(program))
    graph = populations(program, phase)
    parts = split(graph, room.limits)
    return Budget(
        name=config.name,
        neurons=graph.slots.get("neurons", 0),
        relays=graph.slots.get("relay", 0),
        matrix=graph.slots.get("memory", 0),
        words=_words(graph, room.limits),
        words_with_copies=int(parts.words.sum()),
        cores=parts.cores,
        cores_alone=split(graph, replace(room.limits, groups=1)).cores,
        macs=sum(int(layer["dense_macs"]) for layer in shape_counts(program, phase)),
        parameters=parameters(config),
        over=tuple(dict.fromkeys(graph.populations[o.population].name for o in parts.overflows)),
    )


def drawn(config: TrackerConfig) -> SpikeTrackSource:
    """A tracker of this configuration with drawn weights."""
    with torch.device("meta"):
        model = SpikeTrack(config)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    state = {key: torch.as_tensor(value) for key, value in draw_state(config.name, shapes).items()}
    model.load_state_dict(state, assign=True)
    return SpikeTrackSource(model.eval())


def parameters(config: TrackerConfig) -> int:
    """Weights of a network of this configuration."""
    with torch.device("meta"):
        return sum(p.numel() for p in SpikeTrack(config).parameters())


def _words(graph: PopulationGraph, limits: CoreLimits) -> int:
    """Words of every kernel once, as if a core held all channels of its population."""
    memory = SynapseMemory.of(limits)
    return sum(
        memory.words(s, graph.populations[s.source], target, [(0, target.channels)])
        for s in graph.synapses
        for target in [graph.populations[s.target]]
        if target.on_chip
    )
