"""How the simulator holds values: streams as float32 real values, spikes as uint8, both channels-last.

This module decides representation and conversion; it must not know operations. A stream is held as
``integer * 2**-bits[c]``: the range proof keeps every value below 24 bits, so float32 represents it, sums are exact in
any order, and no shift is ever needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.program.types import AnyArray, Arrays, IntArray, TensorSpec

LAST = torch.channels_last
_HELD_LIMIT = 40
"""Units outside 2**+-40 are held as plain integers instead, far from float32's own exponent limits."""


@dataclass(frozen=True, slots=True)
class Held:
    """Specification of a value and the fraction bits ``[C]`` it is held with (zeros for spikes, images, memories)."""

    spec: TensorSpec
    bits: IntArray


def hold(spec: TensorSpec, arrays: Arrays) -> Held:
    """How a value of ``spec`` is held. The unit only chooses the scale: integers are right whatever it says."""
    zeros = np.zeros(spec.shape[1], dtype=np.int64)
    if spec.kind not in ("stream", "logits") or spec.unit is None:
        return Held(spec, zeros)
    bits = arrays[spec.unit].astype(np.int64)
    return Held(spec, bits if bits.shape == zeros.shape and np.abs(bits).max(initial=0) <= _HELD_LIMIT else zeros)


def channels(values: AnyArray, dtype: torch.dtype = torch.float32) -> Tensor | float:
    """Per-channel numbers as ``[1,C,1,1]``, or one Python number where all are equal."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    if flat.size and (flat == flat[0]).all():
        return float(flat[0])
    return torch.from_numpy(flat).to(dtype).view(1, -1, 1, 1)


def nhwc(x: Tensor) -> Tensor:
    """``[T,H,W,C]`` contiguous: a view where memory is channels-last already."""
    y = x.permute(0, 2, 3, 1)
    return y if y.is_contiguous() else y.contiguous()


def nchw(y: Tensor) -> Tensor:
    """The ``[T,C,H,W]`` view of channels-last memory."""
    return y.permute(0, 3, 1, 2)


def to_tensor(value: AnyArray, held: Held) -> Tensor:
    """Integers of any dtype as a held tensor."""
    if held.spec.kind in ("image", "spikes"):
        return torch.from_numpy(np.asarray(value, dtype=np.uint8)).contiguous(memory_format=LAST)
    if held.spec.kind == "memory":
        return torch.from_numpy(np.asarray(value, dtype=np.float32))
    real = value.astype(np.float64) * 2.0 ** -held.bits[None, :, None, None]
    return torch.from_numpy(real.astype(np.float32)).contiguous(memory_format=LAST)


def to_integers(value: Tensor, held: Held) -> IntArray:
    """A held tensor as int64 integers."""
    array = value.numpy()
    if held.spec.kind in ("stream", "logits"):
        return (array.astype(np.float64) * 2.0 ** held.bits[None, :, None, None]).astype(np.int64)
    return array.astype(np.int64)


def spikes_of(n: Tensor) -> Tensor:
    """Whole numbers 0..4 in float32 as uint8. PyTorch converts to int8 several times faster than to uint8."""
    return n.to(torch.int8).view(torch.uint8)
