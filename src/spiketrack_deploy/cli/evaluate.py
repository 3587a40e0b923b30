"""``spiketrack evaluate``: parse, call the verb, print tables.

This module decides options and how scores look on a terminal. It must not compute a score.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from spiketrack_deploy import api
from spiketrack_deploy.cli import options, printing
from spiketrack_deploy.errors import interruption_leaves

Result = Mapping[str, Any]
_COMPLAINTS = 20
"""Sequences that are named one by one where they cannot be used."""
_SHOWN = (
    ("auc", "AUC"),
    ("precision", "P@20"),
    ("norm_precision", "Pnorm"),
    ("ao", "AO"),
    ("sr50", "SR50"),
    ("sr75", "SR75"),
)
_PAIRED = ["trackers", "AUC", "P@20", "AUC higher : lower, p of the sign test", "sequences with the same boxes"]
_EPILOG = """
\b
Examples:
  spiketrack evaluate export/nano-loihi2 OTB100 --baselines csrt,kcf,static --jobs 4
  spiketrack evaluate spiketrack-nano test.zip --engine float --engine sim
  spiketrack evaluate --compare export/evaluate-a export/evaluate-b
  spiketrack evaluate --compare nano@float nano@sim small@sim csrt LaSOT -o export/compare
"""


@click.command(
    "evaluate", epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.argument("subjects", nargs=-1, required=True, metavar="[MODEL|BUNDLE|RESULTS]... DATASET")
@click.option(
    "--compare",
    is_flag=True,
    help="Several trackers in one table: models, bundles (each with @engine if wanted), baselines, folders of earlier "
    "evaluations. DATASET may be left out where all are such folders.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    help="float, bf16, int8 (dense trackers), sim, lava, reference or onnx; repeat for several. Default: float for a "
    "model, sim for a bundle.",
)
@click.option(
    "--baselines",
    metavar="A,B,C",
    default="",
    callback=options.names,
    help="Run these too, by the same protocol: kcf, csrt (OpenCV contrib), static (keeps the first box).",
)
@click.option("--sequence", "sequences", multiple=True, metavar="NAME", help="Only this sequence; repeat for several.")
@click.option("--max-frames", type=click.IntRange(min=2), help="Of each sequence, the first one included.")
@click.option(
    "--profile",
    metavar="NAME|FILE",
    help="Prices of what a tracker does. Default: loihi2, or cmos45_int8 where a dense tracker takes part, which no "
    "chip of spikes runs: one convention for all.",
)
@options.way("as a bundle was exported, else chip and relayed")
@click.option(
    "--jobs", type=options.THREADS, default=1, show_default=True, help="Processes; one that dies loses nothing."
)
@click.option(
    "--threads",
    type=options.THREADS,
    default=1,
    show_default=True,
    help="Threads of each process for the float tracker and the sim engine.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Run on the Dask cluster with this scheduler (tcp://host:8786). Workers must see the same paths.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Sequences of a dense tracker that one pass of its network serves; the same up to rounding.",
)
@options.device
@options.destination
@options.output
def evaluate(
    subjects: tuple[str, ...], compare: bool, as_json: bool, quiet: bool, baselines: tuple[str, ...], **settings: Any
) -> None:
    """Score trackers on DATASET, a folder or zip of sequences laid out like OTB, GOT-10k or LaSOT.

    One pass from the first true box; neither the first frame nor absent targets are scored. The same command again
    goes on where it stopped. Sequences that cannot be used are named, the rest is scored, and the exit code says so.
    """
    trackers, dataset = _split(subjects, compare)
    names = (*trackers, *(name for name in baselines if name not in trackers))
    left = "finished sequences are kept, the same command goes on from there"
    with interruption_leaves(lambda: left), printing.progress(quiet) as tell:
        result = api.evaluate(names, dataset, tell=tell, **settings)
    printing.show(result, summary, as_json, quiet)
    _complain(result)
    if result["exit_code"]:
        click.get_current_context().exit(result["exit_code"])


def _split(subjects: tuple[str, ...], compare: bool) -> tuple[tuple[str, ...], Path | None]:
    """Trackers and data set of the positional arguments."""
    earlier = [api.is_evaluation(s) for s in subjects]
    if compare:
        if all(earlier):
            return subjects, None
        if earlier[-1] or len(subjects) < 2:
            raise click.UsageError("with --compare the trackers come first and the DATASET last")
        return subjects[:-1], Path(subjects[-1])
    if len(subjects) > 2:
        raise click.UsageError("one MODEL and one DATASET, please; --compare takes several trackers")
    if any(earlier):
        raise click.UsageError("that is the folder of an earlier evaluation; --compare shows it")
    return (subjects[:1] if len(subjects) == 2 else (api.DEFAULT_MODEL,)), Path(subjects[-1])


def _complain(result: Result) -> None:
    problems = [(p["sequence"], p["reason"]) for p in result["dataset"]["problems"]]
    for label, tracker in result["trackers"].items():
        problems += [(f"{label}, {f['sequence']}", f["reason"]) for f in tracker["failed"]]
    for name, reason in problems[:_COMPLAINTS]:
        print(f"error: {name}: {reason}", file=sys.stderr)
    if len(problems) > _COMPLAINTS:
        more = len(problems) - _COMPLAINTS
        print(f"error: and {more:,} more; {result['output']}/results.json names all of them", file=sys.stderr)


def summary(result: Result) -> None:
    """Means, differences, attributes, sequences, and where everything was written."""
    data = result["dataset"]
    count = len(data["sequences"])
    size = f"{count} sequence{'s' if count != 1 else ''}, {data['frames']} frames"
    print(f"{data['name']} ({data['layout']}): {size}; {result['protocol']['kind']}")
    _means(result)
    _pooled(result)
    _differences(result)
    _attributes(result)
    _sequences(result)
    pictures = [p for p in result["pictures"] if p.endswith(".svg") or "/" in p]
    print(f"wrote {result['output']}: {', '.join(['results.json', 'table.csv', *pictures])}")


def _percent(entry: Mapping[str, float]) -> str:
    if entry["low"] == entry["high"]:  # one sequence, or all alike: there is nothing to draw from
        return f"{100 * entry['mean']:.1f}"
    return f"{100 * entry['mean']:.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"


def _means(result: Result) -> None:
    rows = []
    for label, tracker in result["trackers"].items():
        mean, energy, speed = tracker["mean"], tracker["energy"], result["speed"].get(label)
        row = [label, str(len(tracker["sequences"])), *(_percent(mean[key]) if mean else "-" for key, _ in _SHOWN)]
        row.append(printing.joules(energy["per_frame_nj"]) if energy else "-")
        rows.append([*row, f"{speed['fps_mean']:.0f}" if speed and speed["fps_mean"] else "-"])
    profiles = {t["energy"]["profile"] for t in result["trackers"].values() if t["energy"]}
    title = "Mean over sequences, % [95 %]" + (f"; energy by {', '.join(sorted(profiles))}" if profiles else "")
    _table(title, ["tracker", "n", *(t for _, t in _SHOWN), "energy/frame", "fps"], rows)
    split = [(label, s) for label, s in result["speed"].items() if s["network_ms"] > 0]
    if split:
        rows = [
            [
                label,
                *(f"{s[k]:.2f}" for k in ("crop_ms", "network_ms", "rest_ms", "frame_ms_median")),
                str(s["threads"]),
            ]
            for label, s in split
        ]
        _table(
            "Milliseconds a frame, image decoding apart",
            ["tracker", "crop", "network", "rest", "median frame", "threads"],
            rows,
        )


def _pooled(result: Result) -> None:
    """What the GOT-10k toolkit reports: all frames together."""
    trackers = {label: t["pooled"] for label, t in result["trackers"].items() if t["pooled"]}
    if result["dataset"]["layout"] == "GOT-10k" and trackers:
        rows = [
            [label, *(f"{100 * pooled[k]:.1f}" for k in ("ao", "sr50", "sr75"))] for label, pooled in trackers.items()
        ]
        _table("Over all frames together (GOT-10k), %", ["tracker", "AO", "SR50", "SR75"], rows)


def _differences(result: Result) -> None:
    rows = []
    for label, tracker in result["trackers"].items():
        if (found := tracker.get("against_first")) is not None:
            rows.append(
                [
                    f"{label} - {found['tracker']}",
                    _percent(found["auc"]),
                    _percent(found["precision"]),
                    "{higher} : {lower}, {p:.2g}".format(**found["sign"]),
                    f"{found['same_boxes']} of {found['sequences']}",
                ]
            )
    if rows:
        _table("Paired differences, points [95 %]", _PAIRED, rows)


def _by(result: Result, title: str, what: str, names: list[str], cell: Callable[[Mapping[str, Any], str], str]) -> None:
    trackers = result["trackers"]
    rows = [[name, *(cell(t, name) for t in trackers.values())] for name in names]
    if rows:
        _table(title, [what, *trackers], rows)


def _attributes(result: Result) -> None:
    names = sorted({a for t in result["trackers"].values() for a in t["attributes"]})
    _by(
        result,
        "AUC by attribute, % [95 %] (sequences)",
        "attribute",
        names,
        lambda t, n: _attribute(t["attributes"].get(n)),
    )


def _attribute(entry: Mapping[str, Any] | None) -> str:
    return f"{_percent(entry['auc'])} ({entry['sequences']})" if entry else "-"


def _sequences(result: Result) -> None:
    _by(result, "AUC by sequence, %", "sequence", list(result["dataset"]["sequences"]), _sequence)


def _sequence(tracker: Mapping[str, Any], name: str) -> str:
    if (row := tracker["sequences"].get(name)) is not None:
        return f"{100 * row['auc']:.1f}" + (f" ({row['broken_boxes']} boxes not finite)" if row["broken_boxes"] else "")
    if any(f["sequence"] == name for f in tracker["failed"]):
        return "failed"
    return "not scored" if name in tracker["unscored"] else "-"


def _table(title: str, head: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    printing.console(180).print(table)
