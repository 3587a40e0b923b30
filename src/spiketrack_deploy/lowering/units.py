"""Passes `plan` and `units`: the unit (fraction bits per channel) of every stream; nothing may leave signed 24 bits.

This module decides units. Streams that an addition joins share one unit array, and so do the uses of one convolution,
so that weights, biases and shifts are stored once. It must not choose exponents: `plan` says how fine a unit the worst
case allows, and `units` afterwards takes the finest that the chosen exponents ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import FitError, InputError
from spiketrack_deploy.lowering.calibrate import Choice
from spiketrack_deploy.lowering.convs import Conv, by_use
from spiketrack_deploy.lowering.network import CONVS, FloatNetwork, FloatOp, Key
from spiketrack_deploy.program.types import INT24_MAX, AnyArray

_SLACK = 1.02
"""Rounded weights may add up to a little more than the real ones."""
MIN_BITS = 2
"""A quarter of a step, what a spike subtracts from the membrane, must be an integer."""

Bounds = tuple[AnyArray, AnyArray]
"""Real lowest and highest value of every channel ``[C]``."""


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


@dataclass(frozen=True, slots=True)
class Streams:
    """Which streams share a unit, and the finest unit each group may have: ``cap[group]`` int ``[C]``."""

    group: Mapping[Key, Key]
    cap: Mapping[Key, AnyArray]


def _conv_bounds(conv: Conv) -> Bounds:
    """Partial sums included (the integer proof of ``program.bounds`` has the final word)."""
    weight, bias, top = conv.weight, conv.bias, 255.0 if conv.pixels else 1.0
    low = np.minimum(weight, 0).sum(axis=(2, 3, 4)) * top
    high = np.maximum(weight, 0).sum(axis=(2, 3, 4)) * top
    b_low, b_high = (bias.min(axis=(1, 2))[None], bias.max(axis=(1, 2))[None]) if bias.ndim == 3 else (bias, bias)
    return (low + np.minimum(b_low, 0)).min(axis=0), (high + np.maximum(b_high, 0)).max(axis=0)


def _add_bounds(a: Bounds, b: Bounds) -> Bounds:
    return a[0] + b[0], a[1] + b[1]


def _mean_bounds(x: Bounds) -> Bounds:
    """Means of values, some of which may be the zeros of a border."""
    return np.minimum(x[0], 0), np.maximum(x[1], 0)


_BOUNDS: Mapping[str, Callable[..., Bounds]] = {"add": _add_bounds, "avg_pool": _mean_bounds, "upsample": _mean_bounds}
"""Streams that are no convolution's: what their inputs' bounds say of them."""


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


def _peaks(network: FloatNetwork, convs: Mapping[str, Conv]) -> dict[Key, AnyArray]:
    """Largest magnitude ``[C]`` of every stream, and of the membranes that read it, for any input."""
    of, peaks, bounds = by_use(convs), dict[Key, AnyArray](), dict[Key, Bounds]()
    for phase, op in network.walk():
        key, inputs = (phase.name, op.name), [(phase.name, name) for name in op.inputs]
        if op.kind in CONVS:
            bounds[key] = _conv_bounds(of[key])
        elif op.kind in _BOUNDS:
            bounds[key] = _BOUNDS[op.kind](*(bounds[i] for i in inputs))
        elif op.kind == "ni_lif" and inputs[0] in bounds:
            peaks[inputs[0]] = np.maximum(peaks[inputs[0]], _membrane(op, *bounds[inputs[0]]))
        if key in bounds:
            peaks[key] = np.maximum(-bounds[key][0], bounds[key][1])
    return peaks


def plan(network: FloatNetwork, convs: Mapping[str, Conv], penalty: int) -> Streams:
    """Group the streams and bound their units by the worst case over any input.

    ``penalty``: bits taken off every cap, for another try after the integer proof.
    """
    groups = _Groups()
    for conv in convs.values():
        for use in conv.uses:
            groups.join(conv.uses[0], use)
    for phase, op in network.walk():
        if op.kind == "add":
            for name in op.inputs:
                groups.join((phase.name, op.name), (phase.name, name))
    peaks, cap = _peaks(network, convs), dict[Key, AnyArray]()
    for key, peak in peaks.items():
        root = groups.find(key)
        own = _cap(peak) - penalty
        cap[root] = np.minimum(cap[root], own) if root in cap else own
    for phase, op in network.walk():
        if op.kind in ("avg_pool", "upsample"):
            root = groups.find((phase.name, op.inputs[0]))
            cap[root] = np.minimum(cap[root], _cap(peaks[phase.name, op.name]) - penalty - pool_bits(op))
    return Streams({key: groups.find(key) for key in peaks}, cap)


def check_plan(streams: Streams) -> None:
    """FitError where a worst case leaves no room for a quarter of a step."""
    for root, bits in streams.cap.items():
        if int(bits.min()) < MIN_BITS:
            raise FitError(
                f"stream of {root[1]}: its worst case leaves {int(bits.min())} fraction bits of signed 24, at "
                f"least {MIN_BITS} are needed; its weights are too large"
            )


def stream_bits(
    network: FloatNetwork, convs: Mapping[str, Conv], streams: Streams, choices: Mapping[str, Choice]
) -> dict[Key, AnyArray]:
    """Fraction bits ``[C]`` of every group: the finest that its convolutions' exponents ask for.

    Spikes are quarters, so a convolution with exponent e writes units of 2^-(e+2); pixels are whole, so 2^-e. A
    projection in front of an upsampling is made finer where the stream behind has room, so that no rounding is needed.
    """
    bits: dict[Key, AnyArray] = {}
    for conv in convs.values():
        root = streams.group[conv.uses[0]]
        wanted = choices[conv.key].exponent.max(axis=0) + conv.spike_bits
        bits[root] = np.maximum(bits[root], wanted) if root in bits else wanted
    for phase, op in network.walk():
        if op.kind in (*CONVS, "add", "upsample") and streams.group[phase.name, op.name] not in bits:
            raise InputError(f"{phase.name} phase: {op.name} joins no convolution's stream, so its unit is open")
    for phase, op in network.walk():
        if op.kind == "upsample":
            source, target = streams.group[phase.name, op.inputs[0]], streams.group[phase.name, op.name]
            if source in bits:
                bits[source] = np.maximum(bits[source], np.minimum(bits[target] - pool_bits(op), streams.cap[source]))
    return bits


def dump_plan(streams: Streams) -> str:
    """One line a group of streams: its members and the finest unit it may have."""
    members: dict[Key, list[Key]] = {}
    for key, root in streams.group.items():
        members.setdefault(root, []).append(key)
    return "".join(
        f"at most {streams.cap[root].min()}..{streams.cap[root].max()}: {', '.join(' '.join(key) for key in keys)}\n"
        for root, keys in members.items()
    )


def dump_units(streams: Streams, bits: Mapping[Key, AnyArray]) -> str:
    """One line a group of streams that has a unit: its first member, and its fraction bits."""
    first: dict[Key, Key] = {}
    for key, root in streams.group.items():
        first.setdefault(root, key)
    return "".join(
        f"{' '.join(key)} and its sums: {bits[root].min()}..{bits[root].max()}\n"
        for root, key in first.items()
        if root in bits
    )
