"""Programs as stock Lava Processes: the same integers, the time they take, and what becomes of faults."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.bundle.lava_folder import add_lava
from spiketrack_deploy.cli.commands import group
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.engines.lava_engine import group_members
from spiketrack_deploy.engines.lava_interpreter import lava_python
from spiketrack_deploy.engines.stock_parts import memory_of
from spiketrack_deploy.engines.stock_plan import stock_plan
from spiketrack_deploy.engines.stock_run import Comparison, compare_all, compare_stock, comparison, reference_values
from spiketrack_deploy.frontends.netx.lower import lower_netx
from spiketrack_deploy.frontends.netx.write import write_netx
from spiketrack_deploy.frontends.nir.lower import LowerOptions, lower_network
from spiketrack_deploy.nir_graph.tree_writer import write_tree
from spiketrack_deploy.program.types import Op, Program
from spiketrack_deploy.trackers.spiketrack.checkpoint import save_model

from _cli import command, environment, refuse, spiketrack, succeed  # isort: skip
from _lava import chain_inputs, chain_program, requires_lava, shared_memory  # isort: skip
from _models import tiny_config, tiny_model  # isort: skip
from _nir_drawn import Drawn  # isort: skip
from _programs import tracker_program  # isort: skip
from test_netx import network  # isort: skip
from test_nir_export import dense  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
STEPS = 50
CHEAP = (0, 1, 4, 5, 8, 12, 14, 16, 17, 61)
"""Small ones; each Process is a process of the system."""


def drawn(seed: int) -> Comparison:
    """A drawn NIR network of 50 steps."""
    made = Drawn(seed, 3)
    program = lower_network(made.network(), made.convention, LowerOptions(kinds=made.kinds)).program
    rng = np.random.default_rng(seed)
    inputs = {
        name: rng.integers(spec.extremes[0], spec.extremes[1] + 1, (STEPS, *spec.shape[1:]))
        for name, spec in program.external(program.phases["step"]).items()
    }
    return comparison(program, "step", inputs)


def coarse_program() -> Program:
    """A chain whose second neuron reads up to 2^18, with odd thresholds, one of them negative, different by channel."""
    made = chain_program(shift=12)
    thresholds = np.array([[-70001, 3, 40007, 120001], [-2, 17, 4096, 200003]], dtype=np.int32)
    return Program(made.phases, {**made.arrays, "thresholds.b": thresholds})


class TestLava:
    pytestmark = requires_lava()

    def test_drawn_networks_and_a_neuron_beyond_seventeen_bits(self) -> None:
        """One interpreter for all, since its start takes longer than a run."""
        coarse = comparison(coarse_program(), "search", chain_inputs())
        nodes = coarse.job.plan.nodes.values()
        assert sum(node.process == "Sparse" for node in nodes) == 4 and not any(node.reason for node in nodes)
        found = list(compare_all([*map(drawn, CHEAP), coarse], timeout=240))
        assert [done.differing for done in found if not done.equal] == []
        assert len(found) == len(CHEAP) + 1 and all(done.compared for done in found)
        assert np.unique(found[-1].run.values["s2"]).size > 2

    @pytest.mark.slow
    @pytest.mark.parametrize("first", range(0, 70, 10))
    def test_more_drawn_networks(self, first: int) -> None:
        found = list(compare_all([drawn(seed) for seed in range(first, first + 10)], timeout=240))
        assert [done.differing for done in found if not done.equal] == []

    @pytest.mark.parametrize("kind", ["recurrent", "late"])
    def test_recurrence_and_delays_of_real_processes(self, kind: str) -> None:
        given = network(kind)
        x = np.random.default_rng(1).integers(-40, 60, (STEPS, *given.input_shape))
        done = compare_stock(lower_netx(given), "step", {"input": x}, timeout=240)
        assert done.equal, done.differing
        used = {node.process for node in done.plan.nodes.values()}
        assert used >= {"Conv", "LIFReset"}
        assert kind == "recurrent" or "DelaySparse" in used

    def test_four_lifs_are_a_neuron_of_four_levels(self) -> None:
        done = compare_stock(chain_program(), "search", chain_inputs(), timeout=240)
        assert done.equal, done.differing
        assert not [node for node in done.plan.nodes.values() if node.process == "Own"]
        assert sum(node.process == "LIF" for node in done.plan.nodes.values()) == 8
        assert np.unique(done.run.values["s"]).size > 2

    def test_the_folder_runs_where_only_lava_and_numpy_are(self, tmp_path: Path) -> None:
        """In the lines of the README, from a bundle; from a .net file in those of the folder's own README."""
        write_netx(network("current"), tmp_path / "net.net")
        write_tree(dense(), tmp_path / "net.nir")
        done = succeed(tmp_path, "lava", "net.net", "-o", "mine", "--check")
        assert done["differing"] == 0 < done["compared"]
        made = succeed(tmp_path, "export", "net.nir", "-o", "bundle", "--steps", 12)
        files = ("README.md", "stock_network.py", "stock_processes.py", "step.json", "step.npz", "step.answers.npz")
        assert sum(made["lava"]["processes"].values())
        assert {path for path in made["files"] if path.startswith("lava/")} == {f"lava/{name}" for name in files}
        for readme, said in ((ROOT / "README.md", "True}"), (tmp_path / "mine" / "README.md", "")):
            text = readme.read_text(encoding="utf-8").split("stock_network import build")
            code = text[0].rsplit("```python\n", 1)[1] + "stock_network import build" + text[1].split("```")[0]
            assert len([line for line in code.splitlines() if line]) <= 10
            (tmp_path / "mine.py").write_text(code + "print('the end')\n")
            python = str(lava_python())
            ran = subprocess.run([python, "mine.py"], cwd=tmp_path, env={"PATH": "/usr/bin"}, capture_output=True,
                                 text=True, timeout=240)  # fmt: skip
            assert ran.stdout.endswith(f"{said}\nthe end\n" if said else "the end\n"), ran.stderr
            assert "False" not in ran.stdout
        (tmp_path / "bundle" / "lava" / "step.npz").write_bytes(b"other weights")
        found = spiketrack(tmp_path, "verify", "bundle")
        assert found.returncode == 5 and "lava/step.npz: not the file that was exported" in found.stderr

    def test_an_export_and_its_bundle_in_stock_processes(self, tmp_path: Path) -> None:
        write_tree(dense(), tmp_path / "net.nir")
        words = ("--engine", "lava", "--granularity", "stock")
        made = succeed(tmp_path, "export", "net.nir", "-o", "b", "--steps", 20, *words)
        (row,) = [row for row in made["engines"] if "stock" in row["engine"]]
        assert (row["runs"], row["differing"]) == (20, 0) and row["integers"] == 20 * 8
        assert made["engine"] == "sim"
        found = succeed(tmp_path, "simulate", "b", *words)
        assert [(one["differing"], one["compared"]) for one in found["rows"]] == [(0, found["runs"] * 8)]

    @pytest.mark.slow
    @pytest.mark.parametrize("templates", [1, 3])
    def test_a_tracker_block_by_block(self, templates: int, tmp_path: Path) -> None:
        config = tiny_config(templates)
        save_model(tiny_model(config), config, tmp_path / "tiny.safetensors")
        words = ("--engine", "lava", "--granularity", "stock")
        made = succeed(tmp_path, "export", "tiny.safetensors", "--max-frames", 3, "-o", "bundle", *words)
        run = made["engines"]["stock"]
        assert run["differing"] == 0 < run["integers"] and run["runs"] > 6 and made["engine"] == "sim"
        assert made["lava"]["processes"]["LIF"] > 20
        assert "0 of" in " ".join(made["verdict"]) and "Processes that Lava ships" in " ".join(made["verdict"])
        found = succeed(tmp_path, "simulate", "bundle", *words)
        assert {one["phase"] for one in found["rows"]} == {"template", "search"}
        assert sum(one["compared"] for one in found["rows"]) == run["integers"]
        assert all(one["compared"] > one["differing"] == 0 for one in found["rows"])

    @pytest.mark.parametrize(
        ("number", "sentence"),
        [
            (signal.SIGKILL, r"died \(exit code -9\)|did not end within 8 s"),  # as it ran, or as Lava started
            pytest.param(signal.SIGSTOP, "the stock run did not end within 8 s", marks=pytest.mark.slow),
        ],
    )
    def test_a_process_that_dies_or_hangs_in_the_middle(
        self, number: signal.Signals, sentence: str, tmp_path: Path
    ) -> None:
        write_netx(network("cuba"), tmp_path / "net.net")
        words = command("lava", "net.net", "--check", "--steps", 1000, "--timeout", 8)
        with subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as running:
            (worker,) = waited(running.pid, 1)
            os.kill(max(waited(worker, 4)), number)
            said = running.communicate(timeout=200)[1]
        assert running.returncode == 6 and re.search(sentence, said) and said.count("\n") == 1, said
        assert not shared_memory(running.pid) and not group_members(worker)
        assert [path.name for path in tmp_path.iterdir()] == ["net.net"]

    def test_a_run_that_takes_too_long_is_ended(self, tmp_path: Path) -> None:
        write_netx(network("cuba"), tmp_path / "net.net")
        refuse(tmp_path, 6, ("the stock run did not end within 1 s",), "lava", "net.net", "--check", "--timeout", 1,
               "--steps", 1000)  # fmt: skip


def waited(parent: int, least: int) -> list[int]:
    """Children of a process that run the worker, once there are so many."""
    for _ in range(2000):
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                above = int(path.read_text().rpartition(")")[2].split()[1])
                if above == parent and b"stock_main.py" in path.with_name("cmdline").read_bytes():
                    found.append(int(path.parent.name))
        if len(found) >= least:
            return found
        time.sleep(0.02)
    raise AssertionError("no worker started")


def test_a_memory_that_the_weights_do_not_hold(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spiketrack_deploy.engines.stock_plan.LARGEST_MEMORY", 0)
    monkeypatch.setenv("SPIKETRACK_LAVA_PYTHON", sys.executable)
    code = run(group, "spiketrack", ["simulate", str(bundle), "--engine", "lava", "--granularity", "stock"])
    said = capsys.readouterr().err.strip()
    assert code == 6 and "chained eight-bit weights hold 0 to" in said and "memory." in said, said


def test_an_interpreter_without_lava(tmp_path: Path) -> None:
    write_netx(network("cuba"), tmp_path / "net.net")
    for python, sentence in ((sys.executable, "cannot import lava"), ("/nowhere", "which is no interpreter")):
        done = spiketrack(tmp_path, "lava", "net.net", "--check", env={"SPIKETRACK_LAVA_PYTHON": python})
        assert done.returncode == 6, done.stderr
        assert sentence in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.net"]


def test_granularity_is_of_lava_and_stock_takes_what_was_recorded(tmp_path: Path) -> None:
    write_tree(dense(), tmp_path / "net.nir")
    succeed(tmp_path, "export", "net.nir", "-o", "b", "--steps", 4)
    stock = ("--granularity", "stock")
    lava, nowhere = ("--engine", "lava", *stock), {"SPIKETRACK_LAVA_PYTHON": "/nowhere"}
    for words, code, sentence in (
        (("simulate", "b", *stock), 2, "is of --engine lava"),
        (("simulate", "b", *lava, "--max-frames", 3), 2, "stock Processes run the recorded inputs"),
        (("simulate", "b", *lava), 6, "which is no interpreter"),
        (("export", "net.nir", "-o", "c", *stock), 2, "is of --engine lava"),
        (("export", "net.nir", "-o", "c", *lava), 6, "which is no interpreter"),
    ):
        done = spiketrack(tmp_path, *words, env=nowhere)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert sentence in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "net.nir"]


def test_a_matrix_in_chained_weights_is_the_matrix() -> None:
    rng = np.random.default_rng(0)
    memory, q = rng.integers(0, 40000, (1, 2, 3, 4)), rng.integers(0, 5, (1, 6, 2, 3))
    answer = memory_of(memory, Op("q", "query", ("x", "m"), "b", {"heads": 2, "shift": 1}), 2, 3)
    total = 0
    for part in answer.parts:
        a = part.arrays
        dense = np.zeros(tuple(a["shape"]), np.int64)
        for row in range(len(dense)):
            here = slice(a["indptr"][row], a["indptr"][row + 1])
            dense[row, a["indices"][here]] = a["data"][here]
        assert dense.max() <= 127
        total = total + ((dense @ q.reshape(-1)) << part.params["exp"])
    want = np.matmul(memory.swapaxes(2, 3), q.reshape(1, 2, 3, 6)).reshape(-1) << 1
    assert np.array_equal(total, want)
    assert len(answer.parts) == 3


STAGES = ("ConvBlock1_1.0", "downsample1_2", "downsample2", "downsample3", "mrm.3", "block3.0")


@pytest.mark.parametrize("steps", [1, 3])
def test_what_lies_in_the_folder_of_a_tracker(steps: int, tmp_path: Path) -> None:
    """Inputs and answers by the names of the network, a step of several templates each; the reference's integers."""
    program = tracker_program(1, (4, 8, 16, 24, 24), {"template": (32, 48), "search": (48, 32)}, steps, 8, heads=2,
                              stages=STAGES)  # fmt: skip
    rng = np.random.default_rng(0)
    for name, phase in program.phases.items():
        inputs = {n: rng.integers(0, (spec.top or 3) + 1, spec.shape) for n, spec in phase.inputs.items()}
        more = {n: np.concatenate([a, a]) for n, a in inputs.items()}  # of which one picture is taken
        assert add_lava(tmp_path / name, program, name, more)["processes"]["LIF"]
        folder = tmp_path / name / "lava"
        asked = set(json.loads((folder / f"{name}.json").read_text())["inputs"])
        kept = np.load(folder / f"{name}.answers.npz")
        assert {n.removeprefix("input:") for n in kept.files if n.startswith("input:")} == asked
        held = {n: a for n, a in inputs.items() if n in program.states}
        want = reference_values(program, name, {n: a for n, a in inputs.items() if n not in held}, held)
        outputs = [n for n in kept.files if n.startswith("output:")]
        assert len(outputs) == sum(phase.values[v].shape[0] for v in phase.outputs.values())
        assert all(np.array_equal(kept[n], want[n.removeprefix("output:")]) for n in outputs)


def test_every_own_process_has_its_reason() -> None:
    for seed in range(20):
        made = Drawn(seed, 3)
        program = lower_network(made.network(), made.convention, LowerOptions(kinds=made.kinds)).program
        plan = stock_plan(program, "step")
        assert all(node.reason for node in plan.nodes.values() if node.process == "Own")
        placed = {op for node in plan.nodes.values() for op in node.ops}
        wiring = {op.name for op in program.phases["step"].ops if op.kind in ("reshape", "add", "remember")}
        assert {op.name for op in program.phases["step"].ops} - wiring <= placed


PLANS = """
import hashlib, json, sys
sys.path.insert(0, "tests")
from test_stock_lava import Drawn, LowerOptions, lower_network, stock_plan
for seed in range(12):
    made = Drawn(seed, 3)
    program = lower_network(made.network(), made.convention, LowerOptions(kinds=made.kinds)).program
    print(hashlib.sha256(json.dumps(stock_plan(program, "step").to_files()[0]).encode()).hexdigest())
"""


def test_a_plan_is_the_same_whatever_python_s_hashes_are() -> None:
    """A bundle's content hash holds it; the order of a set is another one in every process."""
    found = [
        subprocess.run(
            [sys.executable, "-c", PLANS], cwd=ROOT, env=environment({"PYTHONHASHSEED": seed}), capture_output=True,
            text=True, check=True, timeout=120,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert len(found[0].split()) == 12 and found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("lava", "nothing.net"), 3, "there is no such file"),
        (("lava", "net.net", "--phase", "search"), 3, "has no phase 'search'; it has step"),
        (("netx", "bad.net"), 3, "is not a readable HDF5 file"),
        (("netx", "."), 3, "is neither a bundle nor a .net file"),
        (("lava", "net.net", "-o", "there"), 3, "is there already"),
    ],
)
def test_bad_words(arguments: tuple[str, ...], code: int, sentence: str, tmp_path: Path) -> None:
    write_netx(network("cuba"), tmp_path / "net.net")
    (tmp_path / "bad.net").write_bytes((tmp_path / "net.net").read_bytes()[:500])
    (tmp_path / "there").mkdir()
    done = spiketrack(tmp_path, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert sentence in done.stderr
    assert not list(tmp_path.glob("*-lava"))
