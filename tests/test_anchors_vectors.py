"""Exact-count vectors V1 to V8: synaptic operations by the operation table, a loop over every spike and every synapse,
and the numbers that were counted by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.conv import conv_size
from spiketrack_deploy.program.types import AnyArray, Op

Events = Mapping[tuple[int, int, int], int]

VECTORS: dict[str, tuple[tuple[int, int, int], int, int, int, int, int, Events, list[int], int, int, int]] = {
    # name: (C, H, W), outputs, kernel, stride, padding, groups, events, synops of each, unit operations, dense, naive
    "V1": ((1, 5, 5), 1, 3, 1, 1, 1, {(0, 0, 0): 1, (0, 0, 2): 4, (0, 2, 2): 3}, [4, 6, 9], 55, 169, 225),
    "V2": (
        (2, 6, 6), 3, 3, 2, 1, 1, {(0, 0, 0): 1, (1, 1, 1): 4, (0, 5, 5): 2, (1, 2, 3): 1}, [3, 12, 3, 6], 63, 384, 486,
    ),
    "V3": (
        (4, 4, 4), 4, 3, 1, 1, 4, {(0, 0, 0): 2, (0, 1, 1): 1, (1, 1, 1): 1, (2, 1, 1): 1, (3, 1, 1): 1},
        [4, 9, 9, 9, 9], 44, 400, 576,
    ),
    "V4": (
        (4, 7, 7), 6, 3, 2, 0, 2, {(0, 0, 0): 1, (3, 6, 6): 4, (2, 2, 2): 2, (1, 1, 1): 1}, [3, 3, 12, 3], 42, 972, 972,
    ),
    "V5": ((1, 8, 8), 2, 7, 2, 3, 1, {(0, 0, 0): 1, (0, 3, 3): 1, (0, 7, 7): 1}, [8, 32, 8], 48, 968, 1568),
    "V6": ((1, 4, 4), 4, 1, 2, 0, 1, {(0, 0, 0): 1, (0, 1, 1): 4, (0, 2, 2): 1}, [4, 0, 4], 8, 16, 16),
}  # fmt: skip


def conv_op(stride: int, padding: int, dilation: int, groups: int) -> Op:
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    attrs = {f"{name}_{axis}": value for name, value in pairs.items() for axis in "hw"}
    return Op("layer", "conv", ("x",), "block", attrs | {"groups": groups})


def counted(op: Op, x: AnyArray, weight: AnyArray) -> OpCounts:
    """What the operation table counts, as the tracker's trace does."""
    stride, padding, dilation = (op.attrs[f"{name}_h"] for name in ("stride", "padding", "dilation"))
    size = conv_size((x.shape[2], x.shape[3]), weight.shape[3:], (stride,) * 2, (padding,) * 2, (dilation,) * 2)
    out = np.zeros((x.shape[0], weight.shape[1], *size), dtype=np.int64)
    return OP_TABLE["conv"].count(op, {"weight": weight}, [x], out)


def brute_force(op: Op, x: AnyArray, weight: AnyArray) -> tuple[int, int, int]:
    """``(events, synops, unit operations)``: every spike, every output, every tap, one after the other."""
    stride, padding, dilation, groups = (op.attrs[k] for k in ("stride_h", "padding_h", "dilation_h", "groups"))
    shared, outputs, fan_in, kh, kw = weight.shape
    height, width = conv_size(
        (x.shape[2], x.shape[3]), (kh, kw), (stride, stride), (padding, padding), (dilation, dilation)
    )
    events = synops = units = 0
    for t, c, y, z in np.argwhere(x):
        events += 1
        for o in range(outputs):
            if o // (outputs // groups) != c // fan_in:
                continue
            for ky in range(kh):
                for kx in range(kw):
                    row, col = y + padding - ky * dilation, z + padding - kx * dilation
                    if row % stride or col % stride or not (0 <= row // stride < height and 0 <= col // stride < width):
                        continue
                    if weight[t % shared, o, c % fan_in, ky, kx] != 0:
                        synops += 1
                        units += int(x[t, c, y, z])
    return events, synops, units


def frame(shape: tuple[int, int, int], events: Events) -> AnyArray:
    x = np.zeros((1, *shape), dtype=np.int64)
    for place, value in events.items():
        x[(0, *place)] = value
    return x


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_a_convolution_counts_the_published_vector(name: str) -> None:
    shape, outputs, kernel, stride, padding, groups, events, each, units, dense, naive = VECTORS[name]
    weight = np.ones((1, outputs, shape[0] // groups, kernel, kernel), dtype=np.int8)
    op = conv_op(stride, padding, 1, groups)
    for (place, value), synops in zip(events.items(), each):
        alone = counted(op, frame(shape, {place: value}), weight)
        assert (alone.synops, alone.unit_ops) == (synops, synops * value), f"{name}: the spike at {place}"
    x = frame(shape, events)
    found = counted(op, x, weight)
    assert (found.events, found.synops, found.unit_ops) == (len(events), sum(each), units), name
    assert brute_force(op, x, weight) == (len(events), sum(each), units), f"{name}: the loop disagrees with the vector"
    assert found.dense_macs == naive, f"{name}: the dense twin counts padding taps, as the literature does"
    everywhere = counted(op, np.ones_like(x), weight)
    assert everywhere.synops == dense, f"{name}: a spike everywhere visits every real synapse once"


def test_a_template_matrix_counts_the_published_vector() -> None:
    k = np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 0], [1, 1, 4, 0]]).T.reshape(1, 4, 4, 1)
    v = np.array([[1, 0], [2, 2], [4, 1], [0, 3]]).T.reshape(1, 2, 4, 1)
    op = Op("memory", "key_value", ("k", "v"), "mrm", {"heads": 1})
    found = OP_TABLE["key_value"].count(op, {}, [k, v], np.zeros((1, 1, 4, 2), dtype=np.int64))
    assert (found.synops, found.unit_ops, found.dense_macs) == (7, 33, 32), "V7"


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "real"),
    [(256, 7, 2, 3, 792_100), (64, 3, 1, 1, None), (16, 3, 1, 1, None), (8, 3, 1, 1, None)],
)
def test_border_factors(size: int, kernel: int, stride: int, padding: int, real: int | None) -> None:
    """V8: real over naive taps of one channel pair: .9867, .9793, .9184, .8403."""
    op = conv_op(stride, padding, 1, 1)
    weight = np.ones((1, 1, 1, kernel, kernel), dtype=np.int8)
    found = counted(op, np.ones((1, 1, size, size), dtype=np.int64), weight)
    factor = {256: 0.9867, 64: 0.9793, 16: 0.9184, 8: 0.8403}[size]
    assert found.synops / found.dense_macs == pytest.approx(factor, abs=5e-5)
    assert real is None or (found.synops, found.dense_macs) == (real, 802_816)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_counts_equal_a_loop_over_every_spike_and_synapse(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 1, 2, 3]), label="groups")
    inputs, outputs = (groups * data.draw(st.integers(1, 2), label=what) for what in ("inputs", "outputs"))
    kernel, stride = data.draw(st.integers(1, 3), label="kernel"), data.draw(st.integers(1, 3), label="stride")
    padding, dilation = data.draw(st.integers(0, 2), label="padding"), data.draw(st.integers(1, 2), label="dilation")
    least = max(dilation * (kernel - 1) + 1 - 2 * padding, 1)
    size = (
        data.draw(st.integers(least, least + 4), label="height"),
        data.draw(st.integers(least, least + 4), label="width"),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    steps, shared = data.draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]), label="steps")
    weight = rng.integers(-2, 3, size=(shared, outputs, inputs // groups, kernel, kernel)).astype(np.int8)
    x = rng.integers(0, 5, size=(steps, inputs, *size)) * (rng.random((steps, inputs, *size)) < 0.4)
    op = conv_op(stride, padding, dilation, groups)
    found = counted(op, x, weight)
    assert (found.events, found.synops, found.unit_ops) == brute_force(op, x, weight)
