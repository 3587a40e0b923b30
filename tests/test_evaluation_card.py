"""The tables of a model card say what the evaluation found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _evaluation import dataset
from _training import small_config

from spiketrack_deploy.evaluation.evaluate import EvaluationRequest, evaluate
from spiketrack_deploy.trackers.spiketrack.checkpoint import save_model
from spiketrack_deploy.training.trainer import new_model

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "card_tables.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line]


def test_tables_repeat_the_results(tmp_path: Path, exported: Path) -> None:
    data, out = dataset(tmp_path / "data", ["a", "b"], frames=4), tmp_path / "out"
    evaluate(EvaluationRequest((str(exported), "static"), data, out=out))
    trackers = json.loads((out / "results.json").read_text())["trackers"]
    program = next(name for name in trackers if name != "static")
    done = run(out, "--layers", program)
    assert done.returncode == 0, done.stderr
    results, sequences, blocks = (rows(part) for part in done.stdout.split("\n\n"))
    assert [row[0] for row in results[2:]] == list(trackers)
    for name, auc, _, _, synops, *_ in results[2:]:
        assert float(auc.split()[0]) == pytest.approx(100 * trackers[name]["mean"]["auc"]["mean"], abs=0.05)
        assert (synops == "-") == (name == "static")
    assert [row[0] for row in sequences[2:]] == ["a", "b"]
    energy = trackers[program]["energy"]
    counted = [layer for layer in energy["layers"] if layer["phase"] == energy["main"] == "search"]
    total = sum(layer["counts"].get("synops", 0) for layer in counted) / 1e6
    assert sum(float(row[4]) for row in blocks[2:]) == pytest.approx(total, abs=0.005 * len(blocks))
    neurons = sum(layer["counts"].get("neuron_updates", 0) for layer in counted)
    assert sum(int(row[1].replace(",", "")) for row in blocks[2:]) == neurons > 0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1 and "holds no evaluation" in done.stderr
    (tmp_path / "results.json").write_text('{"trackers": {}}')
    done = run(tmp_path, "--layers", "nano@sim")
    assert done.returncode == 1 and "no program called nano@sim" in done.stderr


@pytest.mark.slow
def test_seeds_are_compared_with_the_same_tracker(tmp_path: Path) -> None:
    data, config = dataset(tmp_path / "data", ["a", "b", "c"], frames=4), small_config()
    for seed in (1, 2, 3):
        (tmp_path / f"run{seed}").mkdir()
        save_model(new_model(config, seed).eval(), config, tmp_path / f"run{seed}" / "model.safetensors")
    (tmp_path / "run2" / "run.json").write_text(json.dumps({"recipe": {"seed": 22}}))
    script, folders = SCRIPT.with_name("seeds.py"), [str(tmp_path / f"run{seed}") for seed in (1, 2, 3)]
    call = [sys.executable, str(script), *folders, "--data", str(data), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*call, "--engine", "float", "--against", "static"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    trackers = json.loads((tmp_path / "out" / "results.json").read_text())["trackers"]
    found = {name: 100 * t["mean"]["auc"]["mean"] for name, t in trackers.items() if name != "static"}
    *lines, _ = text = rows(done.stdout)
    shown = [row for row in lines if row[0] in found]
    assert [row[1] for row in shown] == ["-", "22", "-"] and len(shown) == 3
    for row in shown:
        apart = 100 * trackers["static"]["mean"]["auc"]["mean"]
        assert float(row[2].split()[0]) == pytest.approx(found[row[0]], abs=0.05)
        assert float(row[3].split()[0]) == pytest.approx(found[row[0]] - apart, abs=0.1)
    ordered = sorted(found.values())
    assert f"median {ordered[1]:.1f}" in text[-1][0] and f"{ordered[0]:.1f} to {ordered[2]:.1f}" in text[-1][0]
    done = subprocess.run([*call[:-1], str(data)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
