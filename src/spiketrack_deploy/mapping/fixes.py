"""What would make a network fit: each change mapped again, and what running it in turns would cost.

This module decides which changes are tried. It must not know prices. A change alters the structure alone: what it does
to the network's accuracy is not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from spiketrack_deploy.mapping.limits import WORD_BYTES
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.mapping.types import ChipMapping, Fix, Population, PopulationGraph

CHANNELS = (0.75, 0.5, 0.25)
CROPS = (0.75, 0.5, 0.25)
NARROW_BITS = 4


def fixes(mapping: ChipMapping) -> tuple[Fix, ...]:
    """Fewer channels, a smaller crop, fewer bits, more chips: cores and chips each needs, and whether it then fits.

    Of the channels and of the crops, the mildest that fits is the last one tried.
    """
    found = []
    for change, factors, scaled in (
        ("channels", CHANNELS, fewer_channels),
        ("crop side", CROPS, smaller_crop),
    ):
        for factor in factors:
            fix = _try(mapping, f"{change} x {factor:g}", scaled(mapping.network, factor))
            found.append(fix)
            if fix.fits:
                break
    narrow = replace(
        mapping.network, synapses=tuple(replace(s, bits=min(s.bits, NARROW_BITS)) for s in mapping.network.synapses)
    )
    found.append(_try(mapping, f"weights of {NARROW_BITS} bits", narrow))
    found.append(_more_chips(mapping))
    return tuple(found)


def _try(mapping: ChipMapping, change: str, network: PopulationGraph) -> Fix:
    parts = split(network, mapping.limits)
    chips = mapping.limits.chips_for(parts.cores)
    fits = not parts.overflows and (mapping.chips_available is None or chips <= mapping.chips_available)
    saved = 1 - parts.cores / mapping.cores if mapping.cores else 0.0
    effect = f"{parts.cores:,} cores, {chips:,} chips ({saved:.0%} fewer cores)"
    return Fix(change, effect, parts.cores, chips, fits)


def _more_chips(mapping: ChipMapping) -> Fix:
    core_level = any(b.fatal and b.rule != "chips" for b in mapping.breaches)
    effect = f"{mapping.chips} chips hold the network as it is"
    if core_level:
        effect = "does not help: a single row of a layer exceeds a core"
    return Fix("more chips", effect, mapping.cores, mapping.chips, not core_level)


def _heads(network: PopulationGraph) -> int:
    """Channels stay a multiple of the heads of every product."""
    return math.lcm(*(s.groups for s in network.synapses if s.form in ("product", "matrix")))


def _narrower(channels: int, factor: float, heads: int) -> int:
    return min(channels, max(heads, round(channels * factor / heads) * heads))


def _fixed(network: PopulationGraph) -> set[int]:
    """Populations whose channels are the task's: images, and streams that nothing reads, which are the results."""
    read = {s.source for s in network.synapses}
    return {
        index
        for index, p in enumerate(network.populations)
        if p.kind == "image" or (p.kind == "relay" and index not in read)
    }


def _tokenwise(network: PopulationGraph) -> set[int]:
    """Populations whose channels are positions and whose rows are channels (behind a transposition)."""
    found = {s.target for s in network.synapses if s.transposed}
    for s in network.synapses:
        if s.source in found and network.populations[s.target].width == 1 and s.form in ("conv", "identity"):
            found.add(s.target)
    return found


def _rebuilt(network: PopulationGraph, populations: list[Population]) -> PopulationGraph:
    """Synapses with groups that still divide the changed populations."""
    synapses = []
    for s in network.synapses:
        old, new = network.populations[s.target], populations[s.target]
        source = network.populations[s.source]
        depthwise = s.groups == old.channels and s.groups == source.channels
        groups = new.channels if depthwise or s.groups == old.channels else s.groups
        synapses.append(replace(s, groups=groups if not new.channels % groups else 1))
    return replace(network, populations=tuple(populations), synapses=tuple(synapses))


def fewer_channels(network: PopulationGraph, factor: float) -> PopulationGraph:
    """The network with so many of its channels; those that are the task's stay."""
    tokens, fixed, heads = _tokenwise(network), _fixed(network), _heads(network)
    changed = []
    for index, p in enumerate(network.populations):
        if index in tokens:
            p = replace(p, height=_narrower(p.height, factor, heads))
        if p.kind == "memory":
            p = replace(p, width=_narrower(p.width, factor, heads))
        if index not in tokens and index not in fixed:
            p = replace(p, channels=_narrower(p.channels, factor, heads))
        changed.append(p)
    return _rebuilt(network, changed)


def smaller_crop(network: PopulationGraph, factor: float) -> PopulationGraph:
    """The network on a crop of so much of its side."""
    tokens = _tokenwise(network)
    changed = []
    for index, p in enumerate(network.populations):
        if index in tokens:
            p = replace(p, channels=max(1, round(p.channels * factor * factor)))
        elif p.kind != "memory" and p.height > 1:
            p = replace(p, height=max(1, round(p.height * factor)), width=max(1, round(p.width * factor)))
        changed.append(p)
    return _rebuilt(network, changed)


@dataclass(frozen=True, slots=True)
class Turns:
    """The network on fewer chips, part after part: weights are loaded again for every part of every run.

    ``turns`` parts; ``reload_bytes``: synaptic memory written per run; ``kept_values``: neuron outputs that have to
    be stored between parts and sent again.
    """

    chips: int
    turns: int
    reload_bytes: int
    kept_values: int

    def to_dict(self) -> dict[str, Any]:
        """JSON data; the price in words where it is not known."""
        return {
            "chips": self.chips,
            "turns_per_frame": self.turns,
            "weight_bytes_reloaded_per_frame": self.reload_bytes,
            "values_kept_between_turns": self.kept_values,
            "energy": "unknown: the energy and time of loading weights were never published",
            "latency": "a frame takes all steps of all turns, plus the reloads",
        }


def in_turns(mapping: ChipMapping, chips: int) -> Turns | None:
    """The network on ``chips`` chips in turns; ``None`` where it fits at once."""
    capacity = chips * mapping.limits.cores_per_chip
    turns = -(-mapping.cores // capacity)
    if turns <= 1:
        return None
    last_turn = {}
    for core, population, *_ in mapping.pieces.tolist():
        last_turn[population] = core // capacity
    kept = {
        s.source
        for s in mapping.network.synapses
        if last_turn.get(s.target, 0) > last_turn.get(s.source, 0) and mapping.network.populations[s.source].on_chip
    }
    values = sum(mapping.network.populations[index].slots for index in kept)
    return Turns(chips, turns, int(mapping.loads.words.sum()) * WORD_BYTES, values)
