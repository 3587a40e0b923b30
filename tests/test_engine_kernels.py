"""The simulator's own parts: when thresholds are a rounding, the probe, odd units, sums beyond the usual shapes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.engines import sim_conv, sim_levels
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.engines.sim import SimEngine
from spiketrack_deploy.engines.sim_kernels import fire_kernel
from spiketrack_deploy.program.ops import stream
from spiketrack_deploy.program.types import INT24_MAX, INT24_MIN, UNREACHABLE

from _programs import random_inputs, random_program, round_thresholds  # isort: skip

THRESHOLDS = st.lists(st.integers(-3000, 3000), min_size=4, max_size=4).map(sorted)


def spikes(thresholds, values, bits=0):
    """What the simulator's kernel fires for integers ``values`` of one channel."""
    held = torch.from_numpy((values * 2.0**-bits).astype(np.float32)).view(1, 1, 1, -1)
    found = fire_kernel(np.array([thresholds]), np.array([bits]))(held)
    assert found.dtype == torch.uint8
    return found.view(-1).numpy()


def reached(thresholds, values):
    return (values[:, None] >= np.array(thresholds)[None]).sum(axis=1)


@settings(max_examples=100, deadline=None)
@given(THRESHOLDS, st.integers(0, 12))
def test_any_thresholds_fire_as_counted(thresholds: list[int], bits: int) -> None:
    values = np.arange(-3100, 3101)
    assert np.array_equal(spikes(thresholds, values, bits), reached(thresholds, values))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 500.0), st.integers(0, 6))
def test_thresholds_of_an_irrational_gain_fire_as_counted(step: float, bits: int) -> None:
    limits = [int(np.floor(step * (k + 0.5))) + 1 for k in range(4)]
    values = np.arange(-10, 2300)
    assert np.array_equal(spikes(limits, values, bits), reached(limits, values))


@pytest.mark.parametrize("bits", [1, 2, 5, 11, 20])
def test_rounding_thresholds_are_recognised_and_exact_at_every_tie(bits: int) -> None:
    limits = round_thresholds(np.array([bits]))
    assert sim_levels.rounding_bits(limits).tolist() == [bits]
    assert sim_levels.level_gains(limits, np.array([bits])).tolist() == [1.0]
    ties = np.array([(2 * k + 1) * 2 ** (bits - 1) + d for k in range(5) for d in (-1, 0, 1)])
    values = np.unique(np.clip(np.concatenate([ties, -ties, [INT24_MIN, INT24_MAX]]), INT24_MIN, INT24_MAX))
    assert np.array_equal(spikes(limits[0], values, bits), reached(limits[0], values))


def test_a_gain_that_does_not_exist_is_not_claimed() -> None:
    """Thresholds that no multiple of the half-integers brackets fall back to comparisons."""
    uneven = np.array([[10, 11, 5000, 5001]])
    assert sim_levels.rounding_bits(uneven) is None
    assert sim_levels.level_gains(uneven, np.array([0])) is None
    gate = np.array([[1, UNREACHABLE, UNREACHABLE, UNREACHABLE]])
    assert sim_levels.level_gains(gate, np.array([0])) is None
    values = np.array([-5, 0, 1, 2, INT24_MAX])
    assert spikes(gate[0], values).tolist() == [0, 0, 1, 1, 1]


class OffByOne:
    """The operator of a PyTorch that means something else by it."""

    right = torch.ops.onednn.qconv2d_pointwise.default
    default = staticmethod(lambda *arguments: OffByOne.right(*arguments) + 1)


class Absent:
    """No such operator: whoever asks for it meets an AttributeError."""


@pytest.mark.parametrize("operator", [OffByOne, Absent])
def test_an_int8_operator_that_changed_is_noticed_and_not_used(monkeypatch, operator: type) -> None:
    """It is an internal one of PyTorch: whatever it may become, no integer of a program changes."""
    program = random_program(0, 1)
    monkeypatch.setattr(torch.ops.onednn, "qconv2d_pointwise", operator)
    sim_conv.int8_available.cache_clear()
    try:
        assert sim_conv.int8_available() is False
        runs = list(random_inputs(program, 0).items())
        compare(ReferenceEngine(program), SimEngine(program, threads=1), program, runs, timed=False).demand()
    finally:
        sim_conv.int8_available.cache_clear()


def shifted_units(program, change):
    """The same integers under other units: what the simulator holds changes, what it computes must not."""
    arrays = {
        key: (change(array).astype(np.int8) if key.startswith("unit.") else array)
        for key, array in program.arrays.items()
    }
    return dataclasses.replace(program, arrays=arrays)


@pytest.mark.parametrize(
    "change",
    [
        lambda unit: unit * 0,
        lambda unit: unit + 7,
        lambda unit: np.arange(unit.size) % 5 - 2,
        lambda unit: unit * 0 + 100,
    ],
    ids=["zero", "finer", "any", "absurd"],
)
def test_units_scale_what_is_held_and_never_an_integer(change) -> None:
    program = shifted_units(random_program(0), change)
    compare(
        ReferenceEngine(program), SimEngine(program, threads=1), program, list(random_inputs(program, 0).items())
    ).demand()


def test_image_convolution_with_the_hardest_pixels() -> None:
    """All pixels 255: products of uint8 and int8 saturate in pairs on processors without VNNI, sums must not."""
    program = random_program(1, 1)
    key = next(op.arrays["weight"] for op in program.phases["search"].ops if op.kind == "image_conv")
    for sign in (1, -1):
        weight = np.full_like(program.arrays[key], 127 * sign)
        hard = dataclasses.replace(program, arrays={**program.arrays, key: weight})
        shift = next(op.arrays["shift"] for op in program.phases["search"].ops if op.kind == "image_conv")
        hard = dataclasses.replace(hard, arrays={**hard.arrays, shift: np.zeros_like(hard.arrays[shift])})
        inputs = {
            name: np.full_like(x, 255 if name == "image" else 1)
            for name, x in random_inputs(program, 1)["search"].items()
        }
        compare(ReferenceEngine(hard), SimEngine(hard, threads=1), hard, [("search", inputs)]).demand()


def test_upsampling_weights_equal_the_reference_matrix() -> None:
    """Two derivations of the same matrix: from the hat function and from source positions."""
    from spiketrack_deploy.engines.onnx_export import _interpolation
    from spiketrack_deploy.engines.sim_kernels import interpolation

    for factor in (2, 4, 8):
        for size in (1, 2, 3, 16):
            expected = stream.upsample_matrix(size, factor)
            assert np.array_equal(interpolation(size, factor).numpy(), expected)
            assert np.array_equal(_interpolation(size, factor), expected)
