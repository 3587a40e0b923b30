"""Neurons: ``ni_lif``, the normalised-integer leaky integrate-and-fire neuron (SpikeTrack, CVPR 2026).

This module decides membrane, spike and reset in integers, their counts and bounds. It must not know networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.row import LARGEST_ATTRIBUTE, Bound, OpKind, Specs, bound_of
from spiketrack_deploy.program.types import DECAY_BITS, AnyArray, Arrays, IntArray, Op, TensorSpec


def trunc_shift(x: IntArray, bits: int) -> IntArray:
    """``x / 2**bits`` rounded toward zero, the rule of Loihi's decays (docs/loihi.md)."""
    y: IntArray = np.sign(x) * (np.abs(x) >> bits)
    return y


def fire(v: IntArray, thresholds: AnyArray, offset: AnyArray | None) -> IntArray:
    """Number of thresholds ``thresholds[c, k]`` that ``v + offset`` reaches (``>=``): the graded spike.

    ``v`` ``[C,H,W]``, ``offset`` ``[C,H,W]`` or ``None`` (the positional embedding in stream units).
    """
    level = v if offset is None else v + offset
    n = np.zeros(v.shape, dtype=np.int64)
    for k in range(thresholds.shape[1]):
        n += level >= thresholds.astype(np.int64)[:, k, None, None]
    return n


def leak(v: IntArray, n: IntArray, decay: int, reset: AnyArray) -> IntArray:
    """``trunc0(decay * (v - n * reset) / 2**12)``: the membrane that a step hands to the next.

    ``reset`` ``[C]``: what one level of a spike takes off, a quarter of the real unit.
    """
    return trunc_shift(decay * (v - n * reset.astype(np.int64)[:, None, None]), DECAY_BITS)


def ni_lif(
    x: IntArray,
    steps: int,
    thresholds: AnyArray,
    offset: AnyArray | None,
    decay: AnyArray | None,
    reset: AnyArray | None,
) -> IntArray:
    """``v[0] = x[0]; v[t] = leak(v[t-1], n[t-1]) + x[t]; n[t] = fire(v[t])`` (docs/spiketrack.md, "Neuron").

    ``x`` has ``steps`` steps, or one that every step receives. ``thresholds`` int32 ``[C or 1, top]``, ``offset`` int32
    ``[steps,C,H,W]``, ``decay`` uint16 ``[steps-1]`` in 1/4096, ``reset`` int32 ``[C or 1]``. Stateless at one step.
    """
    n = np.zeros((steps, *x.shape[1:]), dtype=np.int64)
    v = np.zeros(x.shape[1:], dtype=np.int64)
    for t in range(steps):
        current = x[t if x.shape[0] > 1 else 0]
        if t and decay is not None and reset is not None:
            v = leak(v, n[t - 1], int(decay[t - 1]), reset) + current
        else:
            v = current
        n[t] = fire(v, thresholds, None if offset is None else offset[t].astype(np.int64))
    return n


def ni_lif_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Neuron-steps, spiking ones apart."""
    return OpCounts(
        neuron_updates=out.size,
        neuron_spiking=int(np.count_nonzero(out)),
        output_sum=int(out.sum()),
    )


def membrane_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """Bound of ``v + offset`` over all steps. The reset only lowers a membrane.

    A spike takes off at most ``top`` levels, and an offset may lift a neuron over thresholds that its membrane alone
    does not reach, so ``v - n*reset`` may go below ``v`` by all of them.
    """
    low, high = inputs[0]
    v_low, v_high = all_low, all_high = low, high
    for t in range(1, op.attrs["steps"]):
        reset = arrays["thresholds"].shape[1] * arrays["reset"].astype(np.int64)
        decay = int(arrays["decay"][t - 1])
        v_low = trunc_shift(decay * np.minimum(v_low - reset, v_low), DECAY_BITS) + low
        v_high = trunc_shift(decay * np.maximum(v_high, 0), DECAY_BITS) + high
        all_low, all_high = np.minimum(all_low, v_low), np.maximum(all_high, v_high)
    if "offset" in arrays:
        o = arrays["offset"].astype(np.int64)
        all_low = all_low + np.minimum(o.min(axis=(0, 2, 3)), 0)
        all_high = all_high + np.maximum(o.max(axis=(0, 2, 3)), 0)
    return bound_of(all_low, all_high)


def _run(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    return ni_lif(
        x[0], op.attrs["steps"], arrays["thresholds"], arrays.get("offset"), arrays.get("decay"), arrays.get("reset")
    )


def _arrays_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    steps, channels, thresholds = op.attrs["steps"], output.shape[1], arrays["thresholds"]
    if thresholds.shape not in ((1, output.top), (channels, output.top)):
        return f"thresholds must be [1 or {channels}, {output.top}], are {thresholds.shape}"
    if np.any(np.diff(thresholds.astype(np.int64), axis=1) < 0):
        return "thresholds must not fall"
    if specs[0].shape[0] not in (1, steps):
        return f"has {steps} steps and cannot read a stream of {specs[0].shape[0]} steps"
    if "offset" in arrays and arrays["offset"].shape != output.shape:
        return f"offset must be {output.shape}, is {arrays['offset'].shape}"
    if steps == 1:
        return None
    if not {"decay", "reset"} <= set(arrays):
        return f"has {steps} steps, which need reset and decay"
    decay, reset = arrays["decay"], arrays["reset"]
    if decay.shape != (steps - 1,) or decay.min() < 0 or decay.max() > 1 << DECAY_BITS:
        return f"decay must be {steps - 1} numbers 0 to {1 << DECAY_BITS}"
    if reset.shape not in ((1,), (channels,)) or reset.min() < 0:
        return f"reset must be [1 or {channels}] and not negative"
    return None


ROWS = (
    OpKind(
        "ni_lif",
        ("stream",),
        "spikes",
        "v[0] = x[0]; v[t] = trunc0(decay[t-1] * (v[t-1] - n[t-1]*reset) / 2^12) + x[t]; n[t] = "
        "#{k: v[t] + offset[t] >= thresholds[c,k]}",
        "a NI-LIF neuron: its graded spike is the number of thresholds reached",
        shape=lambda op, arrays, specs: (op.attrs["steps"], *specs[0].shape[1:]),
        run=_run,
        bound=lambda op, arrays, inputs, specs: bound_of(0, arrays["thresholds"].shape[1]),
        accumulator=membrane_bound,
        count=ni_lif_counts,
        roles=("thresholds", "offset?", "decay?", "reset?"),
        attrs={"steps": (1, LARGEST_ATTRIBUTE)},
        arrays_legal=_arrays_legal,
    ),
)
