"""Operations with memory: integers by definition, ranges, counts, files; every engine step by step."""

from __future__ import annotations

import dataclasses
from math import floor

import numpy as np
import pytest
from _lava import requires_lava

from spiketrack_deploy.energy.layers import layer_counts
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.fit import map_program
from spiketrack_deploy.mapping.report import map_phase
from spiketrack_deploy.program.bounds import prove_ranges, state_bounds
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.store import content_hash, load_program, save_program
from spiketrack_deploy.program.types import Op, Phase, Program, State, TensorSpec

from _steps import KINDS, LIMIT, SPIKES, step_inputs, step_program  # isort: skip


def toward_zero(numerator: int, bits: int) -> int:
    return int(abs(numerator) >> bits) * (1 if numerator >= 0 else -1)


def clipped(value: int, limit: int) -> tuple[int, int]:
    """A value within a limit, and whether it was cut off."""
    inside = max(-limit, min(limit, value)) if limit else value
    return inside, int(inside != value)


def by_definition(op: Op, arrays, x, shape):
    """One operation value by value in Python's integers: its output, and how many values were cut off."""
    y, cut = np.zeros(shape, dtype=np.int64), 0
    full = {r: np.broadcast_to(a, shape[1:]) for r, a in arrays.items() if a.ndim == 3}
    for t, c, i, j in np.ndindex(*shape):
        p = {role: int(a[c, i, j]) for role, a in full.items()}
        one = int(x[0][t, c, i, j]) if x[0].shape == shape else 0
        if op.kind == "integrate":
            value = toward_zero(one * p["decay"], 12) + int(x[1][t, c, i, j]) * 2 ** op.attrs["shift"]
            y[t, c, i, j], over = clipped(value + p.get("bias", 0), op.attrs["limit"])
            cut += over
        elif op.kind == "fire":
            y[t, c, i, j] = sum(one >= p["first"] + k * p["step"] for k in range(op.attrs["most"]))
        elif op.kind == "reset":
            n = int(x[1][t, c, i, j])
            value = one - n * p["level"] if op.attrs["subtract"] else p["level"] if n else one
            y[t, c, i, j], over = clipped(value, op.attrs["limit"])
            cut += over
        elif op.kind == "rescale":
            value = floor(one * p["factor"] / 2 ** op.attrs["shift"] + (0.5 if op.attrs["shift"] else 0))
            y[t, c, i, j], over = clipped(value, op.attrs["limit"])
            cut += over
        elif op.kind == "remember":
            y[t, c, i, j] = x[0][t - 1, c, i, j] if t else x[1][0, c, i, j]
        elif op.kind == "delayed":
            y[t, c, i, j] = x[0][p["steps"], c, i, j]
    return y, cut


def graded(op: Op, arrays, x, shape):
    """A convolution of signed values, tap by tap, and what it visits: output, events, synapses, synapses times size."""
    weight, a, groups = arrays["weight"][0].astype(int), op.attrs, op.attrs["groups"]
    y, visited, sized = np.zeros(shape, dtype=np.int64), 0, 0
    per_out, per_in = shape[1] // groups, x.shape[1] // groups
    for o, i, j in np.ndindex(*shape[1:]):
        for c, ky, kx in np.ndindex(*weight.shape[1:]):
            row, col = i * a["stride_h"] + ky - a["padding_h"], j * a["stride_w"] + kx - a["padding_w"]
            if 0 <= row < x.shape[2] and 0 <= col < x.shape[3]:
                value = int(x[0, o // per_out * per_in + c, row, col])
                y[0, o, i, j] += weight[o, c, ky, kx] * value
                visited += bool(value and weight[o, c, ky, kx])
                sized += abs(value) * bool(weight[o, c, ky, kx])
        y[0, o, i, j] = (int(y[0, o, i, j]) << int(arrays["shift"][0, o])) + int(arrays["bias"][0, o])
    return y, visited, sized


@pytest.mark.parametrize("seed", [0, 1])
def test_every_operation_by_definition(seed: int) -> None:
    """Outputs and counts of a few steps; the network saturates, spikes several times a step, and both ways resets."""
    program = step_program(seed)
    check_program(program)
    rng, session = np.random.default_rng(seed), ReferenceEngine(program).session()
    kinds, cut_off, levels = set(), 0, set()
    for _ in range(3):
        given = step_inputs(rng)
        values = dict(session.states) | given
        result = session.step("step", given, watch=lambda op, value, into=values: into.update({op.name: value}))
        for op in program.phases["step"].ops:
            x, out, counts = [values[n] for n in op.inputs], values[op.name], result.counts[op.name]
            arrays = program.op_arrays(op)
            if op.kind == "graded_conv":
                want, visited, sized = graded(op, arrays, x[0], out.shape)
                assert (counts.synops, counts.unit_ops) == (visited, sized)
                assert (counts.events, counts.input_sum) == (np.count_nonzero(x[0]), np.abs(x[0]).sum())
            elif op.kind == "reshape":
                want = x[0].reshape(out.shape)
            elif op.kind in KINDS:
                want, cut = by_definition(op, arrays, x, out.shape)
                assert counts.saturated == cut
                cut_off += cut
            else:
                continue
            kinds.add(op.kind)
            assert np.array_equal(out, want), op.name
        levels |= set(np.unique(values["n"]).tolist())
        fired, readout = result.counts["n"], result.counts["out"]
        assert fired.neuron_updates == values["n"].size and fired.output_sum == values["n"].sum()
        assert (readout.neuron_updates, readout.relays) == (values["out"].size, np.count_nonzero(values["out"]))
    assert kinds == KINDS and cut_off and len(levels) > 2


@pytest.mark.parametrize(
    ("name", "seed"), [("sim", 0), ("sim", 1), ("onnx", 0), ("onnx", 1), pytest.param("lava", 1, marks=requires_lava())]
)
def test_engines_agree_step_by_step(name: str, seed: int) -> None:
    program, rng = step_program(seed), np.random.default_rng(seed)
    one = ReferenceEngine(program).session()
    with make_engine(name, program) as engine:
        other = engine.session()
        for step in range(8):
            given = step_inputs(rng)
            a, b = one.step("step", given), other.step("step", given)
            for key in a.outputs:
                assert np.array_equal(a.outputs[key], b.outputs[key]), (step, key)
            for key in one.states:
                assert np.array_equal(one.states[key], other.states[key]), (step, key)
            assert a.counts == b.counts, step


def test_files_proof_and_mapping(tmp_path) -> None:
    program = step_program(0)
    save_program(program, tmp_path)
    assert content_hash(load_program(tmp_path)) == content_hash(program)
    assert all(entry.fits for entry in prove_ranges(program)["step"])
    rng, session = np.random.default_rng(0), ReferenceEngine(program).session()
    counts = [session.step("step", step_inputs(rng)).counts for _ in range(2)][-1]
    for target in ("loihi1", "loihi2"):
        mapping = map_program(program, "step", resolve_target(target), rounds=1)
        assert not defects(mapping, program)
        assert [s.name for s in mapping.network.synapses][-1] == "n -> v", "spikes come back to the neuron's own core"
        layers = layer_counts(program.phases["step"].ops, counts)
        assert map_phase(program, "step", resolve_target(target), counts=layers).bill()["dynamic_nj"]["nominal"] > 0


def neuron(decay: int, first: int = 5000, subtract: int = 0, x: int = 100) -> Program:
    """A membrane that is fed up to ``x`` times 64 a step."""
    stream, spikes = TensorSpec("stream", (1, 1, 1, 1)), TensorSpec("spikes", (1, 1, 1, 1), top=1)
    arrays = {k: np.array([[[v]]], np.int32) for k, v in {"d": decay, "f": first, "s": 4999, "l": 4999}.items()}
    ops = (
        Op("v", "integrate", ("m", "x"), "b", {"shift": 6, "limit": 0, "readout": 0}, {"decay": "d"}),
        Op("n", "fire", ("v",), "b", {"most": 1}, {"first": "f", "step": "s"}),
        Op("r", "reset", ("v", "n"), "b", {"subtract": subtract, "limit": 0}, {"level": "l"}),
    )
    given = {"x": dataclasses.replace(stream, top=x), "m": stream}
    phase = Phase("step", given, ops, {"v": stream, "n": spikes, "r": stream}, {"m": "r", "n": "n"})
    return Program({"step": phase}, arrays, {"m": State(stream, 0)})


@pytest.mark.parametrize("decay", [0, 1, 2048, 4000, 4095])
@pytest.mark.parametrize("subtract", [0, 1])
def test_a_leaky_state_is_bounded_by_its_leak(decay: int, subtract: int) -> None:
    """|v| <= |x| * 4096 / (4096 - decay), and what a reset adds; in a few rounds even for a leak of 1/4096."""
    (low,), (high,) = state_bounds(neuron(decay, subtract=subtract))["m"]
    far = 6400 * 4096 / (4096 - decay)
    assert 6400 <= high <= far + 4999 + 2
    added = 4999 * 4096 / (4096 - decay) if subtract else 0
    assert -(far + added) - 4096 <= low <= -6400


@pytest.mark.parametrize("decay", [3000, 4090])
def test_a_bound_is_what_the_worst_input_reaches(decay: int) -> None:
    program = neuron(decay, first=2**29)
    session = ReferenceEngine(program).session()
    for _ in range(6000):
        session.step("step", {"x": np.full((1, 1, 1, 1), 100)}, count=False)
    reached, (bound,) = int(session.states["m"].max()), state_bounds(program)["m"][1]
    assert reached <= bound <= reached * 1.001


def test_a_state_without_leak_has_no_bound_and_is_refused_unless_it_is_clipped() -> None:
    program = neuron(4096)
    with pytest.raises(VerificationError, match=r"may leave signed 24 bits \(step v"):
        make_engine("sim", program)
    phase = program.phases["step"]
    ops = tuple(
        dataclasses.replace(o, attrs={**o.attrs, "limit": LIMIT}) if "limit" in o.attrs else o for o in phase.ops
    )
    limited = dataclasses.replace(program, phases={"step": dataclasses.replace(phase, ops=ops)})
    assert all(entry.fits for entry in prove_ranges(limited)["step"])
    assert state_bounds(limited)["m"][1] == [LIMIT]


DEFECTS = {
    "decay must be 0 to 4096": lambda p: p.arrays.update({"decay.v": p.arrays["decay.v"] + 4000}),
    "step must be 1 or more": lambda p: p.arrays.update({"step": p.arrays["step"] * 0}),
    "steps must be 0 to 3": lambda p: p.arrays.update({"steps": p.arrays["steps"] + 1}),
    r"factor must lie within 1048576": lambda p: p.arrays.update({"factor": p.arrays["factor"] * 2**20}),
    r"level must be \(4, 5, 3\) or 1 along an axis": lambda p: p.arrays.update({"level": p.arrays["level"][:, 1:3]}),
    "emits up to 7 spikes a step, its value says 8": lambda p: p.phases["step"].values.update(
        n=TensorSpec("spikes", (1, 4, 5, 3), top=SPIKES + 1)
    ),
    "has not as many elements": lambda p: p.phases["step"].ops[14].attrs.update(width=2),
}


@pytest.mark.parametrize("words", DEFECTS)
def test_what_is_wrong_is_named(words: str) -> None:
    program = step_program(0)
    DEFECTS[words](program)
    with pytest.raises(InputError, match=words):
        check_program(program)
