"""Pictures of a report as SVG text: drawn by matplotlib's Agg family, no window, no network.

This module decides how numbers look. It must not know where they come from. matplotlib is imported inside.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

CAUSE_COLOURS = {
    "synops": "#0072b2",
    "neuron": "#e69f00",
    "message": "#009e73",
    "relay": "#cc79a7",
    "memory": "#56b4e9",
    "mac": "#d55e00",
    "step": "#8c6bb1",
}
_OTHER = "#777777"
_SERIES = ("#d55e00", "#0072b2", "#e69f00", "#56b4e9", "#009e73", "#8c6bb1", "#cc79a7", "#8c564b", "#f0e442", "#777777")
_INK, _GRID, _ALERT = "#222222", "#dddddd", "#b00020"


def _axes(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for ax in axes:
        ax.grid(axis="both", color=_GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.tick_params(colors=_INK, labelsize=8)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    settings: Any = {
        "svg.hashsalt": "spiketrack",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
    }
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def stacked_bands(
    names: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    low: Sequence[float],
    high: Sequence[float],
    unit: str,
    title: str,
    form: str = "svg",
) -> Any:
    """Horizontal bars, one a name: nominal parts stacked by cause, with a line from ``low`` to ``high`` of the whole.

    ``parts``: cause -> nominal value per name, ``low`` and ``high`` per name, all in ``unit``. ``form``: ``svg``
    (text) or ``png`` (bytes).
    """
    figure, (ax,) = _axes(9.0, 1.1 + 0.19 * len(names))
    rows = list(range(len(names)))
    left = [0.0] * len(names)
    for cause, values in parts.items():
        if not any(values):
            continue
        ax.barh(rows, values, left=left, color=CAUSE_COLOURS.get(cause, _OTHER), label=cause, height=0.68)
        left = [a + b for a, b in zip(left, values)]
    errors = [[max(m - a, 0.0) for m, a in zip(left, low)], [max(b - m, 0.0) for m, b in zip(left, high)]]
    ax.errorbar(left, rows, xerr=errors, fmt="none", ecolor=_INK, elinewidth=0.9, capsize=2.0, label="band low..high")
    ax.set_yticks(rows, names)
    ax.invert_yaxis()
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel(unit, fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=7)  # no bar is ever there
    return _svg(figure, title) if form == "svg" else _png(figure)


def stacked(names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: str, title: str) -> str:
    """Horizontal bars, one a name, of ``parts`` (what -> value per name, in ``unit``), as SVG text."""
    figure, (ax,) = _axes(9.0, 1.1 + 0.19 * len(names))
    rows, left = list(range(len(names))), [0.0] * len(names)
    for colour, (part, values) in zip(itertools.cycle(_SERIES), parts.items()):
        ax.barh(rows, values, left=left, color=colour, label=part, height=0.68)
        left = [a + b for a, b in zip(left, values)]
    ax.set_yticks(rows, names)
    ax.invert_yaxis()
    ax.set_xlabel(unit, fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _svg(figure, title)


def shares(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], title: str) -> str:
    """A field of colours, one row a name of ``rows``, ``values`` 0 to 1 by row and column, as SVG text."""
    figure, (ax,) = _axes(9.0, 1.2 + 0.15 * len(rows))
    ax.grid(False)
    drawn = ax.pcolormesh(
        values, cmap="viridis", vmin=0.0, vmax=max(map(max, values)), edgecolors="white", linewidth=0.5
    )
    ax.set_yticks([i + 0.5 for i in range(len(rows))], rows, fontsize=6)
    ax.set_xticks([i + 0.5 for i in range(len(columns))], columns)
    ax.invert_yaxis()
    figure.colorbar(drawn, ax=ax, label="mean share", pad=0.01)
    return _svg(figure, title)


def over_frames(
    frames: Sequence[int], series: Mapping[str, tuple[str, Sequence[float]]], updates: Sequence[int], title: str
) -> str:
    """One row a series (name -> (axis label, value per frame)), updates as vertical lines."""
    figure, axes = _axes(9.0, 0.5 + 1.35 * len(series), len(series))
    for ax, (name, (label, values)) in zip(axes, series.items()):
        ax.plot(
            frames, values, color="#0072b2", linewidth=1.2, marker="o" if len(frames) < 40 else None, markersize=2.5
        )
        ax.set_ylabel(f"{name}\n{label}", fontsize=8)
        ax.margins(y=0.15)
        for frame in updates:
            ax.axvline(frame, color="#e69f00", linewidth=1.0)
    axes[-1].set_xlabel("frame" + (" (orange: an update followed)" if updates else ""), fontsize=9)
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, title)


def two_rates(
    names: Sequence[str],
    first: Sequence[float],
    second: Sequence[float],
    labels: tuple[str, str],
    axis: str,
    title: str,
) -> str:
    """Two values per name as dots on one horizontal axis, joined by a line."""
    figure, (ax,) = _axes(9.0, 1.1 + 0.17 * len(names))
    rows = list(range(len(names)))
    ax.hlines(
        rows,
        [min(a, b) for a, b in zip(first, second)],
        [max(a, b) for a, b in zip(first, second)],
        color="#bbbbbb",
        linewidth=1.5,
    )
    ax.plot(first, rows, "o", color="#0072b2", markersize=4.5, label=labels[0])
    ax.plot(second, rows, "D", color="#d55e00", markersize=3.8, label=labels[1], markerfacecolor="none")
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel(axis, fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="best")
    return _svg(figure, title)


def margins(names: Sequence[str], bits: Sequence[float], title: str) -> str:
    """Bits left under signed 24, worst case, per name; a bar left of zero would be an overflow."""
    figure, (ax,) = _axes(9.0, 1.0 + 0.22 * len(names))
    rows = list(range(len(names)))
    ax.barh(rows, bits, color=[_ALERT if b < 0 else "#009e73" for b in bits], height=0.62)
    ax.axvline(0, color=_INK, linewidth=1.0)
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("bits of headroom under signed 24, any input", fontsize=9)
    return _svg(figure, title)
