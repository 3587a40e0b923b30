"""``spiketrack train``: parse, call the verb, print.

This module decides names, options and help texts. It must not compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spiketrack_deploy import api
from spiketrack_deploy.cli import options, printing
from spiketrack_deploy.errors import UsageError

Result = Mapping[str, Any]
_WIDE = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_PATH = click.Path(path_type=Path)


@click.command(context_settings=_WIDE)
@click.argument("config")
@click.option(
    "--data",
    "data",
    type=options.Weighed(),
    multiple=True,
    required=True,
    help="Folder of training data (OTB, GOT-10k, LaSOT, COCO layout, or zips of these); may be given several times,"
    " with a share of draws each (1 where only others state one).",
)
@click.option(
    "-o",
    "--out",
    type=_PATH,
    required=True,
    help="Run folder; the same folder and settings resume an interrupted run.",
)
@click.option("--recipe", type=_PATH, help="JSON object of recipe entries; entries not named keep their defaults.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="One recipe entry, e.g. --set video=0.3; goes before --recipe.",
)
@click.option(
    "--stage",
    type=click.Choice(["float", "integer"]),
    help="integer: the forward pass is the integer program's arithmetic.",
)
@click.option(
    "--start", type=_PATH, help="Weights to begin from (.safetensors or official checkpoint of the same configuration)."
)
@click.option(
    "--grow",
    is_flag=True,
    help="The weights of --start may be of another crop size and have other blocks than CONFIG; what is added begins "
    "neutral, what CONFIG lacks is left out.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps of the whole run.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Budget of training time instead of --steps; such a run is not reproducible to the bit.",
)
@click.option("--workers", type=options.THREADS, help="Processes that share a step.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and samples.")
@click.option(
    "--energy-penalty",
    type=click.FloatRange(min=0),
    help="Loss per mJ that the spikes of a search frame cost on the recipe's energy_target (loihi2).",
)
@click.option(
    "--hold-out",
    default="",
    metavar="NAMES",
    callback=options.names,
    help="Comma-separated clips for validation, or folders of --data for all of theirs; they are not trained on.",
)
@click.option(
    "--choose-loop",
    type=click.IntRange(min=2, max=10_000),
    metavar="RULES",
    help="Train nothing: CONFIG is a trained model; the rule of its loop is chosen among so many on held-out clips.",
)
@options.output
def train(
    config: str, data: tuple[tuple[Path, float | None], ...], out: Path, recipe: Path | None, pairs: tuple[str, ...],
    start: Path | None, grow: bool, hold_out: tuple[str, ...], choose_loop: int | None, as_json: bool, quiet: bool,
    **named: Any,
) -> None:  # fmt: skip
    """Train the network of CONFIG (a config.json, the name of a bundled model, or an official layout such as s256_t1).

    Writes model.safetensors, history.json, curves.png and the resumable state to the run folder. Ctrl-C ends the
    step at hand and saves; the same command goes on from there.
    """
    entries = {**options.entries(pairs), **{key: value for key, value in named.items() if value is not None}}
    folders, shares = [place for place, _ in data], [weight for _, weight in data]
    weights = [1.0 if w is None else w for w in shares] if any(w is not None for w in shares) else None
    tell = None if quiet else printing.lines
    if choose_loop is not None:
        if extra := {*entries, *(n for n, v in (("recipe", recipe), ("start", start), ("grow", grow)) if v)} - {"seed"}:
            raise UsageError(
                f"--choose-loop trains nothing and takes no {min(extra)}; CONFIG is the trained model itself"
            )
        seed = entries.get("seed", 1)
        chosen = api.choose_loop(config, folders, out, hold_out=hold_out, draws=choose_loop, seed=seed, tell=tell)
        return printing.show(chosen, loop_summary, as_json, quiet)
    result = api.train(
        config, folders, out, recipe=recipe, entries=entries, hold_out=hold_out, start=start, grow=grow,
        weights=weights, tell=tell,
    )  # fmt: skip
    printing.show(result, train_summary, as_json, quiet)


def loop_summary(result: Result) -> None:
    """Means by setting, the best rules, what a choice is worth on clips it was not made on."""
    print("| setting | value: mean success AUC, % |\n| --- | --- |")
    for name, means in result["marginal"].items():
        print(f"| {name} | " + ", ".join(f"{level}: {100 * mean:.1f}" for level, mean in means.items()) + " |")
    chosen = result["chosen"]
    print(f"published rule {100 * result['published']:.1f} over {len(result['clips'])} clips")
    rule = printing.loop_settings(chosen["rule"])
    print(f"rule {chosen['index'] + 1} of {len(result['rules'])} {100 * chosen['auc']:.1f}: {rule}")
    across = {key: 100 * value for key, value in result["across"].items()}
    print(
        f"chosen on half of the clips, scored on the other: {across['mean']:+.1f} points "
        f"[{across['low']:+.1f}, {across['high']:+.1f}], a gain in {across['higher']:.0f} % of halvings: "
        + ("kept" if result["kept"] else "luck, so the model has the published rule")
    )
    print(f"wrote {result['output']}: model.safetensors, config.json, loop.json")


def train_summary(result: Result) -> None:
    """The file that was wanted."""
    print(f"wrote {result['model']}")
