"""PilotNet with sigma-delta neurons: the inputs that it is run on, and what its layers did step by step.

This module decides the inputs. It must not know prices, cores or what the chip measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pilotnet import LayerReplay

from spiketrack_deploy.program.types import IntArray

PIXEL_OF_SOURCE = 200 / 455
"""Columns of the network's input that one column of the recorded drive's frames is: they are 455 pixels wide."""


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
