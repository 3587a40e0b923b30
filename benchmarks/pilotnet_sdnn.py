"""PilotNet with sigma-delta neurons: integer replay, and the inputs that it is replayed on.

This module decides the neuron equation, which the golden output in the lava-dl wheel checks bit for bit. It must not
know prices, cores or what the chip measured.

One level works per step: a layer sees what the layer below it sent one step before. States start at 0, so biases fire
at step 0. With ``trunc`` toward zero and ``>>`` the floor shift::

    input:  a = pixel * 2^6;           layer:  sigma += W * s;  a = max(sigma + bias * 2^12, 0)
    delta = a - a_before + residue;  sent = delta if |delta| >= threshold * 2^6 (input) or 2^12 (layer), else 0
    residue = delta - sent;          message = sent >> 6 (layers), sent (input); the last layer emits sigma
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pilotnet import LayerReplay, PilotNet, counted

from spiketrack_deploy.program.types import IntArray

INPUT_SHIFT, STATE_SHIFT = 6, 12
"""Fraction bits of the input layer's and of the other layers' activation."""
PIXEL_OF_SOURCE = 200 / 455
"""Columns of the network's input that one column of the recorded drive's frames is: they are 455 pixels wide."""


def deltas(activation: IntArray, threshold: int) -> IntArray:
    """What delta neurons send of an activation ``[T, ...]``: changes once they reach ``threshold``, nothing lost."""
    before = np.zeros_like(activation[0])
    residue = np.zeros_like(before)
    sent = np.zeros_like(activation)
    for t, now in enumerate(activation):
        delta = now - before + residue
        sent[t] = np.where(np.abs(delta) >= threshold, delta, 0)
        residue, before = delta - sent[t], now
    return sent


def _late(messages: IntArray) -> IntArray:
    return np.concatenate([np.zeros_like(messages[:1]), messages[:-1]])


def replay(
    network: PilotNet, pixels: IntArray, skip: int = 0, tell: Callable[[int], None] | None = None
) -> list[LayerReplay]:
    """Run ``pixels`` ``[T, C, H, W]`` (-64..63); ``tell`` is called with each finished layer's number.

    The first ``skip`` steps run and are not returned. The last item's ``spikes`` are the network's output, ``sigma``.
    """
    messages = deltas(pixels << INPUT_SHIFT, network.input_threshold << INPUT_SHIFT)
    found = []
    for index, layer in enumerate(network.layers):
        arriving = _late(messages)
        sigma = np.cumsum(layer.current(arriving), axis=0)
        if index + 1 == len(network.layers):
            messages = sigma
        else:
            active = np.maximum(sigma + (layer.bias[:, None, None] << STATE_SHIFT), 0)
            messages = deltas(active, layer.threshold << STATE_SHIFT) >> INPUT_SHIFT
        found.append(counted(layer, arriving[skip:], messages[skip:]))
        if tell is not None:
            tell(index + 1)
    return found


def synops_per_step(item: LayerReplay) -> IntArray:
    """Synaptic operations of a layer at every step ``[T]``."""
    found: IntArray = item.synops_per_neuron().sum(axis=(1, 2, 3))
    return found


def ramp(shape: tuple[int, int, int], steps: int) -> IntArray:
    """The deterministic test input ``((7x + 13y + 29c + 5t) mod 128) - 64``, ``[T, C, H, W]``."""
    t, c, y, x = np.meshgrid(*(np.arange(n) for n in (steps, *shape)), indexing="ij")
    values: IntArray = ((7 * x + 13 * y + 29 * c + 5 * t) % 128 - 64).astype(np.int64)
    return values


def panned(frame: IntArray, steps: int, pixels_per_step: float) -> IntArray:
    """One frame ``[C, H, W]`` as a camera that turns sees it: brightest value to 255, moved by ``pixels_per_step``
    pixels of the recorded drive, interpolated, mirrored at the border; ``[T, C, H, W]`` as the network reads pixels."""
    frame, width = frame * (255 / frame.max()), frame.shape[2]
    both = np.concatenate([frame, frame[:, :, ::-1]], axis=2).astype(np.float64)
    at = np.arange(width)[None] + np.arange(steps)[:, None] * (pixels_per_step * PIXEL_OF_SOURCE)
    left = np.floor(at).astype(np.int64)
    part: NDArray[np.float64] = at - left
    moved = both[:, :, left % (2 * width)] * (1 - part) + both[:, :, (left + 1) % (2 * width)] * part
    return np.trunc(np.moveaxis(moved, 2, 0) * 128 / 255 - 64).astype(np.int64)
