"""What a ``.net`` file of lava-dl's netx says once it is read: a chain of integer layers.

This module decides the data, and which weights a layer really has. It must not know HDF5 or programs. The rules are
those of ``lava.lib.dl.netx.hdf5.Network`` (lava-dl 0.6.0) and of the Processes that it builds (lava-nc 0.10.0); where
they change what a file says (a dense layer's weights are scaled, clipped and truncated to what a Loihi synapse holds),
the layer has what Lava computes with.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2, prod
from typing import Literal, TypeAlias

import numpy as np

from spiketrack_deploy.program.types import IntArray

Shape: TypeAlias = "tuple[int, int, int]"
Pair: TypeAlias = "tuple[int, int]"

NEVER = 1 << 17
"""A threshold from which on a membrane that is cut off at 2^23 - 1 (64 steps a unit) never fires."""
MAX_DELAY = 62
MIN_BIAS, MAX_BIAS = -(1 << 15), (1 << 15) - 1
"""Lava's LIF keeps its bias in 16 bits and wraps around without a word."""


@dataclass(frozen=True, slots=True)
class Neuron:
    """``cuba``: decays in 1/4096 (4096: no memory), fires above ``threshold``. ``sdnn``: sends changes of at least
    ``threshold``; ``sigma``: sends its sum as it is."""

    kind: Literal["cuba", "sdnn"]
    threshold: int
    i_decay: int = 4096
    v_decay: int = 0
    sigma: bool = False

    @property
    def fires(self) -> bool:
        """Whether it can send anything."""
        return self.kind == "sdnn" or self.threshold < NEVER


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """``shape`` (C, H, W); a dense layer's is (N, 1, 1). ``weight`` [O, I / groups, kh, kw], what Lava multiplies with;
    ``bias`` [O] or ``None``; pairs in (height, width) order; ``delay`` [O, I] further steps or ``None``; ``recurrent``
    [O, O] or ``None``. An input layer has neurons and no weights.
    """

    name: str
    kind: Literal["input", "conv", "dense"]
    shape: Shape
    neuron: Neuron
    weight: IntArray
    bias: IntArray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    delay: IntArray | None = None
    recurrent: IntArray | None = None

    @property
    def neurons(self) -> int:
        """Neurons of the layer."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class NetxNetwork:
    """``input_shape`` (C, H, W) of what enters; the layers in order; ``notes``: sentences for the report."""

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()


def dense_weights(*matrices: IntArray) -> list[IntArray]:
    """What Lava's Dense Processes multiply with, given the integer matrices [O, I] of one layer (recurrent ones too).

    netx scales them together up to eight bits, each Dense clips and truncates its own, the exponent undoes the scale:
    exact for signed matrices within -256..254 and for positive ones up to 255. A matrix without a positive entry may
    lose bits where its least is a power of two. ValueError: netx cannot load it (all zero, or positive and above 255).
    """
    low, high = min(int(m.min()) for m in matrices), max(int(m.max()) for m in matrices)
    if (high > 254 and low < 0) or (low < -256 and high > 0):
        matrices = tuple(np.clip(m, -256, 254) for m in matrices)
        low, high = max(low, -256), min(high, 254)
    if low == high == 0:
        raise ValueError("is zero everywhere, which netx cannot scale")
    signed = high >= 0 > low
    if signed:
        scale = min(127 / high if high else np.inf, -128 / low)
    else:
        scale = -256 / low if high < 0 else 255 / high
    bits = floor(log2(scale)) + signed
    if bits < 0:
        raise ValueError(f"runs from {low} to {high}, more than eight bits hold")
    whole = np.concatenate([m.reshape(-1) for m in matrices])
    zeros = next((n for n in range(8, 0, -1) if not (whole % (1 << n)).any()), 0) - signed
    return [_stored(m << bits, bits + zeros) >> bits for m in matrices]


def _stored(weight: IntArray, drop: int) -> IntArray:
    """Clipped and truncated as a synapse of its own sign holds it; ``drop``: lowest bits of an unsigned one."""
    mixed, inhibitory = weight.min() < 0 < weight.max(), weight.max() <= 0 and weight.min() < 0
    magnitude = np.clip(-weight if inhibitory else weight, -256 if mixed else 0, 255)
    cut = max(drop + int(mixed), 0)
    magnitude = (magnitude >> cut) << cut
    result: IntArray = -magnitude if inhibitory else magnitude
    return result
