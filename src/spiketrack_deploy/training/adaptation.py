"""A deployed tracker adapted to a user's scene: the verb behind ``spiketrack adapt``.

This module decides what an adaptation trains on, what it measures and what it leaves behind; the run itself (steps,
state on disk, going on) is a training's. It must not print anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from spiketrack_deploy.datasets.catalogue import Catalogue, FrameStore
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.whole_file import file_digest
from spiketrack_deploy.trackers.spiketrack.checkpoint import CONFIG_FILE, MODEL_FILE, load_checkpoint, save_model
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.training.experts import AdapterStage, Plan, block_of, count_trained, pointwise
from spiketrack_deploy.training.pairs import Sampler
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.runs import data_digest, open_run, settings, write_json
from spiketrack_deploy.training.scenes import Checks, Scene, Video, labelled, read_clips
from spiketrack_deploy.training.stages import IntegerStage
from spiketrack_deploy.training.trainer import CALIBRATION_SAMPLES, Job, Trainer
from spiketrack_deploy.training.validate import loop_auc, pair_iou
from spiketrack_deploy.training.workers import Crew

RESULT_FILE = "adapted.json"
MERGE_SAMPLES = 32
"""Samples of the scene whose mean routing weights the merge takes."""
RECIPE = {
    "stage": "integer", "steps": 300, "templates_per_step": 8, "searches": 3, "ema": 0.98, "video": 1.0, "paste": 0.0,
    "distractor": 0.0, "least_side": 8.0, "half_precision": False, "weight_decay": 0.0,
}  # fmt: skip
RATES = {"experts": 2e-3, "lora": 2e-3, "full": 2e-4}
"""Learning rates; adapters begin at 0 and stand a larger one."""


@dataclass(frozen=True, slots=True)
class Request:
    """``model``: weights; ``hold_out``: share of every video, from its end, that is scored and not trained on."""

    model: Path
    videos: tuple[Video, ...]
    folder: Path
    plan: Plan
    recipe: Recipe
    checks: Checks = field(default_factory=Checks)
    hold_out: float = 0.3
    save_every: float = 90.0
    report_every: int = 50


@dataclass(frozen=True, slots=True)
class _Scenes:
    scenes: tuple[Scene, ...]
    first: Catalogue
    last: tuple[VideoSequence, ...]


def recipe_for(plan: Plan, entries: dict[str, Any]) -> Recipe:
    """The recipe of an adaptation; ``entries`` go before its defaults. :class:`InputError` for what it cannot be."""
    recipe = Recipe.from_dict({**RECIPE, "learning_rate": RATES[plan.method], "seed": plan.seed, **entries})
    if recipe.stage != "integer" or recipe.workers != 1 or recipe.teacher:
        raise InputError("an adaptation is of the integer stage, of one worker, without a teacher; leave these out")
    return recipe


def adapt(request: Request, tell: Tell) -> dict[str, Any]:
    """Run or resume an adaptation; returns what ``adapted.json`` holds.

    :class:`InputError`: unusable videos or weights, layers that are not there, a run folder of something else.
    """
    weights, plan = request.model / MODEL_FILE if request.model.is_dir() else request.model, request.plan
    model, config = load_checkpoint(weights)
    model = model.float()
    adapted = pointwise(model, plan.layers) if plan.method != "full" else {}
    with closing(FrameStore()) as store:
        found = _scenes(request, model, store, tell)
        sampler = Sampler(found.first, config, request.recipe, store)
        calibration = [sampler.draw(0, i) for i in range(CALIBRATION_SAMPLES)]
        stage = IntegerStage(model, calibration) if plan.method == "full" else AdapterStage(model, calibration, plan)
        trained = count_trained(stage.module)
        claim = settings(config, request.recipe, data_digest(found.first), file_digest(weights))
        saved = open_run(request.folder, claim | {"adaptation": asdict(plan) | {"layers": list(plan.layers)}})
        job = Job(config, request.recipe, request.folder, request.save_every, float("inf"), request.report_every)
        trainer = Trainer(job, Crew(), stage, sampler, (), store, saved, tell)
        trainer.run()
        ways = _ways(stage, trainer.average.state, sampler)
        tell("scoring the last parts of the videos", 0, 0)
        scores = _scores({"deployed": model, **ways}, found.last, store)
    result = {
        "method": plan.method,
        "trained": trained,
        "parameters": sum(p.numel() for p in model.parameters()),
        "blocks": sorted({block_of(path) for path in adapted}),
        "layers": len(adapted),
        "scenes": [_described(scene, request.hold_out) for scene in found.scenes],
        "steps": trainer.state.step,
        "seconds": trainer.state.seconds,
        "threads": torch.get_num_threads(),
        "scores": scores,
    }
    save_model(ways["quantised"], config, request.folder / MODEL_FILE, compact=True)
    write_json(request.folder / CONFIG_FILE, config.to_dict())
    write_json(request.folder / RESULT_FILE, result)
    return result


def _scenes(request: Request, model: SpikeTrack, store: FrameStore, tell: Tell) -> _Scenes:
    network = TorchNetwork(model, dtype=torch.float32)
    clips = read_clips(request.videos, store, request.checks)
    scenes = [labelled(clip, network, store, request.checks, tell) for clip in clips]
    for scene in scenes:
        of, name = len(scene.clip.frames), scene.clip.name
        how = "boxes of its own" if scene.given else f"own boxes kept, checked over the first {scene.reached} frames"
        tell(f"{name}: {scene.kept} of {of} frames, {how}", 0, 0)
    usable = [scene for scene in scenes if scene.kept >= 2]
    if not usable:
        raise InputError(
            "no video has two frames whose boxes can be trusted; give boxes for some frames, or lower --agree and "
            "--confident"
        )
    parts = [scene.parts(request.hold_out) for scene in usable]
    last = tuple(rest for _, rest in parts if rest is not None)
    return _Scenes(tuple(scenes), Catalogue(clips=tuple(first for first, _ in parts)), last)


def _ways(stage: IntegerStage, state: dict[str, torch.Tensor], sampler: Sampler) -> dict[str, SpikeTrack]:
    """The same weights on their way to the program: with live routing, merged, as integers."""
    if isinstance(stage, AdapterStage):
        model = stage.settled(state, [sampler.draw(0, i) for i in range(MERGE_SAMPLES)])
        return {"routed": model.routed(), "merged": model.deployed(integers=False), "quantised": model.deployed()}
    trained = stage.loaded(state)
    return {"merged": trained.deployed(integers=False), "quantised": trained.deployed()}


def _scores(
    models: dict[str, SpikeTrack], clips: Sequence[VideoSequence], store: FrameStore
) -> dict[str, dict[str, float]]:
    """Pair IoU of every state, success AUC in the loop of what was and what is deployed; nothing without clips."""
    if not clips:
        return {}
    scores = {name: {"pair_iou": pair_iou(model, clips, store)} for name, model in models.items()}
    for name in ("deployed", "quantised"):
        network = TorchNetwork(models[name], dtype=torch.float32)
        aucs = [loop_auc(network, clip, store) for clip in clips]
        scores[name]["loop_auc"] = sum(aucs) / len(aucs)
    return scores


def _described(scene: Scene, share: float) -> dict[str, Any]:
    first, rest = scene.parts(share)
    return {
        "name": scene.clip.name,
        "frames": len(scene.clip.frames),
        "given": scene.given,
        "reached": scene.reached,
        "kept": scene.kept,
        "held_out": 0 if rest is None else len(rest.frames),
        "adapts": len(first.usable()) if scene.kept >= 2 else 0,
    }
