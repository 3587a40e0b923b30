"""Sizing trackers before they are trained: what a configuration needs, and which others a chip can afford.

This module decides what such a question returns and which files answer it. It must not count; heavy parts are imported
when the verb runs.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from spiketrack_deploy.api.asked import Place
from spiketrack_deploy.api.results import BudgetResult, LayoutsResult
from spiketrack_deploy.api.training import find_config
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import DEFAULT_MODEL


def budget(config: Place | None = None, *, target: str = "loihi2") -> BudgetResult:
    """Count what the main phase of ``config`` needs of a chip or board, as :func:`map` splits it: neurons, words,
    cores; and its MACs.

    ``config``: a ``config.json``, the name of a bundled model (without one, the default model) or an official layout
    such as ``s256_t1``. What has no weights yet is counted with drawn ones.
    """
    from spiketrack_deploy.hardware.targets import resolve_target
    from spiketrack_deploy.inputs.resources import find_model, model_names
    from spiketrack_deploy.training import budget as counting

    room = counting.Room.of(resolve_target(target))
    name = str(DEFAULT_MODEL if config is None else config)
    row = counting.budget(find_config(name), room, find_model(name) if name in model_names() else None)
    return {
        "target": room.name,
        "chips": room.chips,
        "cores": room.cores,
        "slots": room.slots,
        "words": None if room.limits.words is None else room.cores * room.limits.words,
        "rows": [{**row.to_dict(), "fits": row.fits(room), "free": row.free(room)}],
    }


def layouts(
    config: Place | None = None,
    *,
    target: str = "loihi2",
    chips: int | None = None,
    on_chip_s: float | None = None,
    latency_s: float | None = None,
    energy_nj: float | None = None,
    slots_levels: int | None = None,
    first_layer: str | None = None,
    streams: str | None = None,
    trials: int = 2000,
    seed: int = 1,
    out: Place | None = None,
    tell: Tell | None = None,
) -> LayoutsResult:
    """Search the layouts around ``config`` that keep the bounds, and give a verdict of those that no other beats.

    Bounds (None: none): ``chips`` by the vendor's split rule; nominal seconds of a frame on the chips
    (``on_chip_s``) and with the image's way (``latency_s``); nominal nanojoules of a frame; slots times levels.
    ``first_layer`` and ``streams``: how it is mapped (see :func:`map`); None: whatever is better.
    ``trials`` layouts are judged from ``seed`` on. ``out``: a folder for ``search.json``, ``search.png`` and the
    configurations of the rows, ready to be trained. InputError (3): ``config`` has several templates or stages that
    the search cannot outline.
    """
    from spiketrack_deploy.hardware.targets import resolve_target
    from spiketrack_deploy.inputs.whole_folder import whole_folder
    from spiketrack_deploy.mapping.ways import WAYS
    from spiketrack_deploy.training.search import RATES, Bounds, known, meets, search, spread, verdict

    aim = resolve_target(target)
    bounds = Bounds(chips, on_chip_s, latency_s, energy_nj, slots_levels)
    base = find_config(config)

    def told(what: str, total: int, done: int) -> None:
        if tell:
            tell(what, done, total)

    ways = [way for way in WAYS if first_layer in (None, way.first_layer) and streams in (None, way.streams)]
    if not ways:
        raise UsageError(f"a layout is not mapped with first_layer {first_layer!r} and streams {streams!r}")
    with nullcontext() if out is None else whole_folder(Path(out)) as folder:  # a bad place is told before the work
        met, front = search(
            base, aim, bounds, trials=trials, seed=seed, ways=ways, told=lambda n: told("layouts judged", trials, n)
        )
        shown = [(base, ways[0]), *((one.config, one.way) for one in spread(front))]
        rows = []
        for done, (one, way) in enumerate(shown):
            told("verdicts", len(shown), done)
            row = verdict(one, aim, way)
            rows.append({**row, "meets": meets(row, bounds)})
        result: LayoutsResult = {
            "target": aim.name,
            "bounds": asdict(bounds),
            "trials": trials,
            "seed": seed,
            "assumed_rates": dict(RATES),
            "rows": rows,
            "front": len(front),
            "met": [known(layout) for layout in met],
            "output": None if out is None else os.fspath(out),
        }
        if folder is not None:
            _write(result, folder)
    return result


def _write(result: LayoutsResult, folder: Path) -> None:
    from spiketrack_deploy.report.layouts_picture import draw_layouts

    (folder / "search.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for number, row in enumerate(result["rows"]):
        text = json.dumps(row["config"], indent=1) + "\n"
        (folder / f"config-{number}.json").write_text(text, encoding="utf-8")
    draw_layouts(result["met"], result["rows"], folder / "search.png")
