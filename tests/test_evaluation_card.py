"""The tables of a model card say what the evaluation found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _evaluation import dataset

from spiketrack_deploy.evaluation.evaluate import EvaluationRequest, evaluate

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
