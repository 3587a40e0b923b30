"""Event counts of every operation kind, from the sums of the census.

This module decides which sums make up which count; it must not know how values or sums were computed,
and shares no arithmetic with ``program.counts``. A counter has two halves: ``observe`` looks at the operation's inputs
while they live, ``finish`` makes the counts when the phase has run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.engines.sim_census import Sums, reach
from spiketrack_deploy.engines.sim_kernels import interpolation
from spiketrack_deploy.engines.sim_state import due, integral, lowered, product, whole
from spiketrack_deploy.engines.sim_sums import adders
from spiketrack_deploy.engines.sim_tensors import Held, nhwc
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.types import AnyArray, Arrays, Op

BY_CLASS = ("query",)
"""Kinds whose counter needs the sums of their first input by class while they are observed."""
Observe = Callable[[Sequence[Tensor], Mapping[str, AnyArray]], Any]
"""From the operation's inputs, and the sums by class of those tensors that :data:`BY_CLASS` names."""
Finish = Callable[[Any, Sums], OpCounts]


@dataclass(frozen=True, slots=True)
class Counter:
    """``observe``: ``None`` where the census alone is enough."""

    finish: Finish
    observe: Observe | None = None


def _conv(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    source, name = op.inputs[0], op.name
    dense, size = int(np.prod(arrays["weight"].shape[2:])) * out.spec.size, inputs[0].spec.size

    def finish(observed: Any, sums: Sums) -> OpCounts:
        events, total = sums[source]
        synops, unit_ops = sums[name]
        return OpCounts(
            events=events, synops=synops, unit_ops=unit_ops, dense_macs=dense, input_sum=total, input_size=size
        )

    return Counter(finish)


def _image_conv(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    source, name = op.inputs[0], op.name
    dense = int(np.prod(arrays["weight"].shape[2:])) * out.spec.size
    return Counter(lambda observed, sums: OpCounts(events=sums[source][0], macs=sums[name][0], dense_macs=dense))


def _ni_lif(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    name, size = op.name, out.spec.size
    return Counter(
        lambda observed, sums: OpCounts(neuron_updates=size, neuron_spiking=sums[name][0], output_sum=sums[name][1])
    )


def _relay(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    copies = out.spec.shape[0] // inputs[0].spec.shape[0] if op.kind == "add" else 1

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> int:
        """Non-zero stream values."""
        return copies * adders().nonzero(np.ascontiguousarray(values[0].numpy().transpose(0, 2, 3, 1)).reshape(-1))

    return Counter(lambda relayed, sums: OpCounts(relays=relayed, relay_synops=relayed), observe)


def _upsample(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    _, _, height, width = inputs[0].spec.shape
    rows, cols = ((interpolation(n, op.attrs["factor"]) != 0).sum(dim=0) for n in (height, width))
    reach = torch.outer(rows, cols)

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> tuple[int, int]:
        per_position = (nhwc(values[0]) != 0).sum(dim=(0, 3))
        return int(per_position.sum()), int((per_position * reach).sum())

    return Counter(lambda seen, sums: OpCounts(relays=seen[0], relay_synops=seen[1]), observe)


def _key_value(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    heads = op.attrs["heads"]
    key, value = op.inputs
    dense = inputs[0].spec.shape[2] * inputs[0].spec.shape[3] * out.spec.size
    words, size = out.spec.size, inputs[0].spec.size + inputs[1].spec.size
    depths = [held.spec.shape[1] // heads for held in inputs]

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> tuple[int, int]:
        """Every token's outer product, head by head."""
        k, v = (nhwc(x).view(-1, depth).numpy() for x, depth in zip(values, depths))
        return adders().pairs(k, v)

    def finish(seen: tuple[int, int], sums: Sums) -> OpCounts:
        (events_k, sum_k), (events_v, sum_v) = sums[key], sums[value]
        return OpCounts(
            events=events_k + events_v,
            synops=seen[0],
            unit_ops=seen[1],
            dense_macs=dense,
            memory_writes=words,
            input_sum=sum_k + sum_v,
            input_size=size,
        )

    return Counter(finish, observe)


def _query(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    source = op.inputs[0]
    steps, heads, depth, wide = inputs[1].spec.shape
    dense, size = depth * out.spec.size, inputs[0].spec.size

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> tuple[int, int]:
        """A spike of q visits the non-zero entries of its row of the matrices ``[T, heads*d, dv]``."""
        return adders().reads(values[1].reshape(steps, heads * depth, wide).numpy(), by_class[source])

    def finish(seen: tuple[int, int], sums: Sums) -> OpCounts:
        events, total = sums[source]
        return OpCounts(
            events=events,
            synops=seen[0],
            unit_ops=seen[1],
            dense_macs=dense,
            memory_reads=events * wide,
            input_sum=total,
            input_size=size,
        )

    return Counter(finish, observe)


def _gate(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    source, host, size = op.inputs[1], inputs[0].spec.size + inputs[1].spec.size, inputs[1].spec.size

    def finish(observed: Any, sums: Sums) -> OpCounts:
        events, total = sums[source]
        return OpCounts(events=events, host_ops=host, input_sum=total, input_size=size)

    return Counter(finish)


def _nothing(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    return Counter(lambda observed, sums: OpCounts())


def _graded(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    """As ``_conv``, of magnitudes: a stream is in no census, so its fan-out is convolved with ones here."""
    dense, size = int(np.prod(arrays["weight"].shape[2:])) * out.spec.size, inputs[0].spec.size
    fan = torch.from_numpy(reach(op, arrays["weight"], inputs[0].spec).astype(np.float64))
    given = whole(inputs[0])

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> list[int]:
        x = given(values[0])[0].abs()
        return [int(n) for n in ((x != 0).sum(), ((x != 0) * fan).sum(), (x * fan).sum(), x.sum())]

    def finish(seen: list[int], sums: Sums) -> OpCounts:
        return OpCounts(
            events=seen[0], synops=seen[1], unit_ops=seen[2], dense_macs=dense, input_sum=seen[3], input_size=size
        )

    return Counter(finish, observe)


def _integrate(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    size, free = out.spec.size if op.attrs["readout"] else 0, integral(op, arrays, inputs)

    def finish(seen: tuple[int, int], sums: Sums) -> OpCounts:
        sent = seen[1] if op.attrs["readout"] else 0
        return OpCounts(neuron_updates=size, relays=sent, relay_synops=sent, saturated=seen[0])

    return Counter(finish, _beyond(op, free))


def _reset(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    return Counter(lambda seen, sums: OpCounts(saturated=seen[0]), _beyond(op, lowered(op, arrays, inputs)))


def _rescale(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    beyond = _beyond(op, product(op, arrays, inputs))

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> tuple[int, int]:
        return beyond(values, by_class)[0], int(torch.count_nonzero(values[0]))

    return Counter(lambda seen, sums: OpCounts(relays=seen[1], relay_synops=seen[1], saturated=seen[0]), observe)


def _change(op: Op, inputs: Sequence[Held], out: Held, arrays: Arrays) -> Counter:
    free, size, shift = due(op, arrays, inputs), out.spec.size, op.attrs["shift"]
    limit = op.attrs["limit"] or float("inf")

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> tuple[int, int]:
        y = free(*values)
        message = torch.floor(y.clamp(-limit, limit) / 2.0**shift)
        return int((y.abs() > limit).sum()), int(torch.count_nonzero(message))

    return Counter(lambda seen, sums: OpCounts(neuron_updates=size, neuron_spiking=seen[1], saturated=seen[0]), observe)


def _beyond(op: Op, free: Callable[..., Tensor]) -> Observe:
    """How many values leave the operation's limit, and how many are not 0."""
    limit = op.attrs["limit"] or float("inf")

    def observe(values: Sequence[Tensor], by_class: Mapping[str, AnyArray]) -> tuple[int, int]:
        y = free(*values)
        return int((y.abs() > limit).sum()), int(torch.count_nonzero(y))

    return observe


Builder = Callable[[Op, Sequence[Held], Held, Arrays], Counter]
"""From the operation, its inputs, its output (as they are held) and its arrays."""
COUNTERS: dict[str, Builder] = {
    "image_conv": _image_conv,
    "conv": _conv,
    "head_out": _conv,
    "add": _relay,
    "ni_lif": _ni_lif,
    "avg_pool": _relay,
    "upsample": _upsample,
    "requantise": _nothing,
    "key_value": _key_value,
    "query": _query,
    "gate_transpose": _nothing,
    "gate": _gate,
    "integrate": _integrate,
    "fire": _ni_lif,
    "reset": _reset,
    "remember": _nothing,
    "delayed": _nothing,
    "graded_conv": _graded,
    "rescale": _rescale,
    "reshape": _nothing,
    "change": _change,
    "told": _nothing,
}
