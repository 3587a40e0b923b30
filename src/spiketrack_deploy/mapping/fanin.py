"""How many non-zero synapses end in every row of every channel of a population.

This module decides the structural count, by the same rule as ``program.counts`` seen from the other side: there a spike
counts the weights it visits, here a neuron counts the weights that end in it; the sums agree (tested). It must not know
cores.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.mapping.memory import input_channels, input_size, valid_taps
from spiketrack_deploy.mapping.types import IntArray, Population, PopulationGraph, Synapses
from spiketrack_deploy.program.ops.stream import upsample_matrix
from spiketrack_deploy.program.types import Arrays


def fan_in(network: PopulationGraph, s: Synapses, arrays: Arrays) -> IntArray:
    """``[channels, height]`` of the target: non-zero synapses of ``s`` that end in the row, summed over its columns.

    The entries of a stored matrix count as non-zero (they change with what is stored). Products of two live
    activations and host messages are no synapses: 0.
    """
    source, target = network.populations[s.source], network.populations[s.target]
    if s.form != "conv":
        shape = (target.channels, target.height)
        return np.broadcast_to(taps(network, s), shape).astype(np.int64)
    if s.weight is None:
        raise ValueError(f"synapses {s.name} of form conv have no weight")
    per_tap = np.count_nonzero(arrays[s.weight][s.shared], axis=1).astype(np.int64)
    rows, columns = _valid(s, source, target)
    result: IntArray = (per_tap @ columns.sum(axis=1)) @ rows
    return result


def taps(network: PopulationGraph, s: Synapses) -> IntArray:
    """``[height]`` of the target: synapses of ``s``, zero weights too, that end in one channel of the row."""
    source, target = network.populations[s.source], network.populations[s.target]
    if s.form == "upsample":
        rows = np.count_nonzero(upsample_matrix(source.height, s.stride[0]), axis=1)
        result: IntArray = rows * np.count_nonzero(upsample_matrix(source.width, s.stride[1]))
        return result
    if s.form == "conv":
        rows, columns = _valid(s, source, target)
        inputs = input_channels(s, source) // s.groups
        return np.asarray(rows.sum(axis=0) * (int(columns.sum()) * inputs), dtype=np.int64)
    each = {
        "identity": target.width,
        "pool": s.kernel[0] * s.kernel[1] * target.width,
        "matrix": input_channels(s, source) // s.groups * target.width,
    }
    return np.full(target.height, each.get(s.form, 0), dtype=np.int64)


def _valid(s: Synapses, source: Population, target: Population) -> tuple[IntArray, IntArray]:
    """``[kernel, height]`` and ``[kernel, width]``: which taps of an output fall on the source."""
    height, width = input_size(s, source)
    return (
        valid_taps(height, target.height, s.kernel[0], s.stride[0], s.padding[0], s.dilation[0]),
        valid_taps(width, target.width, s.kernel[1], s.stride[1], s.padding[1], s.dilation[1]),
    )
