"""Success and precision over thresholds, accuracy over energy: SVG and PNG, drawn without window or network.

This module decides how results look as pictures. It must not compute a score. matplotlib is imported inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spiketrack_deploy.evaluation.metrics import PIXEL_THRESHOLDS
from spiketrack_deploy.inputs.whole_file import whole
from spiketrack_deploy.tracking.boxes import OVERLAP_THRESHOLDS

# Okabe and Ito's colours stay apart for colour-blind readers; the line style says the rest where they recur.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")
_MARKERS = ("o", "s", "D", "^")
_STYLES = ("-", "--", "-.", ":")
_LINES = ("#777777", "#bb9955", "#5577aa")
_INSIDE = 6
"""Entries of a legend that still fit inside the axes."""
_INK, _GRID = "#222222", "#dddddd"
_SETTINGS = {
    "svg.hashsalt": "spiketrack",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
}

Trackers = Mapping[str, Mapping[str, Any]]
"""Label -> its entry of the results file."""


def draw_all(trackers: Trackers, folder: Path) -> list[str]:
    """Write every picture that the results allow into ``folder``; the names. InputError where that fails."""
    scored = {label: t for label, t in trackers.items() if t["curves"]}
    written: list[str] = []
    if scored:
        written += save_figure(
            _curves(scored, "success", "auc", "AUC", OVERLAP_THRESHOLDS.tolist(), "overlap threshold", "success rate"),
            folder,
            "success",
        )
        written += save_figure(
            _curves(
                scored,
                "precision",
                "precision",
                "P@20",
                PIXEL_THRESHOLDS.tolist(),
                "centre error threshold, pixels",
                "precision",
            ),
            folder,
            "precision",
        )
    if any(t["energy"] for t in scored.values()):
        written += save_figure(_accuracy_over_energy(scored), folder, "accuracy_energy")
    return written


def _axes(width: float = 6.4, height: float = 4.6) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.grid(color=_GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(colors=_INK, labelsize=9)
    return figure, ax


def _curves(
    trackers: Trackers, curve: str, score: str, title: str, thresholds: list[float], across: str, up: str
) -> Any:
    figure, ax = _axes()
    order = sorted(trackers, key=lambda label: -trackers[label]["mean"][score]["mean"])
    look = {
        label: (_COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS) % len(_STYLES)])
        for i, label in enumerate(trackers)
    }
    for label in order:
        mean = trackers[label]["mean"][score]
        text = f"{label}  {title} {100 * mean['mean']:.1f} [{100 * mean['low']:.1f}, {100 * mean['high']:.1f}]"
        colour, style = look[label]
        ax.plot(thresholds, trackers[label]["curves"][curve], color=colour, linestyle=style, linewidth=1.8, label=text)
    ax.set_xlim(thresholds[0], thresholds[-1])
    ax.set_ylim(0, 1)
    ax.set_xlabel(across)
    ax.set_ylabel(f"{up}, mean over sequences")
    _legend(figure, ax, len(trackers))
    return figure


def _legend(figure: Any, ax: Any, entries: int) -> None:
    """Inside the axes while it is small; a long one would cover what it explains and goes beside them."""
    if entries <= _INSIDE:
        ax.legend(fontsize=8, frameon=True, framealpha=0.9, edgecolor="none", loc="best")
        return
    figure.set_size_inches(figure.get_figwidth() + 3.2, figure.get_figheight())
    figure.legend(fontsize=8, frameon=False, loc="outside right upper")


def _accuracy_over_energy(trackers: Trackers) -> Any:
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure, ax = _axes(7.2, 4.8)
    priced = {label: t for label, t in trackers.items() if t["energy"]}
    profiles = sorted({t["energy"]["profile"] for t in priced.values()})
    for index, (label, tracker) in enumerate(priced.items()):
        auc, energy = tracker["mean"]["auc"], tracker["energy"]["per_frame_nj"]
        x, low, high = (energy[k] * 1e-6 for k in ("nominal", "low", "high"))
        y = 100 * auc["mean"]
        errors = {"xerr": [[x - low], [high - x]], "yerr": [[y - 100 * auc["low"]], [100 * auc["high"] - y]]}
        look = {
            "fmt": _MARKERS[index % len(_MARKERS)],
            "color": _COLOURS[index % len(_COLOURS)],
            "markerfacecolor": "none",
        }
        ax.errorbar(x, y, markersize=6 + 2 * (index % 4), capsize=3, elinewidth=0.8, label=label, **look, **errors)
    for index, (label, tracker) in enumerate((k, t) for k, t in trackers.items() if not t["energy"]):
        style = {"color": _LINES[index // len(_STYLES) % len(_LINES)], "linestyle": _STYLES[(index + 1) % len(_STYLES)]}
        ax.axhline(100 * tracker["mean"]["auc"]["mean"], linewidth=1, label=f"{label} (no energy)", **style)
    if all(t["energy"]["per_frame_nj"]["low"] > 0 for t in priced.values()):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.set_xlabel(f"energy per frame, mJ ({', '.join(profiles)}; nominal, low to high)")
    ax.set_ylabel("success AUC, % (95 % over sequences)")
    _legend(figure, ax, len(trackers))
    return figure


def save_figure(figure: Any, folder: Path, name: str, kinds: Sequence[str] = ("svg", "png")) -> list[str]:
    """Write a figure whole, the same bytes every time; the names of the files. InputError where that fails."""
    import matplotlib

    names = []
    for kind in kinds:
        path = folder / f"{name}.{kind}"
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        with whole(path) as part, matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]
            figure.savefig(part, format=kind, dpi=150, metadata=metadata)
        names.append(f"{name}.{kind}")
    return names
