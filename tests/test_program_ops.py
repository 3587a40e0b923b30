"""Reference semantics against loops that a person can check: every operation, random shapes, borders, strides."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.program.ops import OP_TABLE, attention, conv, gate, neuron, stream

from _programs import round_thresholds  # isort: skip
from _steps import KINDS, SIGMA_DELTA  # isort: skip

SEEDS = st.integers(0, 2**32 - 1)
QUICK = settings(max_examples=40, deadline=None)
TESTED = {
    "image_conv", "conv", "head_out", "add", "ni_lif", "avg_pool", "upsample", "requantise", "key_value", "query",
    "gate_transpose", "gate",
}  # fmt: skip


def test_every_operation_of_the_table_has_a_loop_here() -> None:
    """Those with memory, and graded messages, have theirs in test_program_state.py, sigma-delta neurons beside them."""
    assert set(OP_TABLE) == TESTED | KINDS | SIGMA_DELTA, "a new operation needs a brute-force test"


@st.composite
def geometries(draw):
    """Shapes of a convolution whose output is not empty."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    need = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding)]
    size = tuple(draw(st.integers(n, n + 4)) for n in need)
    steps = draw(st.integers(1, 2))
    return {
        "groups": groups,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "size": size,
        "steps": steps,
        "shared": draw(st.sampled_from([1, steps])),
        "channels": groups * draw(st.integers(1, 2)),
        "outputs": groups * draw(st.integers(1, 2)),
    }


def drawn_conv(g, seed: int, top: int):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, top + 1, (g["steps"], g["channels"], *g["size"]))
    weight = rng.integers(-127, 128, (g["shared"], g["outputs"], g["channels"] // g["groups"], *g["kernel"]))
    weight[rng.random(weight.shape) < 0.3] = 0
    shift = rng.integers(0, 5, (g["shared"], g["outputs"]))
    return x, weight.astype(np.int8), shift.astype(np.int8), rng


def conv_loop(x, weight, shift, g):
    """One output at a time; Python integers."""
    (kh, kw), (sy, sx), (py, px), (dy, dx) = g["kernel"], g["stride"], g["padding"], g["dilation"]
    steps, _, height, width = x.shape
    out_h = (height + 2 * py - dy * (kh - 1) - 1) // sy + 1
    out_w = (width + 2 * px - dx * (kw - 1) - 1) // sx + 1
    per_in, per_out = g["channels"] // g["groups"], g["outputs"] // g["groups"]
    y = np.zeros((steps, g["outputs"], out_h, out_w), dtype=np.int64)
    for t, o, i, j in itertools.product(range(steps), range(g["outputs"]), range(out_h), range(out_w)):
        total, w = 0, weight[t if len(weight) > 1 else 0, o]
        for c, ky, kx in itertools.product(range(per_in), range(kh), range(kw)):
            row, col = i * sy + ky * dy - py, j * sx + kx * dx - px
            if 0 <= row < height and 0 <= col < width:
                total += int(w[c, ky, kx]) * int(x[t, o // per_out * per_in + c, row, col])
        y[t, o, i, j] = total * 2 ** int(shift[t if len(shift) > 1 else 0, o])
    return y


@QUICK
@given(geometries(), SEEDS)
def test_conv(g, seed: int) -> None:
    x, weight, shift, rng = drawn_conv(g, seed, 4)
    bias = rng.integers(-(10**6), 10**6, (g["shared"], g["outputs"])).astype(np.int32)
    found = conv.conv(x, weight, bias, shift, g["stride"], g["padding"], g["dilation"], g["groups"])
    assert np.array_equal(found, conv_loop(x, weight, shift, g) + bias[:, :, None, None])


@QUICK
@given(geometries(), SEEDS)
def test_image_conv_with_a_bias_map(g, seed: int) -> None:
    g = {**g, "shared": 1}
    x, weight, shift, rng = drawn_conv(g, seed, 255)
    expected = conv_loop(x, weight, shift, g)
    bias = rng.integers(-(10**6), 10**6, expected.shape[1:]).astype(np.int32)
    found = conv.conv(x, weight, bias, shift, g["stride"], g["padding"], g["dilation"], g["groups"])
    assert np.array_equal(found, expected + bias[None])


@QUICK
@given(st.integers(1, 3), SEEDS)
def test_add_broadcasts_one_step(steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-(2**22), 2**22, (1, 2, 2, 3)), rng.integers(-(2**22), 2**22, (steps, 2, 2, 3))
    found = stream.add(a, b)
    for t, c, i, j in np.ndindex(*b.shape):
        assert found[t, c, i, j] == int(a[0, c, i, j]) + int(b[t, c, i, j])


def ni_lif_loop(x, steps, thresholds, offset, decay, reset):
    """The equation of docs/spiketrack.md, "Neuron", neuron by neuron, in exact rationals."""
    _, channels, height, width = x.shape
    n = np.zeros((steps, channels, height, width), dtype=np.int64)
    for c, i, j in np.ndindex(channels, height, width):
        v = 0
        for t in range(steps):
            current = int(x[t if x.shape[0] > 1 else 0, c, i, j])
            if t:
                left = Fraction(int(decay[t - 1]) * (v - int(n[t - 1, c, i, j]) * int(reset[c])), 4096)
                v = (floor(left) if left >= 0 else -floor(-left)) + current
            else:
                v = current
            level = v + (0 if offset is None else int(offset[t, c, i, j]))
            n[t, c, i, j] = sum(level >= int(limit) for limit in thresholds[c])
    return n


@QUICK
@given(st.integers(1, 3), st.booleans(), st.booleans(), SEEDS)
def test_ni_lif(steps: int, one_input: bool, with_offset: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(2, 8, 3)
    scale = 2.0 ** bits[:, None, None]
    x = np.rint(rng.normal(1, 2, (1 if one_input else steps, 3, 2, 3)) * scale).astype(np.int64)
    offset = np.rint(rng.normal(0, 1, (steps, 3, 2, 3)) * scale).astype(np.int64) if with_offset else None
    decay, reset = rng.integers(0, 4096, steps - 1), (1 << (bits - 2)).astype(np.int64)
    found = neuron.ni_lif(x, steps, round_thresholds(bits), offset, decay, reset)
    assert np.array_equal(found, ni_lif_loop(x, steps, round_thresholds(bits), offset, decay, reset))


@given(st.integers(1, 12), st.integers(-(2**20), 2**20))
def test_rounding_thresholds_are_round_half_to_even(bits: int, value: int) -> None:
    found = int(neuron.fire(np.array([[[value]]]), round_thresholds(np.array([bits])), None)[0, 0, 0])
    # Python's round of a Fraction is half to even.
    assert found == round(min(max(Fraction(value, 2**bits), Fraction(0)), Fraction(4)))


@QUICK
@given(st.integers(1, 4), SEEDS)
def test_avg_pool(kernel: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-1000, 1000, (2, 2, 2 * kernel, 3 * kernel))
    found = stream.avg_pool(x, kernel)
    for t, c, i, j in np.ndindex(*found.shape):
        window = x[t, c, i * kernel : (i + 1) * kernel, j * kernel : (j + 1) * kernel]
        assert found[t, c, i, j] == sum(int(v) for v in window.ravel())


def interpolation_weight(j: int, i: int, size: int, factor: int) -> Fraction:
    """Weight of source pixel i in output pixel j, from the definition (align_corners False)."""
    position = max(Fraction(2 * j + 1, 2 * factor) - Fraction(1, 2), Fraction(0))
    left = floor(position)
    weight = Fraction(0)
    for neighbour, share in ((left, 1 - (position - left)), (min(left + 1, size - 1), position - left)):
        weight += share if neighbour == i else 0
    return weight


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_upsample(factor: int, size: int) -> None:
    x = np.random.default_rng(size).integers(-1000, 1000, (1, 2, size, size + 1))
    found = stream.upsample(x, factor)
    assert found.shape == (1, 2, size * factor, (size + 1) * factor)
    for c, i, j in np.ndindex(*found.shape[1:]):
        exact = Fraction(0)
        for row, col in np.ndindex(size, size + 1):
            share = interpolation_weight(i, row, size, factor) * interpolation_weight(j, col, size + 1, factor)
            exact += share * int(x[0, c, row, col])
        assert found[0, c, i, j] == exact * (2 * factor) ** 2


@QUICK
@given(st.integers(0, 9), st.integers(-(2**22), 2**22))
def test_requantise_rounds_half_up(shift: int, value: int) -> None:
    found = stream.requantise(np.full((1, 1, 1, 1), value), np.array([shift], dtype=np.int8))
    assert found.item() == floor(Fraction(value, 2**shift) + Fraction(1, 2))


@QUICK
@given(st.integers(1, 3), st.integers(1, 3), SEEDS)
def test_key_value_and_query(heads: int, depth: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps, height, width, wide, shift = 2, 2, 3, 2, int(rng.integers(0, 4))
    k, q = rng.integers(0, 5, (2, steps, heads * depth, height, width))
    v = rng.integers(0, 5, (steps, heads * wide, height, width))
    memory = attention.key_value(k, v, heads)
    for t, h, a, b in np.ndindex(*memory.shape):
        products = k[t, h * depth + a].ravel() * v[t, h * wide + b].ravel()
        assert memory[t, h, a, b] == sum(int(p) for p in products)
    found = attention.query(q, memory, heads, shift)
    for t, c, i, j in np.ndindex(*found.shape):
        h, b = divmod(c, wide)
        total = sum(int(q[t, h * depth + a, i, j]) * int(memory[t, h, a, b]) for a in range(depth))
        assert found[t, c, i, j] == total * 2**shift


def test_gate_transpose() -> None:
    x = np.random.default_rng(0).integers(0, 5, (2, 3, 2, 4))
    found = gate.gate_transpose(x)
    assert found.shape == (2, 8, 1, 3)
    for t, c, i, j in np.ndindex(*x.shape):
        assert found[t, i * 4 + j, 0, c] == x[t, c, i, j]


@QUICK
@given(st.integers(1, 3), st.integers(0, 6), SEEDS)
def test_gate(steps: int, shift: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.sort(rng.integers(0, 2**15, 9))[::-1]
    logits, spikes = rng.integers(-500, 500, (steps, 1, 1, 3)), rng.integers(0, 5, (steps, 3, 2, 2))
    found = gate.gate(logits, spikes, table, shift)
    for c, i, j in np.ndindex(3, 2, 2):
        top = max(int(v) for v in logits[:, 0, 0, c])
        steps_down = [min((top - int(logits[t, 0, 0, c])) // 2**shift, 8) for t in range(steps)]
        total = sum(int(table[d]) * (int(spikes[t, c, i, j]) - 2) for t, d in enumerate(steps_down))
        assert found[0, c, i, j] == total
