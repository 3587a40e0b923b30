"""``spiketrack train`` and ``spiketrack budget`` as a user calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _cli import command, environment, processes
from _training import lively_model, small_config, write_clip, write_data, write_pictures
from click.testing import CliRunner

from spiketrack_deploy.api.results import LoopResult, TrainResult
from spiketrack_deploy.cli.budget import budget
from spiketrack_deploy.cli.train import train
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint, save_model
from spiketrack_deploy.tracking.rule import PUBLISHED, LoopRule


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
    start = ("--stage", "integer", "--start", found["model"], "--energy-penalty", 0.5)
    result = call(train, config, "-o", tmp_path / "integer", *common, *start)
    assert "validation: pair IoU" in result.stderr and "wrote" in result.stdout
    history = json.loads((tmp_path / "integer" / "history.json").read_text())
    assert all(row["spikes_mj"] > 0 for row in history if "total" in row), "what the spikes of a frame cost"
    with pytest.raises(UsageError, match="there is no target 'loihi9'"):
        call(train, config, "-o", tmp_path / "none", *common, "--energy-penalty", 1, "--set", "energy_target=loihi9")
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


def test_the_rule_of_a_loop_is_chosen_on_held_out_clips(tmp_path: Path) -> None:
    """Ten rules on two clips; a run cut after the second goes on to the same choice, which the model then carries."""
    data, model, run = write_data(tmp_path / "data"), tmp_path / "model.safetensors", tmp_path / "run"
    save_model(lively_model(), small_config(), model)
    common = (model, "--choose-loop", 10, "--data", data, "--hold-out", data)
    found = json.loads(call(train, *common, "-o", run, "--seed", 3, "--json").stdout)
    assert set(LoopResult.__annotations__) <= set(found) and len(found["rules"]) == 10
    assert found["rules"][0]["rule"] == {} and set(found["rules"][0]["auc"]) == {"left", "right"}
    means = [sum(row["auc"].values()) / 2 for row in found["rules"]]
    assert found["chosen"]["auc"] == pytest.approx(max(means)) and len(set(means)) > 1
    assert found["published"] == pytest.approx(means[0])
    # With two clips a half is one of them: a rule chosen on either, scored on the other.
    scores = [
        [row["auc"][clip] - found["rules"][0]["auc"][clip] for row in found["rules"]] for clip in ("left", "right")
    ]
    gains = [b[a.index(max(a))] for a, b in (scores, scores[::-1])]
    assert found["across"]["mean"] == pytest.approx(sum(gains) / 2)
    assert found["kept"] is (min(gains) > 0)
    weights, config = load_checkpoint(run / "model.safetensors")
    kept = LoopRule(**found["chosen"]["rule"]) if found["kept"] else PUBLISHED
    assert config == replace(small_config(), loop=kept)
    assert all(torch.equal(a, b) for a, b in zip(weights.state_dict().values(), lively_model().state_dict().values()))
    whole = {file.name: file.read_bytes() for file in run.iterdir()}
    cut = {**json.loads(whole["loop.json"]), "rules": found["rules"][:2]}
    (run / "loop.json").write_text(json.dumps(cut))
    text = call(train, *common, "-o", run, "--seed", 3).stdout
    assert {file.name: file.read_bytes() for file in run.iterdir()} == whole
    assert "| size_rate | " in text and "chosen on half of the clips" in text and "published rule" in text
    for damage in ({"rules": 5}, {"rules": [{"rule": {}}]}, {"rules": found["rules"][1:]}):
        (run / "loop.json").write_text(json.dumps({**cut, **damage}))
        with pytest.raises(InputError, match="is damaged; remove it"):
            call(train, *common, "-o", run, "--seed", 3)
    (run / "loop.json").write_bytes(whole["loop.json"])
    with pytest.raises(InputError, match="scored with another seed"):
        call(train, *common, "-o", run, "--seed", 4)
    assert call(train, model, "--choose-loop", 10**6, "--data", data, "-o", run).exit_code == 2
    write_clip(tmp_path / "more" / "left")
    with pytest.raises(InputError, match="two held-out clips are called 'left'"):
        call(train, *common, "--data", tmp_path / "more", "--hold-out", "left", "-o", run)
    write_clip(data / "third")
    with pytest.raises(InputError, match="scored with another clips"):
        call(train, *common, "-o", run, "--seed", 3)
    with pytest.raises(InputError, match="two held-out clips or more"):
        call(train, *common[:-1], "left", "-o", run, "--seed", 3)
    with pytest.raises(InputError, match="chosen on two held-out clips or more"):
        call(train, *common[:-2], "-o", tmp_path / "none")
    with pytest.raises(UsageError, match="takes no steps"):
        call(train, *common, "-o", run, "--steps", 3)
    with pytest.raises(UsageError, match="holds something else"):
        call(train, *common, "-o", data)
    with pytest.raises(InputError, match="no clip called nobody"):
        call(train, *common[:-1], "nobody", "-o", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_folders_of_data_have_shares_of_draws(tmp_path: Path, config: Path) -> None:
    one, two = write_data(tmp_path / "one"), tmp_path / "t=wo"
    write_clip(two / "third")
    write_pictures(two, 12)
    found = read_folders([one, two], [3.0, 1.0])
    clips = [(clip.root, clip.weight) for clip in found.clips]
    for kind in (clips, [(picture.frame.root, picture.weight) for picture in found.pictures]):
        mine = sum(weight for root, weight in kind if root.is_relative_to(one))
        assert mine / sum(weight for _, weight in kind) == pytest.approx(0.75)
    steps = ("--steps", 1, "--set", "templates_per_step=2", "--quiet")
    call(train, config, "--data", f"{one}=3", "--data", two, "-o", tmp_path / "run", *steps)
    with pytest.raises(InputError, match="belongs to another run: its data"):
        call(train, config, "--data", f"{one}=2", "--data", two, "-o", tmp_path / "run", *steps)
    for weight in ("0", "-1", "nan", "much"):
        refused = call(train, config, "--data", f"{one}={weight}", "-o", tmp_path / "none")
        assert refused.exit_code == 2 and "states no weight" in refused.stderr
    with pytest.raises(InputError, match="does not exist"):
        call(train, config, "--data", f"{tmp_path / 'nothing'}=2", "-o", tmp_path / "none")


def test_a_run_of_another_recipe_is_left_as_it_is(tmp_path: Path, config: Path) -> None:
    data, run = write_data(tmp_path / "data"), tmp_path / "run"
    common = (train, config, "--data", data, "-o", run, "--set", "templates_per_step=2")
    call(*common, "--steps", 1)
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    for entry in ("rotate=0.5", "seed=9", "learning_rate=0.1", "hard=0.1"):
        with pytest.raises(InputError, match=rf"belongs to another run: its recipe\.{entry.split('=')[0]} is"):
            call(*common, "--steps", 2, "--set", entry)
    with pytest.raises(InputError, match="an exact network needs a dyadic normalisation of pixels"):
        call(*common, "--stage", "integer", "--set", "exact=true")
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_budget_prints_counts(config: Path) -> None:
    found = json.loads(call(budget, config, "--json").stdout)
    (row,) = found["rows"]
    assert row["slots"] > 0 and row["fits"] is True and found["cores"] == 120  # usable, of 128 built
    text = call(budget, config).stdout
    assert f"of {found['cores'] * 4095:,} slots" in text and text.count("\n") == 4 and "| yes |" in text


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
        word = "interrupted" if number == signal.SIGINT else "terminated"
        assert sentence == f"{word}; what was trained is saved, the same command goes on from there"
        assert "Traceback" not in said
        assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] >= 1
