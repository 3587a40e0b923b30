"""Making trackers.

This module decides how a configuration and a recipe are named and what a training returns. It must not know how a step
is made; heavy parts are imported when the verb runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiketrack_deploy.api.asked import Place, as_path
from spiketrack_deploy.api.results import AdaptResult, LoopResult, TrainResult
from spiketrack_deploy.errors import UsageError, interruption_leaves
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import DEFAULT_MODEL, find_source
from spiketrack_deploy.inputs.untrusted import read_json

if TYPE_CHECKING:
    from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig


def train(
    config: Place,
    data: Sequence[Place],
    out: Place,
    *,
    recipe: Place | Mapping[str, Any] | None = None,
    entries: Mapping[str, Any] | None = None,
    hold_out: Sequence[str] = (),
    start: Place | None = None,
    grow: bool = False,
    weights: Sequence[float] | None = None,
    tell: Tell | None = None,
) -> TrainResult:
    """Train the network of ``config`` on the folders ``data`` and leave it in the run folder ``out``.

    ``config``: a ``config.json``, the name of a bundled model or an official layout such as ``s256_t1``. ``recipe``: a
    JSON file or a mapping of recipe entries; ``entries`` go before it; the rest keep their defaults (docs/training.md).
    ``weights``: share of draws of each folder against the others. ``hold_out``: clips for validation, by name or by the
    folder of ``data`` they lie in. ``start``: weights to begin from; with ``grow`` they may be of another crop size
    or lack blocks. The same folder and settings resume an interrupted run; ``out`` then also holds ``history.json`` and
    ``curves.png``. UsageError (2), InputError (3).
    """
    from spiketrack_deploy.training.recipe import Recipe
    from spiketrack_deploy.training.session import Request
    from spiketrack_deploy.training.session import train as run

    if grow and start is None:
        raise UsageError("--grow needs --start with the weights to grow from")
    chosen = Recipe.from_dict({**_recipe_entries(recipe), **(entries or {})})
    folder = Path(out)
    folders = tuple(Path(one) for one in data)
    shares = None if weights is None else tuple(weights)
    request = Request(find_config(config), chosen, folders, folder, tuple(hold_out), as_path(start), grow, shares)
    with _run_of(folder):
        model = run(request, tell or _silent)
    history = _history(folder)
    return {
        "model": str(model),
        "run": str(folder),
        "recipe": chosen.to_dict(),
        "last": history[-1] if history else None,
    }


def adapt(
    model: Place,
    videos: Sequence[Place | tuple[Place, Sequence[float] | None]],
    out: Place,
    *,
    method: str = "experts",
    experts: int = 4,
    rank: int = 4,
    layers: Sequence[str] = (),
    hold_out: float = 0.3,
    agree: float = 0.6,
    confident: float = 0.3,
    max_frames: int = 600,
    seed: int = 1,
    recipe: Place | Mapping[str, Any] | None = None,
    entries: Mapping[str, Any] | None = None,
    tell: Tell | None = None,
) -> AdaptResult:
    """Adapt a deployed SpikeTrack (a bundled model or its file) to the scene of ``videos``; ``out``: a model folder.

    A video is a file, a folder of frames, or a folder or zip of sequences with ground truth; with the target's first
    box (``(place, box)``) or one line of ground truth its labels are the tracker's own, where the way there and back
    overlap by ``agree`` and both are ``confident``. The last ``hold_out`` of every video is scored, not trained on.
    ``method``: ``experts`` of ``rank`` on the 1x1 convolutions of ``layers`` (blocks; all), merged at the end;
    ``lora``, as many numbers in one low-rank matrix a layer; ``full``, every weight. Same call, same bits; the same
    folder goes on where it stopped. UsageError (2), InputError (3).
    """
    from spiketrack_deploy.trackers.opening import demand_program
    from spiketrack_deploy.training.adaptation import Request, recipe_for
    from spiketrack_deploy.training.adaptation import adapt as run
    from spiketrack_deploy.training.experts import METHODS, Plan
    from spiketrack_deploy.training.scenes import Checks

    if method not in METHODS:
        raise UsageError(f"{method!r} is no way to adapt; choose one of {', '.join(METHODS)}")
    source = find_source(str(model))
    demand_program(source.path, "adaptation")
    plan = Plan(method, experts, rank, tuple(layers), seed)
    chosen = recipe_for(plan, {**_recipe_entries(recipe), **(entries or {})})
    given = tuple((Path(v[0]), v[1]) if isinstance(v, tuple) else (Path(v), None) for v in videos)
    checks = Checks(agree, confident, max_frames)
    request = Request(source.path, given, Path(out), plan, chosen, checks, hold_out)
    with _run_of(Path(out)):
        found = run(request, tell or _silent)
    return {"model": str(Path(out) / "model.safetensors"), "run": str(out), "recipe": chosen.to_dict(), **found}  # type: ignore[typeddict-item]


@contextmanager
def _run_of(folder: Path) -> Iterator[None]:
    """A training in ``folder``: curves are drawn however it ends, and an interruption says what is saved."""
    from spiketrack_deploy.report.training_curves import draw_curves
    from spiketrack_deploy.training.runs import STATE_FILE

    def left() -> str:
        saved = "what was trained is saved" if (folder / STATE_FILE).exists() else "nothing was trained yet"
        return f"{saved}, the same command goes on from there"

    try:
        with interruption_leaves(left):
            yield
    finally:
        if history := _history(folder):
            draw_curves(history, folder / "curves.png")


def choose_loop(
    model: Place,
    data: Sequence[Place],
    out: Place,
    *,
    hold_out: Sequence[str],
    draws: int = 64,
    seed: int = 1,
    tell: Tell | None = None,
) -> LoopResult:
    """Choose the rule of a trained tracker's loop on held-out clips and write the model with it to the folder ``out``.

    ``draws`` rules, the published one first, are scored on the clips of ``hold_out`` (names, or folders of ``data``) by
    the integer program; the best weighted mean is kept where it is no luck. The same call goes on where it stopped.
    Test sequences are not for this. UsageError (2), InputError (3).
    """
    from spiketrack_deploy.training.choose_loop import Choice, choose

    folders = tuple(Path(one) for one in data)
    choice = Choice(find_source(str(model)).path, folders, tuple(hold_out), draws, seed, Path(out))
    found = choose(choice, tell or _silent)
    return {"output": str(out), **found}  # type: ignore[typeddict-item]


def _silent(what: str, done: int, total: int) -> None:
    """Nobody listens."""


def find_config(given: Place | None) -> TrackerConfig:
    """The configuration that ``given`` names: a bundled model, an official layout, a file; None: the default model."""
    from spiketrack_deploy.inputs.resources import find_model, model_names, models_dir
    from spiketrack_deploy.trackers.opening import demand_program
    from spiketrack_deploy.trackers.spiketrack.checkpoint import read_config
    from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_CONFIGS, TrackerConfig

    name = str(DEFAULT_MODEL if given is None else given)
    if name in model_names():
        demand_program(find_model(name), "training")
    bundled = models_dir() / name / "config.json"
    if Path(name).name == name and bundled.is_file():
        return read_config(bundled)
    return TrackerConfig.official(name) if name in OFFICIAL_CONFIGS else read_config(name)


def _recipe_entries(recipe: Place | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if recipe is None or isinstance(recipe, Mapping):
        return recipe or {}
    return read_json(Path(recipe), remedy="a recipe is a small JSON object").table()


def _history(folder: Path) -> list[dict[str, Any]]:
    from spiketrack_deploy.training.runs import HISTORY_FILE

    try:
        found: list[dict[str, Any]] = json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found
