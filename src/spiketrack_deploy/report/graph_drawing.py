"""A drawing of a graph as SVG: boxes in the order of execution, edges down, edges that go back dashed.

Decides the layout. Must not know what a node does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.report.html import text

ROW, GAP, HEIGHT, MARGIN, LETTER = 78, 26, 46, 40, 6.6
MAX_BOXES = 600
COLOURS = {"neuron": "#d7ebf7", "end": "#e5e8eb", "weight": "#fdf0d5", "other": "#ffffff"}
_GROUPS = {
    **dict.fromkeys(("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"), "neuron"),
    **dict.fromkeys(("Input", "Output"), "end"),
    **dict.fromkeys(("Affine", "Linear", "Conv1d", "Conv2d"), "weight"),
}
_DEFS = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>'
)


@dataclass(frozen=True, slots=True)
class Box:
    """A node: its name, two lines of label, one of :data:`COLOURS`."""

    name: str
    line: str
    group: str


def draw(outline: Mapping[str, Any], title: str) -> str:
    """A network as its outline says it: ``nodes`` (name, kind, out), ``edges``, ``back_edges``."""
    boxes = [
        Box(n["name"], f"{n['kind']} {'x'.join(map(str, n['out']))}", _GROUPS.get(n["kind"], "other"))
        for n in outline["nodes"]
    ]
    back = {tuple(edge) for edge in outline["back_edges"]}
    return drawing(boxes, [(source, target, (source, target) in back) for source, target in outline["edges"]], title)


def drawing(boxes: Sequence[Box], edges: Sequence[tuple[str, str, bool]], title: str) -> str:
    """SVG text. ``boxes`` in execution order; ``edges``: source, target, whether it goes back."""
    if len(boxes) > MAX_BOXES:
        boxes = [*boxes[:MAX_BOXES], Box("...", f"{len(boxes) - MAX_BOXES} more nodes", "other")]
    known = {box.name for box in boxes}
    edges = [edge for edge in edges if edge[0] in known and edge[1] in known]
    places, width, height = _places(boxes, _rows(boxes, edges), edges)
    shapes = [_edge(places[s], places[t], back) for s, t, back in edges]
    shapes += [_box(box, *places[box.name]) for box in boxes]
    said = '<text x="12" y="20" font-weight="600">' + text(title) + "</text>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" style="width:{width:.0f}px;max-width:100%" font-size="11" '
        f'font-family="DejaVu Sans, sans-serif">{_DEFS}'
        f'<rect width="100%" height="100%" fill="#fff"/>{said}{"".join(shapes)}</svg>\n'
    )


def _rows(boxes: Sequence[Box], edges: Sequence[tuple[str, str, bool]]) -> list[list[Box]]:
    """Each box one row below the lowest box that it reads; one that reads nothing just above what reads it."""
    level: dict[str, int] = {}
    into: dict[str, list[str]] = {}
    for source, target, back in edges:
        if not back:
            into.setdefault(target, []).append(source)
    for box in boxes:
        level[box.name] = max((level[source] + 1 for source in into.get(box.name, ()) if source in level), default=0)
    for box in boxes:
        below = [level[target] for source, target, back in edges if source == box.name and not back]
        if box.name not in into and below:
            level[box.name] = max(0, min(below) - 1)
    rows: list[list[Box]] = [[] for _ in range(max(level.values(), default=0) + 1)]
    for box in boxes:
        rows[level[box.name]].append(box)
    return rows


def _width(box: Box) -> float:
    return max(len(box.name), len(box.line)) * LETTER + 20


def _places(
    boxes: Sequence[Box], rows: Sequence[Sequence[Box]], edges: Sequence[tuple[str, str, bool]]
) -> tuple[dict[str, tuple[float, float, float]], float, float]:
    """Centre, top and width of every box; a row is ordered by the mean place of what its boxes read."""
    widest = max(sum(_width(box) + GAP for box in row) for row in rows)
    places: dict[str, tuple[float, float, float]] = {}
    for depth, row in enumerate(rows):
        read = {box.name: [places[s][0] for s, t, _ in edges if t == box.name and s in places] for box in row}
        ordered = sorted(row, key=lambda box: sum(read[box.name]) / max(len(read[box.name]), 1))
        x = MARGIN + (widest - sum(_width(box) + GAP for box in row)) / 2
        for box in ordered:
            places[box.name] = (x + _width(box) / 2, 36 + depth * ROW, _width(box))
            x += _width(box) + GAP
    return places, widest + 2 * MARGIN + 40, 36 + len(rows) * ROW


def _box(box: Box, x: float, y: float, width: float) -> str:
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{HEIGHT}" rx="5" '
        f'fill="{COLOURS[box.group]}" stroke="#5b6670"/>'
        f'<text x="{x:.1f}" y="{y + 19:.1f}" text-anchor="middle" font-weight="600">{text(box.name)}</text>'
        f'<text x="{x:.1f}" y="{y + 35:.1f}" text-anchor="middle" fill="#5b6670">{text(box.line)}</text>'
    )


def _edge(source: tuple[float, float, float], target: tuple[float, float, float], back: bool) -> str:
    x1, y1, x2, y2 = source[0], source[1] + HEIGHT, target[0], target[1]
    style = 'fill="none" marker-end="url(#tip)"'
    if not back and y2 > y1:
        bend = (y2 - y1) / 2
        return (
            f'<path d="M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}" '
            f'stroke="#5b6670" {style}/>'
        )
    out1, out2 = x1 + source[2] / 2, x2 + target[2] / 2
    y1, y2, side = y1 - HEIGHT / 2, y2 + HEIGHT / 2, max(x1 + source[2] / 2, x2 + target[2] / 2) + 30
    label = f'<text x="{side - 4:.1f}" y="{(y1 + y2) / 2:.1f}" fill="#a3121f">t-1</text>' if back else ""
    return (
        f'<path d="M{out1:.1f} {y1:.1f}C{side:.1f} {y1:.1f} {side:.1f} {y2:.1f} {out2:.1f} {y2:.1f}" '
        f'stroke="#a3121f" stroke-dasharray="5 3" {style}/>{label}'
    )
