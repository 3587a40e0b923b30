"""A program behind the tracking loop: crops to maps, counts kept, template updates, the dequantised twin's maps."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.engines.sim import SimEngine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.loop import Tracker
from spiketrack_deploy.tracking.program_network import ProgramNetwork, spike_activity

from _models import calibration_of, lower_graph, picture, tiny_config, tiny_graph, tiny_model, tiny_runs  # isort: skip
from _twin import dequantised_twin  # isort: skip


@functools.lru_cache(maxsize=4)
def lowered(templates: int):
    config = tiny_config(templates, update_interval=2, update_threshold=0.0)
    return config, lower_graph(*tiny_graph(config), calibration_of(tiny_runs(config))).program


def crop(seed: int, side: int) -> np.ndarray:
    return np.ascontiguousarray(picture(seed, side).transpose(1, 2, 0))


@pytest.mark.parametrize("templates", [1, 3])
def test_lowered_tracker_is_equal_on_sim_and_reference(templates: int) -> None:
    config, program = lowered(templates)
    image = np.stack([picture(t, config.resolution) for t in range(templates)])
    memories = ReferenceEngine(program).run("template", {"image": image}).outputs
    frames = [("template", {"image": image})]
    frames += [("search", {"image": picture(50 + i, config.resolution)[None], **memories}) for i in range(2)]
    compare(ReferenceEngine(program), SimEngine(program, threads=1), program, frames).demand()


def test_maps_are_those_of_the_dequantised_float64_twin() -> None:
    """At T = 1 nothing is approximate after weight rounding: logits agree to the last float64 bits."""
    config, program = lowered(1)
    network = ProgramNetwork(program, SimEngine(program, threads=1), config)
    twin = TorchNetwork(dequantised_twin(tiny_model(config), program), config)
    for one in (network, twin):
        one.set_templates([crop(1, config.resolution)])
    found, expected = network.search(crop(2, config.resolution)), twin.search(crop(2, config.resolution))
    for name in ("score", "size", "offset"):
        assert np.allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-12), name


@pytest.mark.parametrize("templates", [1, 3])
def test_loop_counts_every_frame_and_every_update(templates: int) -> None:
    config, program = lowered(templates)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (90, 120, 3)).astype(np.uint8) for _ in range(6)]
    boxes = {}
    for name, engine in (("sim", SimEngine(program, threads=1)), ("reference", ReferenceEngine(program))):
        network = ProgramNetwork(program, engine, config)
        tracker = Tracker(network)
        tracker.init(frames[0], (30.0, 20.0, 40.0, 30.0))
        steps = [tracker.track(frame) for frame in frames[1:]]
        boxes[name] = [step.box for step in steps]
        updates = 1 + sum(step.updated for step in steps)
        assert len(network.counts["search"]) == 5 and len(network.counts["template"]) == updates
        assert updates == (1 if templates == 1 else 3), "every second frame updates three templates"
        assert all(list(c) == [op.name for op in program.phases["search"].ops] for c in network.counts["search"])
        assert all(0 < activity < 1 for activity in network.activity)
    assert boxes["sim"] == boxes["reference"]


def test_uncounted_frames_have_no_activity() -> None:
    config, program = lowered(1)
    network = ProgramNetwork(program, SimEngine(program, threads=1), config, count=False)
    network.set_templates([crop(1, config.resolution)])
    network.search(crop(2, config.resolution))
    assert network.activity == [None] and spike_activity({}) is None


def test_wrong_use_is_refused_in_one_sentence() -> None:
    config, program = lowered(3)
    network = ProgramNetwork(program, ReferenceEngine(program), config)
    good = crop(1, config.resolution)
    with pytest.raises(InputError, match="no templates yet"):
        network.search(good)
    with pytest.raises(InputError, match="3 template crops, not 1"):
        network.set_templates([good])
    network.set_templates([good] * 3)
    for bad in (good[1:], good.astype(np.float64), good[..., 0]):
        with pytest.raises(InputError, match="crop must be uint8"):
            network.search(bad)
    other = tiny_config(3, resolution=64)
    with pytest.raises(InputError, match="needs"):
        ProgramNetwork(program, ReferenceEngine(program), other)
