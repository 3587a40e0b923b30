"""The bundled untrained network: reproducible, says what it is, and every neuron fires."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
from spiketrack_deploy.trackers.spiketrack.make_untrained import UNTRAINED, write_untrained
from spiketrack_deploy.trackers.spiketrack.record import record_spikes
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.loop import Tracker
from spiketrack_deploy.tracking.video import open_frames

HERE = Path(__file__).parent
BUNDLED = HERE.parent / "models" / "spiketrack-untrained"


def test_the_bundled_files_are_reproduced(tmp_path: Path) -> None:
    write_untrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in BUNDLED.iterdir())
    for name in ("MODEL.md", "config.json"):
        assert (tmp_path / name).read_text() == (BUNDLED / name).read_text(), name
    made, bundled = (load_checkpoint(p)[0].state_dict() for p in (tmp_path, BUNDLED))
    # The fitted statistics may differ in the last bit on another machine; the drawn weights may not.
    for key, value in bundled.items():
        same = (
            torch.allclose(made[key], value, rtol=1e-5, atol=1e-6)
            if "running" in key
            else torch.equal(made[key], value)
        )
        assert same, key


def test_the_card_says_untrained_first() -> None:
    assert (BUNDLED / "MODEL.md").read_text().splitlines()[0].startswith("UNTRAINED")
    assert (BUNDLED / "model.safetensors").stat().st_size < 2_000_000


def test_every_neuron_fires_and_templates_update_on_a_clip() -> None:
    model, config = load_checkpoint(BUNDLED)
    assert config == UNTRAINED
    network = TorchNetwork(model, dtype=torch.float32)
    tracker, frames = Tracker(network), iter(open_frames(HERE / "golden" / "clip"))
    with record_spikes(model) as template:
        tracker.init(next(frames), (68, 96, 44, 48))
    with record_spikes(model) as search:
        tracker.track(next(frames))
    assert (len(template), len(search)) == (122, 183)
    silent = [name for name, n in [*template.items(), *search.items()] if not int(n.sum(dtype=torch.int64))]
    assert silent == []
    steps = [tracker.track(frame) for frame in frames]
    assert sum(step.updated for step in steps) >= 1
    assert all(np.isfinite(step.box).all() for step in steps)
