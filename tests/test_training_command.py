"""``spiketrack train`` and ``spiketrack budget`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
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
    recipe.write_text("[1]")
    with pytest.raises(InputError, match="must be a JSON object"):
        call(train, config, "--data", data, "-o", tmp_path / "e", "--recipe", recipe)
    assert call(train, config, "-o", tmp_path / "f").exit_code == 2
    with pytest.raises(UsageError, match="--grow needs --start"):
        call(train, config, "--data", data, "-o", tmp_path / "g", "--grow")
    assert not (tmp_path / "g").exists()


def test_budget_prints_counts(config: Path) -> None:
    found = json.loads(call(budget, config, "--json").stdout)
    (row,) = found["rows"]
    assert row["slots"] > 0 and row["fits"] is True and found["cores"] == 128
    text = call(budget, config).stdout
    assert "of 524,160 slots" in text and text.count("\n") == 4 and "| yes |" in text
