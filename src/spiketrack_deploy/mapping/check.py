"""Checks a mapping with arithmetic of its own: nothing lost, nothing twice, no core beyond a limit.

This module decides whether a mapping is right. It must not know how it was made: it imports the data types and shares
no function with the splitting, the memory model or the counting of the mapper. What it counts, it counts from the
program: every neuron of every operation painted once, kernels of every core enumerated channel by channel, synapses by
walking over the taps of the weights.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from spiketrack_deploy.mapping.types import ChipMapping, IntArray, Population, Synapses
from spiketrack_deploy.program.describe import has_neurons
from spiketrack_deploy.program.types import Program


def defects(mapping: ChipMapping, program: Program) -> list[str]:
    """Everything wrong with ``mapping``, in words; empty if nothing is."""
    return [
        *_coverage(mapping),
        *_slots(mapping, program),
        *_neurons(mapping),
        *_words(mapping),
        *_synapses(mapping, program),
        *_seats(mapping),
    ]


def _coverage(mapping: ChipMapping) -> list[str]:
    """Every row of every channel lies on exactly one core."""
    painted = [np.zeros((p.channels, p.height), dtype=np.int64) for p in mapping.network.populations]
    for piece in mapping.iter_pieces():
        painted[piece.population][piece.c0 : piece.c1, piece.y0 : piece.y1] += 1
    found = []
    for population, paint in zip(mapping.network.populations, painted):
        wanted = 0 if population.kind in ("host", "image", "entry", "input") else 1
        if np.any(paint != wanted):
            found.append(f"{population.name}: rows lie on {int(paint.min())} to {int(paint.max())} cores")
    return found


def _slots(mapping: ChipMapping, program: Program) -> list[str]:
    """As many neurons as the operations that fire or are read out have outputs, operation by operation."""
    phase = program.phases[mapping.network.phase]
    have: Counter[str] = Counter()
    for population in mapping.network.populations:
        if population.kind in ("neurons", "entry"):
            have[population.op] += population.channels * population.height * population.width
    wanted = {op.name: int(np.prod(phase.values[op.name].shape)) for op in phase.ops if has_neurons(op)}
    return [f"{name}: {have[name]} neurons, the program has {n}" for name, n in wanted.items() if have[name] != n]


def _neurons(mapping: ChipMapping) -> list[str]:
    held: Counter[int] = Counter()
    groups: dict[int, set[int]] = {}
    for piece in mapping.iter_pieces():
        width = mapping.network.populations[piece.population].width
        held[piece.core] += (piece.c1 - piece.c0) * (piece.y1 - piece.y0) * width
        groups.setdefault(piece.core, set()).add(piece.population)
    limits, found = mapping.limits, []
    for core, amount in sorted(held.items()):
        if amount != mapping.loads.neurons[core]:
            found.append(f"core {core}: {amount} neurons, the mapping says {mapping.loads.neurons[core]}")
        if amount > limits.neurons and not _known(mapping, "neurons"):
            found.append(f"core {core}: {amount} neurons, limit {limits.neurons}")
        taken = limits.bytes_of(int(mapping.loads.words[core]), amount, int(mapping.loads.axons_in[core]))
        if limits.memory is not None and taken > limits.memory and not _known(mapping, "memory"):
            found.append(f"core {core}: {taken} bytes, limit {limits.memory}")
        if limits.groups is not None and len(groups[core]) > limits.groups:
            found.append(f"core {core}: {len(groups[core])} groups, limit {limits.groups}")
    return found


def _known(mapping: ChipMapping, rule: str) -> bool:
    return any(breach.rule == rule for breach in mapping.breaches)


def _words(mapping: ChipMapping) -> list[str]:
    """Synaptic memory of every core, from the set of output channels that it holds of every population."""
    held: dict[tuple[int, int], set[int]] = {}
    for piece in mapping.iter_pieces():
        held.setdefault((piece.core, piece.population), set()).update(range(piece.c0, piece.c1))
    by_target: dict[int, list[Synapses]] = {}
    for synapses in mapping.network.synapses:
        by_target.setdefault(synapses.target, []).append(synapses)
    words = np.zeros(mapping.cores, dtype=np.int64)
    for (core, index), channels in held.items():
        for synapses in by_target.get(index, []):
            words[core] += _bundle_words(mapping, synapses, channels)
    found = []
    for core in np.nonzero(words != mapping.loads.words)[0].tolist():
        found.append(f"core {core}: {words[core]} words of synapses, the mapping says {mapping.loads.words[core]}")
    limit = mapping.limits.words
    if limit is not None and not _known(mapping, "words"):
        found += [f"core {core}: {words[core]} words, limit {limit}" for core in np.nonzero(words > limit)[0].tolist()]
    return found


def _bundle_words(mapping: ChipMapping, synapses: Synapses, channels: set[int]) -> int:
    """The rule of the chip's family (docs/loihi.md, "A core's memory"), written out once more."""
    if synapses.form in ("product", "host"):
        return 0
    source: Population = mapping.network.populations[synapses.source]
    target: Population = mapping.network.populations[synapses.target]
    inputs = source.height * source.width if synapses.transposed else source.channels
    per_group = Counter(channel * synapses.groups // target.channels for channel in channels)
    native = mapping.limits.weight_bits or synapses.bits
    parts, bits = -(-synapses.bits // native), min(synapses.bits, native)
    taps = synapses.kernel[0] * synapses.kernel[1]
    if synapses.form == "upsample":
        taps = _kernels(source.height, synapses.stride[0]) * _kernels(source.width, synapses.stride[1])
    rows = sum(_ROWS[mapping.limits.family](n, taps, bits, mapping.limits.neurons) for n in per_group.values())
    return parts * rows * (inputs // synapses.groups)


def _kernels(size: int, factor: int) -> int:
    """Taps of the different kernels of a bilinear interpolation along one axis, position by position of the source."""
    found = set()
    for at in range(size):
        taps = []
        for out in range(size * factor):
            place = max((out + 0.5) / factor - 0.5, 0.0)
            left = int(place)
            weight = (1 - place + left) * (at == left) + (place - left) * (at == min(left + 1, size - 1))
            taps += [round(2 * factor * weight)] if weight else []
        found.add(tuple(taps))
    return sum(len(taps) for taps in found)


def _shared_kernel(outputs: int, taps: int, bits: int, neurons: int) -> int:
    return taps * ((outputs * (bits + 1) + 10 + 63) // 64)


def _indexed_blocks(outputs: int, taps: int, bits: int, neurons: int) -> int:
    index = min(b for b in (0, 6, 7, 8, 9, 10, 11, 12) if 2**b >= neurons or b == 12)
    left, words = outputs * taps, 0
    while left:
        block = min(left, 64)
        words += (block * (bits + index) + 10 + 63) // 64
        left -= block
    return words


_ROWS = {"loihi1": _indexed_blocks, "loihi2": _shared_kernel}


def _synapses(mapping: ChipMapping, program: Program) -> list[str]:
    """Non-zero synapses of every convolution, tap by tap over the weights; the cores' sums must give the same."""
    network, phase = mapping.network, program.phases[mapping.network.phase]
    convolutions: Counter[str] = Counter(s.op for s in network.synapses if s.form == "conv")
    steps = {op.name: phase.values[op.name].shape[0] for op in phase.ops}
    readers = Counter(name for op in phase.ops for name in dict.fromkeys(op.inputs))
    found = [
        f"{op}: wired {n} times for {steps[op]} steps"
        for op, n in convolutions.items()
        if n not in (steps[op], steps[op] * readers[op])
    ]
    entered = {p.op for p in network.populations if p.kind == "entry"}
    outside = {name for op in phase.ops if op.name in entered for name in op.inputs}
    missing = [op.name for op in phase.ops if "weight" in op.arrays and op.name not in {*convolutions, *outside}]
    found += [f"{name}: its synapses are nowhere" for name in missing]
    total = sum(_walk(mapping, s, program) for s in network.synapses)
    if total != int(mapping.synapses.nonzero.sum()):
        found.append(f"{int(mapping.synapses.nonzero.sum())} synapses on the cores, the program has {total}")
    return found


def _walk(mapping: ChipMapping, s: Synapses, program: Program) -> int:
    source, target = mapping.network.populations[s.source], mapping.network.populations[s.target]
    if s.form in ("product", "host"):
        return 0
    if s.form == "identity":
        return target.slots
    if s.form == "matrix":
        return target.slots * (source.channels // s.groups)
    if s.form == "pool":
        return target.slots * s.kernel[0] * s.kernel[1]
    if s.form == "upsample":
        return target.channels * _bilinear(source.height, s.stride[0]) * _bilinear(source.width, s.stride[1])
    height, width = (source.channels, 1) if s.transposed else (source.height, source.width)
    weight = program.arrays[s.weight or ""][s.shared]
    total = 0
    for ky in range(s.kernel[0]):
        rows = _inside(height, target.height, ky * s.dilation[0] - s.padding[0], s.stride[0])
        for kx in range(s.kernel[1]):
            columns = _inside(width, target.width, kx * s.dilation[1] - s.padding[1], s.stride[1])
            total += int(np.count_nonzero(weight[:, :, ky, kx])) * rows * columns
    return total


def _inside(size: int, outputs: int, offset: int, stride: int) -> int:
    return sum(0 <= o * stride + offset < size for o in range(outputs))


def _bilinear(size: int, factor: int) -> int:
    """Non-zero interpolation weights along one axis: output o lies at (o + 1/2) / factor - 1/2, clamped to the ends."""
    total = 0
    for o in range(size * factor):
        twice = 2 * o + 1 - factor  # numerator of the position over 2 * factor
        low, rest = divmod(min(max(twice, 0), 2 * factor * (size - 1)), 2 * factor)
        total += 2 if rest and low + 1 < size else 1
    return total


def _seats(mapping: ChipMapping) -> list[str]:
    """No two cores in one place, no router with more cores than it has."""
    place, limits = mapping.placement, mapping.limits
    seats: Counter[tuple[int, int]] = Counter(zip(place.x.tolist(), place.y.tolist()))
    found = [f"router {at} holds {n} cores" for at, n in seats.items() if n > limits.cores_per_tile]
    on_chip: Counter[int] = Counter(place.chip.tolist())
    found += [f"chip {chip} holds {n} cores" for chip, n in on_chip.items() if n > limits.cores_per_chip]
    if place.x.size != mapping.cores:
        found.append(f"{place.x.size} places for {mapping.cores} cores")
    return found


def core_of(mapping: ChipMapping) -> list[IntArray]:
    """Per population ``[channels, height]``: the core of every row (-1 where there is none)."""
    found = [np.full((p.channels, p.height), -1, dtype=np.int64) for p in mapping.network.populations]
    for piece in mapping.iter_pieces():
        found[piece.population][piece.c0 : piece.c1, piece.y0 : piece.y1] = piece.core
    return found
