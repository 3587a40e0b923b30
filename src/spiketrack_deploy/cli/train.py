"""``spiketrack train`` and ``spiketrack budget``: parse, call the training package, print.

This module decides names, options and help texts. It must not compute anything; the heavy parts are imported when a
command runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spiketrack_deploy.errors import InputError, UsageError

if TYPE_CHECKING:
    from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
    from spiketrack_deploy.training.recipe import Recipe

_WIDE = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_PATH = click.Path(path_type=Path)


@click.command(context_settings=_WIDE)
@click.argument("config")
@click.option(
    "--data",
    "data",
    type=_PATH,
    multiple=True,
    required=True,
    metavar="DIR",
    help="Folder of training data (OTB, GOT-10k, LaSOT, COCO layout, or zips of these); may be given several times.",
)
@click.option(
    "-o",
    "--out",
    "folder",
    type=_PATH,
    required=True,
    help="Run folder; the same folder and settings resume an interrupted run.",
)
@click.option(
    "--recipe", "recipe_file", type=_PATH, help="JSON object of recipe entries; entries not named keep their defaults."
)
@click.option(
    "--set",
    "entries",
    multiple=True,
    metavar="NAME=VALUE",
    help="One recipe entry, e.g. --set video=0.3; goes before --recipe.",
)
@click.option(
    "--phase",
    type=click.Choice(["float", "integer"]),
    help="integer: the forward pass is the integer program's arithmetic.",
)
@click.option(
    "--start", type=_PATH, help="Weights to begin from (.safetensors or official checkpoint of the same configuration)."
)
@click.option(
    "--grow",
    is_flag=True,
    help="The weights of --start may be of another crop size or lack blocks of CONFIG; what is added begins neutral.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps of the whole run.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Budget of training time instead of --steps; such a run is not reproducible to the bit.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that share a step.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and samples.")
@click.option(
    "--synop-penalty", type=click.FloatRange(min=0), help="Loss per million synaptic operations of a search frame."
)
@click.option(
    "--hold-out", default="", metavar="NAMES", help="Comma-separated clips for validation; they are not trained on."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors (and the object of --json).")
def train(
    config: str, data: tuple[Path, ...], folder: Path, recipe_file: Path | None, entries: tuple[str, ...], start:
    Path | None,
    grow: bool, hold_out: str, as_json: bool, quiet: bool, **named: Any,
) -> None:  # fmt: skip
    """Train the network of CONFIG (a config.json, the name of a bundled model, or an official layout such as s256_t1).

    Writes model.safetensors, history.json, curves.png and the resumable state to the run folder. Ctrl-C ends the
    step at
    hand and saves; the same command goes on from there.
    """
    from spiketrack_deploy.report.training_curves import draw_curves
    from spiketrack_deploy.training.runs import HISTORY_FILE
    from spiketrack_deploy.training.session import Request, names
    from spiketrack_deploy.training.session import train as run

    if grow and start is None:
        raise click.UsageError("--grow needs --start with the weights to grow from")
    recipe = _recipe(recipe_file, entries, {key: value for key, value in named.items() if value is not None})
    request = Request(_config(config), recipe, data, folder, names(hold_out), start, grow)
    try:
        model = run(request, (lambda text: None) if quiet else _tell)
    finally:
        history = _history(folder / HISTORY_FILE)
        if history:
            draw_curves(history, folder / "curves.png")
    result = {
        "model": str(model),
        "run": str(folder),
        "recipe": recipe.to_dict(),
        "last": history[-1] if history else None,
    }
    if as_json:
        print(json.dumps(result, indent=1))
    elif not quiet:
        print(f"wrote {model}")


@click.command(context_settings=_WIDE)
@click.argument("config", required=False)
@click.option(
    "--search",
    "searching",
    is_flag=True,
    help="Count the space of layouts around CONFIG and show the best that fit (minutes).",
)
@click.option("--target", default="loihi2", show_default=True, help="Hardware profile whose limits count.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def budget(config: str | None, searching: bool, target: str, as_json: bool) -> None:
    """Count what CONFIG's search phase needs of one chip: neuron slots, stream relays, synapse words, cores, MACs."""
    from spiketrack_deploy.training import budget as counting

    chosen, limits = _config(config or "spiketrack-nano"), counting.chip_limits(target)
    rows = [counting.budget(chosen, limits)]
    if searching:
        told = (lambda done: None) if as_json or not sys.stderr.isatty() else _counted
        rows += counting.search(chosen, limits, told)
    if as_json:
        items = [{**row.to_dict(), "fits": row.fits(limits), "free": row.free(limits)} for row in rows]
        print(json.dumps({"target": target, "cores": limits.cores, "slots": limits.slots, "rows": items}, indent=1))
        return
    print(counting.table(rows, limits))
    own = rows[0]
    print(
        f"{own.name}: {own.slots + own.relays:,} of {limits.slots:,} slots, "
        f"{own.cores} of {limits.cores} cores with neighbours sharing cores ({own.cores_alone} without), "
        f"{own.words_with_copies:,} of {limits.cores * limits.words:,} words"
    )


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _counted(done: int) -> None:
    click.echo(f"\r{done} layouts counted", nl=False, err=True)


def _config(given: str) -> TrackerConfig:
    from spiketrack_deploy.inputs.resources import models_dir
    from spiketrack_deploy.trackers.spiketrack.checkpoint import read_config
    from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_CONFIGS, TrackerConfig

    bundled = models_dir() / given / "config.json"
    if Path(given).name == given and bundled.is_file():
        return read_config(bundled)
    return TrackerConfig.official(given) if given in OFFICIAL_CONFIGS else read_config(given)


def _recipe(file: Path | None, entries: tuple[str, ...], named: Mapping[str, Any]) -> Recipe:
    from spiketrack_deploy.training.recipe import Recipe

    values: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"recipe {file} cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise InputError(f"recipe {file} must be a JSON object")
        values.update(found)
    for entry in entries:
        name, sign, text = entry.partition("=")
        if not sign:
            raise UsageError(f"--set takes NAME=VALUE, not {entry!r}")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return Recipe.from_dict({**values, **named})


def _history(file: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found
