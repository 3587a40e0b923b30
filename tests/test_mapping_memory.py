"""The memory model against what public compiler logs printed, and its arithmetic against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.memory import SynapseMemory, group_sizes
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.mapping.types import CoreLimits, Population, PopulationGraph, Synapses

LOIHI2 = CoreLimits(4095, 16000, 16000, 16000, 8, 8, 32, 128, 4, 8, 4, True, family="loihi2")
MEMORY2 = SynapseMemory.of(LOIHI2)

# Output channels of a core, words per row of the kernel, weight bits (4 to 7) with which 10 header bits give them.
PUBLISHED_WORDS = (
    (16, 2, 4), (24, 3, 5), (32, 4, 6), (36, 4, 6), (48, 5, 6), (48, 6, 7), (64, 5, 4), (64, 6, 5), (128, 11, 5),
    (256, 21, 5),
)  # fmt: skip


@pytest.mark.parametrize(("channels", "words", "bits"), PUBLISHED_WORDS)
def test_published_words_per_row(channels, words, bits):
    assert MEMORY2.row_words(channels, 1, bits - 1) == words, (
        f"{channels} output channels of {bits} bits, the extra one included: the rule ceil((C b + 10) / 64) no longer "
        "gives the published row"
    )


@pytest.mark.parametrize(
    ("kernel", "inputs", "channels", "bits", "words"),
    [(3, 48, 64, 4, 2160), (3, 128, 128, 5, 12672)],
    ids=["PilotNet conv4", "YOLO-KP 28x28x256"],
)
def test_published_words_of_a_core(kernel, inputs, channels, bits, words):
    source = Population("a", "a", "search", "", "neurons", inputs, 8, 8)
    target = Population("b", "b", "search", "", "neurons", 256, 8, 8)
    bundle = Synapses("ab", "b", "conv", 0, 1, (kernel, kernel), bits=bits - 1)
    assert MEMORY2.words(bundle, source, target, [(0, channels)]) == words


def chain(shapes, kernels, strides, bits):
    """A feed-forward network of convolutions: ``shapes`` (C, H, W) from the input on."""
    populations = [
        Population(f"p{i}", f"p{i}", "search", "", "input" if not i else "neurons", *shape)
        for i, shape in enumerate(shapes)
    ]
    bundles = [
        Synapses(f"s{i}", f"p{i + 1}", "conv", i, i + 1, (k, k), (s, s), (k // 2, k // 2), bits=bits)
        for i, (k, s) in enumerate(zip(kernels, strides))
    ]
    return PopulationGraph("search", tuple(populations), tuple(bundles), len(bundles))


def cores_per_layer(network, parts):
    return [len(np.unique(parts.pieces[parts.pieces[:, 1] == i, 0])) for i in range(1, len(network.populations))]


YOLO = [
    (3, 448, 448), (16, 224, 224), (32, 112, 112), (64, 56, 56), (128, 28, 28), (256, 28, 28), (256, 14, 14),
    (512, 14, 14), (256, 14, 14), (512, 14, 14), (48, 14, 14),
]  # fmt: skip
YOLO_CORES = [224, 112, 56, 28, 56, 16, 32, 14, 32, 4]


def test_yolo_kp_core_counts_are_the_published_ones():
    """574 cores, layer by layer, with the power-of-two tiling and 4-bit weights (5 with the conservative bit)."""
    network = chain(YOLO, [3, 3, 3, 3, 3, 3, 3, 1, 3, 1], [2, 2, 2, 2, 1, 2, 1, 1, 1, 1], 4)
    parts = split(network, LOIHI2, "power_of_two")
    assert cores_per_layer(network, parts) == YOLO_CORES
    assert parts.cores == 574


PILOTNET = [(3, 66, 200), (24, 32, 99), (36, 15, 49), (48, 7, 24), (64, 4, 22), (64, 2, 20)]


def test_pilotnet_convolutions_take_the_published_cores():
    """The published rows count 200, 99, 49 ... as height; the image itself is a population of its own (13 cores)."""
    turned = [(c, w, h) for c, h, w in PILOTNET]
    populations = [Population("host", "host", "search", "", "input", *turned[0])]
    populations += [Population(f"p{i}", f"p{i}", "search", "", "neurons", *s) for i, s in enumerate(turned)]
    bundles = [Synapses("in", "p0", "identity", 0, 1, groups=3, bits=1)]
    bundles += [
        Synapses(f"s{i}", f"p{i}", "conv", i, i + 1, (3, 3), (2, 2) if i < 4 else (1, 1), bits=4) for i in range(1, 6)
    ]
    network = PopulationGraph("search", tuple(populations), tuple(bundles), 6)
    parts = split(network, LOIHI2, "power_of_two")
    assert cores_per_layer(network, parts) == [13, 25, 13, 3, 3, 2]


def test_pilotnet_dense_layers_differ_and_by_how_much():
    """The published log has 12 + 1 + 1 + 1 dense cores, 74 in all; the rule gives 2 + 1 + 1 + 1 and 64. The whole
    difference is the first dense layer (100 outputs of 2,560 inputs, 8 to 9 outputs a core there): its log is the only
    one of an unshared layer, and no word formula that fits the sixteen convolution rows explains it."""
    shapes = [(64, 20, 2), (100, 1, 1), (50, 1, 1), (10, 1, 1), (1, 1, 1)]
    kernels = [(20, 2), (1, 1), (1, 1), (1, 1)]
    populations = tuple(
        Population(f"p{i}", f"p{i}", "search", "", "input" if not i else "neurons", *s) for i, s in enumerate(shapes)
    )
    bundles = tuple(Synapses(f"s{i}", f"p{i + 1}", "conv", i, i + 1, k, bits=4) for i, k in enumerate(kernels))
    network = PopulationGraph("search", populations, bundles, 4)
    assert cores_per_layer(network, split(network, LOIHI2, "power_of_two")) == [2, 1, 1, 1]


def test_loihi1_rows_by_hand():
    """Nengo-Loihi: 8-bit weights with 10 index bits; 70 synapses are a block of 64 and one of 6."""
    model = SynapseMemory(FAMILIES["loihi1"], weight_bits=9, neurons=1024)
    assert model.row_words(70, 1, 8) == -(-(64 * 18 + 10) // 64) + -(-(6 * 18 + 10) // 64)


def test_wide_weights_are_chained():
    assert MEMORY2.row_words(16, 1, 11) == 2 * MEMORY2.row_words(16, 1, 8)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_group_sizes_equal_counting(data):
    per_group, groups = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    marks = sorted(data.draw(st.sets(st.integers(0, per_group * groups), min_size=2, max_size=4)))
    intervals = [(a, b) for a, b in zip(marks[::2], marks[1::2])]
    counted: dict[int, int] = {}
    for a, b in intervals:
        for channel in range(a, b):
            counted[channel // per_group] = counted.get(channel // per_group, 0) + 1
    wanted: dict[int, int] = {}
    for size in counted.values():
        wanted[size] = wanted.get(size, 0) + 1
    assert group_sizes(intervals, per_group) == wanted
