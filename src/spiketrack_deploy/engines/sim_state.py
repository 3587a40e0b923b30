"""Exact PyTorch kernels of neurons, delay lines and graded messages: whole numbers in float64.

This module decides how the simulator computes the operations of ``program.ops.state``, ``message`` and
``sigma_delta``; it must not know phases or counts, and shares no arithmetic with them. A membrane times a decay needs
36 bits, a message times a factor 44: a float64 holds both, and dividing by a power of two loses nothing before it is
truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.engines.sim_conv import Kernel, weighted_kernel
from spiketrack_deploy.engines.sim_tensors import Held
from spiketrack_deploy.program.types import DECAY_BITS, AnyArray, Arrays, Op


def real(array: AnyArray) -> Tensor:
    """A constant ``[1 or C, 1 or H, 1 or W]`` as float64 with an axis of steps."""
    return torch.from_numpy(array.astype(np.float64))[None]


def whole(held: Held) -> Kernel:
    """From a held value to its integers as float64."""
    if not held.bits.any():
        return lambda x: x.to(torch.float64)
    factor = torch.from_numpy(2.0**held.bits).view(1, -1, 1, 1)
    return lambda x: x.to(torch.float64) * factor


def held_as(out: Held) -> Kernel:
    """From integers as float64 to the form that a value is held in."""
    if out.spec.kind == "spikes":
        return lambda y: y.to(torch.uint8)
    if not out.bits.any():
        return lambda y: y.to(torch.float32)
    factor = torch.from_numpy(2.0**-out.bits).view(1, -1, 1, 1)
    return lambda y: (y * factor).to(torch.float32)


def integral(op: Op, arrays: Arrays, inputs: Sequence[Held]) -> Kernel:
    """State and input, held, to what ``integrate`` gives before its limit."""
    state, given = (whole(one) for one in inputs)
    decay, gain = real(arrays["decay"]) / 2.0**DECAY_BITS, 2.0 ** op.attrs["shift"]
    bias = real(arrays["bias"]) if "bias" in arrays else 0.0
    return lambda v, x: torch.trunc(state(v) * decay) + given(x) * gain + bias


def lowered(op: Op, arrays: Arrays, inputs: Sequence[Held]) -> Kernel:
    """Membrane and spikes, held, to what ``reset`` gives before its limit."""
    state, level = whole(inputs[0]), real(arrays["level"])
    if op.attrs["subtract"]:
        return lambda v, n: state(v) - n.to(torch.float64) * level
    return lambda v, n: torch.where(n != 0, level, state(v))


def product(op: Op, arrays: Arrays, inputs: Sequence[Held]) -> Kernel:
    """A held value to what ``rescale`` gives before its limit."""
    given, factor = whole(inputs[0]), real(arrays["factor"])
    scale = 2.0 ** -op.attrs["shift"]
    half = 0.5 if op.attrs["shift"] else 0.0
    return lambda x: torch.floor(given(x) * factor * scale + half)


Unlimited = Callable[[Op, Arrays, Sequence[Held]], Kernel]


def limited(make: Unlimited) -> Callable[[Op, Arrays, Sequence[Held], Held, bool], Kernel]:
    """A builder whose result is clipped to the operation's limit."""

    def build(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
        free, form, limit = make(op, arrays, inputs), held_as(out), float(op.attrs["limit"])
        if not limit:
            return lambda *x: form(free(*x))
        return lambda *x: form(free(*x).clamp_(-limit, limit))

    return build


def fire_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """Levels reached; one comparison where there is one level, else an exact division (both numbers below 2**31)."""
    given, form = whole(inputs[0]), held_as(out)
    first, step, most = real(arrays["first"]), real(arrays["step"]), op.attrs["most"]
    if most == 1:
        return lambda v: form(given(v) >= first)
    return lambda v: form((torch.floor((given(v) - first) / step) + 1).clamp_(0, most))


def remember_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """The newest in front, the oldest gone."""
    (old, new), form = [whole(one) for one in inputs], held_as(out)
    return lambda ring, x: form(torch.cat([new(x), old(ring[:-1])]))


def delayed_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """One place of the delay line for every position."""
    steps = np.broadcast_to(arrays["steps"].astype(np.int64), inputs[0].spec.shape[1:])
    where, given, form = torch.from_numpy(steps.copy())[None], whole(inputs[0]), held_as(out)
    return lambda ring: form(torch.gather(given(ring), 0, where))


def graded_conv_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """A float32 convolution of integers: the range proof keeps every sum below 2**24."""
    given, run = whole(inputs[0]), weighted_kernel(op, arrays, inputs[0].spec, out.bits)
    return lambda x: run(given(x))


def reshape_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """The same values; held anew where units differ from channel to channel."""
    given, form, shape = whole(inputs[0]), held_as(out), out.spec.shape
    return lambda x: form(given(x).reshape(shape))


def due(op: Op, arrays: Arrays, inputs: Sequence[Held]) -> Kernel:
    """Sum and what was told, held, to what a sigma-delta neuron would send without a limit."""
    sigma, said = (whole(one) for one in inputs)
    bias = real(arrays["bias"]) if "bias" in arrays else 0.0
    threshold, rectified = real(arrays["threshold"]), bool(op.attrs["rectified"])

    def run(s: Tensor, t: Tensor) -> Tensor:
        act = sigma(s) + bias
        delta = (act.clamp_min_(0) if rectified else act) - said(t)
        return torch.where(delta.abs() >= threshold, delta, 0.0)

    return run


def change_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """The message: floor of what is sent over a power of two."""
    free, form, limit = due(op, arrays, inputs), held_as(out), float(op.attrs["limit"] or np.inf)
    scale = 2.0 ** -op.attrs["shift"]
    return lambda s, t: form(torch.floor(free(s, t).clamp_(-limit, limit) * scale))


def told_kernel(op: Op, arrays: Arrays, inputs: Sequence[Held], out: Held, int8: bool) -> Kernel:
    """What was told and is sent now."""
    free, form, limit = due(op, arrays, inputs), held_as(out), float(op.attrs["limit"] or np.inf)
    said = whole(inputs[1])
    return lambda s, t: form(said(t) + free(s, t).clamp_(-limit, limit))


STATE_KERNELS = {
    "integrate": limited(integral),
    "fire": fire_kernel,
    "reset": limited(lowered),
    "remember": remember_kernel,
    "delayed": delayed_kernel,
    "graded_conv": graded_conv_kernel,
    "rescale": limited(product),
    "reshape": reshape_kernel,
    "change": change_kernel,
    "told": told_kernel,
}
