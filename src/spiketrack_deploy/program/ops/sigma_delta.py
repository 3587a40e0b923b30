"""Sigma-delta neurons: ``change`` (what a neuron sends of its activation) and ``told`` (what it has sent so far).

This module decides their integer rule, counts and bounds. It must not know networks. The sum in front of them is an
``integrate`` without leak; what Lava keeps as activation of the step before and residue is here one state, their
difference, which is all that was sent. Lava's rule (lava-nc 0.10.0, ``AbstractDeltaModel``) has no limit: wherever
``saturated`` counts nothing the integers are Lava's, and where it does, the rest is sent in the next steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.row import Bound, OpKind, Specs, bound_of
from spiketrack_deploy.program.ops.state import LARGEST_LIMIT, alike, clip, per_channel, same_shape, sizes_defect
from spiketrack_deploy.program.types import Arrays, IntArray, Op, TensorSpec


def activation(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``sigma + bias``, without what is below 0 where the neuron is rectified."""
    y = x[0] + arrays["bias"].astype(np.int64) if "bias" in arrays else x[0]
    return np.maximum(y, 0) if op.attrs["rectified"] else y


def _due(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    delta = activation(op, arrays, x) - x[1]
    return np.where(np.abs(delta) >= arrays["threshold"].astype(np.int64), delta, 0)


def sent(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """The difference to what was told, once it reaches the threshold; clipped to the limit."""
    return clip(_due(op, arrays, x), op.attrs["limit"])


def change(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """:func:`sent` as a message: its lowest ``shift`` bits are dropped (floor)."""
    return sent(op, arrays, x) >> op.attrs["shift"]


def told(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    """``told + sent``."""
    return x[1] + sent(op, arrays, x)


def _change_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    cut = int(np.count_nonzero(sent(op, arrays, inputs) != _due(op, arrays, inputs)))
    return OpCounts(neuron_updates=out.size, neuron_spiking=int(np.count_nonzero(out)), saturated=cut)


def _activation_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound]) -> Bound:
    low, high = inputs[0]
    if "bias" in arrays:
        least, most = per_channel(arrays["bias"])
        low, high = low + np.minimum(least, 0), high + np.maximum(most, 0)
    return (np.maximum(low, 0), np.maximum(high, 0)) if op.attrs["rectified"] else (low, high)


def _difference(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """The activation (before it is rectified) and its difference to what was told."""
    least, most = _activation_bound(op, arrays, inputs)
    bias = per_channel(arrays["bias"]) if "bias" in arrays else (np.int64(0), np.int64(0))
    low = np.minimum(np.minimum(least - inputs[1][1], least), inputs[0][0] + np.minimum(bias[0], 0))
    return bound_of(np.minimum(low, 0), np.maximum(most - np.minimum(inputs[1][0], 0), 0))


def _change_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    low, high = _difference(op, arrays, inputs, specs)
    return bound_of(*(clip(end, op.attrs["limit"]) >> op.attrs["shift"] for end in (low, high)))


def _told_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """It stays, or moves towards the activation and at most up to it."""
    low, high = _activation_bound(op, arrays, inputs)
    return bound_of(np.minimum(low, inputs[1][0]), np.maximum(high, inputs[1][1]))


def _arrays_legal(op: Op, arrays: Arrays, specs: Specs, output: TensorSpec) -> str | None:
    threshold = arrays["threshold"]
    if threshold.size and threshold.min() < 0:
        return "threshold must not be negative"
    return sizes_defect(arrays, ("bias", "threshold"), output.shape)


_ATTRS = {"rectified": (0, 1), "shift": (0, 16), "limit": (0, LARGEST_LIMIT)}
ROWS = (
    OpKind(
        "change",
        ("stream", "stream"),
        "stream",
        "d = max(sigma + bias, 0) - told; y = (d if |d| >= threshold else 0, within -limit..limit) >> shift",
        "a sigma-delta neuron sends the change of its activation",
        shape=same_shape,
        run=change,
        bound=_change_bound,
        accumulator=_difference,
        count=_change_counts,
        roles=("bias?", "threshold"),
        attrs=_ATTRS,
        inputs_legal=alike,
        arrays_legal=_arrays_legal,
    ),
    OpKind(
        "told",
        ("stream", "stream"),
        "stream",
        "y = told + (d if |d| >= threshold else 0, within -limit..limit), d as in change",
        "what a sigma-delta neuron has sent so far",
        shape=same_shape,
        run=told,
        bound=_told_bound,
        roles=("bias?", "threshold"),
        attrs=_ATTRS,
        inputs_legal=alike,
        arrays_legal=_arrays_legal,
    ),
)
