"""How results look on a terminal: JSON for machines, rich tables for people, a progress line where someone watches.

This module decides presentation. It must not compute a figure. rich is imported only when something is printed.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.units import Interval, si, si_interval

Result = Mapping[str, Any]
_FEW = 12
_FILE_WIDTH = 140


def show(result: Result, render: Callable[[Result], None], as_json: bool, quiet: bool) -> None:
    """One JSON object on stdout, or the rendering for people, or nothing."""
    if as_json:
        print(json.dumps(result, indent=1, sort_keys=False, allow_nan=False))
    elif not quiet:
        render(result)


@contextmanager
def progress(quiet: bool) -> Iterator[Tell | None]:
    """A progress line on stderr where that is a terminal; otherwise nothing is told."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)


def lines(what: str, done: int, total: int) -> None:
    """Progress of long work as lines on stderr."""
    print(what, file=sys.stderr, flush=True)


def console(width: int = _FILE_WIDTH) -> Any:
    """rich's console on standard output; ``width`` in columns where that is no terminal and has none of its own."""
    from rich.console import Console

    found = Console(highlight=False, width=None if sys.stdout.isatty() else width)
    found.on_broken_pipe = _broken_pipe  # type: ignore[method-assign]
    return found


def _broken_pipe() -> None:
    """rich would end the process with 1; the command line knows better."""
    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def _line(text: str) -> None:
    """Plain text wraps in the terminal and stays one line in a file."""
    print(text)


def joules(value: Mapping[str, float]) -> str:
    """A nanojoule interval of a result."""
    return si_interval(Interval.from_dict(value) * 1e-9, "J")


def thin(value: float) -> str:
    """Digits in groups of three; a mean with one decimal."""
    return f"{value:,.1f}" if isinstance(value, float) and not value.is_integer() else f"{int(value):,}"


def export_summary(result: Result) -> None:
    """The verdict, and what to open."""
    for remark in result["remarks"]:
        _line(f"note: {remark}")
    for sentence in result["verdict"]:
        _line(sentence)
    exported(result)


def exported(result: Result) -> None:
    """What an export with a program wrote."""
    taken, kinds = result["lava"], result["lava"]["processes"]
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    _line(f"lava/: phase {taken['phase']} as {found}" if kinds else f"no lava/: {taken['reason']}")
    _line(f"content hash {result['content_hash']}")
    _line(f"wrote {result['bundle']}: open {result['bundle']}/report.html")


def track_summary(result: Result) -> None:
    """Where the boxes are."""
    if result["remark"]:
        _line(f"note: {result['remark']}")
    _line(
        f"tracked {result['frames']} frames with the {result['engine']} engine: "
        f"mean confidence {result['mean_confidence']:.3f}, {result['template_updates']} template updates"
    )
    _line(f"wrote {result['output']}: boxes.csv, tracked.mp4")


def simulate_summary(result: Result) -> None:
    """Counts of every phase, and the busiest layers of the one that ran most often."""
    runs = result["runs"]
    ran = ", ".join(f"{count} runs of {name}" for name, count in runs.items())
    _line(
        f"{result['frames']} frames ({ran}), {si(result['seconds_per_frame'], 's')} a frame with the "
        f"{result['engine']} engine"
    )
    counts = result["counts"]
    rows = [
        (key.replace("_", " "), *(thin(phase.get(key, 0)) for phase in counts.values()))
        for key in dict.fromkeys(key for phase in counts.values() for key in phase)
    ]
    head = ["count", *(f"run of {name}" for name in counts)]
    _table("Counts (means)", head, rows, right=range(1, len(head)))
    main = max(runs, key=lambda name: runs[name])
    dense = "macs" in counts[main] and not counts[main].get("synops")
    keys = ("macs", "host_ops") if dense else ("synops", "events", "unit_ops")
    busy = sorted((r for r in result["layers"] if r["phase"] == main), key=lambda r: -r["counts"].get(keys[0], 0))
    listed = [(r["name"], r["kind"], *(thin(r["counts"].get(key, 0)) for key in keys)) for r in busy[:_FEW]]
    _table(
        f"Busiest {len(listed)} layers of a run of {main} (--json has all)",
        ["layer", "kind", *(key.replace("_", " ") for key in keys)],
        listed,
        right=range(2, 2 + len(keys)),
    )


def verify_summary(result: Result) -> None:
    """What was covered."""
    _line(
        f"ok: {result['files']} files, {result['arrays']} arrays, {result['ranges_proved']} range proofs, and "
        f"{thin(result['integers'])} integers of {result['operations']} operations, re-executed with NumPy alone, "
        "are those that were exported"
    )
    _line(f"content hash {result['content_hash']}")


def loop_settings(rule: Mapping[str, float]) -> str:
    """What a tracker's loop does otherwise than the published one."""
    return ", ".join(f"{name} {value:g}" for name, value in rule.items()) or "the published rule"


def inspect_summary(result: Result) -> None:
    """Structure, NIR, cuts, margins."""
    config = result["config"]
    if result["remark"]:
        _line(f"note: {result['remark']}")
    rows = [
        ("layout", config["name"]),
        ("resolution, templates", f"{config['resolution']}, {config['templates']}"),
        ("dims, head", f"{config['dims']}, {config['head_width']}"),
        ("walk", ", ".join(config["walk"])),
        ("loop", loop_settings(config.get("loop", {}))),
    ]
    if result["kind"] == "model":
        rows += [("parameters", thin(result["parameters"])), ("tensors", thin(result["tensors"]))]
    else:
        program = result["program"]
        rows += [
            ("int8 weights", f"{thin(program['weights'])} ({thin(program['zero_weights'])} zero)"),
            ("content hash", result["content_hash"]),
        ]
        rows += [
            (f"{name} phase", f"{b['operations']} operations, {thin(b['neurons'])} NI-LIF neuron steps")
            for name, b in program["phases"].items()
        ]
        rows.append(("files changed since export", ", ".join(result["changed_files"]) or "none"))
    _table(f"{result['kind']} {result['name']}", ["what", "value"], rows)
    nir = result["nir"]
    _table("NIR nodes", ["kind", "nodes"], [(kind, thin(count)) for kind, count in nir["nodes"].items()], right=(1,))
    cuts = [(name, op, thin(count)) for name, phase in nir["phases"].items() for op, count in phase["cut_ops"].items()]
    _table("Cuts: what NIR cannot say (--json lists each)", ["phase", "operation", "cuts"], cuts, right=(2,))
    if result["kind"] == "bundle":
        _margins(result["ranges"])


def _margins(ranges: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    found = sorted(
        ((phase, e) for phase, entries in ranges.items() for e in entries), key=lambda item: item[1]["margin_bits"]
    )[:_FEW]
    rows = [(phase, e["op"], thin(e["low"]), thin(e["high"]), f"{e['margin_bits']:.2f}") for phase, e in found]
    _table(
        f"Tightest {len(rows)} range margins, worst case over any input",
        ["phase", "operation", "low", "high", "bits left"],
        rows,
        right=(2, 3, 4),
    )


def targets_summary(result: Result) -> None:
    """Every target, and whether a network can be mapped to it."""
    rows = [
        (
            t["name"],
            t["kind"],
            t["family"] or "-",
            t["title"],
            *("-" if t[key] is None else str(t[key]) for key in ("chips", "prices", "limits")),
        )
        for t in result["targets"]
    ]
    _table(
        "Targets and profiles (--target, --profile; a TOML file works too)",
        ["name", "kind", "family", "title", "chips", "prices", "limits"],
        rows,
        right=(4, 5, 6),
    )
    _line("; ".join(f"{alias} stands for {name}" for alias, name in result["aliases"].items()))
    _line("Cores can be mapped where a family is named; the others only price counts.")


def _sourced(value: Mapping[str, Any]) -> str:
    follows = f"; moves with {value['follows']}" if value.get("follows") else ""
    return f"{value['source']}{'; ' if value['note'] else ''}{value['note']}{follows}"


def target_summary(result: Result) -> None:
    """Every value of a profile."""
    built = f", built on {result['chip']}" if result["chip"] else ""
    _line(f"{result['name']}: {result['title']} ({result['kind']}{built})")
    prices = [
        (name, f"{p['value']:g} [{p['low']:g} .. {p['high']:g}] {p['unit']}", p["tag"], _sourced(p))
        for name, p in result["prices"].items()
    ]
    _table("Prices", ["price", "value and band", "tag", "source"], prices)
    limits = [
        (name, f"{x['value']:,} {x['unit']}", x["tag"], _sourced(x))
        for group in ("limits", "boards")
        for name, x in result[group].items()
    ]
    if limits:
        _table("Limits", ["limit", "value", "tag", "source"], limits)
    for title in ("unknown", "assumptions"):
        for text in result[title]:
            _line(f"{'not known' if title == 'unknown' else 'assumed'}: {text}")


def doctor_summary(result: Result) -> None:
    """What is here and what is missing."""
    rows = [("ok" if c["ok"] else "missing", c["what"], c["found"], c["remedy"]) for c in result["checks"]]
    _table(
        f"spiketrack-deploy {result['version']} on {result['platform']}", ["", "what", "found", "how to get it"], rows
    )
    _line(
        "everything that is required is here" if result["ok"] else "something required is missing; see the last column"
    )
