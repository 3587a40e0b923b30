"""The golden SPMTrack sets through the real command, and proof that the command can fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
GOLDEN = HERE / "golden_spmtrack"


def check(folder: Path, *options: str) -> dict[str, Any]:
    """Run the command in a process of its own; what it found."""
    line = [sys.executable, str(HERE / "golden_check.py"), str(folder), "--json", *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1), done.stderr
    return found


def test_golden_sets_agree() -> None:
    found = check(GOLDEN)
    assert found["ok"], [q for q in found["quantities"] if q["differences"]]
    compared = {(q["config"], q["quantity"]): q["compared"] for q in found["quantities"]}
    for name, layers, routed, gradients in (("m112", 124, 36, 369), ("glu112", 162, 48, 477)):
        assert compared[name, "layers"] == 6 * layers
        assert compared[name, "top expert counts"] == routed
        assert compared[name, "gradients"] == gradients
        assert compared[name, "track box"] == compared[name, "track score maps"] == 12
    assert compared["-", "references"] == 82
    assert compared["-", "crop pixels"] == 144


@pytest.mark.parametrize(
    ("file", "path", "quantity"),
    [
        ("geometry.json", ("select", "general", 5, 2), "references"),
        ("geometry.json", ("crops", 3, "pixels", 1, 3), "crop pixels"),
        ("expect/m112/track.json", ("frames", 7, "box", 0), "track box"),
        ("expect/m112/case.json", ("steps", 1, "layers", 20, "dot"), "layers"),
        ("expect/m112/grad.json", ("gradients", 30, "rms"), "gradients"),
        ("configs.json", ("m112", "alpha"), "fingerprint"),
    ],
)
def test_each_kind_of_difference_is_seen(file: str, path: tuple[Any, ...], quantity: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE))
    from _golden_spmtrack import Checker
    from golden_check import Report

    root = tmp_path / "set"
    shutil.copytree(GOLDEN, root)
    data = json.loads((root / file).read_text())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] += 1e-3 if isinstance(place[path[-1]], float) else 1
    (root / file).write_text(json.dumps(data))
    report = Report()
    checker = Checker(root, report)
    if file == "geometry.json":
        checker.check_geometry(data)
    else:
        stated = json.loads((root / "configs.json").read_text())["m112"]
        with checker.guarded(report, "m112", "configuration"):
            checker.check_config("m112", stated)
    assert {q.quantity for q in report.quantities.values() if q.differences} >= {quantity}


def test_a_missing_file_is_a_difference(tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(GOLDEN, root)
    (root / "geometry.json").unlink()
    (root / "expect" / "m112" / "track_maps.npz").unlink()
    found = check(root, "--config", "m112")
    assert {q["quantity"] for q in found["quantities"] if q["differences"]} == {"track", "geometry"}
    assert np.isfinite(found["seconds"])
