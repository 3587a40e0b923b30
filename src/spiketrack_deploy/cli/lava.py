"""``spiketrack lava`` and ``spiketrack netx``: options and how their results look.

This module decides presentation. It must not compute a figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from spiketrack_deploy import api
from spiketrack_deploy.cli import options, printing

_FEW = 2
_WIDE = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.command("lava", context_settings=_WIDE)
@click.argument("subject", metavar="BUNDLE|FILE.net")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to write. Default: NAME-lava.")
@click.option("--phase", help="Phase to write. Default: the last one.")
@click.option("--steps", type=click.IntRange(1, 1000), default=8, show_default=True, help="Steps of the answers.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the drawn inputs.")
@click.option("--check", is_flag=True, help="Run it in Lava first and compare every value that leaves a Process.")
@click.option("--timeout", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds for that run.")
@click.option("--force", is_flag=True, help="Replace the folder.")
@options.output
def lava(subject: str, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Write the network as Processes that Lava ships, in a folder that any program with lava-nc can import."""
    printing.show(api.lava(subject, **settings), _lava_summary, as_json, quiet)


@click.command("netx", context_settings=_WIDE)
@click.argument("subject", metavar="FILE.net|BUNDLE")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the network as a .net file.")
@options.output
def netx(subject: str, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Layers of a .net file of lava-dl; or a bundle's network as one, where such a file can hold it."""
    printing.show(api.netx(subject, **settings), netx_summary, as_json, quiet)


def _lava_summary(result: Mapping[str, Any]) -> None:
    rows = [(process, str(count)) for process, count in sorted(result["processes"].items())]
    printing._table(f"Lava Processes of phase {result['phase']}", ["Process", "how many"], rows)
    _own(row for row in result["rows"] if row["reason"])
    if result["compared"] is not None:
        printing._line(f"run in Lava: {result['differing']} of {result['compared']} integers differ")
    for name, late in result["outputs"].items():
        printing._line(f"output {name}: right {late} steps after its input")
    printing._line(f"wrote {result['folder']}: README.md has the ten lines that import it")


def stock_summary(result: Mapping[str, Any]) -> None:
    """Every Lava run: its Processes, what was compared; the own ones with their reasons."""
    found = result["rows"]
    rows = [
        (
            row["phase"], row["block"], str(sum(row["processes"].values())), str(row["processes"].get("Own", 0)),
            str(row["steps"]), f"{row['seconds']:.3g} s", str(row["compared"]), str(row["differing"]),
        )
        for row in found
    ]  # fmt: skip
    head = ["phase", "run", "Processes", "own", "Lava steps", "time", "integers", "differ"]
    title = f"In stock Lava Processes; recorded inputs: {result['runs']}"
    printing._table(title, head, rows, right=range(2, len(head)))
    _own(row for one in found for row in one["own"])
    compared, differing = (sum(row[key] for row in found) for key in ("compared", "differing"))
    printing._line(f"{differing} of {compared} integers differ")


def _own(rows: Iterable[Mapping[str, str]]) -> None:
    """One line a reason, with its first operations."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["reason"], []).append(row["operations"])
    said = [
        (str(len(ops)), why, ", ".join(ops[:_FEW]) + (f" and {len(ops) - _FEW} more" if len(ops) > _FEW else ""))
        for why, ops in found.items()
    ]
    if said:
        printing._table("Own Processes", ["how many", "why none of Lava's", "operations"], said)


def netx_summary(result: Mapping[str, Any]) -> None:
    rows = [
        (n["name"], n["kind"], "x".join(map(str, n["shape"])), str(n["weights"]), n["neuron"], _threshold(n))
        for n in result["layers"]
    ]
    printing._table(
        f"netx network {result['network']}", ["layer", "kind", "shape", "weights", "neurons", "threshold"], rows
    )
    for note in result["notes"]:
        printing._line(note)
    if "content_hash" in result:
        printing._line(f"content hash {result['content_hash']}")
        printing._line("changed since: " + (", ".join(result["changed_files"]) or "nothing"))
    if result.get("written"):
        printing._line(f"wrote {result['written']}")


def _threshold(layer: Mapping[str, Any]) -> str:
    decays = " and ".join(map(str, layer["decays"]))
    return str(layer["threshold"]) + (f", decays {decays}" if layer["neuron"] == "cuba" else "")
