"""The small commands: help, version, targets, doctor, inspect, energy; and what a terminal sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _cli import environment, spiketrack, succeed

from spiketrack_deploy import __version__
from spiketrack_deploy.cli.commands import group
from spiketrack_deploy.inputs.resources import profile_names
from spiketrack_deploy.units import si

STAGES = ("export", "track", "simulate", "energy", "verify", "inspect", "targets", "doctor")


def test_help_lists_every_stage_and_exit_code(tmp_path: Path) -> None:
    done = spiketrack(tmp_path, "--help")
    assert done.returncode == 0
    for word in (*STAGES, "2 usage", "3 input", "5", "130"):
        assert word in done.stdout, word
    assert spiketrack(tmp_path, "--version").stdout.strip().endswith(__version__)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_explains_itself(stage: str) -> None:
    command = group.commands[stage]
    assert command.help and len(command.help) > 40
    for parameter in command.params:
        assert getattr(parameter, "help", None) or parameter.param_type_name == "argument", parameter.name


def test_engines_offered_are_the_engines_there_are() -> None:
    from spiketrack_deploy.cli.options import ENGINES as OFFERED
    from spiketrack_deploy.engines.factory import ENGINES

    assert sorted(OFFERED) == sorted(ENGINES)


def test_ways_offered_are_the_ways_there_are() -> None:
    from spiketrack_deploy.cli.map import map_command
    from spiketrack_deploy.mapping.entry import FIRST_LAYER
    from spiketrack_deploy.mapping.populations import SHARED_STREAMS

    offered = {p.name: tuple(getattr(p.type, "choices", ())) for p in map_command.params}
    assert (offered["first_layer"], offered["streams"]) == (FIRST_LAYER, SHARED_STREAMS)


def test_without_a_command_help_and_exit_2(tmp_path: Path) -> None:
    done = spiketrack(tmp_path)
    assert done.returncode == 2 and "Commands:" in done.stdout


def test_targets(tmp_path: Path) -> None:
    found = succeed(tmp_path, "targets")
    assert {t["name"] for t in found["targets"]} == set(profile_names())
    boards = {t["name"]: t for t in found["targets"] if t["kind"] == "board"}
    assert boards["kapoho_point"]["chips"] == 8 and boards["kapoho_point"]["family"] == "loihi2"
    shown = succeed(tmp_path, "targets", "show", "cpu")
    assert shown["name"] == found["aliases"]["cpu"] and all(
        p["source"] and p["unit"] and p["tag"] for p in shown["prices"].values()
    )
    assert "source" in spiketrack(tmp_path, "targets", "show", "loihi2").stdout
    assert spiketrack(tmp_path, "targets", "show").returncode == 2


def test_doctor_says_how_to_get_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    (tmp_path / "python").chmod(0o755)
    found = succeed(tmp_path, "doctor", env={"SPIKETRACK_LAVA_PYTHON": str(tmp_path / "python")})
    checks = {c["what"]: c for c in found["checks"]}
    assert found["ok"] and checks["engine sim"]["ok"] and checks["bundled models"]["ok"]
    lava = checks["engine lava"]
    assert not lava["ok"] and "make env-lava" in lava["remedy"] and "Python 3.10" in lava["remedy"]


def test_inspect_a_model(tmp_path: Path) -> None:
    found = succeed(tmp_path, "inspect", "spiketrack-untrained")
    assert found["parameters"] == 399_610 and "untrained" in found["remark"]
    assert found["nir"]["phases"]["search"]["cut_ops"]["decode"] == 1
    assert "NIR nodes" in spiketrack(tmp_path, "inspect", "spiketrack-untrained").stdout


def test_tables_for_people(bundle: Path) -> None:
    energy = spiketrack(bundle.parent, "energy", "bundle", "--profile", "loihi2", "--profile", "loihi1").stdout
    assert "loihi1" in energy and "no price" in energy and "[" in energy
    inspected = spiketrack(bundle.parent, "inspect", "bundle").stdout
    assert "Tightest" in inspected and "content hash" in inspected
    assert "ok: " in spiketrack(bundle.parent, "verify", "bundle").stdout


def test_progress_only_on_a_terminal(bundle: Path) -> None:
    assert spiketrack(bundle.parent, "verify", "bundle").stderr == ""
    code = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    args = [sys.executable, "-c", code, sys.executable, "-m", "spiketrack_deploy", "verify", "bundle"]
    done = subprocess.run(args, cwd=bundle.parent, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0 and b"known answers" in done.stdout


def test_engine_is_refused_for_a_model(tmp_path: Path) -> None:
    done = spiketrack(tmp_path, "track", "spiketrack-untrained", "--engine", "sim", "--json")
    assert done.returncode == 2 and "export it first" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(("value", "text"), [
    (9.9996e-4, "1 mJ"), (-9.9996e-4, "-1 mJ"), (9.994e-4, "999 uJ"), (2.5e-6, "2.5 uJ"), (5e15, "5,000 TJ"),
    (0.9999, "1 J"), (1e-15, "0.001 pJ"), (0, "0 J"), (float("inf"), "inf J"), (999.6e3, "1 MJ"),
])  # fmt: skip
def test_prefixes_are_chosen_after_rounding(value: float, text: str) -> None:
    assert si(value, "J") == text
