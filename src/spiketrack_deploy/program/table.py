"""The operation table: one row per kind of operation.

A row holds what every part of the house needs to know of an operation: its equation, the shape rule, the integer rule
(reference semantics), the event-count rule and the bound. A new operation is one row here plus one function per engine;
a test fails while an engine lacks it, and the table in docs/exactness.md is printed from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spiketrack_deploy.program import bounds, counts, semantics
from spiketrack_deploy.program.bounds import BoundRule
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.types import Arrays, IntArray, Op, TensorSpec

Shape = tuple[int, ...]
ShapeRule = Callable[[Op, Arrays, Sequence[TensorSpec]], Shape]
RunRule = Callable[[Op, Arrays, Sequence[IntArray]], IntArray]
CountRule = Callable[[Op, Arrays, Sequence[IntArray], IntArray], OpCounts]


@dataclass(frozen=True, slots=True)
class OpKind:
    """A row: kinds of the inputs and the output, roles of its arrays (``?`` marks optional ones), names of its
    attributes.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    roles: tuple[str, ...]
    attrs: tuple[str, ...]
    equation: str
    shape: ShapeRule
    run: RunRule
    count: CountRule
    bound: BoundRule
    weighted: bool = False
    """has synapses of its own (weights that a chip must store)"""


CONV_ATTRS = ("stride_h", "stride_w", "padding_h", "padding_w", "dilation_h", "dilation_w", "groups")


def conv_geometry(op: Op) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    """``(stride, padding, dilation, groups)`` of a convolution, in (height, width) order."""
    a = op.attrs
    return (
        (a["stride_h"], a["stride_w"]),
        (a["padding_h"], a["padding_w"]),
        (a["dilation_h"], a["dilation_w"]),
        a["groups"],
    )


def _conv_shape(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    weight = arrays["weight"]
    stride, padding, dilation, _ = conv_geometry(op)
    steps, _, height, width = specs[0].shape
    return (steps, weight.shape[1], *semantics.conv_size((height, width), weight.shape[3:], stride, padding, dilation))


def _conv(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    return semantics.conv(x[0], arrays["weight"], arrays["bias"], arrays["shift"], *conv_geometry(op))


def _same(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    return specs[0].shape


def _add_shape(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    return (max(specs[0].shape[0], specs[1].shape[0]), *specs[0].shape[1:])


def _ni_lif(op: Op, arrays: Arrays, x: Sequence[IntArray]) -> IntArray:
    return semantics.ni_lif(
        x[0], op.attrs["steps"], arrays["thresholds"], arrays.get("offset"), arrays.get("decay"), arrays.get("reset")
    )


def _pool_shape(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    t, c, h, w = specs[0].shape
    return t, c, h // op.attrs["kernel"], w // op.attrs["kernel"]


def _up_shape(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    t, c, h, w = specs[0].shape
    return t, c, h * op.attrs["factor"], w * op.attrs["factor"]


def _key_value_shape(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    heads = op.attrs["heads"]
    return specs[0].shape[0], heads, specs[0].shape[1] // heads, specs[1].shape[1] // heads


def _query_shape(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    q, memory = specs
    return (q.shape[0], memory.shape[1] * memory.shape[3], *q.shape[2:])


def _transpose_shape(op: Op, arrays: Arrays, specs: Sequence[TensorSpec]) -> Shape:
    t, c, h, w = specs[0].shape
    return t, h * w, 1, c


_ROWS = (
    OpKind(
        "image_conv",
        ("image",),
        "stream",
        ("weight", "bias", "shift"),
        CONV_ATTRS,
        "y[o,p] = (sum w[o,c,k] * pixel[c,p*stride+k*dilation-padding]) << shift[o] + bias[o,p]",
        _conv_shape,
        _conv,
        counts.image_conv_counts,
        bounds.conv_bound,
        weighted=True,
    ),
    OpKind(
        "conv",
        ("spikes",),
        "stream",
        ("weight", "bias", "shift"),
        CONV_ATTRS,
        "y[t,o,p] = (sum w[t,o,c,k] * n[t,c,p*stride+k*dilation-padding]) << shift[t,o] + bias[t,o]",
        _conv_shape,
        _conv,
        counts.conv_counts,
        bounds.conv_bound,
        weighted=True,
    ),
    OpKind(
        "add",
        ("stream", "stream"),
        "stream",
        (),
        (),
        "y[t] = a[t] + b[t]; one step is broadcast over T",
        _add_shape,
        lambda op, arrays, x: semantics.add(x[0], x[1]),
        counts.add_counts,
        bounds.add_bound,
    ),
    OpKind(
        "ni_lif",
        ("stream",),
        "spikes",
        ("thresholds", "offset?", "decay?", "reset?"),
        ("steps",),
        "v[0] = x[0]; v[t] = trunc0(decay[t-1] * (v[t-1] - n[t-1]*reset) / 2^12) + x[t]; n[t] = "
        "#{k: v[t] + offset[t] >= thresholds[c,k]}",
        lambda op, arrays, specs: (op.attrs["steps"], *specs[0].shape[1:]),
        _ni_lif,
        counts.ni_lif_counts,
        bounds.ni_lif_bound,
    ),
    OpKind(
        "avg_pool",
        ("stream",),
        "stream",
        (),
        ("kernel",),
        "y[c,i,j] = sum over the kernel x kernel window, unit finer by 2 log2(kernel) bits",
        _pool_shape,
        lambda op, arrays, x: semantics.avg_pool(x[0], op.attrs["kernel"]),
        counts.avg_pool_counts,
        bounds.avg_pool_bound,
    ),
    OpKind(
        "upsample",
        ("stream",),
        "stream",
        (),
        ("factor",),
        "y = U x U^T with bilinear integer weights, unit finer by 2 log2(2 factor) bits",
        _up_shape,
        lambda op, arrays, x: semantics.upsample(x[0], op.attrs["factor"]),
        counts.upsample_counts,
        bounds.upsample_bound,
    ),
    OpKind(
        "requantise",
        ("stream",),
        "stream",
        ("shift",),
        (),
        "y[c] = (x[c] + 2^(shift[c]-1)) >> shift[c]: rounds half up",
        _same,
        lambda op, arrays, x: semantics.requantise(x[0], arrays["shift"]),
        counts.no_counts,
        bounds.requantise_bound,
    ),
    OpKind(
        "key_value",
        ("spikes", "spikes"),
        "memory",
        (),
        ("heads",),
        "M[t,h] = k[t,h]^T v[t,h]",
        _key_value_shape,
        lambda op, arrays, x: semantics.key_value(x[0], x[1], op.attrs["heads"]),
        counts.key_value_counts,
        bounds.key_value_bound,
    ),
    OpKind(
        "query",
        ("spikes", "memory"),
        "stream",
        (),
        ("heads", "shift"),
        "y[t,h] = (q[t,h] M[t,h]) << shift; the gain is part of the unit",
        _query_shape,
        lambda op, arrays, x: semantics.query(x[0], x[1], op.attrs["heads"], op.attrs["shift"]),
        counts.query_counts,
        bounds.query_bound,
    ),
    OpKind(
        "gate_transpose",
        ("spikes",),
        "spikes",
        (),
        (),
        "y[t,p,0,c] = x[t,c,p]: wiring only",
        _transpose_shape,
        lambda op, arrays, x: semantics.gate_transpose(x[0]),
        counts.no_counts,
        bounds.same_bound,
    ),
    OpKind(
        "gate",
        ("stream", "spikes"),
        "stream",
        ("table",),
        ("shift",),
        "y[c,p] = sum_t e[t,c] * (n[t,c,p] - 2), e[t,c] = table[min((max_t L - L[t,c]) >> shift, last)]",
        lambda op, arrays, specs: (1, *specs[1].shape[1:]),
        lambda op, arrays, x: semantics.gate(x[0], x[1], arrays["table"], op.attrs["shift"]),
        counts.gate_counts,
        bounds.gate_bound,
    ),
    OpKind(
        "head_out",
        ("spikes",),
        "logits",
        ("weight", "bias", "shift"),
        CONV_ATTRS,
        "as conv; the integers leave for the host, which applies sigmoid, window and decode in float64",
        _conv_shape,
        _conv,
        counts.conv_counts,
        bounds.conv_bound,
        weighted=True,
    ),
)

OP_TABLE: dict[str, OpKind] = {row.name: row for row in _ROWS}
BOUND_RULES = {row.name: row.bound for row in _ROWS}
