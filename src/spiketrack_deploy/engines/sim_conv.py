"""Exact convolutions: oneDNN int8 where a probe shows it equal to float32 convolution, else float32.

This module decides which library kernel a convolution runs on and proves it equal; it must not know phases or counts.
Both kernels form sums of integers below 2**24, which int32 and float32 hold exactly. The libraries have faults in
corners that no tracker has: windows wholly inside the padding end the process (oneDNN 3.x, either kernel), depthwise
int8 convolutions with several outputs a channel and a single output column are wrong. The first are kept away by
padding the image itself, the second are found by the probe of every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.engines.sim_tensors import LAST, Held, spikes_of
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray, Arrays, IntArray, Op, TensorSpec

Kernel = Callable[..., Tensor]
"""Takes the operation's inputs as held tensors, returns a fresh tensor."""


Pair = tuple[int, int]
Shape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Geometry:
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


def _geometry(attrs: Mapping[str, int], kernel: Sequence[int]) -> tuple[_Geometry, Pair]:
    """The convolution with no more padding than its kernel reaches across, and what must be padded before."""
    stride, padding, dilation = ((attrs[f"{k}_h"], attrs[f"{k}_w"]) for k in ("stride", "padding", "dilation"))
    rows, cols = kernel
    dilation = (dilation[0] if rows > 1 else 1, dilation[1] if cols > 1 else 1)
    before = max(padding[0] - dilation[0] * (rows - 1), 0), max(padding[1] - dilation[1] * (cols - 1), 0)
    inside = padding[0] - before[0], padding[1] - before[1]
    return _Geometry(stride, inside, dilation, attrs["groups"]), before


def _conv_float(
    weight: AnyArray, scale: AnyArray, bias: AnyArray | None, shape: Sequence[int], g: _Geometry, spiking: bool
) -> Kernel:
    """Float32 convolution of integers: exact below 2**24. ``spiking``: round and clamp to spikes as well."""
    w = torch.from_numpy(weight.astype(np.float32) * scale.astype(np.float32)[:, None, None, None]).contiguous(
        memory_format=LAST
    )
    b = None if bias is None else torch.from_numpy(bias.astype(np.float32))
    lone = _reads_foreign_memory(weight.shape, shape, g)
    if lone:
        w = torch.cat([w, torch.zeros_like(w)], 1).contiguous(memory_format=LAST)

    def run(x: Tensor) -> Tensor:
        x = x.expand(-1, 2, -1, -1).contiguous(memory_format=LAST) if lone else x
        y = torch.conv2d(x.float(), w, b, g.stride, g.padding, g.dilation, g.groups)
        return spikes_of(y.clamp_(0, SPIKE_MAX).round_()) if spiking else y

    return run


def _reads_foreign_memory(weight: Sequence[int], shape: Sequence[int], g: _Geometry) -> bool:
    """Whether oneDNN's float32 kernel would be wrong, and differently so from run to run.

    Found by a drawn program, and by 317,000 drawn convolutions of PyTorch 2.13 beside float64, 230 of which differed:
    one input channel, one column of outputs, a stride along the row. A second channel of zero weights avoids it.
    """
    columns = shape[3] + 2 * g.padding[1] - g.dilation[1] * (weight[3] - 1)
    return g.groups == 1 and weight[1] == 1 and g.stride[1] > 1 and columns <= g.stride[1]


def _conv_int8(
    weight: AnyArray, scale: AnyArray, bias: AnyArray | None, shape: Sequence[int], g: _Geometry, spiking: bool
) -> Kernel:
    """oneDNN uint8 x int8 -> int32 -> ``* scale + bias`` as float32, or rounded half to even into uint8 0..4."""
    # The operator's zero-point and unary arguments belong to PyTorch's quantised graphs; none applies here.
    s = torch.from_numpy(scale.astype(np.float32))
    zero = torch.zeros(len(scale), dtype=torch.int32)
    b = None if bias is None else torch.from_numpy(bias.astype(np.float32))
    library: Any = torch.ops.onednn
    packed = library.qconv_prepack(
        torch.from_numpy(weight), s, 1.0, 0, g.stride, g.padding, g.dilation, g.groups, list(shape)
    )
    call = library.qconv2d_pointwise.default
    tail = (g.stride, g.padding, g.dilation, g.groups, 1.0, 0)
    post = (torch.uint8, "hardtanh", [0.0, float(SPIKE_MAX)], "") if spiking else (torch.float32, "none", [], "")

    def run(x: Tensor) -> Tensor:
        y: Tensor = call(x, 1.0, 0, packed, s, zero, b, *tail, *post)
        return y

    return run


def _agree(first: Kernel, second: Kernel, x: Tensor) -> bool:
    return bool(torch.equal(first(x).to(torch.float32), second(x).to(torch.float32)))


@lru_cache(maxsize=1024)
def _int8_exact(shape: Shape, weight: Shape, g: _Geometry, spiking: bool) -> bool:
    """Whether int8 equals float32 for drawn spikes and weights of these shapes, which is what kernels are chosen by."""
    rng = np.random.default_rng(2)
    # Bytes are drawn many times faster than integers of a range, and a large network has millions.
    spikes = np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8).reshape(shape) % (SPIKE_MAX + 1)
    x = torch.from_numpy(spikes).contiguous(memory_format=LAST)
    drawn = np.frombuffer(rng.bytes(int(np.prod(weight))), np.int8).reshape(weight)
    arguments = (np.maximum(drawn, -127), np.full(weight[0], 1 / 64), np.full(weight[0], 1.5), shape, g, spiking)
    return _agree(_conv_int8(*arguments), _conv_float(*arguments), x)


@lru_cache(maxsize=1)
def int8_available() -> bool:
    """Whether this PyTorch has the oneDNN operator with the known signature and it equals float32 on small cases.

    The cases hold ties, negative sums, saturation above 4, strides, dilation, and depthwise and grouped weights.
    """
    rng = np.random.default_rng(0)
    try:
        for kernel, stride, groups, dilation in (
            (3, 1, 1, 1),
            (1, 1, 1, 1),
            (7, 2, 16, 1),
            (3, 1, 4, 2),
            (3, 1, 16, 1),
        ):
            padding = kernel // 2 * dilation
            g = _Geometry((stride, stride), (padding, padding), (dilation, dilation), groups)
            weight = rng.integers(-127, 128, (32, 16 // groups, kernel, kernel)).astype(np.int8)
            scale = 2.0 ** -rng.integers(3, 12, 32)
            bias = np.rint(rng.normal(0, 2, 32) * 8) / 8
            x = torch.from_numpy(rng.integers(0, 5, (2, 16, 12, 12)).astype(np.uint8)).contiguous(memory_format=LAST)
            for spiking in (False, True):
                arguments = (weight, scale, bias, x.shape, g, spiking)
                if not _agree(_conv_int8(*arguments), _conv_float(*arguments), x):
                    return False
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return True


def _image_int8_exact(weight: AnyArray, scale: AnyArray, shape: Sequence[int], g: _Geometry) -> bool:
    """Whether int8 equals float32 with extreme pixels: without VNNI pairs of products saturate at 16 bits."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 2, tuple(shape)) * 255
    x = torch.from_numpy(pixels.astype(np.uint8)).contiguous(memory_format=LAST)
    # Equal signs side by side are what saturates.
    hard = np.where(weight < 0, -127, 127).astype(np.int8)
    full = np.full_like(x.numpy(), 255)
    cases = ((weight, x), (hard, x), (np.abs(hard), torch.from_numpy(full).contiguous(memory_format=LAST)))
    unit = np.ones_like(scale)
    return all(
        _agree(_conv_int8(w, unit, None, shape, g, False), _conv_float(w, unit, None, shape, g, False), y)
        for w, y in cases
    )


def conv_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """``image_conv``, ``conv`` and ``head_out``: a held stream."""
    bias = arrays["bias"].astype(np.float64)
    if bias.ndim == 3:
        held = bias * 2.0 ** -out.bits[:, None, None]
        added = torch.from_numpy(held.astype(np.float32))[None].contiguous(memory_format=LAST)
        plain = _conv(op, arrays, inputs[0].spec, out.bits, None, False, int8)
        return lambda x: plain(x).add_(added)
    return _conv(op, arrays, inputs[0].spec, out.bits, bias * 2.0**-out.bits, False, int8)


def weighted_kernel(op: Op, arrays: Arrays, spec: TensorSpec, bits: AnyArray) -> Kernel:
    """The weighted sum of integers of any sign in any float type: a held stream of ``bits`` fraction bits."""
    return _conv(op, arrays, spec, bits, arrays["bias"].astype(np.float64) * 2.0**-bits, False, False)


def spiking_conv_kernel(op: Op, arrays: Arrays, held: Held, bits: IntArray, int8: bool) -> Kernel:
    """``conv`` and the stateless NI-LIF behind it whose thresholds round a stream of ``bits`` fraction bits: spikes."""
    return _conv(op, arrays, held.spec, bits, arrays["bias"].astype(np.float64) * 2.0**-bits, True, int8)


def _conv(
    op: Op, arrays: Arrays, spec: TensorSpec, bits: AnyArray, bias: AnyArray | None, spiking: bool, int8: bool
) -> Kernel:
    weight = np.ascontiguousarray(arrays["weight"])
    scale = 2.0 ** (arrays["shift"].astype(np.float64) - bits)
    g, before = _geometry(op.attrs, weight.shape[3:])
    shared = weight.shape[0] == 1
    steps, channels, height, width = spec.shape
    shape = (steps if shared else 1, channels, height + 2 * before[0], width + 2 * before[1])
    int8 = int8 and weight.dtype == np.int8
    if int8 and op.kind == "image_conv":
        int8 = _image_int8_exact(weight[0], scale[0], shape, g)
    elif int8:
        # The probe draws spikes up to 4; without VNNI pairs of larger products saturate.
        int8 = 0 < spec.top <= SPIKE_MAX and _int8_exact(shape, weight.shape[1:], g, spiking)
    make = _conv_int8 if int8 else _conv_float
    kernels = [
        make(weight[t], scale[t], None if bias is None else bias[t], shape, g, spiking) for t in range(len(weight))
    ]
    run = kernels[0] if shared else _stepwise(kernels)
    return _padded(run, before) if any(before) else run


def _stepwise(kernels: Sequence[Kernel]) -> Kernel:
    return lambda x: torch.cat([kernel(x[t : t + 1]) for t, kernel in enumerate(kernels)])


def _padded(run: Kernel, before: Pair) -> Kernel:
    sides = (before[1], before[1], before[0], before[0])
    return lambda x: run(torch.nn.functional.pad(x, sides).contiguous(memory_format=LAST))
