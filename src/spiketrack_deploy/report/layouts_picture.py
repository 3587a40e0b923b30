"""Layouts side by side: energy and time of a frame over what the network computes, coloured by chips.

This module decides how layouts look. It must not know how one was judged. matplotlib is imported inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CAMERA_MS = 1e3 / 30
_GRID = "#dddddd"
_MARKERS = "vsoD^P*Xph"


def draw_layouts(met: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write ``file`` (.png or .svg). ``met``: every layout that was judged and kept the bounds; ``rows``: those with a
    verdict, the configuration that was asked about first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    energy, time = figure.subplots(1, 2)
    most = max((row["chips"] for row in [*met, *rows]), default=1)
    sides = sorted({row["side"] for row in [*met, *rows]})
    shape = {side: _MARKERS[i % len(_MARKERS)] for i, side in enumerate(sides)}
    steps = [n + 0.5 for n in range(most + 1)]
    colours: dict[str, Any] = {"cmap": "viridis_r", "norm": BoundaryNorm(steps, 256)}
    dots = None
    for axes, key, unit in ((energy, "total_nj", 1e-6), (time, "latency_s", 1e3)):
        for side in sides:
            for some, style in ((met, {"s": 14, "alpha": 0.35, "lw": 0}), (rows, {"s": 55, "edgecolors": "#222222"})):
                part = [row for row in some if row["side"] == side]
                x, y = [row["macs"] / 1e6 for row in part], [row[key] * unit for row in part]
                drawn = axes.scatter(x, y, c=[row["chips"] for row in part], marker=shape[side], **style, **colours)
                dots = drawn if part else dots
        axes.scatter(rows[0]["macs"] / 1e6, rows[0][key] * unit, s=190, facecolors="none", edgecolors="#d55e00", lw=2)
        axes.set(xlabel="dense multiply-accumulates of a frame, millions", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(color=_GRID, linewidth=0.6, which="both")
        axes.set_axisbelow(True)
    energy.set_ylabel("total energy of a frame, mJ (nominal)")
    time.set_ylabel("image to box, ms (nominal, way into the chip included)")
    time.axhline(CAMERA_MS, color="#d55e00", lw=1.2, ls="--")
    time.annotate("33 ms: 30 frames a second", (0.01, CAMERA_MS), xycoords=("axes fraction", "data"),
                  va="bottom", fontsize=8, color="#d55e00")  # fmt: skip
    for side in sides:
        energy.scatter([], [], marker=shape[side], color="#777777", label=f"{side} pixels")
    energy.scatter([], [], s=90, facecolors="none", edgecolors="#d55e00", lw=2, label=rows[0]["name"])
    energy.legend(fontsize=8, frameon=False, loc="upper left")
    if dots is not None:
        bar = figure.colorbar(dots, ax=(energy, time), label="chips by the vendor's split rule", shrink=0.8)
        bar.set_ticks(sorted({1, most, *(row["chips"] for row in rows)}))
        bar.minorticks_off()
    figure.savefig(file, dpi=110)
