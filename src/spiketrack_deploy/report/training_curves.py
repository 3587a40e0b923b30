"""The loss curve of a training run as a picture: losses, learning rate and validation figures over steps.

This module decides how a history looks. It must not know how it came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LOSSES = (("score", "#0072b2"), ("l1", "#e69f00"), ("giou", "#009e73"), ("log_size", "#cc79a7"))
_VALIDATION = (("pair_iou", "#0072b2"), ("loop_auc", "#d55e00"), ("size_slope", "#999999"))
_RATE = "#8c8c8c"


def draw_curves(history: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write ``file`` (.png or .svg) from the rows of ``history.json``; an empty history gives empty axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    losses, parts, validation = figure.subplots(3, 1, sharex=True)
    rows = [row for row in history if "total" in row]
    steps = [row["step"] for row in rows]
    losses.plot(steps, [row["total"] for row in rows], color="#222222", label="total loss")
    rate = losses.twinx()
    rate.plot(steps, [row["lr"] for row in rows], color=_RATE)
    rate.set_ylabel("learning rate", color=_RATE)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for name, colour in _LOSSES:
        parts.plot(steps, [row[name] for row in rows], color=colour, label=name.replace("_", " "))
    checks = [row for row in history if "validation" in row]
    for name, colour in _VALIDATION:
        at, values = [row["step"] for row in checks], [row["validation"][name] for row in checks]
        validation.plot(at, values, color=colour, marker=".", label=name.replace("_", " "))
    for axes, title in ((losses, "loss"), (parts, "parts of the loss"), (validation, "held-out clips")):
        axes.set_ylabel(title)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.margins(y=0.12)
        axes.legend(loc="upper center", ncols=4, fontsize=8, bbox_to_anchor=(0.5, 1.17), frameon=False)
    validation.set_xlabel("optimiser step")
    figure.savefig(file, dpi=110)
