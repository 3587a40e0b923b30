"""Sim and ONNX against the reference, operation by operation; what engines refuse; how a difference is named."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from spiketrack_deploy.engines import onnx_export, sim, sim_kernels
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.factory import ENGINES, make_engine
from spiketrack_deploy.engines.onnx_engine import OnnxEngine
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.engines.sim import SimEngine
from spiketrack_deploy.errors import EngineError, InputError, VerificationError
from spiketrack_deploy.program.ops import OP_TABLE

from _programs import random_inputs, random_program, tracker_program  # isort: skip
from _steps import KINDS, SIGMA_DELTA  # isort: skip

MAKERS = {
    "sim": lambda program: SimEngine(program, threads=1),
    "sim float32": lambda program: SimEngine(program, threads=1, kernels="float32"),
    "onnx": lambda program: OnnxEngine(program, threads=1),
}


def runs(program, seeds):
    return [(phase, inputs) for seed in seeds for phase, inputs in random_inputs(program, seed).items()]


@pytest.mark.parametrize("engine", MAKERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_integer_and_every_count_equals_the_reference(engine: str, steps: int, seed: int) -> None:
    program = random_program(seed, steps)
    with ReferenceEngine(program) as reference, MAKERS[engine](program) as other:
        found = compare(reference, other, program, runs(program, (seed, seed + 50)))
    found.demand()
    operations = sum(len(phase.ops) for phase in program.phases.values())
    assert found.equal and found.integers > 100_000 and found.operations >= 2 * operations
    assert set(found.seconds) == set(program.phases)


def test_the_programs_hold_every_operation_kind_and_every_spike() -> None:
    kinds, levels = set(), set()
    for steps in (1, 3):
        program = random_program(0, steps)

        def watch(op, value):
            kinds.add(op.kind)
            if op.kind == "ni_lif":
                levels.update(np.unique(value).tolist())

        for phase, inputs in random_inputs(program, 0).items():
            ReferenceEngine(program).run(phase, inputs, count=False, watch=watch)
    assert kinds | KINDS | SIGMA_DELTA == set(OP_TABLE), "a new operation needs a place in _programs.py or _steps.py"
    assert levels == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("module", "table", "maker"), [(sim_kernels, "KERNELS", "sim"), (onnx_export, "WRITERS", "onnx")]
)
def test_a_missing_operation_is_named(monkeypatch, module, table: str, maker: str) -> None:
    program = random_program(0)
    monkeypatch.delitem(getattr(module, table), "requantise")
    with MAKERS[maker](program) as engine, pytest.raises(EngineError, match=r"requantise.*engine"):
        engine.run("search", random_inputs(program, 0)["search"])


class Flipped(ReferenceEngine):
    """Adds one to the last entry of one operation's output, for watchers and readers."""

    name = "flipped"

    def __init__(self, program, victim: str) -> None:
        super().__init__(program)
        self.victim = victim

    def run(self, phase, inputs, *, count=True, watch=None):
        def flip(op, value):
            if op.name == self.victim:
                value = value.copy()
                value[(-1,) * value.ndim] += 1
            if watch is not None:
                watch(op, value)
            return value if op.name == self.victim else None

        return super().run(phase, inputs, count=count, watch=flip)


def test_the_first_difference_is_named_with_operation_step_index_and_values() -> None:
    program = random_program(1)
    victim = "encoder.mrm.0.retriever.attn_spike"
    shape = program.phases["search"].spec(victim).shape
    found = compare(ReferenceEngine(program), Flipped(program, victim), program, runs(program, [1]))
    assert not found.equal and found.first is not None
    assert (found.first.phase, found.first.op, found.first.kind) == ("search", victim, "ni_lif")
    assert found.first.step == shape[0] - 1 and found.first.index == tuple(n - 1 for n in shape[1:])
    assert found.first.second == found.first.first + 1
    assert 0 < found.differing_integers < found.integers
    with pytest.raises(VerificationError, match=rf"search phase, {victim} .*step 2 index .*reference computes \d+"):
        found.demand()


def test_a_wrong_count_is_a_difference() -> None:
    class Miscounting(ReferenceEngine):
        name = "miscounting"

        def run(self, phase, inputs, *, count=True, watch=None):
            result = super().run(phase, inputs, count=count, watch=watch)
            counts = dict(result.counts)
            if "decoder.spike" in counts:
                counts["decoder.spike"] = dataclasses.replace(counts["decoder.spike"], neuron_spiking=1)
            return dataclasses.replace(result, counts=counts)

    program = random_program(1, 1)
    found = compare(ReferenceEngine(program), Miscounting(program), program, runs(program, [1]), timed=False)
    assert found.differing_integers == 0 and found.differing_counts == 1
    assert found.first is not None and (found.first.op, found.first.count) == ("decoder.spike", "neuron_spiking")


@pytest.mark.parametrize("steps", [1, 3])
def test_forced_values_reach_every_reader_as_in_the_reference(steps: int) -> None:
    """Teacher forcing: spikes and streams replaced at random, same integers and counts as the reference."""
    program = random_program(2, steps)
    results = {}
    for name, engine in (("reference", ReferenceEngine(program)), ("sim", SimEngine(program, threads=1))):
        for phase, inputs in random_inputs(program, 2).items():
            rng = np.random.default_rng(5)
            seen = []

            def force(op, value, rng=rng, seen=seen):
                seen.append(value)
                if rng.random() < 0.3 and op.kind in ("ni_lif", "conv", "query", "add"):
                    return rng.integers(0, 5, value.shape) if op.kind == "ni_lif" else value[..., ::-1].copy()
                return None

            results[name, phase] = engine.run(phase, inputs, watch=force), seen
    for phase in program.phases:
        (a, values_a), (b, values_b) = results["reference", phase], results["sim", phase]
        assert all(np.array_equal(x, y) for x, y in zip(values_a, values_b, strict=True))
        assert all(np.array_equal(a.outputs[k], b.outputs[k]) for k in a.outputs)
        assert a.counts == b.counts


def test_onnx_refuses_forced_values() -> None:
    program = random_program(0, 1)
    with pytest.raises(EngineError, match="cannot replace"):
        OnnxEngine(program).run("search", random_inputs(program, 0)["search"], watch=lambda op, value: value)


def test_threads_do_not_change_an_integer() -> None:
    program = tracker_program(3, (16, 16, 24, 32), 64, 2, 16)
    one, two = SimEngine(program, threads=1), SimEngine(program, threads=2)
    compare(one, two, program, runs(program, [3]), timed=False).demand()
    import torch

    before = torch.get_num_threads()
    two.run("search", random_inputs(program, 3)["search"])
    assert torch.get_num_threads() == before, "an engine's threads must not outlive its run"


@pytest.fixture
def two_threads():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch
    torch.set_num_threads(before)


@pytest.mark.parametrize("inner", [1, 3, None])
def test_overlapping_runs_leave_the_threads_that_were_set(monkeypatch, two_threads, inner: int | None) -> None:
    """The first to start ends first, and the second began in a thread that PyTorch did not know."""
    monkeypatch.setattr(sim, "SMALL_MACS", 0)
    program = random_program(0, 1)
    inputs = random_inputs(program, 0)["search"]
    started, ended = threading.Event(), threading.Event()
    seen: dict[str, int] = {}

    def wait(op, value):
        seen.setdefault("inside", two_threads.get_num_threads())
        started.set()
        assert ended.wait(60)

    def second() -> None:
        SimEngine(program, threads=inner).run("search", inputs, watch=wait)
        seen["after"] = two_threads.get_num_threads()

    def first(op, value):
        if not worker.is_alive() and not started.is_set():
            worker.start()
            assert started.wait(60)

    worker = threading.Thread(target=second, daemon=True)
    SimEngine(program, threads=1).run("search", inputs, watch=first)
    assert two_threads.get_num_threads() == 2
    ended.set()
    worker.join(60)
    fresh: list[int] = []
    probe = threading.Thread(target=lambda: fresh.append(two_threads.get_num_threads()))
    probe.start()
    probe.join(60)
    assert seen == {"inside": inner or 2, "after": 2}
    assert fresh == [2] and two_threads.get_num_threads() == 2


def test_a_small_program_has_one_thread_unless_more_are_asked_for(monkeypatch) -> None:
    program = random_program(0, 1)
    assert (SimEngine(program).threads, SimEngine(program, threads=2).threads) == (1, 2)
    macs = []
    for phase, inputs in random_inputs(program, 0).items():
        counts = SimEngine(program).run(phase, inputs).counts
        macs.append(sum(counts[op.name].dense_macs for op in program.phases[phase].ops if "weight" in op.arrays))
    for limit, expected in ((max(macs), None), (max(macs) + 1, 1)):
        monkeypatch.setattr(sim, "SMALL_MACS", limit)
        assert SimEngine(program).threads is expected


def test_a_run_that_fails_leaves_the_threads_that_were_set(two_threads) -> None:
    program = random_program(0, 1)

    def fail(op, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SimEngine(program, threads=1).run("search", random_inputs(program, 0)["search"], watch=fail)
    assert two_threads.get_num_threads() == 2
    with pytest.raises((RuntimeError, ValueError)):
        SimEngine(program, threads=2**70).run("search", random_inputs(program, 0)["search"])
    assert two_threads.get_num_threads() == 2
    SimEngine(program, threads=1).run("search", random_inputs(program, 0)["search"])
    assert two_threads.get_num_threads() == 2


def test_runs_do_not_influence_one_another() -> None:
    """Scratch memory is shared between runs: the same input twice, with another between, gives the same everything."""
    program = random_program(4)
    engine = SimEngine(program, threads=1)
    first, other = random_inputs(program, 1)["search"], random_inputs(program, 2)["search"]
    a = engine.run("search", first)
    kept = {name: value.copy() for name, value in a.outputs.items()}
    engine.run("search", other)
    b = engine.run("search", first)
    assert a.counts == b.counts
    assert all(np.array_equal(kept[k], a.outputs[k]) and np.array_equal(kept[k], b.outputs[k]) for k in kept)
    assert not engine.run("search", first, count=False).counts


@pytest.mark.parametrize("engine", [SimEngine, OnnxEngine])
def test_a_program_that_may_leave_24_bits_is_refused(engine) -> None:
    program = random_program(0)
    victim = next(op for op in program.phases["search"].ops if op.kind == "conv")
    key = victim.arrays["shift"]
    wild = dataclasses.replace(program, arrays={**program.arrays, key: np.full_like(program.arrays[key], 20)})
    with pytest.raises(VerificationError, match=victim.name.replace(".", r"\.")) as refused:
        engine(wild)
    assert refused.value.exit_code == 5


BAD_INPUTS = {
    "missing": (lambda x: {"image": x["image"]}, "missing"),
    "wrong shape": (lambda x: {**x, "image": x["image"][:, :, 1:]}, "must be integers"),
    "floats": (lambda x: {**x, "image": x["image"] / 2.0}, "must be integers"),
    "negative pixel": (lambda x: {**x, "image": x["image"].astype(int) - 300}, r"0\.\.255"),
    "large pixel": (lambda x: {**x, "image": x["image"].astype(int) + 256}, r"0\.\.255"),
    "memory beyond the proof": (lambda x: {**x, "memory.0": x["memory.0"] + 10**6}, r"memory\.0 must lie in 0\.\."),
}


@pytest.mark.parametrize("engine", [SimEngine, OnnxEngine])
@pytest.mark.parametrize("case", BAD_INPUTS)
def test_inputs_outside_the_proof_are_refused(case: str, engine) -> None:
    change, message = BAD_INPUTS[case]
    program = random_program(0, 1)
    with pytest.raises(InputError, match=message):
        engine(program).run("search", change(random_inputs(program, 0)["search"]))


def test_factory_names_its_choices() -> None:
    program = random_program(0, 1)
    with pytest.raises(EngineError, match="reference, sim, lava, onnx"):
        make_engine("loihi", program)
    with pytest.raises(EngineError, match=r"turbo.*threads"):
        make_engine("sim", program, turbo=True)
    with pytest.raises(InputError, match="threads"):
        make_engine("sim", program, threads=0)
    with pytest.raises(InputError, match="float32"):
        make_engine("sim", program, kernels="magic")
    assert ENGINES == ("reference", "sim", "lava", "onnx")
    for name in ("reference", "sim", "onnx"):
        with make_engine(name, program) as engine:
            assert engine.name == name
            engine.run("search", random_inputs(program, 0)["search"])
            engine.close()
