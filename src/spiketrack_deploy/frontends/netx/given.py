"""What goes into a netx network: integers of an .npz file, or drawn ones that say so.

This module decides what a network's first layer can take, and what is drawn for it where nobody gives anything. It must
not know programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.frontends.netx.lower import LARGEST_DRIVE, LARGEST_PIXEL
from spiketrack_deploy.frontends.netx.network import NetxNetwork
from spiketrack_deploy.inputs.untrusted import Arrays
from spiketrack_deploy.program.types import IntArray

MOST_SPIKES = 255
MAX_VALUES = 1 << 26
DEFAULT_STEPS, DEFAULT_RATE, DEFAULT_SEED = 50, 0.1, 0
PATCH = 8
"""Pixels of a drawn picture that are alike, along either side."""
_REMEDY = "give one array of integers, the step as its first axis"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """``values`` int64 ``[steps, C, H, W]``; ``source``: what they are, in words; ``drawn``: nobody gave them."""

    values: IntArray
    source: str
    drawn: bool = False

    @property
    def top(self) -> int:
        """Most spikes of an element in a step."""
        return max(1, int(self.values.max(initial=1)))


def takes(network: NetxNetwork) -> tuple[str, int, int]:
    """What the network takes, in words, and its smallest and largest integer."""
    first = network.layers[0]
    if first.kind != "input":
        return "spikes", 0, MOST_SPIKES
    if first.neuron.kind == "cuba":
        return "what drives its input neurons, in the unit of their threshold", -LARGEST_DRIVE, LARGEST_DRIVE
    return "pixels, as its input neurons subtract them", -LARGEST_PIXEL, LARGEST_PIXEL


def drawn(network: NetxNetwork, steps: int, rate: float | None, seed: int) -> Given:
    """Independent spikes; for an input layer a picture of patches that moves by a column a step: up to the threshold of
    its neurons, or -64 to 63 where these send changes. UsageError: a rate where there are no spikes."""
    first, shape, rng = network.layers[0], network.input_shape, np.random.default_rng(seed)
    _affordable(network, steps)
    if first.kind != "input":
        rate = DEFAULT_RATE if rate is None else rate
        spikes = (rng.random((steps, *shape)) < rate).astype(np.int64)
        return Given(spikes, f"drawn spikes: {rate:g} per element and step, seed {seed}", True)
    if rate is not None:
        raise UsageError(f"--rate is of drawn spikes; {network.name} takes {takes(network)[0]}: drop it, or --input")
    low, high = (-64, 63) if first.neuron.kind == "sdnn" else (0, min(first.neuron.threshold, LARGEST_DRIVE))
    channels, height, width = shape
    coarse = rng.integers(low, high + 1, (channels, -(-height // PATCH), -(-width // PATCH)))
    picture = coarse.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :height, :width]
    values = np.stack([np.roll(picture, step, axis=2) for step in range(steps)])
    return Given(values, f"a drawn picture of {low} to {high}, moved by a column a step, seed {seed}", True)


def read_input(path: Path, network: NetxNetwork, steps: int | None) -> Given:
    """The one array of an .npz file, the first ``steps`` of it where that is given. InputError: it is no such file, or
    holds what the network cannot take."""
    with Arrays(path, packed=True, remedy=_REMEDY) as archive:
        if len(archive.names) != 1:
            raise InputError(f"{path}: holds {len(archive.names)} arrays; {_REMEDY}")
        found = archive.read(archive.names[0])
    shape, (what, low, high) = network.input_shape, takes(network)
    if found.ndim == 0 or (found.shape[1:] != shape and found.shape[1:] != (prod(shape),)):
        raise InputError(f"{path}: its array has shape {found.shape}; {network.name} takes (steps, {shape})")
    if not len(found):
        raise InputError(f"{path}: holds no step; {_REMEDY}")
    if steps is not None and steps > len(found):
        raise InputError(f"{path}: holds {len(found)} steps, but {steps} are asked for (--steps)")
    found = found[:steps].reshape(-1, *shape)
    _affordable(network, len(found))
    if found.dtype.kind not in "iub" and not np.array_equal(found, np.trunc(found)):
        raise InputError(f"{path}: its array holds values that are no integers; {network.name} takes {what}")
    if found.min() < low or found.max() > high:
        raise InputError(
            f"{path}: its array runs from {found.min():g} to {found.max():g}; {network.name} takes {what}: {low} to "
            f"{high}"
        )
    return Given(found.astype(np.int64), f"{path.name}, {len(found)} steps")


def _affordable(network: NetxNetwork, steps: int) -> None:
    size = prod(network.input_shape)
    if steps * size > MAX_VALUES:
        raise InputError(f"{steps} steps of {size} input values are more than {MAX_VALUES}; run fewer steps")
