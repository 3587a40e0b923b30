"""Spikes and membranes over steps as SVG.

This module decides how they look. It must not know where they come from. matplotlib is imported inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrack_deploy.report import pictures

MAX_LINES = 4
MAX_STEPS = 2000


def raster(floats: NDArray[Any], integers: NDArray[Any], title: str) -> str:
    """Counts of the integer program, [steps, neurons], as dots; where the float64 network differs, in red."""
    floats, integers = floats[:MAX_STEPS], integers[:MAX_STEPS]
    neurons = integers.shape[1]
    figure, (ax,) = pictures._axes(9.0, 1.1 + min(0.06 * neurons, 2.6))
    same, apart = (integers != 0) & (integers == floats), integers != floats
    size = max(1.0, min(10.0, 160 / max(neurons, len(integers) / 9)))
    for steps, cells, colours in ((*np.nonzero(same), _shades(integers[same])), (*np.nonzero(apart), "#b00020")):
        ax.scatter(steps, cells, s=size, c=colours, marker="|" if size < 4 else "s", linewidths=0.8)
    ax.set_xlim(-0.5, len(integers) - 0.5)
    ax.set_ylim(-0.7, neurons - 0.3)
    ax.set_ylabel(title[:40], fontsize=8)
    ax.set_xlabel("step", fontsize=9)
    return pictures._svg(figure, title)


def _shades(counts: NDArray[Any]) -> list[str]:
    """Darker where more spikes fell into one step."""
    most = float(counts.max(initial=1))
    return [f"{0.6 - 0.6 * float(count) / most:.2f}" if most > 1 else "#0072b2" for count in counts]


def lines(floats: NDArray[Any], integers: NDArray[Any], title: str) -> str:
    """A few columns of [steps, neurons]: float64 as lines, integers as dots."""
    floats, integers = floats[:MAX_STEPS], integers[:MAX_STEPS]
    busy = np.argsort(-np.ptp(floats, axis=0), kind="stable")[:MAX_LINES]
    figure, axes = pictures._axes(9.0, 0.5 + 1.15 * len(busy), len(busy))
    for ax, neuron in zip(axes, busy):
        ax.plot(floats[:, neuron], color="#0072b2", linewidth=1.0)
        ax.plot(integers[:, neuron], ".", color="#d55e00", markersize=3.0)
        ax.set_ylabel(f"[{neuron}]", fontsize=8)
    axes[-1].set_xlabel("step", fontsize=9)
    return pictures._svg(figure, title)
