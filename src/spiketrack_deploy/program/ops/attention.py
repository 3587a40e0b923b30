"""Linear attention without softmax: ``key_value`` (spikes into a memory) and ``query`` (a memory read by spikes).

This module decides the products in integers, their counts and bounds. It must not know whether a memory is a state or a
value of the same phase.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.row import LARGEST_SHIFT, Bound, OpKind, Shape, Specs, bound_of
from spiketrack_deploy.program.types import Arrays, IntArray, Op

_HEADS = {"heads": (1, 1 << 16)}


def key_value(k: IntArray, v: IntArray, heads: int) -> IntArray:
    """``M[t,h] = k[t,h]^T v[t,h]``: ``[T,heads,d,dv]`` from spikes ``k`` ``[T,heads*d,H,W]`` and ``v``
    ``[T,heads*dv,H,W]``.
    """
    steps = k.shape[0]
    tokens = k.shape[2] * k.shape[3]
    y: IntArray = np.matmul(k.reshape(steps, heads, -1, tokens), v.reshape(steps, heads, -1, tokens).swapaxes(2, 3))
    return y


def query(q: IntArray, memory: IntArray, heads: int, shift: int) -> IntArray:
    """``(q[t,h] M[t,h]) << shift`` as ``[T,heads*dv,H,W]``; the attention gain stays in the unit of the result."""
    steps, _, height, width = q.shape
    rows = np.matmul(memory.swapaxes(2, 3), q.reshape(steps, heads, -1, height * width))
    y: IntArray = rows.reshape(steps, -1, height, width) << shift
    return y


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


def _key_value_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    (k, v), heads = (s.shape for s in specs), op.attrs["heads"]
    if k[0] != v[0] or k[2:] != v[2:]:
        return f"reads keys {k} and values {v}; steps and positions must agree"
    return (
        f"has {heads} heads, which do not divide {k[1]} and {v[1]} channels" if k[1] % heads or v[1] % heads else None
    )


def _query_legal(op: Op, arrays: Arrays, specs: Specs) -> str | None:
    (q, memory), heads = (s.shape for s in specs), op.attrs["heads"]
    if memory[1] != heads or q[1] != heads * memory[2] or q[0] != memory[0]:
        return f"reads queries {q} and a memory {memory}, which do not fit {heads} heads"
    return None


def _key_value_shape(op: Op, arrays: Arrays, specs: Specs) -> Shape:
    heads = op.attrs["heads"]
    return specs[0].shape[0], heads, specs[0].shape[1] // heads, specs[1].shape[1] // heads


def _query_shape(op: Op, arrays: Arrays, specs: Specs) -> Shape:
    q, memory = (s.shape for s in specs)
    return (q[0], memory[1] * memory[3], *q[2:])


def _key_value_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """At most the product of the largest spikes, once a token."""
    tokens = specs[0].shape[2] * specs[0].shape[3]
    return bound_of(0, int(inputs[0][1].max()) * int(inputs[1][1].max()) * tokens)


def _query_bound(op: Op, arrays: Arrays, inputs: Sequence[Bound], specs: Specs) -> Bound:
    """At most the largest spike times d entries of a matrix that is itself bounded."""
    most = int(inputs[1][1].max()) * int(inputs[0][1].max()) * specs[1].shape[2]
    return bound_of(0, most << op.attrs["shift"])


ROWS = (
    OpKind(
        "key_value",
        ("spikes", "spikes"),
        "memory",
        "M[t,h] = k[t,h]^T v[t,h]",
        "a template's memory, or that of the same frame in self-attention",
        shape=_key_value_shape,
        run=lambda op, arrays, x: key_value(x[0], x[1], op.attrs["heads"]),
        bound=_key_value_bound,
        count=key_value_counts,
        attrs=_HEADS,
        inputs_legal=_key_value_legal,
    ),
    OpKind(
        "query",
        ("spikes", "memory"),
        "stream",
        "y[t,h] = (q[t,h] M[t,h]) << shift; the gain is part of the unit",
        "attention without softmax: the neuron behind it has thresholds that are exact in this unit",
        shape=_query_shape,
        run=lambda op, arrays, x: query(x[0], x[1], op.attrs["heads"], op.attrs["shift"]),
        bound=_query_bound,
        count=query_counts,
        attrs=_HEADS | {"shift": (0, LARGEST_SHIFT)},
        inputs_legal=_query_legal,
    ),
)
