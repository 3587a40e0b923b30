"""Exact PyTorch kernels of the operations, on streams held as float32 real values.

This module decides how the simulator computes one operation; it must not know phases, counts or files, and shares no
arithmetic with ``program.ops``. Convolutions are in ``sim_conv``, the form of values in ``sim_tensors``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.engines.sim_conv import Kernel, conv_kernel, spiking_conv_kernel
from spiketrack_deploy.engines.sim_levels import level_gains, rounding_bits
from spiketrack_deploy.engines.sim_membrane import Fire, membrane_loop
from spiketrack_deploy.engines.sim_state import STATE_KERNELS
from spiketrack_deploy.engines.sim_tensors import LAST, Held, channels, nchw, nhwc, spikes_of
from spiketrack_deploy.program.types import (
    DECAY_BITS,
    INT24_MAX,
    INT24_MIN,
    SPIKE_MAX,
    AnyArray,
    Arrays,
    IntArray,
    Op,
    TensorSpec,
)


def level_kernel(thresholds: AnyArray, bits: AnyArray) -> Kernel:
    """Held stream (float32) -> the spikes 0..top as fresh float32. ``thresholds`` ``[1 or C, top]`` integers."""
    full = np.broadcast_to(thresholds.astype(np.int64), (len(bits), thresholds.shape[1]))
    gains = level_gains(full, bits)
    if gains is None:
        return _compare_kernel(full, bits)
    if (gains == 1).all():
        return lambda x: torch.clamp(x, 0, SPIKE_MAX).round_()
    factor = channels(gains)
    return lambda x: torch.mul(x, factor).clamp_(0, SPIKE_MAX).round_()


def _compare_kernel(thresholds: IntArray, bits: AnyArray) -> Kernel:
    limits = np.clip(thresholds, INT24_MIN, INT24_MAX + 1) * 2.0 ** -np.asarray(bits, dtype=np.float64)[:, None]
    reachable = [k for k in range(thresholds.shape[1]) if (thresholds[:, k] <= INT24_MAX).any()]
    columns = [channels(limits[:, k]) for k in reachable]

    def run(x: Tensor) -> Tensor:
        n = torch.zeros_like(x)
        for limit in columns:
            n += torch.ge(x, limit)
        return n

    return run


def fire_kernel(thresholds: AnyArray, bits: AnyArray) -> Kernel:
    """Held stream -> uint8 spikes of stateless neurons."""
    level = level_kernel(thresholds, bits)
    return lambda x: spikes_of(level(x))


def ni_lif_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """NI-LIF: stateless where it has one step, else with a membrane."""
    bits, steps = inputs[0].bits, op.attrs["steps"]
    offset = None
    if "offset" in arrays:
        real = arrays["offset"].astype(np.float64) * 2.0 ** -bits[None, :, None, None]
        offset = torch.from_numpy(real.astype(np.float32)).contiguous(memory_format=LAST)
    if steps > 1:
        _, count, height, width = out.spec.shape
        loop = _membrane_loop(arrays, offset, bits, count)
        if loop is None:
            return _membrane_kernel(arrays, offset, bits, steps)

        def run(x: Tensor) -> Tensor:
            spikes = np.empty((steps, height * width, 1, count), dtype=np.uint8)
            loop(nhwc(x).flatten(1, 2).numpy(), spikes, 0)
            return nchw(torch.from_numpy(spikes).view(steps, height, width, count))

        return run
    fire = fire_kernel(arrays["thresholds"], bits)
    return fire if offset is None else lambda x: fire(x + offset)


def _membrane_loop(arrays: Arrays, offset: Tensor | None, bits: IntArray, count: int) -> Fire | None:
    """The compiled loop, where rounding is firing and ``v - n * reset`` stays below 2**24 (four resets below 2**23)."""
    top = arrays["thresholds"].shape[1]
    gains = level_gains(np.broadcast_to(arrays["thresholds"].astype(np.int64), (len(bits), top)), bits)
    if gains is None or top * int(arrays["reset"].max()) > INT24_MAX:
        return None
    added = None if offset is None else nhwc(offset).flatten(1, 2).numpy()
    return membrane_loop(count, gains, arrays["reset"].astype(np.float64), arrays["decay"], bits, added)


def _membrane_kernel(arrays: Arrays, offset: Tensor | None, bits: IntArray, steps: int) -> Kernel:
    """Membranes are held like streams. The leak's product needs 36 bits, so it is float64; conversion to integers
    truncates toward zero, as the chip does, and is far faster than ``trunc``.
    """
    level = level_kernel(arrays["thresholds"], bits)
    reset = channels(np.broadcast_to(arrays["reset"].astype(np.float64), bits.shape) * 2.0**-bits)
    unit = channels(2.0**-bits)
    decays = [channels(float(d) * 2.0 ** (bits - DECAY_BITS), torch.float64) for d in arrays["decay"][: steps - 1]]
    # v - n * reset stays below 2**24 while four resets stay below 2**23: float32 holds it. Else float64 does.
    narrow = arrays["thresholds"].shape[1] * int(arrays["reset"].max()) <= INT24_MAX
    whole = torch.int32 if narrow else torch.int64

    held: dict[torch.dtype, Tensor] = {}

    def as_type(x: Tensor, dtype: torch.dtype) -> Tensor:
        """Conversion into memory that every call uses again: large new memory costs more than the arithmetic."""
        if dtype not in held or held[dtype].shape != x.shape:
            held[dtype] = torch.empty_like(x, dtype=dtype)
        return held[dtype].copy_(x)

    def drained(v: Tensor, n: Tensor) -> Tensor:
        if not narrow:
            return v.to(torch.float64) - n.to(torch.float64) * reset
        left = torch.sub(v, n, alpha=reset) if isinstance(reset, float) else v - n * reset
        return as_type(left, torch.float64)

    def run(x: Tensor) -> Tensor:
        spikes = []
        v, n = x[:1], x[:0]
        for t in range(steps):
            if t:
                kept = as_type(drained(v, n).mul_(decays[t - 1]), whole).to(torch.float32)
                v = kept.mul_(unit).add_(x[t : t + 1] if x.shape[0] > 1 else x)
            n = level(v if offset is None else v + offset[t : t + 1])
            spikes.append(spikes_of(n))
        return torch.cat(spikes)

    return run


def _rescale(y: Tensor, factor: Tensor | float) -> Tensor:
    return y if isinstance(factor, float) and factor == 1.0 else y.mul_(factor)


def add_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """Float addition where both operands and the sum have one unit, as they have in every lowered program."""
    first, second = inputs
    if np.array_equal(first.bits, out.bits) and np.array_equal(second.bits, out.bits):
        return torch.add
    a, b = channels(2.0 ** (first.bits - out.bits)), channels(2.0 ** (second.bits - out.bits))
    return lambda x, y: x * a + y * b


def avg_pool_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """Window sums; the finer unit turns them into means."""
    k = op.attrs["kernel"]
    factor = channels(2.0 ** (inputs[0].bits - out.bits))
    return lambda x: _rescale(torch.nn.functional.avg_pool2d(x, k, divisor_override=1), factor)


def interpolation(size: int, factor: int) -> Tensor:
    """Bilinear weights ``[size*factor, size]`` times ``2*factor``: the hat function of each source pixel, integers."""
    centre = (np.arange(size * factor) + 0.5) / factor - 0.5
    distance = np.abs(np.clip(centre, 0, size - 1)[:, None] - np.arange(size)[None])
    return torch.from_numpy(np.rint(np.maximum(1 - distance, 0) * 2 * factor).astype(np.float32))


def upsample_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """Two matrix products of integers below 2**24."""
    _, _, height, width = inputs[0].spec.shape
    rows, cols = interpolation(height, op.attrs["factor"]), interpolation(width, op.attrs["factor"])
    factor = channels(2.0 ** (inputs[0].bits - out.bits))

    def run(x: Tensor) -> Tensor:
        y = nhwc(x)
        steps, _, _, count = y.shape
        tall = torch.matmul(rows, y.reshape(steps, height, width * count)).view(steps, -1, width, count)
        return _rescale(nchw(torch.matmul(cols, tall)), factor)

    return run


def requantise_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """``floor(x + 1/2)`` in the new unit."""
    to_new = channels(2.0 ** (inputs[0].bits - arrays["shift"].astype(np.float64)))
    back = channels(2.0 ** -out.bits.astype(np.float64))
    return lambda x: torch.mul(x, to_new).add_(0.5).floor_().mul_(back)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Spikes ``[T,C,H,W]`` as float32 ``[T*heads, H*W, C/heads]`` (a strided view of one copy)."""
    y = nhwc(x).to(torch.float32)
    steps, height, width, count = y.shape
    return y.view(steps, height * width, heads, count // heads).permute(0, 2, 1, 3).flatten(0, 1)


def key_value_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """``k^T v`` per step and head: at most 16 per token, exact in float32."""
    heads, shape = op.attrs["heads"], out.spec.shape
    return lambda k, v: torch.bmm(_heads(k, heads).transpose(1, 2), _heads(v, heads)).view(shape)


def _query_parts(op: Op, spec: TensorSpec, factor: float) -> tuple[Kernel, Kernel]:
    """``(product, layout)``: spikes and memory to ``factor * q M`` ``[T*heads,N,dv]``, and that, or spikes of more
    steps, to ``[T,C,H,W]``."""
    heads = op.attrs["heads"]
    _, count, height, width = spec.shape

    def product(q: Tensor, memory: Tensor) -> Tensor:
        scaled = memory if factor == 1.0 else memory * factor
        return torch.bmm(_heads(q, heads), scaled.flatten(0, 1))

    def layout(y: Tensor) -> Tensor:
        rows = y.view(-1, heads, height * width, count // heads).transpose(1, 2)
        return nchw(rows.reshape(-1, height, width, count))

    return product, layout


def _query_scale(op: Op, out: Held) -> Tensor | float:
    return channels(2.0 ** (op.attrs["shift"] - out.bits.astype(np.float64)))


def query_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """``q M`` per step and head: bounded by ``4 d 16 N``, exact in float32."""
    scale = _query_scale(op, out)
    if isinstance(scale, float):
        product, layout = _query_parts(op, out.spec, scale)
        return lambda q, memory: layout(product(q, memory))
    product, layout = _query_parts(op, out.spec, 1.0)
    return lambda q, memory: layout(product(q, memory)).mul_(scale)


def gate_transpose_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """Positions become channels."""
    steps, count, height, width = inputs[0].spec.shape
    return lambda x: nhwc(x).view(steps, height * width, 1, count).contiguous(memory_format=LAST)


def gate_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """Softmax table over the steps; every partial sum of ``weight * (n - 2)``, the -2 first, stays below 2**24."""
    scale = channels(2.0 ** inputs[0].bits)
    table = torch.from_numpy(arrays["table"].astype(np.float32))
    shift, last = op.attrs["shift"], table.numel() - 1
    factor = channels(2.0 ** -out.bits.astype(np.float64))

    def run(logits: Tensor, spikes: Tensor) -> Tensor:
        level = (logits.to(torch.float64) * scale).to(torch.int64).reshape(logits.shape[0], -1)
        index = ((level.amax(dim=0, keepdim=True) - level) >> shift).clamp_(max=last)
        weights = table[index]
        total = weights.sum(dim=0).mul_(-2)
        for n, weight in zip(nhwc(spikes), weights):
            total = torch.addcmul(total, n.to(torch.float32), weight)
        return _rescale(nchw(total[None]), factor)

    return run


Builder = Callable[[Op, Arrays, Sequence[Held], Held, bool], Kernel]
KERNELS: dict[str, Builder] = {
    "image_conv": conv_kernel,
    "conv": conv_kernel,
    "head_out": conv_kernel,
    "add": add_kernel,
    "ni_lif": ni_lif_kernel,
    "avg_pool": avg_pool_kernel,
    "upsample": upsample_kernel,
    "requantise": requantise_kernel,
    "key_value": key_value_kernel,
    "query": query_kernel,
    "gate_transpose": gate_transpose_kernel,
    "gate": gate_kernel,
    **STATE_KERNELS,
}


def fused_kernel(
    op: Op, arrays: Arrays, held: Held, out: Held, neuron: Op, neuron_arrays: Arrays, int8: bool
) -> Kernel | None:
    """One kernel for a convolution or query and the NI-LIF behind it, or ``None`` where they stay apart.

    A convolution rounds to the spikes of a stateless neuron itself. Behind a query all channels of a neuron are alike,
    so it works on the product as it comes from the matrix product, and only spikes are brought into place.
    """
    if "offset" in neuron_arrays:
        return None
    thresholds, steps = neuron_arrays["thresholds"], neuron.attrs["steps"]
    if op.kind == "conv" and steps == 1:
        dyadic = rounding_bits(np.broadcast_to(thresholds, (len(out.bits), thresholds.shape[1])))
        return None if dyadic is None else spiking_conv_kernel(op, arrays, held, dyadic, int8)
    alike = thresholds.shape[0] == 1 and neuron_arrays.get("reset", thresholds).shape[0] == 1
    if op.kind != "query" or not alike or (out.bits != out.bits[0]).any():
        return None
    bits, factor = out.bits[:1], 2.0 ** (op.attrs["shift"] - float(out.bits[0]))
    loop = None if steps == 1 else _membrane_loop(neuron_arrays, None, bits, out.spec.shape[1] // op.attrs["heads"])
    if loop is not None:
        return _reading_kernel(op, out.spec, steps, factor, loop)
    product, layout = _query_parts(op, out.spec, factor)
    fire = fire_kernel(thresholds, bits) if steps == 1 else _membrane_kernel(neuron_arrays, None, bits, steps)

    def run(q: Tensor, memory: Tensor) -> Tensor:
        y = product(q, memory)
        return layout(fire(y.view(out.spec.shape[0], -1, *y.shape[1:])).flatten(0, 1))

    return run


def _reading_kernel(op: Op, spec: TensorSpec, steps: int, factor: float, loop: Fire) -> Kernel:
    """Query and neurons head by head, so that a product is still in the cache when its neurons fire."""
    heads = op.attrs["heads"]
    currents, count, height, width = spec.shape
    tokens, wide = height * width, count // heads

    def run(q: Tensor, memory: Tensor) -> Tensor:
        asked = nhwc(q).to(torch.float32).view(currents, tokens, heads, -1)
        scaled = memory if factor == 1.0 else memory * factor
        spikes = np.empty((steps, tokens, heads, wide), dtype=np.uint8)
        product = torch.empty(currents, tokens, wide)
        for head in range(heads):
            torch.bmm(asked[:, :, head], scaled[:, head], out=product)
            loop(product.numpy(), spikes, head)
        return nchw(torch.from_numpy(spikes).view(steps, height, width, count))

    return run
