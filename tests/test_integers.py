"""No rebuilding changes an integer: digests of every operation's output, recorded once, for fixed weights and inputs.

``golden_text/integers.json`` was recorded before the rooms of the package were rebuilt: the bundled models on the
bundled clip (slow), the golden configurations and two drawn trackers. `make golden` rewrites it; its difference is then
the claim that integers changed, and wants a reason.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from _golden import GoldenSet
from _models import calibration_of, lower_graph, record_runs, tiny_config, tiny_graph, tiny_runs

from spiketrack_deploy.bundle.answers import execute
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.frontends.spiketrack.export import build_graph
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource
from spiketrack_deploy.inputs.resources import models_dir
from spiketrack_deploy.inputs.sources import find_frames, find_source
from spiketrack_deploy.lowering.calibrate import Calibration
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.tracking.runs import open_clip

RECORD = Path(__file__).with_name("golden_text") / "integers.json"
GOLDEN = Path(__file__).with_name("golden")
BUNDLED = sorted(p.parent.name for p in models_dir().glob("*/config.json"))


def digests(graph, cuts, calibration: Calibration) -> dict[str, str]:
    """Phase and operation -> first 16 digits of its output's SHA-256, on the calibration's own first inputs."""
    program = lower_graph(graph, cuts, calibration).program
    found: dict[str, str] = {}
    memories: dict[str, np.ndarray] = {}
    with ReferenceEngine(program) as engine:
        for phase in ("template", "search"):
            if phase not in program.phases:
                continue
            inputs = {"image": calibration[phase][0]["image"]} | (memories if phase == "search" else {})
            run, outputs, _ = execute(program, engine, phase, inputs)
            memories = {name: value.astype(np.int32) for name, value in outputs.items()}
            found |= {f"{phase} {op}": digest[:16] for op, digest in run.digests.items()}
    return found


def drawn(name: str) -> dict[str, str]:
    config = tiny_config(int(name[-1]))
    return digests(*tiny_graph(config), calibration_of(tiny_runs(config)))


def golden(name: str) -> dict[str, str]:
    one = GoldenSet(GOLDEN, name)
    state = one.state_dict()
    model = SpikeTrack(one.config)
    model.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()})
    runs = record_runs(model.double().eval(), [one.templates("A")], [one.crop("A", "s")[None]])
    return digests(*build_graph(state, one.config), calibration_of(runs))


def bundled(name: str) -> dict[str, str]:
    source, clip = SpikeTrackSource.read(find_source(name).path), find_frames(None, None, None)
    return digests(*source.graph(), source.follow(open_clip(clip, 24), clip.init).recorded())


CASES = [
    *(pytest.param(drawn, name, id=name) for name in ("tiny_t1", "tiny_t3")),
    *(pytest.param(golden, name, id=name) for name in ("n128_t1", "n128_t3")),
    *(pytest.param(bundled, name, id=name, marks=pytest.mark.slow) for name in BUNDLED),
]


@pytest.mark.golden
@pytest.mark.parametrize("make, name", CASES)
def test_every_operation_gives_the_recorded_integers(make, name: str) -> None:
    got = make(name)
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    if os.environ.get("SPIKETRACK_UPDATE_GOLDEN"):
        text = json.dumps(record | {name: got}, indent=0, sort_keys=True) + "\n"
        RECORD.write_text(text, encoding="utf-8")
        return
    want = record[name]
    assert set(got) == set(want), f"operations came or went: {sorted(set(got) ^ set(want))[:6]}"
    changed = [op for op in want if got[op] != want[op]]
    assert not changed, f"{len(changed)} of {len(want)} operations give other integers: {changed[:6]}"
