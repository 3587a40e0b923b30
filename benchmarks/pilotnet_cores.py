"""PilotNet-LIF on cores: the published layout, the layout of this repository's mapper, and what each does to time.

This module decides how a layer's neurons are split, counts messages and synaptic operations core by core from the
replayed spikes, and predicts the step. It must not know what was measured.

    t_step = max over cores of max(synops * t_synop, neurons * t_neuron) + barrier      (Timcheck 2026, a lower bound)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pilotnet import Layer, LayerReplay, PilotNet

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import ProfileError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.program.semantics import taps
from spiketrack_deploy.program.types import IntArray
from spiketrack_deploy.units import Interval

PUBLISHED = {
    "input": 13, "conv1": 25, "conv2": 13, "conv3": 3, "conv4": 3, "conv5": 2, "dense6": 12, "dense7": 1, "dense8": 1,
    "dense9": 1,
}  # fmt: skip
"""Cores per layer of the vendor's compiler (public resource log)."""
NEURONS_PER_CORE, WORDS_PER_CORE = 4095, 16_000
"""100 % of the vendor's compiler log."""

Masks = dict[str, list[NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class Layout:
    """``masks``: layer -> one boolean array (C, H, W) per core, true for the neurons that it holds."""

    network: PilotNet
    masks: Masks

    @property
    def per_layer(self) -> dict[str, int]:
        """Layer -> cores."""
        return {name: len(masks) for name, masks in self.masks.items()}

    @property
    def cores(self) -> int:
        """Cores of the network, each with neurons of one layer."""
        return sum(self.per_layer.values())


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step, the busiest core's layer, and which of its two terms is the larger."""

    total: Interval
    busiest: str
    bottleneck: str


def vendor_slabs(
    shape: tuple[int, int, int], rows: int, bits: int = 5, header: int = 10
) -> tuple[int, int]:
    """Channels and columns of one core under the rule that reproduces the published logs.

    ``shape`` (C, H, W) of the layer's output, ``rows`` its kernel height * width * input channels. Channels are halved
    until the kernel's words (``rows * ceil((channels * bits + header) / 64)``) and one column of neurons fit a core; then
    a core takes the largest power of two of columns whose neurons fit.
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


def vendor_cores(shape: tuple[int, int, int], rows: int, bits: int = 5, header: int = 10) -> int:
    """Cores of a layer under :func:`vendor_slabs`."""
    channels, columns = vendor_slabs(shape, rows, bits, header)
    return -(-shape[0] // channels) * -(-shape[2] // columns)


def published(network: PilotNet) -> Layout:
    """The published cores per layer: slabs of columns (:func:`vendor_slabs`); the dense layers as the log counts them.

    The log holds cores and neurons per core; that a slab is a power of two of columns is inferred from both.
    """
    layers: dict[str, tuple[int, tuple[int, int, int]]] = {"input": (1, network.input_shape)}
    layers |= {layer.name: (int(np.prod(layer.weight.shape[2:])), layer.shape) for layer in network.layers}
    masks: Masks = {}
    for name, (rows, shape) in layers.items():
        if shape[2] > 1:
            channels, columns = vendor_slabs(shape, rows)
            place = np.arange(shape[2]) // columns + np.arange(shape[0])[:, None] // channels * shape[2]
            owner = np.broadcast_to(place[:, None, :], shape)
        else:
            share = -(-shape[0] // PUBLISHED[name])
            owner = np.broadcast_to((np.arange(shape[0]) // share)[:, None, None], shape)
        masks[name] = [owner == core for core in np.unique(owner)]
    return Layout(network, masks)


def _reaches(layer: Layer, mask: NDArray[np.bool_], before: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Input neurons (C, H, W) that have a non-zero synapse into ``mask``."""
    kernel = layer.weight[0] != 0
    found = np.zeros(before, dtype=bool)
    size = (before[1], before[2])
    for ky, kx, orow, ocol, irow, icol in taps(size, layer.shape[1:], kernel.shape[2:], layer.stride, layer.padding, (1, 1)):
        outputs = mask[:, orow, ocol].reshape(mask.shape[0], -1)
        hit = kernel[:, :, ky, kx].T.astype(np.int64) @ outputs.astype(np.int64) > 0
        found[:, irow, icol] |= hit.reshape(found[:, irow, icol].shape)
    return found


def messages(layout: Layout, item: LayerReplay) -> int:
    """Messages into one layer over all steps: every spike once to every core that holds a synapse of it."""
    spikes = item.layer.shaped(item.spikes_in)
    before = (spikes.shape[1], spikes.shape[2], spikes.shape[3])
    per_neuron = spikes.sum(axis=0)
    return sum(int(per_neuron[_reaches(item.layer, mask, before)].sum()) for mask in layout.masks[item.layer.name])


def messages_per_spike(layout: Layout, found: Sequence[LayerReplay]) -> float:
    """Mean number of destination cores of a spike."""
    return sum(messages(layout, item) for item in found) / sum(item.counts.events for item in found)


def with_messages(
    layout: Layout, found: Sequence[LayerReplay], rows: Sequence[Sequence[LayerCounts]]
) -> list[list[LayerCounts]]:
    """Counts of ``pilotnet.per_step`` in which every spike is a message to each of its destination cores."""
    sent = {item.layer.name: messages(layout, item) for item in found}
    first = [
        replace(row, counts={**row.counts, "events": sent[row.name]}) if row.name in sent else row for row in rows[0]
    ]
    return [first, *map(list, rows[1:])]


def _loads(layout: Layout, found: Sequence[LayerReplay]) -> list[tuple[str, float, int]]:
    """(layer, synaptic operations a step, neurons) of every core."""
    received: dict[str, IntArray | NDArray[np.float64]] = {"input": np.zeros(layout.network.input_shape)}
    received |= {item.layer.name: item.synops_per_neuron().mean(axis=0) for item in found}
    return [
        (name, float(received[name][mask].sum()), int(mask.sum()))
        for name, masks in layout.masks.items()
        for mask in masks
    ]


def step_time(layout: Layout, found: Sequence[LayerReplay], profile: Profile) -> StepTime:
    """Predicted time of a step in seconds; ProfileError where the profile has no times."""
    synop, neuron, barrier = (profile.price(name) for name in ("t_synop", "t_neuron", "t_barrier_chip"))
    if synop is None or neuron is None or barrier is None:
        raise ProfileError(f"profile {profile.name}: prices.t_synop, t_neuron and t_barrier_chip are needed for a step time.")
    terms = [
        (end_of, what, name)
        for name, synops, neurons in _loads(layout, found)
        for end_of, what in ((synop * synops, "synaptic operations"), (neuron * neurons, "neuron updates"))
    ]
    nominal, what, busiest = max(terms, key=lambda term: term[0].nominal)
    total = Interval(max(t.low for t, _, _ in terms), nominal.nominal, max(t.high for t, _, _ in terms)) + barrier
    return StepTime(total, busiest, what)


def mapped(network: PilotNet, found: Sequence[LayerReplay], profile: Profile) -> Layout | None:
    """The layout of ``spiketrack_deploy.mapping`` for this chip; ``None`` where this checkout has no mapper."""
    _ = network, found, profile
    found_layout: Any = None
    return found_layout
