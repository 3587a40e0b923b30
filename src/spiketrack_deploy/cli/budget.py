"""``spiketrack budget``: parse, call the verbs, print.

This module decides names, options, help texts and how counts and a search look. It must not compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from spiketrack_deploy import api
from spiketrack_deploy.cli import options, printing
from spiketrack_deploy.units import Interval

Result = Mapping[str, Any]
_WIDE = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(context_settings=_WIDE)
@click.argument("config", required=False)
@click.option(
    "--target",
    default="loihi2",
    show_default=True,
    metavar="NAME|FILE",
    help="One chip of a family, or a board (spiketrack targets lists both).",
)
@click.option(
    "--search",
    "searching",
    is_flag=True,
    help="Judge layouts around CONFIG (crop side, widths, expansions, blocks) by energy and time of a frame, chips, and"
    " multiply-accumulates; give the verdict of those that no other beats (minutes).",
)
@click.option("--chips", type=click.IntRange(min=1), help="Search: at most so many chips, by the vendor's split rule.")
@click.option("--on-chip-ms", type=_POSITIVE, help="Search: at most so long on the chips a frame, nominal.")
@click.option(
    "--latency-ms",
    type=_POSITIVE,
    help="Search: the same with the way into the chip of the image, or of the host's spikes.",
)
@click.option("--energy-mj", type=_POSITIVE, help="Search: at most so much energy a frame, nominal.")
@click.option("--slots-levels", type=click.IntRange(min=1), help="Search: at most so many slots times levels.")
@options.way("whatever is better (search)")
@click.option("--trials", type=click.IntRange(2, 10**6), help="Search: layouts to judge; default 2000.")
@click.option("--seed", type=click.IntRange(min=0), help="Search: of the layouts that are drawn; default 1.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Search: folder for search.json, search.png and the configurations.",
)
@options.output
def budget(config: str | None, target: str, searching: bool, as_json: bool, quiet: bool, **search: Any) -> None:
    """Count what CONFIG needs of a chip or board, as `spiketrack map` would: neurons, words, cores; and its MACs."""
    if not searching:
        options.refuse(search, "goes with --search alone")
        return printing.show(api.budget(config, target=target), budget_summary, as_json, quiet)
    given = {name: value for name, value in search.items() if value is not None}
    for unit, name, factor in (("on_chip_ms", "on_chip_s", 1e-3), ("latency_ms", "latency_s", 1e-3),
                               ("energy_mj", "energy_nj", 1e6)):  # fmt: skip
        if unit in given:
            given[name] = given.pop(unit) * factor
    with printing.progress(quiet or as_json) as tell:
        result = api.layouts(config, target=target, tell=tell, **given)
    printing.show(result, layouts_summary, as_json, quiet)


_BUDGET_HEAD = (
    "configuration", "neurons k", "relays k", "matrix k", "free %", "words k one copy / with copies", "cores (alone)",
    "MMAC", "parameters k",
)  # fmt: skip


def budget_summary(result: Result) -> None:
    """The trade-off as a Markdown table, and the configuration asked for against the target."""
    head = [*_BUDGET_HEAD, f"fits {result['target']}"]
    lines: list[Sequence[str]] = [head, ["---"] * len(head)]
    for row in result["rows"]:
        cells = [row["name"], *(f"{row[key] / 1e3:.0f}" for key in ("neurons", "relays", "matrix"))]
        cells += [f"{100 * row['free']:.0f}", f"{row['words'] / 1e3:.0f} / {row['words_with_copies'] / 1e3:.0f}"]
        cells += [
            f"{row['cores']} ({row['cores_alone']})",
            f"{row['macs'] / 1e6:.1f}",
            f"{row['parameters'] / 1e3:.0f}",
        ]
        lines.append([*cells, "yes" if row["fits"] else "no"])
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    own = result["rows"][0]
    words = "" if result["words"] is None else f" of {result['words']:,}"
    print(
        f"{own['name']}: {own['slots']:,} of {result['slots']:,} slots, "
        f"{own['cores']} of {result['cores']} cores with neighbours sharing cores ({own['cores_alone']} without), "
        f"{own['words_with_copies']:,}{words} words"
    )
    if own["over"]:
        print(f"a single row exceeds a core of {result['target']}: {', '.join(own['over'][:3])}")


_LAYOUTS_HEAD = (
    "layout", "first layer, streams", "MMAC", "parameters k", "slots x levels M", "cores", "chips", "on the chips ms",
    "with the way in ms", "mJ a frame", "of it dynamic", "within bounds",
)  # fmt: skip


def layouts_summary(result: Result) -> None:
    """The verdicts as a Markdown table, most multiply-accumulates first behind the configuration asked about."""
    lines: list[Sequence[str]] = [_LAYOUTS_HEAD, ["---"] * len(_LAYOUTS_HEAD)]
    for row in result["rows"]:
        low, high = row["chips_band"]
        cost = row["cost"]
        lines.append([
            row["name"], f"{row['first_layer']}, {row['streams']}",
            f"{row['macs'] / 1e6:.1f}", f"{row['parameters'] / 1e3:.0f}",
            f"{row['slots'] / 1e3:.0f} k x {row['levels']} = {row['slots_levels'] / 1e6:.2f}",
            str(row["cores"]), f"{row['chips']} [{low}..{high}]",
            _banded(cost["on_chip_s"], 1e3), _banded(cost["latency_s"], 1e3),
            _banded(cost["total_nj"], 1e-6), _banded(cost["dynamic_nj"], 1e-6), "yes" if row["meets"] else "no",
        ])  # fmt: skip
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    rates = ", ".join(f"{kind} {share:g}" for kind, share in result["assumed_rates"].items())
    print(
        f"{result['trials']} layouts judged from seed {result['seed']}, {len(result['met'])} within the bounds, "
        f"{result['front']} that no other beats; vendor's split rule on {result['target']}, one frame in flight. "
        f"Spike rates are assumed: {rates}."
    )
    if not result["met"]:
        print("No layout keeps the bounds; the image's way alone decides the largest crop side: loosen one of them.")
    if result["output"]:
        print(f"wrote {result['output']}: search.json, search.png, config-0.json (asked about) and those of the rows")


def _banded(interval: Mapping[str, float], factor: float) -> str:
    value = Interval.from_dict(interval) * factor
    return f"{value.nominal:.1f} [{value.low:.1f}..{value.high:.1f}]"
