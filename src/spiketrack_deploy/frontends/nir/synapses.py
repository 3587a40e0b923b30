"""Linear, Affine, convolutions and pools as one form: a two-dimensional convolution with the input's factor folded in.

Decides geometry, weights in integers, and sums of several inputs in one unit. Must not know neurons or time.

A Linear is a convolution whose kernel is the whole map (a Flatten before it is nothing), leading axes are groups, a
Conv1d is a map of height 1. A kernel that is padded more behind than before gets taps of zero in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from spiketrack_deploy.errors import FitError
from spiketrack_deploy.frontends.nir import scales
from spiketrack_deploy.frontends.nir.emit import Emitter, Map, Value, canonical
from spiketrack_deploy.frontends.nir.network import FloatArray, Node
from spiketrack_deploy.frontends.nir.scales import Loss
from spiketrack_deploy.program.types import AnyArray

MESSAGE_BITS = (8, 15)
"""Least and most bits of a graded message in front of weights."""
_TRIED = 2**27
"""Weights times units that are tried at most: seconds."""
_TRIES, _MARGIN = 8, 1.02
_COARSEST = 2.0**19
"""A value is at most so many units of a sum that it is part of: factors have 20 bits."""
_ROOM = 4
"""Part of the accumulators that is left free for fraction bits behind graded messages."""


@dataclass(frozen=True, slots=True, eq=False)
class Synapse:
    """Weights waiting for the unit of their target. ``weight`` ``[out, in/groups, kh, kw]`` and ``bias`` ``[out]`` in
    real units of the target per integer of the source; ``low``, ``high``: real sums at worst ``[out]``."""

    node: Node
    source: Value
    weight: FloatArray
    bias: FloatArray
    attrs: dict[str, int]
    shape: Map
    low: FloatArray
    high: FloatArray

    @property
    def sums(self) -> FloatArray:
        """Largest magnitude of the sum ``[out]``."""
        return np.maximum(-self.low, self.high)

    @property
    def largest(self) -> FloatArray:
        """Largest magnitude of a weight ``[out]``."""
        return np.abs(self.weight).reshape(len(self.weight), -1).max(axis=1)


Part = Synapse | Value


def sums_of(part: Part) -> FloatArray:
    """Largest real magnitude per channel ``[C]``."""
    if isinstance(part, Synapse):
        return part.sums
    factor = np.abs(part.full_factor()).reshape(part.shape[0], -1).max(axis=1)
    return np.asarray(part.largest * factor, dtype=np.float64)


class Synapses:
    """Puts weights and sums into a program. ``losses``: what rounding cost, in order."""

    def __init__(self, emit: Emitter, bits: int) -> None:
        self.emit, self.bits, self.losses = emit, bits, list[Loss]()

    @property
    def top(self) -> int:
        """Largest weight."""
        return int(2 ** (self.bits - 1)) - 1

    def shaped(self, x: Value, shape: Map, block: str) -> Value:
        """``x`` with another map of as many elements."""
        if x.shape == shape:
            return x
        factor = x.factor if x.factor.size == 1 else x.full_factor().reshape(shape)
        attrs = dict(zip(("channels", "height", "width"), shape))
        return self.emit.op(f"{block}:shape", "reshape", [x], block, factor, attrs)

    def scaled(self, x: Value, unit: FloatArray, block: str, limit: int = 0) -> Value:
        """``x`` as a stream whose factor is ``unit``."""
        ratio = np.asarray(x.factor / unit)
        if x.kind == "stream" and (ratio == 1).all() and not limit:
            return replace(x, factor=unit)
        ratio = ratio.reshape(1, 1, 1) if ratio.size == 1 else ratio
        factor, shift = scales.as_factor(ratio, max(self.bits, int(np.abs(ratio).max()).bit_length() + 2))
        if (got := factor / 2.0**shift).shape and not np.array_equal(got, ratio):
            self.losses.append(scales.lost(block, "factor", ratio, got, factor))
        attrs = {"shift": shift, "limit": limit}
        return self.emit.op(f"{block}:scale", "rescale", [x], block, unit, attrs, {"factor": factor})

    def narrowed(self, x: Value, bits: int, block: str) -> Value:
        """A stream of at most so many bits (and a sign) per channel."""
        wide = np.maximum([int(n).bit_length() - bits for n in x.largest], 0)
        return x if x.kind == "spikes" else self.coarser(x, wide, block)

    def coarser(self, x: Value, right: AnyArray, block: str) -> Value:
        """``x`` rounded to fewer bits: ``right`` ``[C]`` less."""
        if not right.any():
            return x
        # A factor has 20 bits: channels that would keep more than the roughest by that lose some.
        right = np.maximum(right, right.max() - 20)
        factor = (1 << (right.max() - right)).astype(np.int32).reshape(-1, 1, 1)
        unit = np.asarray(x.factor * 2.0 ** right.reshape(-1, 1, 1))
        attrs = {"shift": int(right.max()), "limit": 0}
        return self.emit.op(f"{block}:round", "rescale", [x], block, unit, attrs, {"factor": factor})

    def even(self, x: Value, block: str) -> Value:
        """``x`` with one factor per channel: a kernel has one weight for all positions."""
        if x.factor.shape[1:] == (1, 1):
            return x
        full = x.full_factor().reshape(x.shape[0], -1)
        if (full == full[:, :1]).all():
            return replace(x, factor=full[:, :1, None])
        unit = np.abs(full).max(axis=1) / (self.top if x.kind == "spikes" else 1)
        return self.scaled(x, np.where(unit > 0, unit, 1.0).reshape(-1, 1, 1), block)

    def prepare(self, node: Node, x: Value) -> Synapse:
        """The weights of a synaptic node with input ``x``, or those of a pool (ones)."""
        if node.kind in ("Linear", "Affine"):
            return self._linear(node, x)
        x = self.even(self.shaped(x, canonical(node.in_shape), node.name), node.name)
        flat = node.kind == "Conv1d"
        lead, none = ((1,), (0, 0)) if flat else ((), ())
        if node.kind in ("SumPool2d", "AvgPool2d"):
            groups, dilation = x.shape[0], (1, 1)
            share = 1.0 if node.kind == "SumPool2d" else 1.0 / prod(node.ints("kernel_size"))
            weight, bias = np.full((groups, 1, *node.ints("kernel_size")), share), np.zeros(groups)
        else:
            groups, dilation = node.groups, (*lead, *node.ints("dilation"))
            weight, bias = node.array("weight"), node.array("bias")
            weight = weight[:, :, None] if flat else weight
        weight, padding, dilation = _even_padding(weight, (*none, *node.ints("padding")), dilation)
        stride = (*lead, *node.ints("stride"))
        pairs = {"stride": stride, "padding": padding, "dilation": dilation}
        attrs = {f"{key}_{axis}": n for key, pair in pairs.items() for axis, n in zip("hw", pair)} | {"groups": groups}
        return self._folded(node, x, weight, bias, attrs, canonical(node.shape))

    def _linear(self, node: Node, x: Value) -> Synapse:
        weight = node.array("weight")
        out, fan_in = weight.shape[-2:]
        bias = node.array("bias").reshape(-1) if node.kind == "Affine" else np.zeros(prod(node.shape))
        groups = prod(weight.shape[:-2])
        attrs = {f"{key}_{axis}": int(key != "padding") for key in ("stride", "padding", "dilation") for axis in "hw"}
        if groups == 1:
            shape, kernel = (out, 1, 1), weight.reshape(out, *x.shape)
        else:
            x = self.shaped(x, (groups * fan_in, 1, 1), node.name)
            shape, kernel = (groups * out, 1, 1), weight.reshape(groups * out, fan_in, 1, 1)
        return self._folded(node, x, kernel, np.broadcast_to(bias, shape[0]), attrs | {"groups": groups}, shape)

    def _folded(
        self, node: Node, x: Value, weight: FloatArray, bias: FloatArray, attrs: dict[str, int], shape: Map
    ) -> Synapse:
        """Factors of the source become part of the weights, its messages as narrow as the sums need."""
        groups, (outputs, fan_in) = attrs["groups"], weight.shape[:2]
        if x.kind == "stream":
            size = np.abs(weight).reshape(outputs, -1)
            spread = float((size.sum(axis=1) / np.maximum(size.max(axis=1), 1e-300)).max(initial=1))
            room = np.log2(self.emit.most / _ROOM / max(spread, 1))
            share = int(np.floor(max(room / 2, room - np.log2(self.top))))
            x = self.narrowed(x, int(np.clip(share, *MESSAGE_BITS)), node.name)
        full = groups == 1 and weight.shape[2:] == x.shape[1:]
        factor = x.full_factor()[None] if full else np.broadcast_to(x.factor[:, :1, :1], (x.shape[0], 1, 1))
        if not full:
            factor = np.repeat(factor.reshape(groups, fan_in, 1, 1), outputs // groups, axis=0)
        folded = weight * factor
        ends = [np.asarray(end, dtype=np.float64).reshape(groups, fan_in, 1, 1) for end in (x.low, x.high)]
        ends = [np.repeat(end, outputs // groups, axis=0) for end in ends]
        least = np.minimum(np.minimum(folded * ends[0], folded * ends[1]), 0).sum(axis=(1, 2, 3))
        most = np.maximum(np.maximum(folded * ends[0], folded * ends[1]), 0).sum(axis=(1, 2, 3))
        low, high = least + np.minimum(bias, 0), most + np.maximum(bias, 0)
        return Synapse(node, x, folded, np.asarray(bias), attrs, shape, low, high)

    def natural(self, part: Part) -> FloatArray:
        """The coarsest unit ``[C]`` in which all bits of the weights (or of the value) are used; inf where none is."""
        if isinstance(part, Synapse):
            largest = np.where(part.largest > 0, part.largest, np.abs(part.bias))
            return np.where(largest > 0, largest / self.top, np.inf)
        factor = np.abs(part.full_factor()).reshape(part.shape[0], -1)
        return np.where(factor > 0, factor, np.inf).min(axis=1)

    def best(self, parts: Sequence[Part], unit: FloatArray, theta: FloatArray | None) -> FloatArray:
        """Of the units up to twice as coarse, per channel the one in which the weights lose the least: what a sum over
        inputs that spike in a quarter of the steps misses, squared, in the mean."""
        mine = [part for part in parts if isinstance(part, Synapse) and part.shape[0] == len(unit)]
        tried = scales.candidates(unit, theta)
        if not mine or sum(part.weight.size for part in mine) * len(tried) > _TRIED:
            return tried[0]
        errors = []
        for one in tried:
            lost = np.zeros(len(unit))
            for part in mine:
                shift, integers = self._rounded(part, one)
                step = (one * 2.0**shift).reshape(-1, 1, 1, 1)
                error = (integers * step - part.weight).reshape(len(unit), -1)
                # Variance 3/16 for every input, and a mean of 1/4 for all of them together.
                lost += (error**2).sum(axis=1) + error.sum(axis=1) ** 2 / 3
            errors.append(lost / np.maximum(sum(part.largest for part in mine) ** 2, 1e-300))
        # What is exact but for float64 is exact.
        chosen = np.where(np.array(errors) < 1e-24, 0, errors).argmin(axis=0)
        return np.take_along_axis(np.array(tried), chosen[None], axis=0)[0]

    def fitted(self, parts: Sequence[Part], unit: FloatArray, shift: int) -> FloatArray:
        """Units ``[C]`` no finer than ``unit`` in which the integers of the weights, too, keep every sum, shifted by
        ``shift``, within the accumulators: rounding may carry it over the edge that the real sum keeps."""
        for part in parts:
            if isinstance(part, Value):
                factor = np.abs(part.full_factor()).reshape(part.shape[0], -1).max(axis=1)
                unit = np.maximum(unit, resized(factor, len(unit)) / _COARSEST)
        for _ in range(_TRIES):
            worst = np.sum([resized(self._worst(part, unit), len(unit)) for part in parts], axis=0)
            beyond = worst * 2.0**shift / self.emit.most
            if (beyond <= 1).all():
                break
            unit = np.where(beyond > 1, unit * beyond * _MARGIN, unit)
        return unit

    def _worst(self, part: Part, unit: FloatArray) -> FloatArray:
        if not isinstance(part, Synapse) or part.shape[0] != len(unit):
            ends = sums_of(part) / (unit if part.shape[0] == len(unit) else unit.min())
            return ends + ends.max() * (4 / self.top) + 1
        shift, integers = self._rounded(part, unit)
        groups, (outputs, fan_in) = part.attrs["groups"], part.weight.shape[:2]
        source = np.repeat(part.source.largest.reshape(groups, fan_in), outputs // groups, axis=0).astype(np.float64)
        size = np.abs(integers).sum(axis=(2, 3))
        return np.asarray((size * source).sum(axis=1) * 2.0**shift + np.abs(np.rint(part.bias / unit)))

    def _rounded(self, part: Synapse, unit: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Left shifts ``[out]`` and integer weights."""
        shift = scales.doublings(part.largest, unit, self.top)
        step = (unit * 2.0**shift).reshape(-1, 1, 1, 1)
        return shift, np.clip(np.rint(part.weight / step), -self.top, self.top)

    def put(self, part: Synapse, unit: FloatArray) -> Value:
        """The weights in units ``[C]``."""
        return self._pool(part) if part.node.kind in ("SumPool2d", "AvgPool2d") else self._weigh(part, unit)

    def _weigh(self, part: Synapse, unit: FloatArray) -> Value:
        node = part.node
        shift, integers = self._rounded(part, unit)
        step = (unit * 2.0**shift).reshape(-1, 1, 1, 1)
        faint = (part.largest > 0) & (np.abs(integers).reshape(len(unit), -1).max(axis=1) < 2)
        if faint.any():
            worst = int(np.argmax(faint))
            raise FitError(
                f"node '{node.name}': what its output {worst} feeds reaches "
                f"{unit[worst] * self.emit.most / part.largest[worst]:.3g} times its largest weight, which "
                f"accumulators of {self.emit.width} bits do not hold with weights of even 2 bits; use fewer inputs, "
                "smaller gains or wider accumulators"
            )
        bias = np.rint(part.bias / unit)
        self.losses.append(scales.lost(node.name, "weight", part.weight, integers * step, integers))
        if part.bias.any():
            self.losses.append(scales.lost(node.name, "bias", part.bias, bias * unit, bias))
        return self._conv(part, integers, bias, shift, unit.reshape(-1, 1, 1))

    def _pool(self, part: Synapse) -> Value:
        """Sums of a window are exact; a mean is their sum counted in a finer unit."""
        flat = part.weight.reshape(part.shape[0], -1)
        share = np.take_along_axis(flat, np.abs(flat).argmax(axis=1)[:, None], axis=1)[:, 0]
        ones, zero = np.where(part.weight != 0, 1, 0), np.zeros(part.shape[0], dtype=np.int64)
        return self._conv(part, ones, zero, zero, share.reshape(-1, 1, 1))

    def _conv(self, part: Synapse, weight: AnyArray, bias: AnyArray, shift: AnyArray, factor: FloatArray) -> Value:
        kind = np.int8 if np.abs(weight).max(initial=0) < 128 else np.int16
        arrays: dict[str, AnyArray] = {
            "weight": np.ascontiguousarray(weight[None].astype(kind)),
            "bias": bias[None].astype(np.int32),
            "shift": shift[None].astype(np.int8),
        }
        name, op = part.node.name, "conv" if part.source.kind == "spikes" else "graded_conv"
        return self.emit.op(self.emit.own(name), op, [part.source], name, factor, part.attrs, arrays)

    def total(self, parts: Sequence[Part], unit: FloatArray, block: str) -> Value:
        """Several inputs as one stream in units of the map's size, or 1 along an axis."""
        per_channel = np.broadcast_to(unit, (parts_shape(parts)[0], *unit.shape[1:]))[:, 0, 0]
        found: list[Value] = []
        for part in parts:
            if isinstance(part, Synapse):
                part = self.put(part, resized(per_channel, part.shape[0]))
            found.append(self.scaled(self.shaped(part, parts_shape(parts), block), unit, block))
        total = found[0]
        for index, value in enumerate(found[1:], 1):
            total = self.emit.op(f"{block}:sum{index}", "add", [total, value], block, unit)
        return total


def resized(array: FloatArray, channels: int) -> FloatArray:
    """Per channel; of a part with another map than the sum's, the largest for every channel."""
    return array if len(array) == channels else np.full(channels, array.max())


def parts_shape(parts: Sequence[Part]) -> Map:
    """The map of a sum: that of its first part."""
    return parts[0].shape


def _even_padding(
    weight: FloatArray, padding: Sequence[int], dilation: Sequence[int]
) -> tuple[FloatArray, tuple[int, int], tuple[int, int]]:
    """Weights, padding and dilation with as much padding before as behind, on either axis."""
    spread, even = list(dilation), []
    for axis in (0, 1):
        before, behind = padding[2 * axis], padding[2 * axis + 1]
        even.append(max(before, behind))
        if before != behind:
            kernel = weight.shape[2 + axis]
            wide = np.zeros((*weight.shape[: 2 + axis], spread[axis] * (kernel - 1) + 1, *weight.shape[3 + axis :]))
            wide[(slice(None),) * (2 + axis) + (slice(None, None, spread[axis]),)] = weight
            extra = [(0, 0)] * 4
            extra[2 + axis] = (max(behind - before, 0), max(before - behind, 0))
            weight, spread[axis] = np.pad(wide, extra), 1
    return weight, (even[0], even[1]), (spread[0], spread[1])
