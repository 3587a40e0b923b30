"""Chooses the unit (fraction bits per channel) of every stream so that nothing leaves signed 24 bits.

This module decides units. Streams that an addition joins share one unit array, in both phases where a convolution
occurs in both, so that weights, biases and shifts are stored once. It must not choose exponents (``calibrate``): it
says how fine a unit the worst case allows, and afterwards takes the finest that the chosen exponents ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import FitError
from spiketrack_deploy.lowering.network import FloatNetwork, FloatOp
from spiketrack_deploy.program.types import INT24_MAX, AnyArray

Key = tuple[str, str]
_SLACK = 1.02
"""Rounded weights may add up to a little more than the real ones."""
MIN_BITS = 2
"""A quarter of a step, what a spike subtracts from the membrane, must be an integer."""


def pool_bits(op: FloatOp) -> int:
    """Bits by which an average pooling or upsampling refines its unit."""
    factor = op.params["kernel"] if op.kind == "avg_pool" else 2 * op.params["factor"]
    return 2 * int(np.log2(factor))


class _Groups:
    """Union-find over stream values."""

    def __init__(self) -> None:
        self.parent: dict[Key, Key] = {}

    def find(self, key: Key) -> Key:
        self.parent.setdefault(key, key)
        while self.parent[key] != key:
            self.parent[key] = self.parent[self.parent[key]]
            key = self.parent[key]
        return key

    def join(self, a: Key, b: Key) -> None:
        self.parent[self.find(b)] = self.find(a)


CONVS = ("conv", "image_conv", "head_out")
_STREAMS = (*CONVS, "add", "avg_pool", "upsample")


@dataclass(frozen=True, slots=True)
class Streams:
    """Which streams share a unit, and the finest unit each group may have: ``cap[group]`` int ``[C]``."""

    group: Mapping[Key, Key]
    cap: Mapping[Key, AnyArray]


def _interval(
    op: FloatOp, inputs: list[tuple[AnyArray, AnyArray]], weight: AnyArray | None, bias: AnyArray | None
) -> tuple[AnyArray, AnyArray]:
    """Real bounds per channel, partial sums included (see ``program.bounds`` for the integer rule of the final
    proof).
    """
    if op.kind in CONVS and weight is not None and bias is not None:
        top = 255.0 if op.kind == "image_conv" else 1.0
        low = np.minimum(weight, 0).sum(axis=(2, 3, 4)) * top
        high = np.maximum(weight, 0).sum(axis=(2, 3, 4)) * top
        b_low, b_high = (bias.min(axis=(1, 2))[None], bias.max(axis=(1, 2))[None]) if bias.ndim == 3 else (bias, bias)
        return (low + np.minimum(b_low, 0)).min(axis=0), (high + np.maximum(b_high, 0)).max(axis=0)
    if op.kind == "add":
        return inputs[0][0] + inputs[1][0], inputs[0][1] + inputs[1][1]
    low, high = inputs[0]
    return np.minimum(low, 0), np.maximum(high, 0)


def _membrane(op: FloatOp, low: AnyArray, high: AnyArray) -> AnyArray:
    """Largest magnitude of membrane plus offset over the steps."""
    v_low, v_high = np.minimum(low, 0), np.maximum(high, 0)
    peak_low, peak_high = v_low, v_high
    for sigma in op.params["sigma"]:
        v_low, v_high = sigma * (v_low - 1.0) + np.minimum(low, 0), sigma * v_high + np.maximum(high, 0)
        peak_low, peak_high = np.minimum(peak_low, v_low), np.maximum(peak_high, v_high)
    offset = op.params["offset"]
    if offset is not None:
        peak_low = peak_low + np.minimum(offset.min(axis=(0, 2, 3)), 0)
        peak_high = peak_high + np.maximum(offset.max(axis=(0, 2, 3)), 0)
    result: AnyArray = np.maximum(-peak_low, peak_high)
    return result


def _cap(peak: AnyArray) -> AnyArray:
    return np.floor(np.log2(INT24_MAX / np.maximum(peak * _SLACK, 2.0**-16))).astype(np.int64)


def plan(
    network: FloatNetwork, weights: Mapping[str, AnyArray], biases: Mapping[str, AnyArray], penalty: int = 0
) -> Streams:
    """Group the streams and bound their units by the worst case over any input.

    ``weights``, ``biases``: per convolution, the image convolution's folded for raw pixels (bias a map ``[O,H,W]``).
    ``penalty``: bits taken off every cap, for a second try after the integer proof.
    """
    groups = _Groups()
    peaks: dict[Key, AnyArray] = {}
    finer: list[tuple[Key, Key, int]] = []
    for phase in network.phases.values():
        bounds: dict[str, tuple[AnyArray, AnyArray]] = {}
        for op in phase.ops:
            key = (phase.name, op.name)
            if op.kind in _STREAMS:
                bounds[op.name] = _interval(
                    op, [bounds[i] for i in op.inputs if i in bounds], weights.get(op.name), biases.get(op.name)
                )
                peaks[key] = np.maximum(-bounds[op.name][0], bounds[op.name][1])
                groups.find(key)
            if op.kind in CONVS:
                groups.join(("", op.name), key)
            elif op.kind == "add":
                groups.join(key, (phase.name, op.inputs[0]))
                groups.join(key, (phase.name, op.inputs[1]))
            elif op.kind in ("avg_pool", "upsample"):
                finer.append(((phase.name, op.inputs[0]), key, pool_bits(op)))
            elif op.kind == "ni_lif" and op.inputs[0] in bounds:
                source = (phase.name, op.inputs[0])
                peaks[source] = np.maximum(peaks[source], _membrane(op, *bounds[op.inputs[0]]))
    cap: dict[Key, AnyArray] = {}
    for key, peak in peaks.items():
        root = groups.find(key)
        own = _cap(peak) - penalty
        cap[root] = np.minimum(cap[root], own) if root in cap else own
    for source, target, bits in finer:
        root = groups.find(source)
        cap[root] = np.minimum(cap[root], _cap(peaks[target]) - penalty - bits)
    for root, bits_left in cap.items():
        if int(bits_left.min()) < MIN_BITS:
            raise FitError(
                f"stream of {root[1]}: its worst case leaves {int(bits_left.min())} fraction bits of signed 24, at "
                f"least {MIN_BITS} are needed; its weights are too large"
            )
    return Streams({key: groups.find(key) for key in peaks}, cap)
