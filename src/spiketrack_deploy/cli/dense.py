"""How results of a dense tracker look on a terminal.

This module decides tables and sentences. It must not compute a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from spiketrack_deploy.cli import printing
from spiketrack_deploy.errors import FitError

Result = Mapping[str, Any]


def show_fit(result: Result, as_json: bool, quiet: bool) -> None:
    """Print the whole verdict, then end with the exit code of what does not fit."""
    printing.show(result, _fit_summary, as_json, quiet)
    left = [row["kind"].replace("_", " ") for row in result["kinds"] if row["verdict"] == "host"]
    sentence = f"{result['subject']} does not fit {result['target']}: nothing on the chip does {', '.join(left)}"
    click.echo(f"error: {sentence}; the table says what it would take", err=True)
    raise click.exceptions.Exit(FitError.exit_code)


def _fit_summary(result: Result) -> None:
    rows = [
        (layer["name"], layer["kind"], printing.thin(layer["macs"]), printing.thin(layer["elements"]),
         printing.thin(layer["weights"]), layer["verdict"], layer["why"])
        for layer in result["layers"]
    ]  # fmt: skip
    head = ["layer", "kind", "MACs", "elements", "weights", "verdict", "why"]
    printing._table(f"{result['subject']} on {result['target']}, layer by layer", head, rows, right=(2, 3, 4))
    kinds = [
        (row["kind"], printing.thin(row["layers"]), printing.thin(row["macs"]), printing.thin(row["elements"]),
         row["verdict"], row["why"], row["remedy"])
        for row in result["kinds"]
    ]  # fmt: skip
    head = ["kind", "layers", "MACs", "elements", "verdict", "why", "what it would take"]
    printing._table("By kind, one frame", head, kinds, right=(1, 2, 3))
    share = 100 * result["macs_on_chip"] / result["macs"]
    chips = result["chips_for_weights"]
    held = f"{chips:,} chip{'s' if chips != 1 else ''} for one copy of them" if chips is not None else "memory unknown"
    printing._line(
        f"{share:.1f} % of {result['macs'] / 1e9:.3g} billion multiply-accumulates are products with stored weights, "
        f"{printing.thin(result['weights'])} of them in 8 bits: {held}; the chip would exchange "
        f"{printing.thin(result['bytes_rewritten_per_frame'])} values of live products with the host in every frame"
    )


def export_summary(result: Result) -> None:
    """The verdict of an export."""
    for sentence in result["verdict"]:
        printing._line(sentence)
    _parts(result["dense"])
    printing._line(f"content hash {result['content_hash']}")
    printing._line(f"wrote {result['bundle']}: open {result['bundle']}/report.html")


def verify_summary(result: Result) -> None:
    """What was covered."""
    worst = result["worst"]
    printing._line(
        f"ok: {result['files']} files are those that were exported; in {result['frames']} recorded frames "
        f"({printing.thin(result['values'])} values) ONNX Runtime gives scores within {worst['score']:.1g}, their "
        f"logits within {worst['logits']:.1g}, the map of boxes within {worst['boxes_map']:.1g} and boxes within "
        f"{worst['box_pixels']:.1g} pixels"
    )
    printing._line(f"content hash {result['content_hash']}")


def inspect_summary(result: Result) -> None:
    """Layout, size, parts."""
    if result["remark"]:
        printing._line(f"note: {result['remark']}")
    rows = [("layout", "; ".join(f"{key} {value}" for key, value in result["config"].items()))]
    rows += [
        (
            "parameters",
            f"{printing.thin(result['parameters'])}, of which {printing.thin(result['trained'])} are trained",
        ),
        ("tensors", printing.thin(result["tensors"])),
    ]
    if "content_hash" in result:
        rows.append(("content hash", result["content_hash"]))
        rows.append(("files changed since export", ", ".join(result["changed_files"]) or "none"))
    printing._table(f"{result['kind']} {result['name']}", ["what", "value"], rows)
    _parts(result)


def _parts(result: Result) -> None:
    rows = [
        (part, printing.thin(macs), f"{100 * macs / result['macs']:.1f} %")
        for part, macs in result["macs_by_part"].items()
    ]
    rows.append(("all", printing.thin(result["macs"]), "100.0 %"))
    head = ["part", "multiply-accumulates", "share"]
    printing._table("One frame, three references and nothing cached", head, rows, right=(1, 2))
