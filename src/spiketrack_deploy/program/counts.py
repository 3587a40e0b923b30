"""How often things happen in an operation: exact integers, by the plainest rule that is right.

This module decides what is counted (design 3.4; facts/energy.md sections 0 and 6). It must not know prices. A
*synaptic operation* is one non-zero weight visited by one non-zero spike; borders, stride, groups and dilation are
respected; biases are not synapses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from spiketrack_deploy.program.semantics import conv_size, taps, upsample_matrix
from spiketrack_deploy.program.types import AnyArray, Arrays, IntArray, Op


@dataclass(frozen=True, slots=True)
class OpCounts:
    """Counts of one operation in one run of its phase, all time steps. Python integers, none negative."""

    events: int = 0
    """non-zero graded spikes (or stream values of a query's q) that this operation reads"""
    synops: int = 0
    """events times their real fan-out over non-zero weights"""
    unit_ops: int = 0
    """synops times the spike's value 1..4: the cost if a spike were sent as so many binary events"""
    macs: int = 0
    """image convolution only: non-zero pixels times their real fan-out, true multiply-accumulates"""
    dense_macs: int = 0
    """multiply-accumulates of the dense twin, padding taps counted, as the literature does"""
    neuron_updates: int = 0
    """neuron-steps of a NI-LIF population"""
    neuron_spiking: int = 0
    """of these, with a spike above 0"""
    relays: int = 0
    """non-zero stream values passed on as graded messages (a residual stream is a chain of populations)"""
    relay_synops: int = 0
    """fan-out of the relays"""
    memory_reads: int = 0
    """words of a k^T v matrix read"""
    memory_writes: int = 0
    """words of a k^T v matrix rewritten"""
    host_ops: int = 0
    """operations that no synapse or NI-LIF does: exponentials, products of the gate"""
    input_sum: int = 0
    """sum of the spike values read (published firing-rate convention)"""
    input_size: int = 0
    """number of spike positions read"""
    output_sum: int = 0
    """NI-LIF only: sum of the spikes emitted (a binary chip spends that many active sub-steps)"""

    def to_dict(self) -> dict[str, int]:
        """Field name -> integer."""
        return asdict(self)


COUNT_FIELDS = tuple(f.name for f in fields(OpCounts))


def fan_out(
    weight: AnyArray,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> IntArray:
    """Non-zero synapses of every input position: ``[G, C, H, W]`` for ``weight`` ``[G,O,C/groups,kh,kw]``."""
    shared, outputs, fan_in, kh, kw = weight.shape
    out = conv_size(size, (kh, kw), stride, padding, dilation)
    per_tap = (
        (weight.reshape(shared, groups, outputs // groups, fan_in, kh, kw) != 0)
        .sum(axis=2)
        .reshape(shared, groups * fan_in, kh, kw)
    )
    result = np.zeros((shared, groups * fan_in, *size), dtype=np.int64)
    for ky, kx, _, _, irow, icol in taps(size, out, (kh, kw), stride, padding, dilation):
        result[:, :, irow, icol] += per_tap[:, :, ky, kx, None, None]
    return result


def _pairs(op: Op) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    a = op.attrs
    return (
        (a["stride_h"], a["stride_w"]),
        (a["padding_h"], a["padding_w"]),
        (a["dilation_h"], a["dilation_w"]),
        a["groups"],
    )


def _dense_conv(arrays: Arrays, out: IntArray) -> int:
    return int(np.prod(arrays["weight"].shape[2:])) * out.size


def conv_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Spikes into a stream: events, synaptic operations, unit operations."""
    (x,) = inputs
    fan = fan_out(arrays["weight"], (x.shape[2], x.shape[3]), *_pairs(op))
    return OpCounts(
        events=int(np.count_nonzero(x)),
        synops=int(((x > 0) * fan).sum()),
        unit_ops=int((x * fan).sum()),
        dense_macs=_dense_conv(arrays, out),
        input_sum=int(x.sum()),
        input_size=x.size,
    )


def image_conv_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Pixels into a stream: multiply-accumulates with a real-valued operand."""
    (x,) = inputs
    fan = fan_out(arrays["weight"], (x.shape[2], x.shape[3]), *_pairs(op))
    return OpCounts(
        events=int(np.count_nonzero(x)), macs=int(((x > 0) * fan).sum()), dense_macs=_dense_conv(arrays, out)
    )


def ni_lif_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Neuron-steps, spiking ones apart."""
    return OpCounts(
        neuron_updates=out.size,
        neuron_spiking=int(np.count_nonzero(out)),
        output_sum=int(out.sum()),
    )


def add_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """The first operand is the stream that is passed on; the second arrives as synaptic input of the new population."""
    relayed = int(np.count_nonzero(inputs[0])) * (out.shape[0] // inputs[0].shape[0])
    return OpCounts(relays=relayed, relay_synops=relayed)


def avg_pool_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Every non-zero stream value is sent once, to the one window that holds it."""
    relayed = int(np.count_nonzero(inputs[0]))
    return OpCounts(relays=relayed, relay_synops=relayed)


def upsample_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Every non-zero value is sent once and reaches the positions whose interpolation weight is not 0."""
    (x,) = inputs
    rows = np.count_nonzero(upsample_matrix(x.shape[2], op.attrs["factor"]), axis=0)
    cols = np.count_nonzero(upsample_matrix(x.shape[3], op.attrs["factor"]), axis=0)
    return OpCounts(relays=int(np.count_nonzero(x)), relay_synops=int(((x != 0) * np.outer(rows, cols)).sum()))


def key_value_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Outer products of spikes, token by token and head by head: ``sum nnz(k) * nnz(v)``; the matrix is rewritten."""
    heads = op.attrs["heads"]
    k, v = (x.reshape(x.shape[0], heads, -1, x.shape[2] * x.shape[3]) for x in inputs)
    return OpCounts(
        events=int(np.count_nonzero(k) + np.count_nonzero(v)),
        synops=int(((k > 0).sum(axis=2) * (v > 0).sum(axis=2)).sum()),
        unit_ops=int((k.sum(axis=2) * v.sum(axis=2)).sum()),
        dense_macs=k.shape[3] * out.size,
        memory_writes=out.size,
        input_sum=int(k.sum() + v.sum()),
        input_size=k.size + v.size,
    )


def query_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """A spike of q visits its row of the matrix: non-zero entries are synaptic operations, all of them are read."""
    q, memory = inputs
    rows = np.count_nonzero(memory, axis=3).reshape(memory.shape[0], -1)[:, :, None, None]
    events = int(np.count_nonzero(q))
    return OpCounts(
        events=events,
        synops=int(((q > 0) * rows).sum()),
        unit_ops=int((q * rows).sum()),
        dense_macs=memory.shape[2] * out.size,
        memory_reads=events * memory.shape[3],
        input_sum=int(q.sum()),
        input_size=q.size,
    )


def gate_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """One table look-up per template and channel, one product per spike position."""
    logits, spikes = inputs
    return OpCounts(
        events=int(np.count_nonzero(spikes)),
        host_ops=logits.size + spikes.size,
        input_sum=int(spikes.sum()),
        input_size=spikes.size,
    )


def no_counts(op: Op, arrays: Arrays, inputs: Sequence[IntArray], out: IntArray) -> OpCounts:
    """Wiring, or a shift inside a neuron: nothing that is paid for apart."""
    return OpCounts()
