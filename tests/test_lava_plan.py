"""The Lava engine's parts that need no Lava: cut into Processes, wire format, arithmetic of a Process, interpreter."""

from __future__ import annotations

import ast
import mmap
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from _lava import chain_inputs, chain_program
from _programs import random_inputs, random_program, tracker_program
from _steps import step_program

from spiketrack_deploy.engines import lava_interpreter
from spiketrack_deploy.engines.lava_worker import frames
from spiketrack_deploy.engines.lava_worker.frames import Channel
from spiketrack_deploy.engines.lava_worker.plan import LOAD, REPORT, SINK, SOURCE, cyclic, make_plan
from spiketrack_deploy.engines.lava_worker.segment import Fault, Segment, check_range, describe, weighted_sum
from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.ops import conv
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.types import INT24_MAX, INT24_MIN


@pytest.mark.parametrize(
    "edges, expected",
    [
        ([], set()),
        ([("a", "b"), ("b", "c"), ("a", "c")], set()),
        ([("a", "b"), ("b", "a"), ("b", "c")], {"a", "b"}),
        ([("x", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "y")], {"a", "b", "c"}),
    ],
)
def test_cycles_are_found(edges: list[tuple[str, str]], expected: set[str]) -> None:
    assert cyclic(edges) == expected


def test_one_process_serves_both_branches() -> None:
    program = random_program(1)
    plan = make_plan(program)
    shared = [name for name, work in plan.segments.items() if set(work) == {"template", "search"}]
    assert "downsample1_1" in shared and "mrm.0" in shared, f"blocks of both phases: {shared}"
    blocks = {op.block for phase in program.phases.values() for op in phase.ops}
    assert set(plan.segments) == blocks, "no block of this program closes a cycle, so each is one Process"
    done = {op.name for work in plan.segments.values() for op in work.get("search", ())}
    assert done == {op.name for op in program.phases["search"].ops}


def test_official_shape_has_about_forty_blocks() -> None:
    plan = make_plan(tracker_program(0, (8, 16, 16, 16), 64, 1, 8, heads=2))
    assert 40 <= len(plan.segments) <= 50 and len(plan.states) == 6
    assert len(plan.processes) == len(plan.segments) + 6 + 2


def test_wires_carry_every_value_that_leaves_a_process_and_no_mode_has_a_cycle() -> None:
    program = random_program(2)
    plan = make_plan(program)
    for phase in program.phases.values():
        home = {op.name: name for name, work in plan.segments.items() for op in work.get(phase.name, ())}
        wires = {(w.source, w.target, w.port.value) for w in plan.wires if w.port.mode == phase.name}
        for op in phase.ops:
            for value in op.inputs:
                origin = home.get(value, value if value in plan.states else SOURCE)
                assert origin == home[op.name] or (origin, home[op.name], value) in wires, f"{op.name} gets no {value}"
        assert not cyclic((a, b) for a, b, _ in wires)
        reported = {value for _, target, value in wires if target == SINK}
        assert len(reported) == len(phase.outputs)
    loads = {w.target for w in plan.wires if w.port.mode == LOAD}
    assert loads == set(plan.states)


def test_a_block_that_closes_a_cycle_is_cut_into_runs() -> None:
    # a and b (block x), s between them in y, so x -> y -> x.
    plan = make_plan(chain_program(blocks=("x", "y", "x", "z")))
    assert list(plan.segments) == ["x#1", "y#1", "x#2", "z"]


def test_a_block_named_as_a_fixed_process_is_renamed() -> None:
    plan = make_plan(chain_program(blocks=(SOURCE, SOURCE, "body", SINK)))
    assert len(set(plan.processes)) == len(plan.processes)
    assert list(plan.segments) == ["source#1", "body", "sink#1"]


def test_a_state_that_its_own_phase_reads_sends_the_old_and_reports_the_new() -> None:
    """Its Process feeds the readers before it is rewritten; what it then holds goes to the sink by another name."""
    plan = make_plan(step_program(0))
    assert {p.value for p in plan.outputs("membrane")} == {"membrane", REPORT + "membrane"}
    assert [p.value for p in plan.inputs("membrane")] == ["membrane", "left"], "loaded, then written"
    assert REPORT + "membrane" in {p.value for p in plan.inputs(SINK)}


@pytest.mark.parametrize("seed", range(40))
def test_weighted_sum_equals_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 3]))
    fan_in, outs = (1, 1) if rng.random() < 0.3 else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    steps, kernel = int(rng.integers(1, 4)), tuple(int(n) for n in rng.integers(1, 4, 2))
    weight = rng.integers(-127, 128, (steps if rng.random() < 0.5 else 1, groups * outs, fan_in, *kernel)).astype(
        np.int8
    )
    x = rng.integers(0, 256, (steps, groups * fan_in, *rng.integers(5, 9, 2))).astype(np.int64)
    pairs = [tuple(int(n) for n in rng.integers(low, high, 2)) for low, high in ((1, 3), (0, 3), (1, 3))]
    got = weighted_sum(x, weight, *pairs, groups)
    assert np.array_equal(got, conv.weighted_sum(x, weight, *pairs, groups))


def test_weighted_sum_is_exact_where_float32_is_not() -> None:
    x = np.full((1, 600, 1, 1), 255, dtype=np.int64)
    weight = np.full((1, 1, 600, 1, 1), 127, dtype=np.int8)
    weight[0, 0, 0] = 126
    assert 600 * 255 * 127 > 2**24
    assert weighted_sum(x, weight, (1, 1), (0, 0), (1, 1), 1).item() == 599 * 255 * 127 + 255 * 126


@pytest.mark.parametrize(
    "value, fits", [(INT24_MAX, True), (INT24_MIN, True), (INT24_MAX + 1, False), (INT24_MIN - 1, False)]
)
def test_range_check_names_operation_and_value(value: int, fits: bool) -> None:
    if fits:
        check_range("op.x", np.array([0, value]))
    else:
        with pytest.raises(OverflowError, match=f"op.x gives {value}"):
            check_range("op.x", np.array([0, value]))


def _pipe() -> tuple[Channel, Channel]:
    reading, writing = os.pipe()
    return Channel(reading, None), Channel(None, writing)


def test_segment_reports_values_and_counts_in_order() -> None:
    program = chain_program()
    reader, writer = _pipe()
    state = np.frombuffer(mmap.mmap(-1, 16), dtype=np.int64)
    ops = program.phases["search"].ops
    segment = Segment("all", {"search": ops}, program.arrays, writer, state, Fault())
    sent: dict[str, object] = {}
    inputs = chain_inputs()
    segment.step(
        "search",
        True,
        True,
        lambda v: inputs[v].astype(np.int64),
        lambda v, a: sent.setdefault(v, a),
        frozenset({"head"}),
    )
    seen = {}
    expected = run_phase(
        program, "search", inputs, watch=lambda op, v: seen.setdefault(op.name, v) if op.name not in seen else None
    )
    for op in ops:
        header, arrays = reader.recv()
        assert header["op"] == op.name and np.array_equal(arrays["value"], seen[op.name])
    header, _ = reader.recv()
    assert header["done"] == "all" and np.array_equal(sent["head"], expected.outputs["ctr"])
    assert {k: tuple(v) for k, v in header["counts"].items()} == {
        k: tuple(c.to_dict().values()) for k, c in expected.counts.items()
    }
    assert not state.any(), "an idle Process must not look busy"
    reader.close()
    writer.close()


def test_state_table_tells_who_is_at_work() -> None:
    program = chain_program()
    plan = make_plan(program)
    names, work = list(plan.segments), list(plan.segments.values())
    table = np.array([[0, 0], [2, 0], [1, 0]])
    assert describe(table, names, work, "search") == "at work: body (operation b)"
    table[1] = 0
    assert describe(table, names, work, "search") == "waiting: head (operation s2)"


def test_frames_carry_large_arrays_both_ways() -> None:
    reader, writer = _pipe()
    arrays = {
        "a": np.arange(300_000, dtype=np.int32).reshape(3, -1),
        "b": np.zeros((2, 0), np.uint8),
        "c": np.array([-(2**40)]),
    }
    sender = threading.Thread(target=writer.send, args=({"x": "ü"}, arrays))
    sender.start()
    header, got = reader.recv()
    sender.join()
    assert header == {"x": "ü"} and all(
        np.array_equal(got[k], v) and got[k].dtype == v.dtype for k, v in arrays.items()
    )
    writer.close()
    with pytest.raises(ConnectionError, match="closed"):
        reader.recv()
    reader.close()


def test_frames_refuse_objects_and_torn_streams() -> None:
    reader, writer = _pipe()
    with pytest.raises(TypeError, match="dtype"):
        writer.send({}, {"a": np.array([None])})
    assert writer.write_fd is not None
    os.write(writer.write_fd, b"\xff" * 64)
    with pytest.raises(ConnectionError, match="torn"):
        reader.recv()
    reader.close()
    writer.close()


def test_interpreter_named_by_the_environment_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(lava_interpreter.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(EngineError, match=r"SPIKETRACK_LAVA_PYTHON names .* no interpreter"):
        lava_interpreter.lava_python()


def test_without_any_interpreter_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lava_interpreter.VARIABLE, raising=False)
    monkeypatch.setattr(lava_interpreter, "_candidates", list)
    monkeypatch.setattr(lava_interpreter, "_here", lambda: False)
    with pytest.raises(EngineError, match="make env-lava") as caught:
        lava_interpreter.lava_python()
    assert caught.value.exit_code == 6


def test_inputs_of_drawn_programs_fit_the_plan() -> None:
    program = random_program(3)
    plan = make_plan(program)
    assert set(random_inputs(program, 0)["search"]) - {"image"} == set(plan.states)


def test_the_worker_needs_numpy_and_lava_alone() -> None:
    allowed = {"numpy", "scipy", "lava", "__future__", *sys.stdlib_module_names}  # SciPy comes with lava-nc
    own = ("errors", "program", "engines.lava_worker")
    files = list(Path(frames.__file__).parent.rglob("*.py"))
    assert len(files) > 5
    allowed |= {path.stem for path in files}  # the folder runs beside a Python that does not have the package
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in named:
                package, _, rest = name.partition(".")
                assert package in allowed or rest.startswith(own), f"{path.name} imports {name}"
