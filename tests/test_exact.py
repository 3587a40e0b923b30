"""Dyadic pixels: a tracker of one template that is its integer program to the last bit, in float32 and float64."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _evaluation import command, dataset
from _training import WALK, lively_model, noise, sample, small_config, write_data
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.cli.train import train
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.compile import Options, compile
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint, save_model
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.pixels import MEAN, STD, Normalisation, normalise, pixel_units
from spiketrack_deploy.tracking.program_network import ProgramNetwork
from spiketrack_deploy.training.grow import renormalised
from spiketrack_deploy.training.integer_model import IntegerModel
from spiketrack_deploy.training.units import lowered

DYADIC = Normalisation((124.0, 124.0, 124.0), (64.0, 64.0, 64.0))
MIXED = Normalisation((124.5, 116.25, 104.0), (64.0, 32.0, 128.0))
"""A channel each of its own."""


def of(model: SpikeTrack, normalisation: Normalisation | None) -> SpikeTrack:
    """The same weights under another normalisation."""
    out = SpikeTrack(replace(model.config, normalisation=normalisation)).double()
    out.load_state_dict(model.state_dict())
    return out.eval()


@pytest.mark.parametrize(("normalisation", "stride"), [(DYADIC, 2), (MIXED, 2), (MIXED, 4)])
def test_float_trackers_equal_the_program(normalisation: Normalisation, stride: int) -> None:
    """Integer-trained weights: logits of the float32 tracker, the float64 tracker and the program in every bit."""
    walk = tuple(stage for stage in WALK if stride == 2 or stage != "downsample1_2")
    model = renormalised(of(lively_model(walk=walk), normalisation), None)
    assert model.encoder.downsample1_1.encode_conv.stride == (stride, stride)
    trained = IntegerModel(model.float(), [sample(3), sample(4)])
    with torch.no_grad():
        for parameter in trained.net.parameters():  # as after steps of training: masters off every grid
            parameter.add_(0.003 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    deployed = trained.deployed()
    program = lowered(trained.deployed())
    networks = [TorchNetwork(deployed, dtype=torch.float32), TorchNetwork(trained.deployed(), dtype=torch.float64)]
    networks += [ProgramNetwork(program, make_engine("sim", program), deployed.config)]
    lively = 0
    for seed in range(6):
        template, search = noise(seed, 32, 32), noise(seed + 100, 32, 32)
        search[: seed * 3] = 0  # padding is black
        answers = []
        for network in networks:
            network.set_templates([template])
            maps = network.search(search)
            answers.append([maps.score, maps.size, maps.offset])
        assert all(np.array_equal(a, b) for other in answers[1:] for a, b in zip(answers[0], other))
        lively += len(np.unique(answers[0][2]))
    assert lively > 20


def test_another_normalisation_changes_the_border_alone() -> None:
    """What the first convolution says of raw pixels is the same inside a crop; a weight of a wrong channel is not."""
    before = lively_model().double()
    after = renormalised(of(before, MIXED), None)
    crop = noise(5, 32, 32)
    outs = []
    for model in (before, after):
        stem, pixels = model.encoder.get_submodule("downsample1_1"), normalise(crop, model.config.normalisation)
        outs.append(stem.encode_bn(stem.encode_conv(torch.from_numpy(pixels)[None])).detach())
    inner, border = outs[0][..., 2:-2, 2:-2] - outs[1][..., 2:-2, 2:-2], outs[0] - outs[1]
    assert inner.abs().max() < 1e-6 < 1e-3 < border.abs().max() and outs[0].std() > 0.1
    back = renormalised(of(after, None), MIXED)
    for key, value in before.state_dict().items():
        assert torch.allclose(value, back.state_dict()[key], atol=1e-6), key


@given(st.tuples(*[st.floats(0, 255)] * 3), st.tuples(*[st.floats(1, 1024)] * 3))
@settings(max_examples=30, deadline=None)
def test_pixels_are_what_the_definition_says(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    crop = noise(1, 4, 6)
    found = normalise(crop, Normalisation(mean, std))
    wanted = (crop.astype(np.float64) - mean) / std
    assert np.array_equal(found, wanted.transpose(2, 0, 1))
    units = pixel_units(None)
    assert np.allclose(units, (255 * np.array(MEAN), 255 * np.array(STD)), rtol=1e-15)


def test_what_is_dyadic() -> None:
    assert DYADIC.dyadic and MIXED.dyadic
    for mean, std in ((124.1, 64), (124, 65), (124 + 2**-9, 64), (124, 1024 / 3)):
        assert not Normalisation((mean, 124, 124), (64, std, 64)).dyadic
    assert Normalisation((0, 255, 127.5), (1, 2, 1024)).dyadic


BAD = {
    "5": "normalisation must be an object of mean and std, not 5",
    '{"mean": [124, 124, 124]}': "normalisation: std is missing",
    '{"mean": [124, 124], "std": [64, 64, 64]}': "normalisation: mean",
    '{"mean": [300, 124, 124], "std": [64, 64, 64]}': "mean must be three numbers of 0 to 255",
    '{"mean": [1, 1, 1], "std": [0, 64, 64]}': "std three of 1 to 1024",
    '{"mean": [1, 1, "a"], "std": [1, 64, 64]}': "normalisation: mean.*valid number",
    '{"mean": [1, 1, 1], "std": [1, 1, 1], "sdt": 1}': "sdt is no known entry; known are mean, std",
}


@pytest.mark.parametrize("text", BAD)
def test_illegal_normalisations_are_one_sentence(text: str) -> None:
    data = json.loads(json.dumps(small_config().to_dict())[:-1] + f', "normalisation": {text}}}')
    with pytest.raises(InputError, match=BAD[text]):
        TrackerConfig.from_dict(data)


def test_exact_training_by_the_command(tmp_path: Path, capsys) -> None:
    """Pixels that are not dyadic, float stage and T = 3 are refused; else one step makes a model whose float tracker
    and program give the same boxes, and whose NIR files carry the normalisation."""
    data, start, steps = write_data(tmp_path / "data"), tmp_path / "start.safetensors", ("--steps", 1, "--quiet")
    save_model(lively_model(), small_config(), start)
    integer = ("--stage", "integer", "--set", "exact=true", "--set", "templates_per_step=2", *steps)
    cases = {
        "published": (
            small_config(),
            integer,
            "needs a dyadic normalisation of pixels, its configuration has the publ",
        ),
        "std": (small_config(normalisation={"mean": [9, 9, 9], "std": [60, 60, 60]}), integer, "has {'mean': [9"),
        "float": (small_config(), ("--set", "exact=true", *steps), "exact needs the integer stage"),
        "three": (small_config(templates=3, normalisation=DYADIC.to_dict()), integer, "for one template"),
    }
    for name, (config, options, says) in cases.items():
        (tmp_path / "c.json").write_text(json.dumps(config.to_dict()))
        arguments = [str(a) for a in (tmp_path / "c.json", "--data", data, "-o", tmp_path / name, *options)]
        refused = CliRunner().invoke(train, arguments).exception
        assert isinstance(refused, InputError) and says in str(refused) and not (tmp_path / name).exists()
    (tmp_path / "c.json").write_text(json.dumps(small_config(normalisation=DYADIC.to_dict()).to_dict()))
    run = tmp_path / "run"
    arguments = [str(a) for a in (tmp_path / "c.json", "--data", data, "--start", start, "-o", run, *integer)]
    assert CliRunner().invoke(train, arguments).exit_code == 0
    assert load_checkpoint(run)[1].normalisation == DYADIC
    dataset(tmp_path / "clips", ("a", "b"), frames=9)
    names = [f"{run}@{engine}" for engine in ("sim", "float")]
    code, out, _ = command(capsys, "--compare", *names, tmp_path / "clips", "-o", tmp_path / "scored", "--json")
    found = json.loads(out)["trackers"].values()
    assert code == 0 and [t["against_first"]["same_boxes"] for t in found if "against_first" in t] == [2]
    files = (tmp_path / "graph.nir", tmp_path / "graph.json")
    compile(run / "model.safetensors", Options(files=files))
    assert '"normalise_pixels"' in files[1].read_text("utf-8")
