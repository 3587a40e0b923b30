"""A session keeps states between steps: what is written is read, two sessions share nothing, faults are named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.types import Cadence, Op, Phase, Program, State, TensorSpec

from _programs import conv_attrs, random_inputs, random_program  # isort: skip


def counter() -> Program:
    """One neuron that adds its input to what it held: a state that its own phase reads and writes."""
    stream, x = TensorSpec("stream", (1, 1, 1, 3), "unit"), TensorSpec("spikes", (1, 1, 1, 3), scale=1.0, top=1)
    ops = (
        Op("drive", "conv", ("x",), "b", conv_attrs(), {"weight": "w", "bias": "bias", "shift": "shift"}),
        Op("sum", "add", ("total", "drive"), "b"),
    )
    arrays = {
        "unit": np.zeros(1, np.int8),
        "w": np.full((1, 1, 1, 1, 1), 2, np.int8),
        "bias": np.zeros((1, 1), np.int32),
        "shift": np.zeros((1, 1), np.int8),
        "start": np.array([[[[5, 0, -1]]]]),
    }
    values = {"drive": stream, "sum": stream}
    phase = Phase("step", {"x": x, "total": stream}, ops, values, {"total": "sum", "y": "sum"})
    return Program({"step": phase}, arrays, {"total": State(stream, "start")})


def test_a_membrane_carries_over_and_a_reset_takes_it_back() -> None:
    engine = ReferenceEngine(counter())
    session, other = engine.session(), engine.session()
    seen = [session.step("step", {"x": np.array([[[[1, 0, 1]]]])}).outputs for _ in range(3)]
    assert [list(one) for one in seen] == [["y"]] * 3, "a state is no output of a step"
    assert [one["y"].ravel().tolist() for one in seen] == [[7, 0, 1], [9, 0, 3], [11, 0, 5]]
    assert other.states["total"].ravel().tolist() == [5, 0, -1], "sessions share nothing"
    session.reset()
    assert session.states["total"].ravel().tolist() == [5, 0, -1]
    filled = ReferenceEngine(dataclasses.replace(counter(), states={"total": State(counter().states["total"].spec, 4)}))
    assert filled.session().states["total"].tolist() == [[[[4, 4, 4]]]]


@pytest.mark.parametrize("name", ["reference", "sim", "onnx"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_session_equals_runs_with_the_states_handed_over(name: str, steps: int) -> None:
    """Two rewrites of the memories between three searches, on drawn programs with H and W of the grid unequal to C."""
    program = random_program(steps, steps=steps)
    pictures = [random_inputs(program, seed) for seed in range(3)]
    with make_engine(name, program) as engine:
        session, plain = engine.session(), ReferenceEngine(program)
        memories: dict[str, np.ndarray] = {}
        for drawn in pictures:
            session.step("template", {"image": drawn["template"]["image"]})
            memories = dict(plain.run("template", drawn["template"]).outputs)
            got = session.step("search", {"image": drawn["search"]["image"]})
            want = plain.run("search", {"image": drawn["search"]["image"], **memories})
            assert all(np.array_equal(got.outputs[key], want.outputs[key]) for key in want.outputs)
            assert got.counts == want.counts
            assert set(session.states) == set(memories)


def test_wrong_steps_are_named() -> None:
    program = random_program(0)
    session = ReferenceEngine(program).session()
    image = random_inputs(program, 0)["search"]["image"]
    memory = next(iter(program.states))
    with pytest.raises(InputError, match=rf"search phase: state {memory} holds nothing yet; run template first"):
        session.step("search", {"image": image})
    with pytest.raises(InputError, match=r"no phase 'dance'; it has template, search"):
        session.step("dance", {})
    with pytest.raises(InputError, match=rf"search phase: {memory} is no input of it; it takes \['image'\]"):
        session.step("search", {"image": image, memory: np.zeros(1, int)})
    with pytest.raises(InputError, match="input image is missing"):
        session.step("template", {})


def test_readers_writers_and_cadence_are_data() -> None:
    program = random_program(1)
    for name in program.states:
        assert program.writers(name) == ("template",) and program.readers(name) == ("search",)
    assert list(program.external(program.phases["search"])) == ["image"]
    assert Cadence(start=True, every=None).per_result == 0.0 and Cadence(every=4).per_result == 0.25


@pytest.mark.parametrize("engine", ["sim", "onnx"])
@pytest.mark.parametrize("top", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 3])
def test_neurons_of_other_levels_than_four(engine: str, top: int, steps: int) -> None:
    """Binary neurons and others: thresholds, reset and convolution of spikes up to ``top``, odd sizes, all counts."""
    rng = np.random.default_rng(top)

    def spikes(channels: int) -> TensorSpec:
        return TensorSpec("spikes", (steps, channels, 5, 3), scale=1 / top, top=top)

    def stream(channels: int) -> TensorSpec:
        return TensorSpec("stream", (steps, channels, 5, 3), f"u{channels}")

    arrays = {"u3": np.full(3, 4, np.int8), "u2": np.full(2, 4, np.int8)}
    ops, values = [], {}
    for name, source, out in (("a", "x", 3), ("b", "a.spike", 2)):
        fan_in = 2 if source == "x" else 3
        arrays |= {
            f"{name}.w": rng.integers(-9, 12, (1, out, fan_in, 3, 3)).astype(np.int8),
            f"{name}.b": rng.integers(-4, 9, (1, out)).astype(np.int32),
            f"{name}.s": np.zeros((1, out), np.int8),
            f"{name}.t": np.sort(rng.integers(1, 40, (out, top)), axis=1).astype(np.int32),
            f"{name}.r": np.full(out, 7, np.int32),
        }
        roles = {"weight": f"{name}.w", "bias": f"{name}.b", "shift": f"{name}.s"}
        fire = {"thresholds": f"{name}.t"}
        if steps > 1:
            arrays["decay"] = rng.integers(0, 4097, steps - 1).astype(np.uint16)
            fire |= {"decay": "decay", "reset": f"{name}.r"}
        ops.append(Op(name, "conv", (source,), "block", conv_attrs(padding=1), roles))
        ops.append(Op(f"{name}.spike", "ni_lif", (name,), "block", {"steps": steps}, fire))
        values |= {name: stream(out), f"{name}.spike": spikes(out)}
    program = Program({"run": Phase("run", {"x": spikes(2)}, tuple(ops), values, {"y": "b.spike"})}, arrays)
    check_program(program)
    inputs = {"x": rng.integers(0, top + 1, (steps, 2, 5, 3)).astype(np.uint8)}
    with make_engine(engine, program) as one:
        result = compare(ReferenceEngine(program), one, program, [("run", inputs)])
    result.demand()
    assert result.differing_counts == 0 and result.integers > 0


def test_sim_names_spikes_that_it_cannot_add_up() -> None:
    x = TensorSpec("spikes", (1, 1, 2, 2), scale=1 / 9, top=9)
    phase = Phase("run", {"x": x}, (Op("turn", "gate_transpose", ("x",), "b"),), {}, {"y": "turn"})
    values = {"turn": dataclasses.replace(x, shape=(1, 4, 1, 1))}
    program = Program({"run": dataclasses.replace(phase, values=values)}, {})
    check_program(program)
    with pytest.raises(EngineError, match="spikes of at most 4, x has 9; use --engine reference"):
        make_engine("sim", program)
