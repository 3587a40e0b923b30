"""How large the values of a network become in float64: what scales are chosen by where the worst case has no room.

Decides the drawn input. Must not know integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from spiketrack_deploy.frontends.nir.conventions import Convention
from spiketrack_deploy.frontends.nir.network import FloatArray, Network
from spiketrack_deploy.frontends.nir.reference import Moment, simulate

STEPS = 64
RATE = 0.25
"""Drawn input: spikes with this probability, real values evenly within their limit."""


def largest(moments: Iterable[Moment]) -> dict[str, float]:
    """Largest magnitude of every node's value (``NODE``) and neuron's membrane (``NODE.v``)."""
    seen: dict[str, float] = {}
    for moment in moments:
        for suffix, found in (("", moment.values), (".v", moment.membranes)):
            for name, value in found.items():
                seen[name + suffix] = max(seen.get(name + suffix, 0.0), float(np.abs(value).max(initial=0)))
    return seen


def draw(
    network: Network, kinds: Mapping[str, tuple[int, float | None]], steps: int, seed: int
) -> dict[str, FloatArray]:
    """``[steps, *shape]`` for every Input node; ``kinds``: largest count, or limit of a real value."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name in network.inputs:
        (top, limit), shape = kinds[name], (steps, *network.nodes[name].shape)
        spikes = (rng.random(shape) < RATE) * rng.integers(1, top + 1, shape)
        drawn[name] = spikes.astype(np.float64) if limit is None else rng.uniform(-limit, limit, shape)
    return drawn


def observe(
    network: Network, convention: Convention, kinds: Mapping[str, tuple[int, float | None]], steps: int = STEPS
) -> dict[str, float]:
    """What the float reference shows on drawn input (:func:`largest`)."""
    return largest(simulate(network, convention, draw(network, kinds, steps, 0)))
