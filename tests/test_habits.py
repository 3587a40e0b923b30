"""What keeps the project installable and kind to the next person: constraints, environment script, citation, hooks."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_packaging import pyproject

from spiketrack_deploy import __version__

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def pins(version: str) -> dict[str, str]:
    """Name -> version of a constraints file."""
    lines = (ROOT / "constraints" / f"py{version}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("version", PYTHONS)
def test_constraints_hold_every_dependency_at_an_allowed_version(version: str) -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in (*project["dependencies"], *extras["dev"], *extras["dask"])]
    place = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate(place)]
    found = pins(version)
    absent = [r.name for r in needed if canonicalize_name(r.name) not in found]
    assert len(needed) > 15 and not absent, f"constraints/py{version}.txt lacks {absent}: run scripts/constraints.py"
    wrong = [str(r) for r in needed if found[canonicalize_name(r.name)] not in r.specifier]
    assert not wrong, f"constraints/py{version}.txt contradicts {wrong}: run scripts/constraints.py"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "constraints").glob("*.txt")))
def test_constraints_name_versions_that_every_index_has(name: str) -> None:
    for line in (ROOT / "constraints" / name).read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), f"{name}: {line}"
        assert not line.startswith(("nvidia-", "cuda-", "triton")), f"{name}: {line} is up to the PyTorch build"


FAKE = """#!/bin/sh
# An interpreter that answers questions and writes down what pip is asked.
case "$*" in
    *"-m pip"*"-c "*) printf '%s\\n' "$*" >>"{log}"; exit {code} ;;
    *"-m pip"*) printf '%s\\n' "$*" >>"{log}"; exit 0 ;;
    *"import torch"*) exit 0 ;;
    *) exec "{python}" "$@" ;;
esac
"""


def installed_with(tmp_path: Path, code: int = 0, **settings: str) -> tuple[list[str], str]:
    """What scripts/env.sh main asks of pip in an environment that runs, and what it says."""
    fake = tmp_path / "venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text(FAKE.format(log=tmp_path / "log", code=code, python=sys.executable), encoding="utf-8")
    fake.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k not in ("NEWEST", "PYTHON")} | settings
    done = subprocess.run(
        ["sh", "scripts/env.sh", "main"], cwd=ROOT, env={**env, "VENV": str(tmp_path / "venv")}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stamp = (tmp_path / "venv" / ".spiketrack-stamp").read_text(encoding="utf-8")
    assert stamp.startswith("main-newest " if "NEWEST" in settings else "main ")
    return (tmp_path / "log").read_text(encoding="utf-8").splitlines(), done.stderr


HERE = f"constraints/py{sys.version_info[0]}.{sys.version_info[1]}.txt"


def test_the_environment_is_made_of_the_constraints(tmp_path: Path) -> None:
    asked, _ = installed_with(tmp_path)
    assert asked == [f"-m pip install -qq -c {HERE} -e .[dev]"]


def test_the_newest_versions_can_be_tried(tmp_path: Path) -> None:
    asked, _ = installed_with(tmp_path, NEWEST="1")
    assert asked == ["-m pip install -qq --upgrade --upgrade-strategy eager -e .[dev]"]


def test_constraints_that_do_not_install_give_way_to_the_newest(tmp_path: Path) -> None:
    asked, said = installed_with(tmp_path, code=1)
    assert len(asked) == 2 and "-c " not in asked[1] and f"{HERE} do not install here" in said


def document(name: str) -> dict:
    """A YAML file of the project."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_names_this_version_and_what_it_builds_on() -> None:
    citation = document("CITATION.cff")
    assert citation["version"] == __version__ and citation["license"] == pyproject()["project"]["license"]
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)
    titles = " ".join(reference["title"] for reference in citation["references"])
    assert all(word in titles for word in ("SpikeTrack", "Loihi", "Lava", "Neuromorphic intermediate representation"))
    assert all(reference["authors"] for reference in citation["references"])


def test_the_workflow_runs_the_one_check_on_every_python() -> None:
    job = document(".github/workflows/ci.yml")["jobs"]["check"]
    assert tuple(job["strategy"]["matrix"]["python"]) == PYTHONS
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_hooks_run_the_environment_s_own_tools(tmp_path: Path) -> None:
    hooks = {h["id"]: h for repository in document(".pre-commit-config.yaml")["repos"] for h in repository["hooks"]}
    assert set(hooks) == {"ruff", "mypy"} and all(h["language"] == "system" for h in hooks.values())
    env = {**os.environ, "VENV": sys.prefix}
    for text, code in (("x = 1\n", 0), ("import os\n", 1)):
        file = tmp_path / "file.py"
        file.write_text(text, encoding="utf-8")
        command = [*shlex.split(hooks["ruff"]["entry"]), str(file)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
