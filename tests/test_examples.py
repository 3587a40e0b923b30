"""Every example runs, and says what its README line promises."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _cli import ROOT, SECONDS, environment, succeed

EXAMPLES = ROOT / "examples"
CLIP = ROOT / "models" / "clips" / "juice_box.mp4"


def run(cwd: Path, *command: object, **settings: str) -> str:
    """Standard output of an example that must succeed; the commands are those of this interpreter's environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment({"PATH": path, **settings}), capture_output=True,
        text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_its_line_and_its_test() -> None:
    files = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    readme, tests = ((EXAMPLES / "README.md").read_text(), Path(__file__).read_text())
    assert files and all(name in readme and f'"{name}"' in tests for name in files)


def test_my_chip_is_a_target_and_a_price_list(exported: Path, tmp_path: Path) -> None:
    chip = EXAMPLES / "my_chip.toml"
    assert succeed(tmp_path, "targets", "show", chip)["name"] == "my_chip"
    fit = succeed(tmp_path, "map", exported, "--target", chip)
    assert fit["fits"] and fit["detail"]["limits"]["cores_per_chip"] == 64
    (report,) = succeed(tmp_path, "energy", exported, "--profile", chip)["profiles"]
    assert report["per_result"]["dynamic_nj"]["nominal"] > 0 and report["unpriced"]


def test_price_lists_stand_side_by_side(exported: Path, tmp_path: Path) -> None:
    script = EXAMPLES / "price_lists.sh"
    told = run(tmp_path, "sh", script, exported)
    assert all(f"\n {name} " in told for name in ("loihi2", "loihi1", "cmos45_int8", "my_chip"))
    assert " loihi1 " not in run(tmp_path, "sh", script, exported, "loihi2", "odin")


@pytest.mark.slow
def test_my_checkpoint_runs_on_my_video(tiny_checkpoint: Path, tmp_path: Path) -> None:
    script = EXAMPLES / "my_tracker.sh"
    told = run(tmp_path, "sh", script, tiny_checkpoint, CLIP, "300,200,60,90", "mine", FRAMES="4")
    assert "open mine/report.html" in told and (tmp_path / "mine" / "tracked.mp4").is_file()
    boxes = (tmp_path / "mine" / "boxes.csv").read_text(encoding="utf-8").splitlines()
    assert "300" in boxes[1] and len(boxes) == 5


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["norse", "snntorch"])
def test_digits(framework: str, tmp_path: Path) -> None:
    script = EXAMPLES / "digits.py"
    if importlib.util.find_spec(framework) is None:
        done = subprocess.run([sys.executable, script, framework], cwd=tmp_path, env=environment(), timeout=SECONDS,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 6 and done.stderr.startswith("error: ") and framework in done.stderr
        return
    told = run(tmp_path, sys.executable, script, framework)
    accuracy = [float(word) for word in re.findall(r"([\d.]+) %", told)]
    assert min(accuracy) > 80 and "energy of a digit" in told and (tmp_path / f"digits-{framework}.nir").is_file()


@pytest.mark.slow
def test_from_python(tmp_path: Path) -> None:
    told = run(tmp_path, sys.executable, EXAMPLES / "from_python.py", "bundle", "4")
    assert "synaptic operations a frame" in told and "my_chip" in told and "It fits kapoho_point: " in told
    missing = subprocess.run(
        [sys.executable, EXAMPLES / "from_python.py", "bundle", "1"], cwd=tmp_path, env=environment(), timeout=SECONDS,
        capture_output=True, text=True,
    )  # fmt: skip
    assert missing.returncode == 1 and missing.stderr.startswith("error: ") and missing.stderr.count("\n") == 1
