"""How many messages pass the links between routers, and between chips.

This module decides the way of a message: columns first, then rows. It must not know times.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.mapping.types import BoolArray, CoreLimits, FloatArray, IntArray, Placement, Traffic


def link_loads(x: IntArray, y: IntArray, flow: Traffic) -> dict[str, FloatArray]:
    """Messages of ``flow`` on every link, ``[rows, columns]`` of the mesh: ``east`` leads from a router to the next
    column, ``west`` back to it, ``south`` to the next row, ``north`` back. Columns first, then rows. ``x``, ``y``:
    column and row of every core."""
    xs, ys, xt, yt = x[flow.source], y[flow.source], x[flow.target], y[flow.target]
    shape = (int(y.max(initial=0)) + 1, int(x.max(initial=0)) + 1)
    return {
        "east": _runs(shape, ys, xs, xt, flow.messages, xt > xs),
        "west": _runs(shape, ys, xt, xs, flow.messages, xt < xs),
        "south": _runs(shape[::-1], xt, ys, yt, flow.messages, yt > ys).T,
        "north": _runs(shape[::-1], xt, yt, ys, flow.messages, yt < ys).T,
    }


def _runs(
    shape: tuple[int, int], line: IntArray, start: IntArray, end: IntArray, messages: FloatArray, which: BoolArray
) -> FloatArray:
    steps = np.zeros((shape[0], shape[1] + 1))
    np.add.at(steps, (line[which], start[which]), messages[which])
    np.add.at(steps, (line[which], end[which]), -messages[which])
    # Sums of floats leave dust where everything cancels.
    return np.maximum(np.cumsum(steps, axis=1)[:, : shape[1]], 0.0)


def busiest_link(place: Placement, flow: Traffic, chips: CoreLimits | None = None) -> tuple[str, float]:
    """Name and messages of the busiest link between routers; with the ``chips``' limits, of that between chips."""
    x, y = place.x, place.y
    if chips is not None:
        x, y = x // chips.tiles_x, y // chips.tiles_y
    best = ("no message leaves a router" if chips is None else "no message leaves a chip", 0.0)
    unit = "router" if chips is None else "chip"
    for direction, load in link_loads(x, y, flow).items():
        row, column = np.unravel_index(int(np.argmax(load)), load.shape)
        if load[row, column] > best[1] + 0.5:
            best = (f"link {direction} at {unit} column {column}, row {row}", float(load[row, column]))
    return best
