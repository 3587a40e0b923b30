"""A program for a model that comes without one: lowered as an export does it, calibrated on the bundled clip.

This module decides what a program is calibrated on: never the sequences it is evaluated on. It must not know scores.
"""

from __future__ import annotations

from pathlib import Path

from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import ModelSource
from spiketrack_deploy.lowering.calibrate import Calibration
from spiketrack_deploy.program.store import save_program
from spiketrack_deploy.tracking.runs import FloatRun


def compile_model(source: ModelSource, folder: Path, tell: Tell | None = None) -> str:
    """Lower ``source`` and write the program into ``folder``; its content hash.

    Errors are those of the checkpoint (InputError) and of the lowering (FitError).
    """
    from spiketrack_deploy.frontends.spiketrack.export import build_graph
    from spiketrack_deploy.inputs.sources import find_frames
    from spiketrack_deploy.lowering.lower import lower
    from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
    from spiketrack_deploy.tracking.runs import follow_float, open_clip

    clip = find_frames(None, None, None)
    model, config = load_checkpoint(source.path)
    floats = follow_float(model, open_clip(clip, None), clip.init, tell)
    state = {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    graph, cuts = build_graph(state, config)
    if tell:
        tell(f"lowering {source.name}", 0, 0)
    calibration = {"clip": clip.path.name, "frames": [s.frame for s in floats.calibration]}
    meta = {"config": config.to_dict(), "calibration": calibration}
    return save_program(lower(graph, cuts, _calibration(floats), meta=meta).program, folder)


def _calibration(floats: FloatRun) -> Calibration:
    return Calibration(
        {"template": [floats.templates], "search": [s.image for s in floats.calibration]},
        {"template": [floats.template_spikes], "search": [s.spikes for s in floats.calibration]},
    )
