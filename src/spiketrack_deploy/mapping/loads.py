"""Sums over the pieces of every core: synapses that end there and how often they are visited.

This module decides how a population's counts are shared out among cores. It must not know positions.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.mapping.activity import Activity
from spiketrack_deploy.mapping.types import CoreSynapses, FloatArray, IntArray, PopulationGraph, summed


def core_synapses(network: PopulationGraph, pieces: IntArray, cores: int, activity: Activity) -> CoreSynapses:
    """Non-zero synapses (exact integers) and visits per run of every core.

    A bundle's visits are shared out in proportion to its synapses: where spikes cluster in a part of the picture, the
    busiest core is busier than this says.
    """
    nonzero, synops = np.zeros(cores, dtype=np.int64), np.zeros(cores)
    order = np.argsort(pieces[:, 1], kind="stable")
    by_population = pieces[order]
    bounds = np.searchsorted(by_population[:, 1], np.arange(len(network.populations) + 1))
    for index, s in enumerate(network.synapses):
        target = network.populations[s.target]
        part = by_population[bounds[s.target] : bounds[s.target + 1]]
        if not len(part):
            continue
        share = activity.share[index]
        whole = int(share.sum())
        if whole:
            amount = box_sums(share, part)
            np.add.at(nonzero, part[:, 0], amount)
            np.add.at(synops, part[:, 0], amount * (activity.synops[index] / whole))
        elif activity.synops[index]:
            slots = (part[:, 3] - part[:, 2]) * (part[:, 5] - part[:, 4]) * target.width
            np.add.at(synops, part[:, 0], slots * (activity.synops[index] / target.slots))
    return CoreSynapses(nonzero, synops)


def row_work(network: PopulationGraph, activity: Activity) -> list[FloatArray]:
    """Expected synaptic operations per population and row, ``[channels, height]`` each."""
    work = [np.zeros((p.channels, p.height)) for p in network.populations]
    for index, s in enumerate(network.synapses):
        share = activity.share[index]
        whole = int(share.sum())
        if whole:
            work[s.target] += share * (activity.synops[index] / whole)
        else:
            work[s.target] += activity.synops[index] / work[s.target].size
    return work


def box_sums(values: IntArray, pieces: IntArray) -> IntArray:
    """Sum of ``values`` ``[channels, height]`` over every piece's channels and rows."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), dtype=np.int64)
    table[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    c0, c1, y0, y1 = pieces[:, 2:].T
    result: IntArray = table[c1, y1] - table[c0, y1] - table[c1, y0] + table[c0, y0]
    return result


def messages_per_core(source: IntArray, messages: FloatArray, cores: int) -> FloatArray:
    """Messages that leave (or, with targets, enter) every core."""
    return summed(source, messages, cores)
