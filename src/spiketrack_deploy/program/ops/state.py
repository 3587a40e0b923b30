"""What a network remembers from step to step: ``integrate``, ``fire``, ``reset`` (neurons), ``remember``, ``delayed``.

This module decides the integer rules of leaky integrators, spikes and delay lines, their counts and bounds. It must not
know networks, nor in which state a value lies: an operation reads and returns values, the phase says which are states.

A neuron is ``integrate`` (with a synaptic current: two of them), ``fire`` and ``reset``. With ``shift`` 6, ``decay``
``4096 - dv`` (``4095 - du`` of a current), ``limit`` ``2^23 - 1`` and a reset to 0 that is Lava's fixed-point LIF
(lava-nc 0.10.0, ``AbstractPyLifModelFixed``): current before voltage, both truncated toward zero, the voltage clipped.
Lava wraps a current around; here the range proof shows that it never leaves the width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.neuron import trunc_shift
from spiketrack_deploy.program.ops.row import Bound, OpKind, Shape, Specs, bound_of
from spiketrack_deploy.program.types import DECAY_BITS, AnyArray, Arrays, IntArray, Op, TensorSpec

LARGEST_LIMIT = 2**31 - 1
MOST_SPIKES = 255
_FAR = 2**40


def clip(y: IntArray, limit: int) -> IntArray:
    """``y`` within ``-limit..limit``; limit 0 means that there is none."""
    return np.clip(y, -limit, limit) if limit else y


def per_channel(array: AnyArray) -> tuple[IntArray, IntArray]:
    """Least and largest entry per channel of ``[1 or C, 1 or H, 1 or W]``: ``[1 or C]`` each."""
    whole = array.astype(np.int64)
    return whole.min(axis=(1, 2)), whole.max(axis=(1, 2))


def sizes_defect(arrays: Arrays, roles: Sequence[str], shape: Sequence[int]) -> str | None:
    """What is wrong with arrays that must be as large as one step of ``shape``, or 1 along an axis."""
    for role in roles:
        if role in arrays:
            a = arrays[role]
            if a.ndim != 3 or any(have not in (1, want) for have, want in zip(a.shape, shape[1:])):
                return f"{role} must be {tuple(shape[1:])} or 1 along an axis, is {a.shape}"
            if np.abs(a.astype(np.int64)).max() > LARGEST_LIMIT:
                return f"{role} has entries beyond 31 bits"
    return None


def _summed(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    y = trunc_shift(x[0] * arrays["decay"].astype(np.int64), DECAY_BITS) + (x[1] << op.attrs["shift"])
    return y + arrays["bias"].astype(np.int64) if "bias" in arrays else y


def integrate(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``tr(v * decay / 2^12) + (x << shift) + bias``, clipped to the limit."""
    return clip(_summed(op, arrays, x), op.attrs["limit"])


def _integrate_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    clipped = int(np.count_nonzero(out != _summed(op, arrays, inputs))) if op.attrs["limit"] else 0
    if not op.attrs["readout"]:
        return OpCounts(saturated=clipped)
    sent = int(np.count_nonzero(out))
    return OpCounts(neuron_updates=out.size, relays=sent, relay_synops=sent, saturated=clipped)


def _driven(op: Op, arrays: Arrays, x: Bound) -> Bound:
    low, high = x[0] << op.attrs["shift"], x[1] << op.attrs["shift"]
    if "bias" in arrays:
        least, most = per_channel(arrays["bias"])
        low, high = low + np.minimum(least, 0), high + np.maximum(most, 0)
    return low, high


def _clipped(op: Op, low: IntArray, high: IntArray) -> Bound:
    return bound_of(clip(np.asarray(low), op.attrs["limit"]), clip(np.asarray(high), op.attrs["limit"]))


def _integrate_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    low, high = _driven(op, arrays, inputs[1])
    kept = [trunc_shift(end * d, DECAY_BITS) for end in inputs[0] for d in per_channel(arrays["decay"])]
    return _clipped(op, np.minimum.reduce(kept) + low, np.maximum.reduce(kept) + high)


def _integrate_accumulator(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """The shifted input has to fit as well as the sum."""
    low, high = _integrate_bound(op, arrays, inputs, specs)
    return np.minimum(low, inputs[1][0] << op.attrs["shift"]), np.maximum(high, inputs[1][1] << op.attrs["shift"])


def _settled(op: Op, arrays: Arrays, inputs: Sequence[Bound], extra: Bound) -> Bound:
    """What the state comes to at most: ``S = S d + x + extra`` has ``S = (x + extra) / (1 - d)``; with d = 1 it comes
    to the limit, or anywhere."""
    low, high = _driven(op, arrays, inputs[1])
    keep = (1 << DECAY_BITS) - per_channel(arrays["decay"])[1]
    sums = np.minimum(low + extra[0], 0), np.maximum(high + extra[1], 0)
    rest = np.maximum(keep, 1)
    anywhere = np.where(keep > 0, 0, _FAR)
    far = [-(-(np.abs(end) << DECAY_BITS) // rest) + 1 + np.where(end != 0, anywhere, 0) for end in sums]
    return _clipped(op, -far[0], far[1])


def _integrate_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    decay = arrays["decay"]
    if decay.size and (decay.min() < 0 or decay.max() > 1 << DECAY_BITS):
        return f"decay must be 0 to {1 << DECAY_BITS}"
    return sizes_defect(arrays, ("decay", "bias"), output.shape)


def fire(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``#{k < most: v >= first + k * step}``."""
    first, step = (arrays[role].astype(np.int64) for role in ("first", "step"))
    n: IntArray = np.clip((x[0] - first) // step + 1, 0, op.attrs["most"])
    return n


def _fire_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    return OpCounts(neuron_updates=out.size, neuron_spiking=int(np.count_nonzero(out)), output_sum=int(out.sum()))


def _fire_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Monotone; the ends of a channel with its least and largest levels."""
    first, step = per_channel(arrays["first"]), per_channel(arrays["step"])
    low = np.minimum.reduce([(inputs[0][0] - first[1]) // s for s in step]) + 1
    high = np.maximum.reduce([(inputs[0][1] - first[0]) // s for s in step]) + 1
    return bound_of(np.clip(low, 0, op.attrs["most"]), np.clip(high, 0, op.attrs["most"]))


def _fire_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    if output.top != op.attrs["most"]:
        return f"emits up to {op.attrs['most']} spikes a step, its value says {output.top}"
    if arrays["step"].size and arrays["step"].min() < 1:
        return "step must be 1 or more"
    return sizes_defect(arrays, ("first", "step"), output.shape)


def _lowered(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    level = arrays["level"].astype(np.int64)
    return x[0] - x[1] * level if op.attrs["subtract"] else np.where(x[1] > 0, level, x[0])


def reset(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``level`` where n > 0, else v; or ``v - n * level``; clipped to the limit."""
    return clip(_lowered(op, arrays, x), op.attrs["limit"])


def _reset_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    return OpCounts(saturated=int(np.count_nonzero(out != _lowered(op, arrays, inputs))) if op.attrs["limit"] else 0)


def _reset_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    (low, high), top = inputs[0], specs[1].top
    least, most = per_channel(arrays["level"])
    if op.attrs["subtract"]:
        return _clipped(op, low - top * np.maximum(most, 0), high - top * np.minimum(least, 0))
    return _clipped(op, np.minimum(low, least), np.maximum(high, most))


def remember(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``[x, ring[0], .., ring[D-2]]``: the newest first, the oldest is dropped."""
    return np.concatenate([x[1], x[0][:-1]])


def _remember_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    ring, x = specs
    if ring.kind != x.kind or x.top > ring.top or x.shape != (1, *ring.shape[1:]):
        return f"remembers {x.kind} {x.shape} up to {x.top} among {ring.kind} {ring.shape} up to {ring.top}"
    return None


def _hull(inputs: Sequence[Bound]) -> Bound:
    return bound_of(np.minimum(inputs[0][0], inputs[1][0]), np.maximum(inputs[0][1], inputs[1][1]))


def delayed(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``ring[steps[c,i,j], c, i, j]``: what every position was given so many steps ago."""
    where = np.broadcast_to(arrays["steps"].astype(np.int64), x[0].shape[1:])[None]
    return np.take_along_axis(x[0], where, axis=0)


def _delayed_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    steps, most = arrays["steps"], specs[0].shape[0] - 1
    if steps.size and (steps.min() < 0 or steps.max() > most):
        return f"steps must be 0 to {most}"
    return sizes_defect(arrays, ("steps",), output.shape)


def alike(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    """Both inputs have one shape and one time step."""
    if specs[0].shape != specs[-1].shape or specs[0].shape[0] != 1:
        return f"reads {[s.shape for s in specs]}; it needs one step of one shape"
    return None


def same_shape(op: Op, arrays: Arrays, specs: Specs) -> Shape:
    """The shape of the first input."""
    return specs[0].shape


_LIMIT = {"limit": (0, LARGEST_LIMIT)}
ROWS = (
    OpKind(
        "integrate",
        ("stream", "spikes|stream"),
        "stream",
        "y = trunc0(decay * v / 2^12) + (x << shift) + bias; within -limit..limit where there is one",
        "a leaky integrator: membrane or synaptic current",
        shape=same_shape,
        run=integrate,
        bound=_integrate_bound,
        accumulator=_integrate_accumulator,
        settled=_settled,
        count=_integrate_counts,
        roles=("decay", "bias?"),
        attrs={"shift": (0, 16), "readout": (0, 1), **_LIMIT},
        inputs_legal=alike,
        arrays_legal=_integrate_legal,
    ),
    OpKind(
        "fire",
        ("spikes|stream",),
        "spikes",
        "n = #{k < most: v >= first + k * step}",
        "spikes of a membrane, or of a stateless threshold",
        shape=same_shape,
        run=fire,
        bound=_fire_bound,
        count=_fire_counts,
        roles=("first", "step"),
        attrs={"most": (1, MOST_SPIKES)},
        inputs_legal=alike,
        arrays_legal=_fire_legal,
    ),
    OpKind(
        "reset",
        ("stream", "spikes"),
        "stream",
        "y = level where n > 0 else v; or v - n * level",
        "what a membrane is after its spikes",
        shape=same_shape,
        run=reset,
        bound=_reset_bound,
        count=_reset_counts,
        roles=("level",),
        attrs={"subtract": (0, 1), **_LIMIT},
        inputs_legal=alike,
        arrays_legal=lambda op, arrays, specs, output: sizes_defect(arrays, ("level",), output.shape),
    ),
    OpKind(
        "remember",
        ("spikes|stream", "spikes|stream"),
        "same",
        "y[0] = x; y[k] = ring[k-1]",
        "a delay line takes one step's values",
        shape=same_shape,
        run=remember,
        bound=lambda op, arrays, inputs, specs: _hull(inputs),
        inputs_legal=_remember_legal,
    ),
    OpKind(
        "delayed",
        ("spikes|stream",),
        "same",
        "y[c,i,j] = ring[steps[c,i,j], c, i, j]",
        "what a delay line hands out",
        shape=lambda op, arrays, specs: (1, *specs[0].shape[1:]),
        run=delayed,
        bound=lambda op, arrays, inputs, specs: inputs[0],
        roles=("steps",),
        arrays_legal=_delayed_legal,
    ),
)
