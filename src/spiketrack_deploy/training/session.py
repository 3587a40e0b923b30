"""A training session from settings to a network on disk: the verb behind ``spiketrack train``.

This module decides what a session needs and leaves behind. It must not know how a step is made nor print anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.compile import compile
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint, save_model
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.tracking.pixels import require_dyadic
from spiketrack_deploy.training.budget import drawn
from spiketrack_deploy.training.grow import grown, renormalised
from spiketrack_deploy.training.pairs import Sampler
from spiketrack_deploy.training.penalty import SpikePrices
from spiketrack_deploy.training.prices import spike_prices
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.runs import data_digest, open_run, settings
from spiketrack_deploy.training.stages import FloatStage, IntegerStage, Stage
from spiketrack_deploy.training.teacher import Teacher, open_teacher, teacher_file
from spiketrack_deploy.training.trainer import CALIBRATION_SAMPLES, Job, Trainer, new_model
from spiketrack_deploy.training.widen import widened
from spiketrack_deploy.training.workers import Crew, lead

MODEL_FILE = "model.safetensors"
_SKIPPED = 20
"""What cannot be used of the data, one by one."""
PROCESS_BYTES = 150 << 20
"""What a worker takes before it has done anything: Python and PyTorch."""


@dataclass(frozen=True, slots=True)
class Request:
    """``data``: folders; ``weights``: their shares of draws. ``held_out``: clips for validation, by name or by the
    folder they lie in, never trained on. ``start``: weights to begin
    from; with ``grow`` they may be of smaller crops or fewer blocks."""

    config: TrackerConfig
    recipe: Recipe
    data: tuple[Path, ...]
    folder: Path
    held_out: tuple[str, ...] = ()
    start: Path | None = None
    grow: bool = False
    weights: tuple[float, ...] | None = None
    validate_every: float = 300.0
    save_every: float = 90.0
    report_every: int = 50


def _silent(what: str, done: int, total: int) -> None:
    """Followers do not report."""


def train(request: Request, tell: Tell = _silent) -> Path:
    """Run or resume a training; returns the file of the trained network inside the run folder.

    Raises :class:`InputError` for unusable data, a run folder of other settings, weights of another configuration, and
    a step that cannot fit this machine's memory.
    """
    _check_memory(request.config, request.recipe)
    if request.recipe.exact:
        require_dyadic(request.config.normalisation)
        if request.config.templates > 1:
            raise InputError("recipe: exact is for one template (T = 1): membranes of several keep real decays")
    open_teacher(request.recipe, request.config)  # refuses before anything is made
    _prices(request.config, request.recipe)
    return Path(
        lead(request.recipe.workers, _work, (request, tell if request.recipe.workers == 1 else _LeaderOnly(tell)))
    )


def _check_memory(config: TrackerConfig, recipe: Recipe) -> None:
    """Refuse what is hopeless; the count is from below: every crop, and 2 bytes for each output of each stage."""
    values = sum(config.width(stage) * config.side(stage) ** 2 for stage in config.walk)
    crops = recipe.templates_per_step * (config.templates + recipe.searches)
    needed = crops * (3 * config.resolution**2 + 2 * values) + recipe.workers * PROCESS_BYTES
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if torch.cuda.is_available():
        memory += torch.cuda.get_device_properties(0).total_memory
    if needed > memory:
        raise InputError(
            f"recipe: a step of {recipe.templates_per_step} templates with {recipe.searches} searches each, by "
            f"{recipe.workers} workers, needs {needed / 1e9:,.0f} GB or more, this machine has {memory / 1e9:,.0f} GB; "
            "lower templates_per_step, searches or workers"
        )


class _LeaderOnly:
    """Carries ``tell`` in the leader and nothing into spawned followers, whose copy is made by pickling."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def __call__(self, what: str, done: int, total: int) -> None:
        self._tell(what, done, total)

    def __reduce__(self) -> tuple[type, tuple[Tell]]:
        return _LeaderOnly, (_silent,)


def _digest(file: Path | None) -> str | None:
    import hashlib

    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()


def _work(crew: Crew, request: Request, tell: Tell) -> str:
    catalogue, held_out = read_folders(request.data, request.weights).split(request.held_out)
    if crew.leads:
        _tell_skipped(catalogue.skipped, tell)
    store = FrameStore()
    try:
        sampler = Sampler(catalogue, request.config, request.recipe, store)
        model = new_model(request.config, request.recipe.seed)
        if request.start is not None:
            model = _start(request.start, request.config, model if request.grow else None)
        wanted = settings(request.config, request.recipe, data_digest(catalogue), _digest(request.start))
        if (taught := teacher_file(request.recipe)) is not None:
            wanted["teacher"] = _digest(taught)
        # The leader makes the folder; the others meet it there.
        saved = open_run(request.folder, wanted) if crew.leads else None
        crew.average((), 0.0)
        saved = saved if crew.leads else open_run(request.folder, wanted)
        job = Job(
            request.config,
            request.recipe,
            request.folder,
            request.save_every,
            request.validate_every,
            request.report_every,
            trained=request.start is not None,
        )
        stage = _stage(model, request.recipe, sampler)
        network = open_teacher(request.recipe, request.config)
        scenes = (request.config, request.recipe, catalogue, store)
        teacher = None if network is None else Teacher(network, stage.module, *scenes)
        tell = tell if crew.leads else _silent
        prices = _prices(request.config, request.recipe)
        trained = Trainer(job, crew, stage, sampler, held_out, store, saved, tell, teacher, prices).run()
    finally:
        store.close()
    out = request.folder / MODEL_FILE
    if crew.leads:
        save_model(trained, request.config, out, compact=request.recipe.stage == "integer")
    return str(out)


def _prices(config: TrackerConfig, recipe: Recipe) -> SpikePrices | None:
    """What a spike costs on the recipe's target, where the recipe weighs it."""
    if not recipe.energy_penalty:
        return None
    return spike_prices(compile(drawn(config)).program, resolve_target(recipe.energy_target), recipe.first_layer)


def _tell_skipped(sentences: Sequence[str], tell: Tell) -> None:
    for sentence in sentences[:_SKIPPED]:
        tell(f"skipped: {sentence}", 0, 0)
    if len(sentences) > _SKIPPED:
        tell(f"skipped: and {len(sentences) - _SKIPPED:,} more", 0, 0)


def _start(file: Path, config: TrackerConfig, fresh: SpikeTrack | None) -> SpikeTrack:
    """Weights of the same configuration, of its T = 1 relative, or with ``fresh`` of a smaller one; made for the
    configuration's pixels where theirs were normalised otherwise."""
    stored, own = load_checkpoint(file)
    if fresh is not None:
        found = grown(stored, config, fresh)
    elif config.templates > 1 and own.templates == 1:
        found = widened(load_checkpoint(file, replace(config, templates=1))[0], config)
    else:
        found = load_checkpoint(file, config)[0]
    return renormalised(found, own.normalisation)


def _stage(model: SpikeTrack, recipe: Recipe, sampler: Sampler) -> Stage:
    if recipe.stage == "float":
        return FloatStage(model)
    return IntegerStage(model, [sampler.draw(0, i) for i in range(CALIBRATION_SAMPLES)])
