"""How many non-zero synapses end in every row of every channel of a population.

This module decides the structural count, by the same rule as ``program.counts`` seen from the other side: there a spike
counts the weights it visits, here a neuron counts the weights that end in it; the sums agree (tested). It must not know
cores.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.mapping.memory import input_channels, input_size, valid_taps
from spiketrack_deploy.mapping.types import IntArray, PopulationGraph, Synapses
from spiketrack_deploy.program.ops.stream import upsample_matrix
from spiketrack_deploy.program.types import Arrays


def fan_in(network: PopulationGraph, s: Synapses, arrays: Arrays) -> IntArray:
    """``[channels, height]`` of the target: non-zero synapses of ``s`` that end in the row, summed over its columns.

    The entries of a stored matrix count as non-zero (they change with what is stored). Products of two live
    activations and host messages are no synapses: 0.
    """
    source, target = network.populations[s.source], network.populations[s.target]
    shape = (target.channels, target.height)
    if s.form in ("product", "host"):
        return np.zeros(shape, dtype=np.int64)
    if s.form == "identity":
        return np.full(shape, target.width, dtype=np.int64)
    if s.form == "pool":
        return np.full(shape, s.kernel[0] * s.kernel[1] * target.width, dtype=np.int64)
    if s.form == "matrix":
        return np.full(shape, input_channels(s, source) // s.groups * target.width, dtype=np.int64)
    if s.form == "upsample":
        rows = np.count_nonzero(upsample_matrix(source.height, s.stride[0]), axis=1)
        columns = np.count_nonzero(upsample_matrix(source.width, s.stride[1]))
        return np.broadcast_to(rows * columns, shape).astype(np.int64)
    return _conv(network, s, arrays)


def _conv(network: PopulationGraph, s: Synapses, arrays: Arrays) -> IntArray:
    source, target = network.populations[s.source], network.populations[s.target]
    if s.weight is None:
        raise ValueError(f"synapses {s.name} of form conv have no weight")
    per_tap = np.count_nonzero(arrays[s.weight][s.shared], axis=1).astype(np.int64)
    height, width = input_size(s, source)
    rows = valid_taps(height, target.height, s.kernel[0], s.stride[0], s.padding[0], s.dilation[0])
    columns = valid_taps(width, target.width, s.kernel[1], s.stride[1], s.padding[1], s.dilation[1]).sum(axis=1)
    result: IntArray = (per_tap @ columns) @ rows
    return result
