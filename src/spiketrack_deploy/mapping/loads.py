"""Sums over the pieces of every core: synapses that end there and how often they are visited.

This module decides how a population's counts are shared out among cores. It must not know positions.
"""

from __future__ import annotations

import itertools

import numpy as np

from spiketrack_deploy.mapping.activity import Activity
from spiketrack_deploy.mapping.fanin import taps
from spiketrack_deploy.mapping.memory import SynapseMemory, merged
from spiketrack_deploy.mapping.types import CoreSynapses, FloatArray, IntArray, PopulationGraph, Synapses


def core_synapses(
    network: PopulationGraph, pieces: IntArray, cores: int, activity: Activity, memory: SynapseMemory
) -> CoreSynapses:
    """Non-zero synapses (exact integers), visits and words of synaptic memory read per run of every core.

    A bundle's visits are shared out in proportion to its synapses: where spikes cluster in a part of the picture, the
    busiest core is busier than this says. A visit of a position and tap reads one row of the core's kernel, zero
    weights too; a visited entry of a matrix that is no synapse is one word.
    """
    nonzero = np.zeros(cores, dtype=np.int64)
    synops, words = np.zeros((2, network.depth + 1, cores))
    a_visit = np.zeros(len(network.synapses))
    by_population = pieces[np.argsort(pieces[:, 1], kind="stable")]
    bounds = np.searchsorted(by_population[:, 1], np.arange(len(network.populations) + 1))
    for index, s in enumerate(network.synapses):
        target, level = network.populations[s.target], network.level[s.target]
        part = by_population[bounds[s.target] : bounds[s.target + 1]]
        if not len(part):
            continue
        share = activity.share[index]
        whole = int(share.sum())
        if whole:
            amount, visited = box_sums(share, part), activity.synops[index] / whole
            read = _words_read(network, s, _row_runs(part), memory, cores)
            np.add.at(nonzero, part[:, 0], amount)
            np.add.at(synops[level], part[:, 0], amount * visited)
            words[level] += read * visited
            a_visit[index] = read.sum() / whole
        elif activity.synops[index]:
            slots = (part[:, 3] - part[:, 2]) * (part[:, 5] - part[:, 4]) * target.width
            done = slots * (activity.synops[index] / target.slots)
            np.add.at(synops[level], part[:, 0], done)
            np.add.at(words[level], part[:, 0], done)
            a_visit[index] = 1.0
    return CoreSynapses(nonzero, synops, words, a_visit)


_Run = tuple[int, int, int, tuple[tuple[int, int], ...]]
"""Core, first row and row after the last, channels that the core holds of each of these rows."""


def _row_runs(part: IntArray) -> list[_Run]:
    """Rows of a population core by core, joined where a core holds the same channels of them: a row of the kernel is
    read once for all channels that a core holds of a position."""
    by_core: dict[int, list[list[int]]] = {}
    for core, _, *box in part.tolist():
        by_core.setdefault(core, []).append(box)
    found: list[_Run] = []
    for core, boxes in by_core.items():
        marks = sorted({y for box in boxes for y in box[2:]})
        for y0, y1 in itertools.pairwise(marks):
            held = [(c0, c1) for c0, c1, top, bottom in boxes if top <= y0 < bottom]
            if held:
                found.append((core, y0, y1, tuple(merged(held))))
    return found


def _words_read(
    network: PopulationGraph, s: Synapses, runs: list[_Run], memory: SynapseMemory, cores: int
) -> FloatArray:
    """Words that every core reads if each tap of its rows is visited once, ``[cores]``."""
    above = np.concatenate([[0], np.cumsum(taps(network, s))]).tolist()
    target, known = network.populations[s.target], dict[tuple[tuple[int, int], ...], int]()
    words = np.zeros(cores)
    for core, y0, y1, channels in runs:
        if channels not in known:
            known[channels] = memory.words_read(s, target, channels)
        words[core] += known[channels] * (above[y1] - above[y0])
    return words


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
