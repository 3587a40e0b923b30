"""What a configuration needs of a target: the mapper's cores, whoever asks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from _mapping import loihi2
from _models import tiny_config

from spiketrack_deploy.cli.commands import group
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.hardware.targets import Target, resolve_target
from spiketrack_deploy.inputs.resources import model_names, models_dir
from spiketrack_deploy.trackers.spiketrack.checkpoint import read_config, save_model
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.draw import draw_state
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.training.budget import Room, budget

LOIHI2 = Room.of(resolve_target("loihi2"))
MODELS = ("spiketrack-nano", "spiketrack-tiny", "spiketrack-untrained")


def ask(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    code = run(group, "spiketrack", [*map(str, args), "--json"])
    out, err = capsys.readouterr()
    assert code in (0, 4), err
    found: dict[str, Any] = json.loads(out)
    return found


def test_these_are_the_bundled_models() -> None:
    assert set(MODELS) == set(model_names()) - {"spmtrack-micro"}, "a dense tracker has no program to count"


@pytest.mark.parametrize(("model", "target"), [*((model, "loihi2") for model in MODELS), ("spiketrack-nano", "loihi1")])
def test_budget_and_map_say_the_same(model: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Through both commands, for all bundled models."""
    (row,) = ask(capsys, "budget", model, "--target", target)["rows"]
    mapped = ask(capsys, "map", model, "--target", target)["detail"]
    assert row["cores"] == mapped["cores"], f"{model} on {target}"
    assert row["words_with_copies"] == mapped["synaptic_words"]
    counted = {"neurons": row["neurons"], "relay": row["relays"], "memory": row["matrix"]}
    kinds = {kind: slots for kind, slots in counted.items() if slots}
    assert kinds == mapped["neurons"] and row["slots"] == sum(kinds.values())
    assert row["fits"] == (mapped["cores"] <= mapped["limits"]["cores_per_chip"])


def test_budget_and_map_say_the_same_of_drawn_layouts(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration without weights is compiled with drawn ones; a model of those weights maps to the same cores."""
    walks = (None, ("downsample1_1", "downsample1_2", "downsample2", "ConvBlock2_1.0", "downsample3", "mrm.3"))
    for templates, walk in ((1, walks[0]), (3, walks[0]), (2, walks[1])):
        config = tiny_config(templates) if walk is None else tiny_config(templates, walk, dims=(8, 24, 40, 24))
        model = SpikeTrack(config)
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({k: torch.as_tensor(v) for k, v in draw_state(config.name, shapes).items()})
        path = tmp_path / f"drawn{templates}{len(config.walk)}" / "drawn.safetensors"
        path.parent.mkdir()
        save_model(model, config, path)
        path.with_name("config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
        (row,) = ask(capsys, "budget", path.with_name("config.json"))["rows"]
        assert row["cores"] == ask(capsys, "map", path)["detail"]["cores"] > 0


def test_official_small_layout_is_counted_exactly() -> None:
    """17,070,080 NI-LIF outputs and 3,524.8 MMAC of a search frame."""
    found = budget(TrackerConfig.official("s256_t1"), LOIHI2)
    assert found.neurons == 17_070_080 and found.macs == pytest.approx(3524.8e6, rel=1e-5)
    assert not found.fits(LOIHI2)


def test_the_bundled_nano_model_takes_half_of_a_chip() -> None:
    """66 cores of 120, relays included."""
    config = read_config(models_dir() / "spiketrack-nano" / "config.json")
    found = budget(config, LOIHI2)
    assert found.fits(LOIHI2) and found.free(LOIHI2) == pytest.approx(0.457, abs=0.001) and found.cores == 66
    assert found.slots == 233_436 + 33_173 and found.words < found.words_with_copies
    assert found.cores_alone > found.cores, "neighbours that share a core save cores"


def test_a_board_offers_all_its_chips_and_a_tight_core_is_named() -> None:
    config = tiny_config()
    board = Room.of(resolve_target("kapoho_point"))
    assert (board.chips, board.cores) == (8, 8 * 120)
    assert budget(config, board) == budget(config, LOIHI2)
    narrow = Room.of(Target("narrow", loihi2(neurons_per_core=5, neurons_per_core_compiler=5)))
    found = budget(config, replace(narrow, chips=10**6))
    assert found.over and found.cores < 10**6 * 120 and not found.fits(replace(narrow, chips=10**6))
