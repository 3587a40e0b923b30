"""The network's graph as a picture to explore: inline SVG whose boxes open the rows of their layers.

This module decides how :mod:`network` looks. Without scripts it is a still picture coloured by energy, in which a click
on a box still opens its rows (a link within the page); with them the colour can be chosen. Nothing is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spiketrack_deploy.report import html
from spiketrack_deploy.report.data import nominal, percent, thin
from spiketrack_deploy.report.network import Box, Link, Network, Row
from spiketrack_deploy.units import si

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 178, 40, 18, 24, 12
_LONGEST = 23
"""Characters of a block's name that a box holds."""
_RAMP = ("#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c")
"""ColorBrewer's Blues: also readable in grey, and by those who do not see red and green."""
_NOTHING = "#eeeeee"
_HEAD = ["layer", "kind", "events", "synops", "spiking", "energy", "spikes that differ", "cores"]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a colour can mean: ``value`` of a box (``None``: it has none), and how it is written."""

    key: str
    title: str
    value: Callable[[Box], float | None]
    text: Callable[[float], str]


MEASURES = (
    Measure("energy", "energy", lambda box: box.energy if box.rows else None, nominal),
    Measure("synops", "synaptic operations", lambda box: box.synops if box.rows else None, lambda v: si(v, "").strip()),
    Measure("differing", "disagreement", lambda box: box.differing, percent),
    Measure("cores", "cores", lambda box: box.cores, lambda v: thin(int(v))),
)


def picture(networks: Sequence[Network]) -> str:
    """A figure per phase, side by side where there is room, and the rows of every block, one of which is shown."""
    shown = [m for m in MEASURES if any(m.value(box) is not None for n in networks for box in n.boxes)]
    buttons = "".join(
        f'<button type="button" data-by="{m.key}" aria-pressed="{str(not place).lower()}">{html.text(m.title)}</button>'
        for place, m in enumerate(shown)
    )
    figures = "".join(_figure(n, index, shown) for index, n in enumerate(networks))
    rows = "".join(
        _rows(box, _anchor(i, j)) for i, n in enumerate(networks) for j, box in enumerate(n.boxes) if box.rows
    )
    hint = '<p class="dim hint">Choose a box: its layers appear here.</p>'
    return (
        f'<div class="net"><p class="modes" hidden>Colour by {buttons}</p>'
        f'<div class="graphs">{figures}</div><div class="rows">{hint}{rows}</div></div>'
    )


def _anchor(phase: int, box: int) -> str:
    return f"net-{phase}-{box}"


def _figure(net: Network, index: int, shown: Sequence[Measure]) -> str:
    columns, ranks = net.size
    wide = 2 * _MARGIN + columns * _WIDTH + (columns - 1) * _GAP_X + 44
    high = 2 * _MARGIN + ranks * _HEIGHT + (ranks - 1) * _GAP_Y
    most = {m.key: max((m.value(box) or 0.0 for box in net.boxes), default=0.0) for m in shown}
    heaviest = max((link.messages for link in net.links), default=0.0)
    lines = "".join(_line(net, link, heaviest) for link in net.links)
    boxes = "".join(_box(box, _anchor(index, place), shown, most) for place, box in enumerate(net.boxes))
    legend = "".join(
        f'<span data-by="{m.key}"{"" if m is shown[0] else " hidden"}>white: 0, dark: {html.text(m.text(most[m.key]))} '
        f"({html.text(m.title)})</span>"
        for m in shown
    )
    caption = f"A mean run of {html.text(net.phase)}. {legend}; widest line: {thin(round(heaviest))} messages."
    return (
        f'<figure><svg viewBox="0 0 {wide} {high}" style="max-width:{wide}px" role="group" '
        f'aria-label="blocks of {html.text(net.phase)}">{lines}{boxes}</svg><figcaption>{caption}</figcaption></figure>'
    )


def _corner(box: Box) -> tuple[int, int]:
    return _MARGIN + box.column * (_WIDTH + _GAP_X), _MARGIN + box.rank * (_HEIGHT + _GAP_Y)


def _line(net: Network, link: Link, heaviest: float) -> str:
    """Straight down to the next rank, around the right side of what lies between otherwise."""
    source, target = net.boxes[link.source], net.boxes[link.target]
    (x0, y0), (x1, y1) = _corner(source), _corner(target)
    width = 1.0 + (9.0 * math.sqrt(link.messages / heaviest) if heaviest else 0.0)
    if target.rank == source.rank + 1:
        a, b = x0 + _WIDTH / 2, x1 + _WIDTH / 2
        bottom, middle = y0 + _HEIGHT, (y0 + _HEIGHT + y1) / 2
        way = f"M{a} {bottom}C{a} {middle} {b} {middle} {b} {y1}"
    else:
        right = max(x0, x1) + _WIDTH
        out = right + 14 + 4 * min(6, abs(target.rank - source.rank))
        a, b = y0 + _HEIGHT / 2, y1 + _HEIGHT / 2
        way = f"M{x0 + _WIDTH} {a}C{out} {a} {out} {b} {x1 + _WIDTH} {b}"
    said = f"{source.name} to {target.name}: {thin(round(link.messages))} messages"
    return f'<path class="link" d="{way}" stroke-width="{width:.2f}"><title>{html.text(said)}</title></path>'


def _box(box: Box, anchor: str, shown: Sequence[Measure], most: dict[str, float]) -> str:
    x, y = _corner(box)
    name = box.name if len(box.name) <= _LONGEST else "\u2026" + box.name[1 - _LONGEST :]
    title = f'<text x="{x + 8}" y="{y + 17}" class="name">{html.text(name)}</text>'
    if not box.rows:
        return (
            f'<g class="outside"><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="20"/>{title}'
            f'<text x="{x + 8}" y="{y + 33}">from outside</text></g>'
        )
    fills, inks, words = {}, {}, {}
    for m in shown:
        value = m.value(box)
        fills[m.key], inks[m.key] = _colour(value, most[m.key])
        words[m.key] = "-" if value is None else m.text(value)
    first = shown[0].key
    data = "".join(
        f' data-f-{key}="{fills[key]}" data-i-{key}="{inks[key]}" data-t-{key}="{html.text(words[key])}"'
        for key in fills
    )
    said = f"{box.name}: " + ", ".join(f"{m.title} {words[m.key]}" for m in shown)
    return (
        f'<a href="#{anchor}" class="block"{data}><title>{html.text(said)}</title>'
        f'<g fill="{inks[first]}"><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" '
        f'fill="{fills[first]}"/>{title}'
        f'<text x="{x + 8}" y="{y + 33}" class="value">{html.text(words[first])}</text></g></a>'
    )


def _colour(value: float | None, most: float) -> tuple[str, str]:
    """Fill and ink."""
    if value is None:
        return _NOTHING, "#1d2329"
    step = min(len(_RAMP) - 1, math.floor(value / most * len(_RAMP))) if most else 0
    return _RAMP[step], "#ffffff" if step > 4 else "#1d2329"


def _rows(box: Box, anchor: str) -> str:
    rows = [_row(row, box.name) for row in box.rows]
    table = html.table(_HEAD, rows, sortable=True)
    return f'<div class="block-rows" id="{anchor}"><h3>{html.text(box.name)}</h3>{table}</div>'


def _row(row: Row, block: str) -> list[html.Cell | str]:
    """Layers by what follows their block's name, which stands above."""
    counts, energy = row.counts, row.energy
    events, work = counts["events"], counts["synops"] + counts["macs"]
    return [
        counts.name.partition(f"{block}.")[2] or counts.name,
        counts.kind,
        *(html.number(n, thin(round(n)) if n else "\u00b7") for n in (events, work, counts["neuron_spiking"])),
        html.number(energy.nominal, nominal(energy)),
        html.Cell("-", -1.0) if row.differing is None else html.number(row.differing, percent(row.differing)),
        html.Cell("-", -1.0) if not row.cores else html.number(row.cores),
    ]
