"""``spiketrack train`` and ``spiketrack budget`` as a user calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from _cli import command, environment, processes
from _training import small_config, write_data
from click.testing import CliRunner

from spiketrack_deploy.api.results import TrainResult
from spiketrack_deploy.cli.train import budget, train
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(small_config().to_dict()))
    return file


def call(command, *arguments: object):
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_float_then_integer_training(tmp_path: Path, config: Path) -> None:
    data = write_data(tmp_path / "data")
    common = ("--data", data, "--steps", 3, "--set", "templates_per_step=2", "--hold-out", "right")
    result = call(train, config, "-o", tmp_path / "float", *common, "--json")
    found = json.loads(result.stdout)
    assert set(found) == set(TrainResult.__annotations__)
    assert found["last"]["validation"]["pair_iou"] > 0 and (tmp_path / "float" / "curves.png").stat().st_size > 5000
    start = ("--stage", "integer", "--start", found["model"], "--synop-penalty", 0.01)
    result = call(train, config, "-o", tmp_path / "integer", *common, *start)
    assert "validation: pair IoU" in result.stderr and "wrote" in result.stdout
    model, stored = load_checkpoint(tmp_path / "integer" / "model.safetensors")
    assert stored == small_config() and not model.training


def test_bad_requests_end_with_one_sentence(tmp_path: Path, config: Path) -> None:
    data = write_data(tmp_path / "data")
    with pytest.raises(InputError, match="no picture with boxes"):
        empty = tmp_path / "empty"
        empty.mkdir()
        call(train, config, "--data", empty, "-o", tmp_path / "a")
    with pytest.raises(UsageError, match="NAME=VALUE"):
        call(train, config, "--data", data, "-o", tmp_path / "b", "--set", "video")
    with pytest.raises(InputError, match=r"vidoe is no known entry; known are stage, .*video"):
        call(train, config, "--data", data, "-o", tmp_path / "c", "--set", "vidoe=0.3")
    with pytest.raises(InputError, match="cannot be read"):
        call(train, tmp_path / "nothing.json", "--data", data, "-o", tmp_path / "d")
    recipe = tmp_path / "recipe.json"
    hostile = {
        "[1]": "must be an object, is a list",
        "[" * 100_000: "nested too deeply",
        '{"clip": ' + "9" * 5000 + "}": "a number of 5000 digits",
        '{"clip": 1e400}': "beyond all numbers",
        '{"templates_per_step": 1000000000}': "templates_per_step should be less than or equal to 65536",
        '{"templates_per_step": 65536, "searches": 1024}': "65536 templates .* lower templates_per_step",
    }
    for text, says in hostile.items():
        recipe.write_text(text)
        with pytest.raises(InputError, match=f"recipe.*{says}"):
            call(train, "s256_t1", "--data", data, "-o", tmp_path / "e", "--recipe", recipe)
    recipe.unlink()
    os.mkfifo(recipe)
    with pytest.raises(InputError, match="it is a pipe"):
        call(train, config, "--data", data, "-o", tmp_path / "e", "--recipe", recipe)
    wide = tmp_path / "wide.json"
    wide.write_text(json.dumps({**small_config().to_dict(), "dims": [8192] * 4, "resolution": 4096}))
    for arguments in ((train, wide, "--data", data, "-o", tmp_path / "e"), (budget, wide)):
        with pytest.raises(InputError, match="million weights"):
            call(*arguments)
    assert not (tmp_path / "e").exists()
    assert call(train, config, "-o", tmp_path / "f").exit_code == 2
    assert call(train, config, "--data", data, "-o", tmp_path / "f", "--phase", "float").exit_code == 2
    with pytest.raises(UsageError, match="--grow needs --start"):
        call(train, config, "--data", data, "-o", tmp_path / "g", "--grow")
    assert not (tmp_path / "g").exists()


def test_budget_prints_counts(config: Path) -> None:
    found = json.loads(call(budget, config, "--json").stdout)
    (row,) = found["rows"]
    assert row["slots"] > 0 and row["fits"] is True and found["cores"] == 128
    text = call(budget, config).stdout
    assert "of 524,160 slots" in text and text.count("\n") == 4 and "| yes |" in text


@pytest.mark.usefixtures("heeds_sigint")
@pytest.mark.parametrize(
    ("number", "group", "code"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGTERM, False, 143),
        pytest.param(signal.SIGKILL, False, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_all_workers(tmp_path: Path, config: Path, number: int, group: bool, code: int) -> None:
    """To the whole process group, as a terminal sends it, or to the leader alone."""
    data = write_data(tmp_path / "data")
    size = ("--workers", 2, "--set", "templates_per_step=2", "--set", "searches=1", "--steps", 10**6)
    with subprocess.Popen(
        command("train", config, "--data", data, "-o", "run", *size), cwd=tmp_path, env=environment(),
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as leader:  # fmt: skip
        assert leader.stderr is not None
        assert leader.stderr.readline() == "training from step 0\n"
        (os.killpg if group else os.kill)(leader.pid, number)
        said = leader.stderr.read()  # until every process that could write to it is gone
    assert leader.returncode == code, said
    assert processes(session=leader.pid) == []
    if number != signal.SIGKILL:
        *_, sentence = said.splitlines()
        assert sentence == "interrupted; what was trained is saved, the same command goes on from there"
        assert "Traceback" not in said
        assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] >= 1
