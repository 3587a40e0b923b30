"""The range proof: no run exceeds a bound, and the worst inputs reach the bounds of single layers exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.program.bounds import demand_ranges, prove_ranges
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.ops import OP_TABLE, attention, conv, gate, neuron, stream
from spiketrack_deploy.program.ops.conv import conv_geometry
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.types import INT24_MAX, Op, Phase, Program, State, TensorSpec, states_of

from _programs import conv_attrs, memory_tokens, random_inputs, random_program, round_thresholds  # isort: skip


def bound(op: Op, arrays, inputs, specs):
    return OP_TABLE[op.kind].bound(op, arrays, inputs, specs)


def extremes(program: Program, phase: Phase, seed: int):
    """Inputs at the ends of their ranges: everything 0, everything at the top, and blocks of both."""
    rng = np.random.default_rng(seed)
    tops = {
        name: 255 if spec.kind == "image" else 16 * memory_tokens(program, name) for name, spec in phase.inputs.items()
    }
    for pattern in ("low", "high", "mixed", "mixed"):
        yield {
            name: {"low": np.zeros(spec.shape, np.int64), "high": np.full(spec.shape, tops[name])}.get(
                pattern, rng.integers(0, 2, spec.shape) * tops[name]
            )
            for name, spec in phase.inputs.items()
        }


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_value_of_any_run_exceeds_its_bound(seed: int, steps: int) -> None:
    program = random_program(seed, steps)
    report = prove_ranges(program)
    for name, phase in program.phases.items():
        entries = {entry.op: entry for entry in report[name]}
        assert list(entries) == [op.name for op in phase.ops]

        def inside(op, value, entries=entries, name=name):
            if op.kind != "ni_lif":  # the entry of a neuron bounds its membrane, tested apart
                entry = entries[op.name]
                assert entry.low <= value.min() and value.max() <= entry.high, f"{name} {op.name}"

        for inputs in [random_inputs(program, seed)[name], *extremes(program, phase, seed)]:
            run_phase(program, name, inputs, count=False, watch=inside)


@pytest.mark.parametrize("kind", ["conv", "head_out", "image_conv"])
def test_worst_inputs_reach_a_convolutions_bound(kind: str) -> None:
    """Without bias and border, the inputs that suit one channel's weights reach its bound to the integer."""
    rng = np.random.default_rng(3)
    top = 255 if kind == "image_conv" else 4
    weight = rng.integers(-127, 128, (1, 3, 2, 3, 3)).astype(np.int8)
    shift = rng.integers(0, 3, (1, 3)).astype(np.int8)
    bias = np.zeros((3, 1, 1) if kind == "image_conv" else (1, 3), np.int32)
    arrays = {"weight": weight, "shift": shift, "bias": bias}
    op = Op("c", kind, ("x",), "b", conv_attrs())
    inputs = [(np.zeros(1, np.int64), np.array([top]))]
    low, high = bound(op, arrays, inputs, [TensorSpec("spikes", (1, 2, 3, 3))])
    for channel in range(3):
        for sign, limit in ((1, high), (-1, low)):
            x = np.where(sign * weight[0, channel] > 0, top, 0)[None].astype(np.int64)
            y = conv.conv(x, weight, bias, shift, *conv_geometry(op))
            assert y[0, channel, 0, 0] == limit[channel]


def test_a_bias_widens_the_bound_on_its_own_side_only() -> None:
    """The accumulator passes through the sum without bias as well."""
    arrays = {
        "weight": np.ones((1, 2, 1, 1, 1), np.int8),
        "shift": np.zeros((1, 2), np.int8),
        "bias": np.array([[7, -9]]),
    }
    low, high = bound(Op("c", "conv", ("x",), "b", conv_attrs()), arrays, [(np.zeros(1, int), np.array([4]))], [])
    assert low.tolist() == [0, -9] and high.tolist() == [11, 4]


def test_sums_of_sums() -> None:
    """Pooling, upsampling, attention and gate: all inputs at the top reach the bound."""
    high = (np.array([-5]), np.array([100]))
    spec = TensorSpec("stream", (1, 2, 4, 4))
    x = np.full((1, 2, 4, 4), 100)
    pool = Op("p", "avg_pool", ("x",), "b", {"kernel": 2})
    assert bound(pool, {}, [high], [spec])[1].max() == stream.avg_pool(x, 2).max()
    up = Op("u", "upsample", ("x",), "b", {"factor": 4})
    assert bound(up, {}, [high], [spec])[1].max() == stream.upsample(x, 4).max()
    spikes = np.full((1, 4, 4, 4), 4)
    specs = [TensorSpec("spikes", spikes.shape)] * 2
    memory = bound(Op("m", "key_value", ("k", "v"), "b", {"heads": 2}), {}, [(np.array([0]), np.array([4]))] * 2, specs)
    real = attention.key_value(spikes, spikes, 2)
    assert memory[1].max() == real.max()
    specs = [specs[0], TensorSpec("memory", real.shape)]
    query = Op("q", "query", ("q", "m"), "b", {"heads": 2, "shift": 3})
    assert (
        bound(query, {}, [(np.array([0]), np.array([4])), memory], specs)[1].max()
        == attention.query(spikes, real, 2, 3).max()
    )
    table = np.array([9, 5, 1])
    gated = bound(Op("g", "gate", ("l", "s"), "b", {"shift": 0}), {"table": table}, [high, high], specs)
    assert gated[1].max() == gate.gate(np.zeros((1, 1, 1, 4), int), spikes, table, 0).max()
    assert gated[0].min() == gate.gate(np.zeros((1, 1, 1, 4), int), spikes * 0, table, 0).min()


@pytest.mark.parametrize("seed", range(6))
def test_membranes_stay_inside_their_bound(seed: int) -> None:
    """Streams at the ends of their range for three steps, with and without offset; the membrane is followed by hand."""
    from spiketrack_deploy.program.ops.neuron import membrane_bound

    rng = np.random.default_rng(seed)
    bits = rng.integers(2, 9, 2)
    low, high = -rng.integers(0, 5000, 2), rng.integers(0, 5000, 2)
    arrays = {
        "thresholds": round_thresholds(bits),
        "reset": (1 << (bits - 2)).astype(np.int32),
        "decay": rng.integers(0, 4097, 2).astype(np.uint16),
    }
    if seed % 2:
        arrays["offset"] = rng.integers(-900, 900, (3, 2, 4, 4)).astype(np.int32)
    limit_low, limit_high = membrane_bound(Op("n", "ni_lif", ("x",), "b", {"steps": 3}), arrays, [(low, high)], [])
    reached = np.zeros(2, int)
    for trial in range(50):
        pick = rng.integers(0, 2, (3, 2, 4, 4)) if trial > 1 else np.full((3, 2, 4, 4), trial)
        x = np.where(pick, high[None, :, None, None], low[None, :, None, None])
        v = np.zeros((2, 4, 4), np.int64)
        n = np.zeros((2, 4, 4), np.int64)
        for t in range(3):
            v = (neuron.leak(v, n, int(arrays["decay"][t - 1]), arrays["reset"]) if t else 0) + x[t]
            offset = arrays["offset"][t] if "offset" in arrays else None
            n = neuron.fire(v, arrays["thresholds"], offset)
            level = v if offset is None else v + offset
            for value in (v, level):
                assert (value >= limit_low[:, None, None]).all() and (value <= limit_high[:, None, None]).all()
            reached |= (v == high[:, None, None]).any(axis=(1, 2))
    assert reached.all(), "the trials never reached the streams' own ends"


def test_a_shift_beyond_24_bits_is_seen() -> None:
    program = random_program(0)
    key = next(op.arrays["shift"] for op in program.phases["search"].ops if op.kind == "conv")
    arrays = {**program.arrays, key: np.full_like(program.arrays[key], 20)}
    report = prove_ranges(dataclasses.replace(program, arrays=arrays))
    worst = max((e for entries in report.values() for e in entries), key=lambda e: e.high)
    assert not worst.fits and worst.high > INT24_MAX and worst.margin_bits < 0
    assert all(e.fits for entries in prove_ranges(program).values() for e in entries)


def test_a_memory_that_no_phase_writes_is_refused() -> None:
    phase = Phase("search", {"memory.0": TensorSpec("memory", (1, 2, 2, 8))}, (), {}, {})
    with pytest.raises(InputError, match=r"search input memory\.0 is memory and no state"):
        check_program(Program({"search": phase}, {}))


def written_and_queried(template: tuple[int, int], query: tuple[int, int]) -> Program:
    """A memory of 2 heads written from spikes of one size and queried by those of another."""

    def spikes(size: tuple[int, int]) -> TensorSpec:
        return TensorSpec("spikes", (1, 4, *size), scale=0.25, top=4)

    memory = TensorSpec("memory", (1, 2, 2, 2), scale=1 / 16)
    write = Op("kv", "key_value", ("k", "v"), "b", {"heads": 2})
    read = Op("q", "query", ("x", "m"), "b", {"heads": 2, "shift": 0})
    out = TensorSpec("stream", (1, 4, *query), "unit")
    phases = {
        "write": Phase("write", {"k": spikes(template), "v": spikes(template)}, (write,), {"kv": memory}, {"m": "kv"}),
        "read": Phase("read", {"x": spikes(query), "m": memory}, (read,), {"q": out}, {"y": "q"}),
    }
    return Program(phases, {"unit": np.full(4, 6, np.int8)}, states_of(phases))


def test_a_memory_is_bounded_by_what_writes_it_not_by_what_queries_it() -> None:
    """64 x 64 template tokens write entries of 65,536; two channels queried with 4 make 524,288."""
    program = written_and_queried((64, 64), (2, 3))
    check_program(program)
    full = np.full((1, 4, 64, 64), 4)
    memory = run_phase(program, "write", {"k": full, "v": full}).outputs["m"]
    out = run_phase(program, "read", {"x": np.full((1, 4, 2, 3), 4), "m": memory}).outputs["y"]
    (entry,) = prove_ranges(program)["read"]
    assert entry.high == out.max() == 4 * 2 * 16 * 64 * 64


def test_a_wide_memory_leaves_a_narrow_accumulator() -> None:
    program = dataclasses.replace(written_and_queried((64, 64), (2, 3)), width=20)
    with pytest.raises(VerificationError, match=r"signed 20 bits \(read q \[0, 524288\]"):
        demand_ranges(program, "stop")
    demand_ranges(dataclasses.replace(program, width=21), "stop")


def test_a_state_that_grows_without_end_is_not_proved() -> None:
    """The sum of a stream and its own last value: no width holds it, and the proof must end."""
    stream = TensorSpec("stream", (1, 1, 1, 1), "unit")
    total = Op("sum", "add", ("total", "drive"), "b")
    drive = Op("drive", "conv", ("x",), "b", conv_attrs(), {"weight": "w", "bias": "b", "shift": "s"})
    x = TensorSpec("spikes", (1, 1, 1, 1), scale=1.0, top=1)
    values = {"drive": stream, "sum": stream}
    phase = Phase("step", {"x": x, "total": stream}, (drive, total), values, {"total": "sum"})
    arrays = {
        "unit": np.zeros(1, np.int8), "w": np.ones((1, 1, 1, 1, 1), np.int8), "b": np.zeros((1, 1), np.int32),
        "s": np.zeros((1, 1), np.int8),
    }  # fmt: skip
    program = Program({"step": phase}, arrays, {"total": State(stream, 0)})
    check_program(program)
    with pytest.raises(VerificationError, match="step sum"):
        demand_ranges(program, "stop")


def test_a_map_of_biases_counts_with_its_ends() -> None:
    """Borders of a normalised image have other biases than its middle: each side of the bound takes the furthest."""
    arrays = {
        "weight": np.array([2, -3], np.int8).reshape(1, 2, 1, 1, 1),
        "shift": np.zeros((1, 2), np.int8),
        "bias": np.array([[[-7, 5, 11]], [[-20, -4, 9]]], np.int32),
    }
    pixels = (np.zeros(1, int), np.array([255]))
    low, high = bound(Op("c", "image_conv", ("x",), "b", conv_attrs()), arrays, [pixels], [])
    assert low.tolist() == [-7, -3 * 255 - 20] and high.tolist() == [2 * 255 + 11, 9]


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_a_rounding_shift_is_bounded_by_its_own_rounding(shift: int) -> None:
    ends = np.array([-37, 90])
    op = Op("r", "requantise", ("x",), "b")
    low, high = bound(op, {"shift": np.array([shift], np.int8)}, [(ends[:1], ends[1:])], [])
    got = stream.requantise(ends[None, None, None], np.array([shift], np.int8)).ravel()
    assert (low.item(), high.item()) == tuple(got.tolist()) == tuple(np.floor(ends / 2**shift + 0.5 * (shift > 0)))
