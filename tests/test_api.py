"""The package as a library: every command has its function, which returns what it says and what the command prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from _cli import ROOT, SECONDS, environment, succeed
from _evaluation import dataset

from spiketrack_deploy import api
from spiketrack_deploy.api import results
from spiketrack_deploy.cli.commands import group


def test_every_command_is_a_function_of_the_same_name() -> None:
    assert set(group.commands) <= set(api.__all__)
    assert api.__all__ == sorted(api.__all__)


def keys(found: Any, result: type) -> None:
    assert set(found) == set(result.__annotations__), f"{result.__name__} names other keys"
    json.dumps(found, allow_nan=False)


def test_reading_a_bundle_returns_what_it_says(exported: Path, tiny_checkpoint: Path) -> None:
    keys(api.verify(exported), results.VerifyResult)
    keys(api.energy(exported, ["loihi2"]), results.EnergyResult)
    keys(api.simulate(exported, max_frames=3), results.SimulateResult)
    keys(api.targets(), results.TargetsResult)
    keys(api.budget(), results.BudgetResult)
    model, bundle = api.inspect(tiny_checkpoint), api.inspect(exported)
    dense = api.inspect("spmtrack-micro")
    assert set(model) | set(bundle) | set(dense) == set(results.InspectResult.__annotations__)
    assert results.InspectResult.__required_keys__ <= set(model) & set(bundle) & set(dense)
    keys(api.map("spmtrack-micro"), results.DenseFitResult)


def test_writing_verbs_return_what_they_say(exported: Path, tmp_path: Path) -> None:
    keys(api.track(str(exported), max_frames=3, out=tmp_path / "track"), results.TrackResult)
    found = api.evaluate(["static"], dataset(tmp_path / "data"), max_frames=3, out=tmp_path / "scores")
    keys(found, results.EvaluateResult)
    assert found["exit_code"] == 0 and found["trackers"]["static"]["mean"]["auc"]["mean"] > 0


def test_the_command_prints_what_the_function_returns(exported: Path, tmp_path: Path) -> None:
    found = api.map(exported, target="oheo_gulch")
    keys(found, results.MapResult)
    assert succeed(tmp_path, "map", exported, "--target", "oheo_gulch") == json.loads(json.dumps(found))
    assert api.map(exported, density=0.25)["detail"]["run"]["activity"] != found["detail"]["run"]["activity"]
    keys(found_doctor := api.doctor(), results.DoctorResult)
    assert succeed(tmp_path, "doctor") == found_doctor


def python_blocks(document: str) -> str:
    """The Python of a document, as one script; what is meant for Lava's own environment is not this package's."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    return "\n".join(block for block in blocks if "stock_network" not in block)


def test_the_python_of_the_documents_runs(tmp_path: Path) -> None:
    """docs/python.md reads the bundle that the README's example wrote."""
    first, second = python_blocks("README.md"), python_blocks("docs/python.md")
    assert 8 <= first.count("\n") <= 12 and second.count("\n") > 8
    code = first + second
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert "nominal" in done.stdout and "power_of_two" in done.stdout and "missing.pth" in done.stdout
