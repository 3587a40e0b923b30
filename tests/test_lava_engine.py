"""The Lava engine against the reference, and against everything that can go wrong in it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from _lava import chain_inputs, chain_program, requires_lava, running, shared_memory
from _programs import random_inputs, random_program

from spiketrack_deploy.engines import lava_engine
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.lava_engine import LavaEngine, group_members
from spiketrack_deploy.engines.lava_interpreter import lava_python
from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.ops import conv, neuron
from spiketrack_deploy.program.run import PhaseResult
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program, State, TensorSpec

pytestmark = requires_lava()
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Every test must leave no shared memory; each looks after its own process group."""
    yield
    assert not shared_memory(os.getpid()), "shared memory of a Lava engine was left behind"


def traced(
    run: Callable[..., PhaseResult], phase: str, inputs: dict[str, AnyArray]
) -> tuple[PhaseResult, dict[str, IntArray]]:
    values: dict[str, IntArray] = {}
    return run(phase, inputs, watch=lambda op, value: values.update({op.name: value})), values


def assert_equal(program: Program, phase: str, inputs: dict[str, AnyArray], engine: LavaEngine) -> PhaseResult:
    """One run on both engines: outputs, every operation's integers, every count, and the order of the trace."""
    got, values = traced(engine.run, phase, inputs)
    want, expected = traced(ReferenceEngine(program).run, phase, inputs)
    assert list(values) == [op.name for op in program.phases[phase].ops], "the trace is not in execution order"
    for name, value in expected.items():
        assert values[name].dtype == np.int64
        assert np.array_equal(values[name], value), (
            f"{phase} {name}: {np.count_nonzero(values[name] != value)} integers differ"
        )
    assert got.counts == want.counts
    assert set(got.outputs) == set(want.outputs)
    for name, value in want.outputs.items():
        assert np.array_equal(got.outputs[name], value), f"{phase} output {name} differs"
    return got


@pytest.mark.parametrize("seed, steps", [(1, 3), (2, 1), (3, 3)])
def test_equals_the_reference_over_template_updates_and_frames(seed: int, steps: int) -> None:
    program = random_program(seed, steps=steps)
    with LavaEngine(program) as engine:
        group = engine.process_group
        for update in range(2):
            drawn = random_inputs(program, 10 * seed + update)
            memories = assert_equal(program, "template", drawn["template"], engine).outputs
            for frame in range(2):
                image = random_inputs(program, 100 * seed + 10 * update + frame)["search"]["image"]
                assert_equal(program, "search", {**memories, "image": image}, engine)
        assert engine.state_loads == 0, "the search phase must read the memory that the template phase wrote"
    assert running(group) == []


def test_searches_with_whatever_memory_the_caller_gives() -> None:
    program = random_program(1)
    with LavaEngine(program) as engine:
        first = engine.run("template", random_inputs(program, 1)["template"])
        engine.run("template", random_inputs(program, 2)["template"])
        image = random_inputs(program, 3)["search"]["image"]
        assert_equal(program, "search", {**first.outputs, "image": image}, engine)
        assert engine.state_loads == 1
        assert_equal(program, "search", {**first.outputs, "image": image}, engine)
        assert engine.state_loads == 1, "a memory that is loaded stays"
        assert_equal(program, "search", random_inputs(program, 4)["search"], engine)


def test_cut_blocks_and_counts_off() -> None:
    program = chain_program(blocks=("x", "y", "x", "z"))
    with LavaEngine(program) as engine:
        assert_equal(program, "search", chain_inputs(), engine)
        assert engine.run("search", chain_inputs(), count=False).counts == {}


def test_same_integers_again() -> None:
    program = chain_program()
    with LavaEngine(program) as engine:
        results = [engine.run("search", chain_inputs(seed)).outputs["ctr"] for seed in (1, 2, 1)]
    assert np.array_equal(results[0], results[2]) and not np.array_equal(results[0], results[1])


def test_two_engines_side_by_side_and_closed_twice() -> None:
    first, second = LavaEngine(chain_program()), LavaEngine(chain_program())
    groups = [first.process_group, second.process_group]
    assert np.array_equal(
        first.run("search", chain_inputs()).outputs["ctr"], second.run("search", chain_inputs()).outputs["ctr"]
    )
    first.close()
    first.close()
    assert running(groups[0]) == [] and running(groups[1])
    second.run("search", chain_inputs())
    second.close()
    assert running(groups[1]) == []
    with pytest.raises(EngineError, match="closed"):
        first.run("search", chain_inputs())


def test_wrong_inputs_are_refused_and_cost_nothing() -> None:
    with LavaEngine(chain_program()) as engine:
        with pytest.raises(InputError, match="image"):
            engine.run("search", {"image": np.zeros((1, 3, 4, 4), np.uint8)})
        engine.run("search", chain_inputs())


def test_a_value_beyond_24_bits_is_named() -> None:
    with (
        LavaEngine(chain_program(shift=18)) as engine,
        pytest.raises(EngineError, match=r"operation b gives -?\d+, outside signed 24 bits"),
    ):
        engine.run("search", chain_inputs())


@pytest.mark.parametrize(
    "fault, message",
    [
        ("die@body", r"Lava Process body died \(exit code -9\)"),
        ("raise@body", "Lava Process body failed: fault injected at body"),
        ("raise@s2", "Lava Process head failed: fault injected at s2"),
        ("hang@body", r"step did not end within 2 s; at work: body \(operation b\)"),
    ],
)
def test_a_faulty_process_ends_in_one_sentence_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setenv("SPIKETRACK_LAVA_FAULT", fault)
    engine = LavaEngine(chain_program(), step_timeout=2.0)
    group = engine.process_group
    start = time.monotonic()
    with pytest.raises(EngineError, match=message) as caught:
        engine.run("search", chain_inputs())
    assert time.monotonic() - start < 20.0, "a fault must not wait for more than the step's limit"
    assert caught.value.exit_code == 6
    assert running(group) == []
    assert engine.process_group is None
    engine.close()


def test_a_fault_in_the_middle_of_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    program = random_program(1)
    monkeypatch.setenv("SPIKETRACK_LAVA_FAULT", "die@mrm.2")
    seen: list[str] = []
    with LavaEngine(program) as engine:
        group = engine.process_group
        with pytest.raises(EngineError, match=r"mrm\.2 died"):
            engine.run("search", random_inputs(program, 1)["search"], watch=lambda op, value: seen.append(op.name))
    names = [op.name for op in program.phases["search"].ops]
    assert seen == names[: len(seen)] and len(seen) < len(names)
    assert running(group) == []


@pytest.mark.parametrize(
    "fault, message", [("die@start", "the worker died .*SIGKILL"), ("hang@start", "did not answer within 2 s")]
)
def test_a_worker_that_does_not_start(monkeypatch: pytest.MonkeyPatch, fault: str, message: str) -> None:
    monkeypatch.setenv("SPIKETRACK_LAVA_FAULT", fault)
    with pytest.raises(EngineError, match=message):
        LavaEngine(chain_program(), start_timeout=2.0 if fault == "hang@start" else 30.0)


def test_an_interpreter_without_lava_is_named(tmp_path: Path) -> None:
    if lava_python() == Path(sys.executable):
        pytest.skip("this interpreter has lava itself")
    with pytest.raises(EngineError, match="cannot import lava"):
        LavaEngine(chain_program(), python=sys.executable)
    text = tmp_path / "python"
    text.write_text("not a program")
    text.chmod(0o755)
    with pytest.raises(EngineError, match="does not start"):
        LavaEngine(chain_program(), python=text)


def test_a_killed_worker_is_noticed() -> None:
    engine = LavaEngine(chain_program())
    group = engine.process_group
    assert group is not None
    os.kill(group, signal.SIGKILL)
    with pytest.raises(EngineError, match="worker"):
        engine.run("search", chain_inputs())
    assert running(group) == []


def test_a_stopped_worker_is_noticed() -> None:
    engine = LavaEngine(chain_program(), step_timeout=0.5)
    group = engine.process_group
    assert group is not None
    os.killpg(group, signal.SIGSTOP)
    with pytest.raises(EngineError, match="did not answer within"):
        engine.run("search", chain_inputs())
    assert running(group) == []


def test_a_slow_watcher_is_no_hang() -> None:
    with LavaEngine(chain_program(), step_timeout=0.5) as engine:
        engine.run("search", chain_inputs(), watch=lambda op, value: time.sleep(0.7))


def test_too_little_shared_memory_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lava_engine.os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 9, 0, 0, 0, 0, 0, 0, 255))
    )
    with pytest.raises(EngineError, match=r"need \d+ MiB in /dev/shm, 0 MiB are free"):
        LavaEngine(chain_program())


def test_values_cannot_be_replaced() -> None:
    engine = LavaEngine(chain_program())
    group = engine.process_group

    def replace(op: Op, value: IntArray) -> IntArray:
        return value

    with pytest.raises(EngineError, match="cannot replace"):
        engine.run("search", chain_inputs(), watch=replace)
    assert running(group) == []


def test_an_error_of_the_watcher_reaches_the_caller_and_ends_the_processes() -> None:
    engine = LavaEngine(chain_program())
    group = engine.process_group

    def interrupt(op: Op, value: IntArray) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run("search", chain_inputs(), watch=interrupt)
    assert running(group) == []


_PARENT = """
import sys, time
sys.path[:0] = [{tests!r}, {src!r}]
from _lava import chain_inputs, chain_program
from spiketrack_deploy.engines.lava_engine import LavaEngine
engine = LavaEngine(chain_program())
print(engine.process_group, flush=True)
{then}
"""


@pytest.mark.usefixtures("heeds_sigint")
@pytest.mark.parametrize(
    "then, end",
    [
        ("pass", None),
        ("raise SystemExit(3)", None),
        ("time.sleep(600)", signal.SIGKILL),
        ("time.sleep(600)", signal.SIGTERM),
        ("time.sleep(600)", signal.SIGINT),
        ("engine.step_timeout = 600; engine.run('search', chain_inputs())", signal.SIGINT),
        ("engine.step_timeout = 600; engine.run('search', chain_inputs())", signal.SIGKILL),
    ],
    ids=["exit", "system-exit", "idle-kill", "idle-term", "idle-interrupt", "running-interrupt", "running-kill"],
)
def test_no_orphans_however_the_parent_ends(tmp_path: Path, then: str, end: signal.Signals | None) -> None:
    """``running``: the step hangs, so that the signal arrives in its middle."""
    code = _PARENT.format(tests=str(ROOT / "tests"), src=str(ROOT / "src"), then=then)
    env = dict(os.environ, SPIKETRACK_LAVA_FAULT="hang@body" if "run(" in then else "", TMPDIR=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    ) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        if end is not None:
            time.sleep(0.3)
            assert group_members(group) and shared_memory(parent.pid)
            parent.send_signal(end)
        parent.wait(timeout=20)
    limit = time.monotonic() + 10
    while group_members(group) and time.monotonic() < limit:
        time.sleep(0.05)
    assert group_members(group) == [], "Lava processes outlived their parent"
    while shared_memory(parent.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not shared_memory(parent.pid), "shared memory outlived its parent"
    assert not list(tmp_path.glob("spiketrack-lava-*")), "the run's folder outlived its parent"


def run_stock(script: str, given: Path, result: Path) -> None:
    """Run a script of this folder in the Lava interpreter, in a session that is killed whatever it leaves behind."""
    command = [str(p) for p in (lava_python(), ROOT / "tests" / script, lava_engine._WORKER, given, result)]
    log, folder = given.with_name("log"), given.parent
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
    try:
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        if group_members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("seed, stride, padding", [(0, (1, 1), (1, 1)), (1, (2, 1), (1, 0))])
def test_stock_lava_processes_agree_with_the_reference(
    tmp_path: Path, seed: int, stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    """Independent arithmetic: Lava's own Conv and four LIFs give the integers of ``conv`` and a one-step ``ni_lif``."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, (4, 3, 6, 5)).astype(np.int64)
    weight = rng.integers(-127, 128, (1, 4, 3, 3, 2)).astype(np.int8)
    shift, bias = np.full((1, 4), 1, dtype=np.int8), rng.integers(-900, 900, (1, 4)).astype(np.int32)
    thresholds = np.array([[-300, 501, 1500, 2001]], dtype=np.int32)
    stream = conv.conv(x, weight, bias, shift, stride, padding, (1, 1), 1)
    expected = np.stack([neuron.fire(v, thresholds, None) for v in stream])
    assert set(np.unique(expected)) == {0, 1, 2, 3, 4}, "the case must show every spike"
    given, result = tmp_path / "in.npz", tmp_path / "out.npz"
    shifted = weight[0].astype(np.int32) << 1
    np.savez(given, x=x, weight=shifted, bias=bias[0], thresholds=thresholds[0], stride=stride, padding=padding)
    run_stock("_lava_stock.py", given, result)
    assert np.array_equal(np.load(result)["n"], expected)


def test_stock_lava_neurons_agree_with_the_operations_of_a_neuron(tmp_path: Path) -> None:
    """Lava's own LIF, every neuron with decays, threshold and bias of its own: spikes of every step, current and
    voltage at the end, voltages that saturate among them, are those of ``integrate``, ``fire`` and ``reset``."""
    rng, steps, count, most = np.random.default_rng(0), 60, 24, 2**23 - 1
    case = {
        "a": rng.integers(-9000, 16000, (steps, count)) * (rng.random((steps, count)) < 0.7),
        "du": rng.integers(3000, 4096, count),
        "dv": np.where(np.arange(count) % 4 == 0, 0, rng.integers(0, 2000, count)),
        "vth": np.where(np.arange(count) % 4 == 0, 2**17 - 1, rng.integers(500, 40000, count)),
        "bias": rng.integers(-500, 500, count),
    }
    given, result = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(given, **case)
    run_stock("_lava_lif.py", given, result)
    stream = TensorSpec("stream", (1, count, 1, 1))
    arrays = {
        "i": 4095 - case["du"],
        "v": 4096 - case["dv"],
        "bias": case["bias"] << 6,
        "first": (case["vth"] << 6) + 1,
        "one": np.ones(count, int),
        "zero": np.zeros(count, int),
    }
    ops = (
        Op("u", "integrate", ("current", "a"), "n", {"shift": 6, "limit": 0, "readout": 0}, {"decay": "i"}),
        Op("v", "integrate", ("membrane", "u"), "n", {"shift": 0, "limit": most, "readout": 0},
           {"decay": "v", "bias": "bias"}),
        Op("n", "fire", ("v",), "n", {"most": 1}, {"first": "first", "step": "one"}),
        Op("left", "reset", ("v", "n"), "n", {"subtract": 0, "limit": 0}, {"level": "zero"}),
    )  # fmt: skip
    values = dict.fromkeys(("u", "v", "left"), stream) | {"n": TensorSpec("spikes", (1, count, 1, 1), top=1)}
    inputs = {"a": dataclasses.replace(stream, top=16000), "current": stream, "membrane": stream}
    phase = Phase("step", inputs, ops, values, {"current": "u", "membrane": "left", "n": "n"})
    held = {key: value.reshape(count, 1, 1).astype(np.int32) for key, value in arrays.items()}
    program = Program({"step": phase}, held, {"current": State(stream, 0), "membrane": State(stream, 0)})
    check_program(program)
    session, clipped, spikes = ReferenceEngine(program).session(), 0, []
    for a in case["a"]:
        one = session.step("step", {"a": a.reshape(1, count, 1, 1)})
        spikes.append(one.outputs["n"].ravel())
        clipped += one.counts["v"].saturated
    got = np.load(result)
    assert np.array_equal(got["n"], np.stack(spikes)) and got["n"].sum() > 100 and clipped > 3
    assert np.array_equal(got["u"], session.states["current"].ravel())
    assert np.array_equal(got["v"], session.states["membrane"].ravel())
