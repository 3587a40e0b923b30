"""Event counts: 200 drawn layers against a walk over every spike and every synapse, and the known vectors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.attention import key_value_counts
from spiketrack_deploy.program.ops.conv import conv_counts, conv_geometry, fan_out
from spiketrack_deploy.program.ops.stream import upsample
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.types import Op, Phase, Program, TensorSpec

from _programs import random_inputs, random_program  # isort: skip
from _steps import KINDS, SIGMA_DELTA  # isort: skip

LAYERS = 200


def layer(weight, size, stride, padding, dilation, groups, steps):
    """A phase that holds one convolution reading spikes, and its program."""
    attrs = {}
    for name, pair in (("stride", stride), ("padding", padding), ("dilation", dilation)):
        attrs |= {f"{name}_h": pair[0], f"{name}_w": pair[1]}
    op = Op("layer", "conv", ("x",), "block", {**attrs, "groups": groups}, {"weight": "w"})
    x = TensorSpec("spikes", (steps, weight.shape[2] * groups, *size), scale=0.25, top=4)
    phase = Phase("search", {"x": x}, (op,), {}, {})
    return op, phase, Program({"search": phase}, {"w": weight})


def walk(x, weight, stride, padding, dilation, groups) -> tuple[int, int, int]:
    """``(events, synops, unit_ops)`` by visiting every spike and every output that a non-zero weight takes it to."""
    channels = x.shape[1]
    height, width = x.shape[2:]
    outputs, kh, kw = weight.shape[1], weight.shape[3], weight.shape[4]
    out_h = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    per_in, per_out = channels // groups, outputs // groups
    events = synops = unit_ops = 0
    for t, c, row, col in zip(*np.nonzero(x)):
        events += 1
        group, within = divmod(int(c), per_in)
        for ky, kx in itertools.product(range(kh), range(kw)):
            i, left_row = divmod(int(row) + padding[0] - ky * dilation[0], stride[0])
            j, left_col = divmod(int(col) + padding[1] - kx * dilation[1], stride[1])
            if left_row or left_col or not (0 <= i < out_h and 0 <= j < out_w):
                continue
            for o in range(group * per_out, (group + 1) * per_out):
                if weight[t if len(weight) > 1 else 0, o, within, ky, kx]:
                    synops += 1
                    unit_ops += int(x[t, c, row, col])
    return events, synops, unit_ops


def census(program, phase, x):
    """What the simulator's census finds for the layer."""
    torch = pytest.importorskip("torch")
    from spiketrack_deploy.engines.sim_census import Census

    tensor = torch.from_numpy(x.astype(np.uint8)).contiguous(memory_format=torch.channels_last)
    found = Census(program, phase, ["x"])
    table = found.table()
    found.take("x", tensor, table)
    sums = found.sums(table)
    return (sums["x"][0], *sums["layer"])


@pytest.mark.parametrize("seed", range(LAYERS))
def test_drawn_layers(seed: int) -> None:
    """The reference counts and the simulator's equal the walk, whatever the geometry."""
    rng = np.random.default_rng(seed)
    groups, steps = int(rng.choice([1, 1, 2, 4])), int(rng.choice([1, 1, 2]))
    kernel, stride, padding, dilation = (
        tuple(int(v) for v in rng.integers(low, high, 2)) for low, high in ((1, 6), (1, 4), (0, 4), (1, 3))
    )
    need = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding)]
    size = tuple(int(n + rng.integers(0, 9)) for n in need)
    channels = groups * int(rng.integers(1, 4))
    shared = int(rng.choice([1, steps]))
    weight = rng.integers(-3, 4, (shared, groups * int(rng.integers(1, 4)), channels // groups, *kernel)).astype(
        np.int8
    )
    x = rng.integers(0, 5, (steps, channels, *size)) * (rng.random((steps, channels, *size)) < rng.random())
    geometry = (stride, padding, dilation, groups)
    op, phase, program = layer(weight, size, *geometry, steps)
    expected = walk(x, weight, *geometry)
    found = conv_counts(op, {"weight": weight}, [x], np.zeros(1, dtype=np.int64))
    assert (found.events, found.synops, found.unit_ops) == expected, f"reference counts of layer {seed}"
    assert census(program, phase, x) == expected, f"census of layer {seed}"
    assert (found.input_sum, found.input_size) == (int(x.sum()), x.size)


# The exact-count vectors: (size, channels in, out, groups, kernel, stride, padding), events (channel,y,x)=value,
# synops of each event, sum of unit operations, dense real and naive products.
VECTORS = {
    "V1": ((5, 1, 1, 1, 3, 1, 1), {(0, 0, 0): 1, (0, 0, 2): 4, (0, 2, 2): 3}, (4, 6, 9), 55, 169, 225),
    "V2": (
        (6, 2, 3, 1, 3, 2, 1),
        {(0, 0, 0): 1, (1, 1, 1): 4, (0, 5, 5): 2, (1, 2, 3): 1},
        (3, 12, 3, 6), 63, 384, 486,
    ),
    "V3": (
        (4, 4, 4, 4, 3, 1, 1),
        {(0, 1, 1): 1, (1, 1, 1): 1, (2, 1, 1): 1, (3, 1, 1): 1, (0, 0, 0): 2},
        (9, 9, 9, 9, 4), 44, 400, 576,
    ),
    "V4": (
        (7, 4, 6, 2, 3, 2, 0),
        {(0, 0, 0): 1, (3, 6, 6): 4, (2, 2, 2): 2, (1, 1, 1): 1},
        (3, 3, 12, 3), 42, 972, 972,
    ),
    "V5": ((8, 1, 2, 1, 7, 2, 3), {(0, 0, 0): 1, (0, 3, 3): 1, (0, 7, 7): 1}, (8, 32, 8), 48, 968, 1568),
    "V6": ((4, 1, 4, 1, 1, 2, 0), {(0, 0, 0): 1, (0, 1, 1): 4, (0, 2, 2): 1}, (4, 0, 4), 8, 16, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_known_vectors(name: str) -> None:
    (size, channels, outputs, groups, k, stride, padding), events, synops, unit_ops, real, naive = VECTORS[name]
    weight = np.ones((1, outputs, channels // groups, k, k), dtype=np.int8)
    pairs = ((stride, stride), (padding, padding), (1, 1), groups)
    op, phase, program = layer(weight, (size, size), *pairs, 1)
    x = np.zeros((1, channels, size, size), dtype=np.int64)
    for (place, value), visits in zip(events.items(), synops, strict=True):
        one = np.zeros_like(x)
        one[(0, *place)] = value
        x += one
        assert conv_counts(op, {"weight": weight}, [one], one).synops == visits, f"{name} event {place}"
    out = (size + 2 * padding - k) // stride + 1
    found = conv_counts(op, {"weight": weight}, [x], np.zeros((1, outputs, out, out), dtype=np.int64))
    assert (found.events, found.synops, found.unit_ops) == (len(events), sum(synops), unit_ops)
    assert found.dense_macs == naive
    ones = np.ones_like(x)
    assert conv_counts(op, {"weight": weight}, [ones], ones).synops == real
    assert census(program, phase, x) == (len(events), sum(synops), unit_ops)


def test_known_vector_v7_key_value() -> None:
    k = np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 0], [1, 1, 4, 0]]).T.reshape(1, 4, 2, 2)
    v = np.array([[1, 0], [2, 2], [4, 1], [0, 3]]).T.reshape(1, 2, 2, 2)
    op = Op("kv", "key_value", ("k", "v"), "block", {"heads": 1})
    found = key_value_counts(op, {}, [k, v], np.zeros((1, 1, 4, 2), dtype=np.int64))
    assert (found.synops, found.unit_ops, found.dense_macs) == (7, 33, 32)


@pytest.mark.parametrize(
    ("size", "k", "stride", "padding", "real", "naive"),
    [
        (256, 7, 2, 3, 792_100, 802_816),
        (64, 3, 1, 1, None, 0.9793),
        (16, 3, 1, 1, None, 0.9184),
        (8, 3, 1, 1, None, 0.8403),
    ],
)
def test_known_vector_v8_border_factor(size, k, stride, padding, real, naive) -> None:
    fan = fan_out(np.ones((1, 1, 1, k, k), np.int8), (size, size), (stride,) * 2, (padding,) * 2, (1, 1), 1)
    total = int(fan.sum())
    everything = ((size + 2 * padding - k) // stride + 1) ** 2 * k * k
    if real is not None:
        assert (total, everything) == (real, naive)
    else:
        assert total / everything == pytest.approx(naive, abs=5e-5)


def positive(x) -> int:
    return sum(1 for value in x.ravel().tolist() if value)


def by_definition(op: Op, arrays, x, out) -> OpCounts:
    """The counts of one operation, value by value; ``x``: its inputs."""
    first = x[0]
    if op.kind in ("conv", "head_out", "image_conv"):
        weight = arrays["weight"]
        events, synops, unit_ops = walk(first, weight, *conv_geometry(op))
        dense = int(np.prod(weight.shape[2:])) * out.size
        if op.kind == "image_conv":
            return OpCounts(events=events, macs=synops, dense_macs=dense)
        return OpCounts(events=events, synops=synops, unit_ops=unit_ops, dense_macs=dense,
                        input_sum=int(first.sum()), input_size=first.size)  # fmt: skip
    if op.kind == "ni_lif":
        return OpCounts(neuron_updates=out.size, neuron_spiking=positive(out), output_sum=int(out.sum()))
    if op.kind == "add":  # the stream that is passed on, in every step that reads it
        relayed = positive(np.broadcast_to(first, out.shape))
        return OpCounts(relays=relayed, relay_synops=relayed)
    if op.kind == "avg_pool":
        return OpCounts(relays=positive(first), relay_synops=positive(first))
    if op.kind == "upsample":
        reached = 0
        for i, j in np.ndindex(*first.shape[2:]):
            pulse = np.zeros((1, 1, *first.shape[2:]), np.int64)
            pulse[0, 0, i, j] = 1
            reached += positive(first[:, :, i, j]) * positive(upsample(pulse, op.attrs["factor"]))
        return OpCounts(relays=positive(first), relay_synops=reached)
    heads = op.attrs.get("heads", 1)
    if op.kind == "key_value":
        k, v = (y.reshape(y.shape[0], heads, -1, y.shape[2] * y.shape[3]) for y in x)
        synops = unit_ops = 0
        for t, h, token in itertools.product(range(k.shape[0]), range(heads), range(k.shape[3])):
            for a, b in itertools.product(k[t, h, :, token].tolist(), v[t, h, :, token].tolist()):
                synops += bool(a and b)
                unit_ops += a * b
        return OpCounts(events=positive(k) + positive(v), synops=synops, unit_ops=unit_ops, memory_writes=out.size,
                        dense_macs=out.size * k.shape[3], input_sum=int(k.sum() + v.sum()),
                        input_size=k.size + v.size)  # fmt: skip
    if op.kind == "query":
        memory, (_, _, depth, wide) = x[1], x[1].shape
        synops = unit_ops = 0
        for t, c, i, j in zip(*np.nonzero(first)):
            row = positive(memory[t, c // depth, c % depth])
            synops += row
            unit_ops += row * int(first[t, c, i, j])
        return OpCounts(events=positive(first), synops=synops, unit_ops=unit_ops, dense_macs=out.size * depth,
                        memory_reads=positive(first) * wide, input_sum=int(first.sum()),
                        input_size=first.size)  # fmt: skip
    if op.kind == "gate":
        n = x[1]
        return OpCounts(events=positive(n), host_ops=first.size + n.size, input_sum=int(n.sum()), input_size=n.size)
    return OpCounts()


@pytest.mark.parametrize("phase", ["search", "template"])
def test_every_count_of_every_kind_of_operation(phase: str) -> None:
    """One large convolution is as good as ten: the walk over all of them would take a minute."""
    program = random_program(1, 3)
    inputs = random_inputs(program, 1)[phase]
    values = {name: value.astype(np.int64) for name, value in inputs.items()}
    memory = next((name for name in values if name.startswith("memory")), None)
    if memory:
        values[memory][:, :, 0] = inputs[memory][:, :, 0] = 0  # an empty row of a matrix is read and visited by nothing
    counts = run_phase(program, phase, inputs, watch=lambda op, value: values.update({op.name: value})).counts
    kinds, walked = set(), 0
    for op in program.phases[phase].ops:
        args, arrays = [values[name] for name in op.inputs], program.op_arrays(op)
        if "weight" in arrays and arrays["weight"].size * args[0].size > 2_000_000:
            continue
        walked += "weight" in arrays
        kinds.add(op.kind)
        assert counts[op.name] == by_definition(op, arrays, args, values[op.name]), f"{op.name} ({op.kind})"
    assert walked > 10
    if phase == "search":
        assert kinds | KINDS | SIGMA_DELTA == set(OP_TABLE), "test_program_state.py has those with memory"


def test_nothing_counted_is_zero_everywhere() -> None:
    assert set(OpCounts().to_dict().values()) == {0}
