"""Messages between cores, and the output axons they need.

This module decides who sends to whom, given the pieces on the cores. It must not know where cores lie. A source neuron
sends one message to every core that holds a target of its synapses, per bundle of synapses and run; a core that holds
several targets gets it once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiketrack_deploy.mapping.memory import columns_read, rows_read
from spiketrack_deploy.mapping.types import BoolArray, FloatArray, IntArray, PopulationGraph, Synapses, Traffic, summed

Edges = tuple[IntArray, IntArray, FloatArray, FloatArray]
"""Source core, target core, neurons that send, positions (axons) that send."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the cores hold of a population: ``cores`` ``[n]``; ``rows`` ``[n, height]`` neurons per row; ``pieces``."""

    cores: IntArray
    rows: FloatArray
    pieces: IntArray


def _held(pieces: IntArray, height: int, width: int) -> _Held:
    cores, local = np.unique(pieces[:, 0], return_inverse=True)
    steps = np.zeros((cores.size, height + 1))
    amount = (pieces[:, 3] - pieces[:, 2]).astype(np.float64) * width
    np.add.at(steps, (local, pieces[:, 4]), amount)
    np.add.at(steps, (local, pieces[:, 5]), -amount)
    return _Held(cores, np.cumsum(steps, axis=1)[:, :height], pieces)


def traffic(
    network: PopulationGraph, pieces: IntArray, cores: int, rate: FloatArray
) -> tuple[Traffic, IntArray, FloatArray]:
    """Messages per run between cores; axon-map entries per core ``[cores]``; messages per bundle ``[synapses]`` if
    every source neuron sent.

    ``rate``: sending share per bundle of synapses. An axon-map entry is one position, destination core and bundle.
    Messages per bundle count every destination core, the sender's own included.
    """
    order = np.argsort(pieces[:, 1], kind="stable")
    sorted_pieces = pieces[order]
    bounds = np.searchsorted(sorted_pieces[:, 1], np.arange(len(network.populations) + 1))
    held: dict[int, _Held] = {}

    def get(index: int) -> _Held:
        if index not in held:
            p = network.populations[index]
            held[index] = _held(sorted_pieces[bounds[index] : bounds[index + 1]], p.height, p.width)
        return held[index]

    keys: list[IntArray] = []
    weights: list[FloatArray] = []
    entries = np.zeros(cores, dtype=np.int64)
    copies = np.zeros(len(network.synapses))
    for index, s in enumerate(network.synapses):
        if s.form == "host" or not network.populations[s.source].on_chip:
            continue
        source, target, neurons, positions = _edges(network, s, get(s.source), get(s.target))
        np.add.at(entries, source, positions.astype(np.int64))
        keys.append((network.level[s.target] * cores + source) * cores + target)
        weights.append(neurons * rate[index])
        copies[index] = neurons.sum()
    return _summed(keys, weights, cores), entries, copies


def _summed(keys: list[IntArray], weights: list[FloatArray], cores: int) -> Traffic:
    if not keys:
        none = np.zeros(0, dtype=np.int64)
        return Traffic(none, none, none, np.zeros(0))
    key, where = np.unique(np.concatenate(keys), return_inverse=True)
    messages = summed(where, np.concatenate(weights), key.size)
    return Traffic(key // cores % cores, key % cores, key // cores**2, messages)


def _edges(network: PopulationGraph, s: Synapses, source: _Held, target: _Held) -> Edges:
    p, q = network.populations[s.source], network.populations[s.target]
    read = rows_read(s, p, q).astype(np.float64)
    if s.transposed:
        source = _held(source.pieces[:, [0, 1, 4, 5, 2, 3]], p.channels, p.width)
    if s.groups == 1 or s.transposed:
        wanted = ((target.rows > 0) @ read > 0).astype(np.float64)
        neurons = source.rows @ wanted.T
    elif q.channels == s.groups and p.channels == s.groups:
        neurons = _channelwise(s, source, target, read, p.width)
    else:
        neurons = _groupwise(s, source, target, read, p.channels, q.channels, p.width)
    columns = columns_read(s, p, q)
    neurons = neurons * (columns / p.width)
    i, j = np.nonzero(neurons)
    wanted = ((target.rows > 0) @ read > 0).astype(np.float64)
    positions = ((source.rows > 0) @ wanted.T)[i, j] * (1 if s.transposed else columns)
    return source.cores[i], target.cores[j], neurons[i, j], np.minimum(positions, neurons[i, j])


def _channelwise(s: Synapses, source: _Held, target: _Held, read: FloatArray, width: int) -> FloatArray:
    """Channel c reaches channel c alone. Pieces of a core are disjoint in channels, so pairs of pieces add up."""
    a, b = source.pieces, target.pieces
    low = np.maximum(a[:, 2, None], b[None, :, 2])
    channels = np.maximum(np.minimum(a[:, 3, None], b[None, :, 3]) - low, 0).astype(np.float32)
    rows_a = _row_mask(a, read.shape[1])
    rows_b = (_row_mask(b, read.shape[0]) @ read.astype(np.float32) > 0).astype(np.float32)
    channels *= rows_a @ rows_b.T
    i, j = np.nonzero(channels)
    neurons = np.zeros((source.cores.size, target.cores.size))
    at = (np.searchsorted(source.cores, a[i, 0]), np.searchsorted(target.cores, b[j, 0]))
    np.add.at(neurons, at, channels[i, j] * float(width))
    return neurons


def _row_mask(pieces: IntArray, height: int) -> NDArray[np.float32]:
    y = np.arange(height)
    inside: BoolArray = (y >= pieces[:, 4, None]) & (y < pieces[:, 5, None])
    return inside.astype(np.float32)


def _groupwise(
    s: Synapses, source: _Held, target: _Held, read: FloatArray, inputs: int, outputs: int, width: int
) -> FloatArray:
    """Group by group: which cores hold inputs of the group, in which rows, and which hold outputs of it."""
    neurons = np.zeros((source.cores.size, target.cores.size))
    for group in range(s.groups):
        a = _clip(source.pieces, group * inputs // s.groups, (group + 1) * inputs // s.groups)
        b = _clip(target.pieces, group * outputs // s.groups, (group + 1) * outputs // s.groups)
        if len(a) and len(b):
            one, other = _held(a, read.shape[1], width), _held(b, read.shape[0], 1)
            found = one.rows @ ((other.rows > 0) @ read > 0).astype(np.float64).T
            rows, columns = np.searchsorted(source.cores, one.cores), np.searchsorted(target.cores, other.cores)
            neurons[np.ix_(rows, columns)] += found
    return neurons


def _clip(pieces: IntArray, c0: int, c1: int) -> IntArray:
    part: IntArray = pieces.copy()
    part[:, 2], part[:, 3] = np.maximum(part[:, 2], c0), np.minimum(part[:, 3], c1)
    kept: IntArray = part[part[:, 2] < part[:, 3]]
    return kept
