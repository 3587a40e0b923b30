"""What a training run keeps on disk: its settings, its resumable state, its history.

This module decides the files of a run folder and refuses a folder that belongs to another run. It must not know how a
step is made.

    run.json        configuration, recipe and data digest; written once, compared on every resume
    state.pt        weights, averaged weights, optimiser, step, seconds, history, open sums; replaced as a whole
    history.json    the same history for people and plots
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spiketrack_deploy.datasets.catalogue import Catalogue
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import read_json
from spiketrack_deploy.inputs.whole_file import whole, write_whole
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.training.recipe import Recipe

SCHEMA = 1
RUN_FILE, STATE_FILE, HISTORY_FILE = "run.json", "state.pt", "history.json"
_FREE = ("workers", "minutes", "steps", "half_precision")
"""Recipe entries that a resumed run may change: they decide how long and on what, not what is learned."""


@dataclass(slots=True)
class RunState:
    """Everything that a resumed run needs; tensors on the CPU."""

    step: int = 0
    seconds: float = 0.0
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)


def data_digest(catalogue: Catalogue) -> str:
    """SHA-256 over the names and boxes of everything that can be drawn, whatever folder it lies in."""
    digest = hashlib.sha256()
    for clip in catalogue.clips:
        digest.update(
            f"{clip.name} {len(clip.frames)} {clip.weight:.6f} ".encode() + clip.boxes.astype("<f8").tobytes()
        )
    for picture in catalogue.pictures:
        digest.update(f"{picture.frame.name} {picture.weight:.6f} {[t.box for t in picture.targets]}".encode())
    return digest.hexdigest()


def settings(config: TrackerConfig, recipe: Recipe, digest: str, start: str | None) -> dict[str, Any]:
    """What identifies a run, JSON-ready; ``start`` is the digest of the weights it began from."""
    return {"schema": SCHEMA, "config": config.to_dict(), "recipe": recipe.to_dict(), "data": digest, "start": start}


def open_run(folder: Path, wanted: dict[str, Any]) -> RunState | None:
    """The state of an earlier part of the same run, or None in a new folder.

    :class:`InputError` names the first setting in which an existing folder differs, and a state that cannot be read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"run folder {folder} cannot be made: {error}") from error
    file = folder / RUN_FILE
    if not file.exists():
        if any(folder.iterdir()):
            raise InputError(f"folder {folder} is not empty and holds no training run; choose another one for the run")
        write_json(file, wanted)
        return None
    found = read_json(file, remedy="choose another folder for the run").table()
    if isinstance(recipe := found.get("recipe"), dict):
        found["recipe"] = Recipe.from_dict(recipe).to_dict()  # entries that are newer than the run have their defaults
    difference = _difference(found, wanted)
    if difference:
        raise InputError(
            f"folder {folder} belongs to another run: {difference}; choose another folder, or repeat its settings"
        )
    return _load_state(folder / STATE_FILE)


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    for part, mine in wanted.items():
        theirs = found.get(part)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            for key in mine:
                if theirs.get(key) != mine[key] and not (part == "recipe" and key in _FREE):
                    return f"its {part}.{key} is {theirs.get(key)!r}, not {mine[key]!r}"
        elif theirs != mine:
            return f"its {part} is {str(theirs)[:16]}, not {str(mine)[:16]}"
    return ""


def _load_state(file: Path) -> RunState | None:
    if not file.exists():
        return None
    try:
        data = torch.load(file, map_location="cpu", weights_only=True)
        return RunState(**data)
    except (OSError, RuntimeError, TypeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"training state {file} cannot be read: {error}; delete it to start this run over") from error


def save_run(folder: Path, state: RunState) -> None:
    """Replace state and history; an interruption leaves the earlier ones whole."""
    names = ("step", "seconds", "model", "average", "optimiser", "history", "sums")
    try:
        with whole(folder / STATE_FILE) as part:
            torch.save({name: getattr(state, name) for name in names}, part)
    except RuntimeError as error:  # PyTorch's own word for a disk that is full
        raise InputError(f"training state cannot be written to {folder}: {error}") from error
    write_json(folder / HISTORY_FILE, state.history)


def write_json(file: Path, data: object) -> None:
    """Write whole or not at all."""
    write_whole(file, json.dumps(data, indent=1, sort_keys=True) + "\n")
