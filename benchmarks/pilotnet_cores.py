"""PilotNet on cores: the published layout and the layouts of this repository's mapper, with the work of every core.

This module decides how a layer's neurons are split, and counts messages, synaptic operations and memory words core by
core from the replayed spikes. It must not know prices nor what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pilotnet import Layer, LayerReplay, PilotNet

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.activity import measured
from spiketrack_deploy.mapping.limits import core_limits
from spiketrack_deploy.mapping.loads import core_synapses
from spiketrack_deploy.mapping.memory import SynapseMemory
from spiketrack_deploy.mapping.placement import place
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.mapping.traffic import traffic
from spiketrack_deploy.mapping.types import ChipMapping, CoreLoads, Population, PopulationGraph, Synapses
from spiketrack_deploy.program.ops.conv import taps

PUBLISHED = {
    "input": 13, "conv1": 25, "conv2": 13, "conv3": 3, "conv4": 3, "conv5": 2, "dense6": 12, "dense7": 1, "dense8": 1,
    "dense9": 1,
}  # fmt: skip
"""Cores per layer in the log of the vendor's compiler, printed by pilotnet_snn/benchmark.ipynb of the lava-dl history
(commit 12f0402). The log names a core's part of a map, such as Conv(4, 15, 36): 4 columns, 15 rows, 36 channels."""
NEURONS_PER_CORE, WORDS_PER_CORE = 4095, 16_000
"""100 % of later logs."""
WORDS_2022 = 12_000
"""Limit of synaptic memory in that log."""
WEIGHT_BITS = 4
"""Nominal weight bits of the published log."""
CONV_BITS, CONV_HEADER = 5, 10
"""Bits of a kernel's weight and of one row of kernel weights that reproduce the published rows of words."""
DENSE_BITS, DENSE_HEADER = 15, 20
"""Bits of a dense synapse and of its row, fitted to the five rows of that log that tell words: 100 outputs take 24
words an input, 17 take 5, 50 take 13, 10 take 3, 1 takes 1. A weight of 8 bits and an index of 7 would need 15."""

Masks = dict[str, dict[int, NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class Layout:
    """``masks``: layer -> core -> boolean array (C, H, W), true for the neurons of that layer on that core."""

    network: PilotNet
    masks: Masks

    @property
    def per_layer(self) -> dict[str, int]:
        """Layer -> cores that hold some of it."""
        return {name: len(masks) for name, masks in self.masks.items()}

    @property
    def cores(self) -> int:
        """Cores in use."""
        return len({core for masks in self.masks.values() for core in masks})


def vendor_slabs(
    shape: tuple[int, int, int], rows: int, bits: int = CONV_BITS, header: int = CONV_HEADER
) -> tuple[int, int]:
    """Channels and columns of one core under the rule that reproduces the published logs.

    ``shape`` (C, H, W) of the layer's output, ``rows``: kernel height * width * input channels. Channels are halved
    until the kernel's words (``rows * ceil((channels * bits + header) / 64)``) and one column of neurons fit a core;
    then a core takes the largest power of two of columns whose neurons fit.
    """
    channels, height, width = shape
    while channels > 1 and (
        rows * -(-(channels * bits + header) // 64) > WORDS_PER_CORE or height * channels > NEURONS_PER_CORE
    ):
        channels = -(-channels // 2)
    columns = 1
    while 2 * columns * height * channels <= NEURONS_PER_CORE and columns < width:
        columns *= 2
    return channels, columns


def vendor_cores(shape: tuple[int, int, int], rows: int, bits: int = CONV_BITS, header: int = CONV_HEADER) -> int:
    """Cores of a layer under :func:`vendor_slabs`."""
    channels, columns = vendor_slabs(shape, rows, bits, header)
    return -(-shape[0] // channels) * -(-shape[2] // columns)


def dense_words(outputs: int) -> int:
    """64-bit words of one input's synapses onto ``outputs`` dense neurons of a core."""
    return -(-(outputs * DENSE_BITS + DENSE_HEADER) // 64)


def dense_cores(outputs: int, inputs: int) -> int:
    """Cores of a dense layer as the log shows them: the parts are multiplied by how far they exceed the memory."""
    parts = 1
    while True:
        words = inputs * dense_words(-(-outputs // parts))
        if words <= WORDS_2022 or parts >= outputs:
            return parts
        parts *= -(-words // WORDS_2022)


def published(network: PilotNet, with_input: bool = True) -> Layout:
    """The layout of the log, by the rules that reproduce it: slabs of columns, dense layers in equal parts.

    ``with_input``: the input layer has cores (PilotNet-LIF; the sigma-delta network's 61 cores hold none of it).
    """
    layers: dict[str, tuple[int, tuple[int, int, int]]] = {"input": (1, network.input_shape)} if with_input else {}
    layers |= {layer.name: (int(np.prod(layer.weight.shape[2:])), layer.shape) for layer in network.layers}
    masks: Masks = {}
    used = 0
    for name, (rows, shape) in layers.items():
        if shape[2] > 1:
            channels, columns = vendor_slabs(shape, rows)
            place = np.arange(shape[2]) // columns + np.arange(shape[0])[:, None] // channels * shape[2]
            owner = np.broadcast_to(place[:, None, :], shape)
        else:
            parts = np.array_split(np.arange(shape[0]), dense_cores(shape[0], rows))
            owner = np.repeat(np.arange(len(parts)), [part.size for part in parts])[:, None, None]
        masks[name] = {used + number: owner == core for number, core in enumerate(np.unique(owner))}
        used += len(masks[name])
    return Layout(network, masks)


def _reaches(layer: Layer, mask: NDArray[np.bool_], before: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Input neurons (C, H, W) that have a non-zero synapse into ``mask``."""
    kernel = layer.weight[0] != 0
    found = np.zeros(before, dtype=bool)
    size = (before[1], before[2])
    for ky, kx, orow, ocol, irow, icol in taps(
        size, layer.shape[1:], kernel.shape[2:], layer.stride, layer.padding, (1, 1)
    ):
        outputs = mask[:, orow, ocol].reshape(mask.shape[0], -1)
        hit = kernel[:, :, ky, kx].T.astype(np.int64) @ outputs.astype(np.int64) > 0
        found[:, irow, icol] |= hit.reshape(found[:, irow, icol].shape)
    return found


def messages(layout: Layout, item: LayerReplay) -> int:
    """Messages into one layer over all steps: every spike once to every core that holds a synapse of it."""
    spikes = item.layer.shaped(item.spikes_in) != 0
    before = (spikes.shape[1], spikes.shape[2], spikes.shape[3])
    per_neuron = spikes.sum(axis=0)
    return sum(
        int(per_neuron[_reaches(item.layer, mask, before)].sum()) for mask in layout.masks[item.layer.name].values()
    )


@dataclass(frozen=True, slots=True)
class CoreWork:
    """What one core does in a mean step: synaptic operations, 64-bit synaptic words read, neuron slots; ``layer``:
    the one that gives it most of its operations."""

    layer: str
    synops: float
    words: float
    neurons: int


def row_words(layer: Layer, mask: NDArray[np.bool_]) -> int:
    """64-bit words that one message and kernel tap (of a dense layer: one message) reads on the core of ``mask``."""
    outputs = int(mask.any(axis=(1, 2)).sum())
    return dense_words(outputs) if layer.dense else -(-(outputs * CONV_BITS + CONV_HEADER) // 64)


def loads(layout: Layout, found: Sequence[LayerReplay]) -> list[CoreWork]:
    """The work of every core in a mean step."""
    items = {item.layer.name: item for item in found}
    synops = {name: item.synops_per_neuron().mean(axis=0) for name, item in items.items()}
    rows = {name: item.rows_per_position().mean(axis=0) for name, item in items.items()}
    cores: dict[int, list[CoreWork]] = {}
    for name, masks in layout.masks.items():
        for core, mask in masks.items():
            work = (0.0, 0.0)
            if name in items:
                read = float(rows[name][mask.any(axis=0)].sum()) * row_words(items[name].layer, mask)
                work = (float(synops[name][mask].sum()), read)
            cores.setdefault(core, []).append(CoreWork(name, *work, int(mask.sum())))
    return [
        CoreWork(
            max(parts, key=lambda part: part.synops).layer,
            sum(part.synops for part in parts),
            sum(part.words for part in parts),
            sum(part.neurons for part in parts),
        )
        for parts in cores.values()
    ]


def mapper_network(network: PilotNet) -> PopulationGraph:
    """PilotNet-LIF as the mapper sees a network. Lava stores x first, so columns here are rows there: the mapper cuts
    along them, as the vendor's compiler does. The input layer's neurons take cores, as in the published log."""
    channels, height, width = network.input_shape
    populations = [Population("input", "input.neurons", "search", "input", "neurons", channels, width, height)]
    synapses = []
    for index, layer in enumerate(network.layers):
        channels, height, width = layer.shape
        name = layer.name
        populations.append(Population(name, f"{name}.neurons", "search", name, "neurons", channels, width, height))
        kernel = layer.weight.shape[4], layer.weight.shape[3]
        stride, padding = (layer.stride[1], layer.stride[0]), (layer.padding[1], layer.padding[0])
        if layer.dense:
            # A dense layer reads its whole input: a kernel as large as the map before it.
            before = network.layers[index - 1].shape
            kernel, stride, padding = (before[2], before[1]), (1, 1), (0, 0)
        # What a synapse takes: the mapper has no dense format, so a dense one is a chain of two native weights.
        bits = DENSE_BITS if layer.dense else WEIGHT_BITS
        synapses.append(Synapses(name, name, "conv", index, index + 1, kernel, stride, padding, bits=bits, weight=name))
    depth = len(populations)
    return PopulationGraph("search", tuple(populations), tuple(synapses), depth, tuple(range(depth)))


def mapper_weights(network: PilotNet) -> dict[str, NDArray[np.int8]]:
    """Weights as :func:`mapper_network` names them, ``[1, O, C, kw, kh]``."""
    found = {}
    for index, layer in enumerate(network.layers):
        weight = layer.weight
        if layer.dense:
            weight = weight.reshape(1, weight.shape[1], *network.layers[index - 1].shape)
        found[layer.name] = np.ascontiguousarray(weight.swapaxes(3, 4))
    return found


def chip_mapping(network: PilotNet, counts: Sequence[LayerCounts], profile: Profile, rule: str) -> ChipMapping:
    """The whole mapping (cores, traffic, placement) by the tracker's own mapper, with the replay's mean counts."""
    whole, limits = mapper_network(network), core_limits(profile)
    activity = measured(whole, mapper_weights(network), counts)
    parts = split(whole, limits, rule)
    flow, entries, copies = traffic(whole, parts.pieces, parts.cores, activity.rate)
    return ChipMapping(
        network=whole,
        limits=limits,
        target=profile.name,
        rule=rule,
        chips_available=None,
        pieces=parts.pieces,
        loads=CoreLoads(parts.neurons, parts.words, parts.axons_in, entries, parts.groups),
        synapses=core_synapses(whole, parts.pieces, parts.cores, activity, SynapseMemory.of(limits)),
        traffic=flow,
        messages=copies * activity.rate,
        copies=copies,
        placement=place(flow, parts.cores, limits, limits.chips_for(parts.cores)),
        breaches=(),
        verdicts=(),
    )


def mapped(network: PilotNet, profile: Profile, rule: str) -> Layout:
    """The layout of ``spiketrack_deploy.mapping.split`` for this chip, by rule ``contiguous`` or ``power_of_two``."""
    whole = mapper_network(network)
    parts = split(whole, core_limits(profile), rule)
    shapes = {"input": network.input_shape} | {layer.name: layer.shape for layer in network.layers}
    masks: Masks = {name: {} for name in shapes}
    for core, population, c0, c1, y0, y1 in parts.pieces.tolist():
        name = whole.populations[population].name
        mask = masks[name].setdefault(core, np.zeros(shapes[name], dtype=bool))
        mask[c0:c1, :, y0:y1] = True
    return Layout(network, masks)
