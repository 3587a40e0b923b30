"""One picture of the anchors: what is predicted over what was measured, row by row.

This module decides how misses are drawn. It must not compute one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anchor_tables import Group

LEAST, MOST = 0.08, 12.0
"""Ends of the axis; what lies beyond is drawn at the end."""


def draw(file: Path, before: Sequence[Group], held: Sequence[Group], ships: Sequence[Group]) -> None:
    """Per row: the band that ships (bar) over what was measured, its nominal figure, the one by prices from all other
    anchors and the one before. Of a series the median point is drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.0, 0.34 * len(ships) + 1.6), constrained_layout=True)
    axes.axvspan(0.7, 1.3, color="#dff0df", zorder=0, label="within 30 %")
    axes.axvline(1.0, color="#222222", linewidth=1.0, zorder=1)
    older = {group.name: group for group in before}
    others = {group.name: group for group in held}
    for row, group in enumerate(ships):
        band = [_over(group, end) for end in ("low", "high")]
        first = row == 0
        axes.barh(row, band[1] - band[0], left=band[0], height=0.55, color="#b9cfe4", zorder=2,
                  label="band that ships" if first else None)  # fmt: skip
        marks = (("#999999", "x", older.get(group.name), "before"), ("#d55e00", "D", others.get(group.name), "from all"
                 " other anchors"), ("#1f4e79", "o", group, "nominal that ships"))  # fmt: skip
        for colour, marker, found, label in marks:
            if found is not None and found.misses:
                axes.plot(_over(found, "nominal"), row, marker=marker, color=colour, linestyle="none", zorder=3,
                          markersize=6, label=label if first else None)  # fmt: skip
    axes.set_yticks(range(len(ships)), [group.name for group in ships])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(LEAST, MOST)
    axes.set_xticks(
        [0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 4.0, 10.0], ["0.1", "0.3", "0.5", "0.7", "1", "1.3", "2", "4", "10"]
    )
    axes.set_xticks([], minor=True)
    axes.set_xlabel("predicted / measured")
    axes.grid(axis="x", color="#e5e5e5", zorder=0)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)


def _over(group: Group, end: str) -> float:
    """Prediction over measurement at one end, of the point of median miss, kept on the axis."""
    told = sorted((score for score in group.scores if score.miss is not None), key=lambda score: score.miss or 0.0)
    score = told[len(told) // 2]
    assert score.predicted is not None
    return float(min(max(getattr(score.predicted, end) / score.item.measured.nominal, LEAST), MOST))
