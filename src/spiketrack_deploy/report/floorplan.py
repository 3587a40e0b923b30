"""The chips as a plan: every neurocore a cell, coloured by how full, how busy, how costly it is, and by block.

This module decides how a mapping looks. It must not know how one is made. matplotlib is imported inside.

A cell's place is its router's on the mesh that spans all chips; the cores of one router stand side by side within it.
Energy is nominal and dynamic: synaptic operations, the core's slots in every elapsed step and messages that arrive,
each at the profile's price; what the profile does not price is not in the colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrack_deploy.energy.pricing import charged
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.inputs.whole_file import whole
from spiketrack_deploy.mapping.closed_loop import serial_steps, slots_per_core
from spiketrack_deploy.mapping.types import ChipMapping
from spiketrack_deploy.report import pictures

_NAMED = 18
_EMPTY, _BORDER, _INK = "#eeeeee", "#222222", "#222222"
_BLOCK_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c564b", "#7f3c8d", "#3969ac",
    "#80ba5a", "#e73f74", "#a5aa99", "#1d6996", "#edad08", "#73af48", "#94346e", "#5f4690",
)  # fmt: skip
_OTHER = "#999999"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Floorplan:
    """``values``: title with unit -> value per cell, ``[rows, columns]``, NaN where no core is in use. ``block``: index
    into ``blocks`` per cell, -1 where none. ``chip``: cells of one chip in (rows, columns); ``chips`` in the mesh."""

    title: str
    values: Mapping[str, Floats]
    block: NDArray[np.int64]
    blocks: tuple[str, ...]
    chip: tuple[int, int]
    chips: tuple[int, int]


def floorplan(mapping: ChipMapping, profile: Profile) -> Floorplan:
    """The plan of a placed mapping: utilisation (the fullest limit of each core), synaptic operations and energy."""
    limits, at = mapping.limits, mapping.placement
    wide = math.ceil(math.sqrt(limits.cores_per_tile))
    high = math.ceil(limits.cores_per_tile / wide)
    chip = (limits.tiles_y * high, limits.tiles_x * wide)
    rank = _rank_in_tile(at.x, at.y)
    row, column = at.y * high + rank // wide, at.x * wide + rank % wide
    shape = (at.chips_y * chip[0], at.chips_x * chip[1])

    def grid(values: Floats) -> Floats:
        out = np.full(shape, np.nan)
        out[row, column] = values
        return out

    values = {
        "fullest limit of the core, %": grid(100 * utilisation(mapping)),
        "synaptic operations per run": grid(mapping.synapses.synops),
        "dynamic energy per run, nJ (nominal)": grid(core_energy(mapping, profile)),
    }
    names, owner = _blocks(mapping)
    block = np.full(shape, -1, dtype=np.int64)
    block[row, column] = owner
    title = f"{mapping.target}: {mapping.cores:,} cores on {mapping.chips:,} chip{'s' if mapping.chips > 1 else ''}"
    return Floorplan(title, values, block, names, chip, (at.chips_y, at.chips_x))


def _rank_in_tile(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many cores of lower number share a core's router."""
    order = np.lexsort((np.arange(x.size), x, y))
    start = np.flatnonzero(np.r_[True, (np.diff(x[order]) != 0) | (np.diff(y[order]) != 0)]) if x.size else order
    length = np.diff(np.r_[start, x.size])
    rank = np.empty_like(order)
    rank[order] = np.arange(x.size) - np.repeat(start, length)
    return rank


def utilisation(mapping: ChipMapping) -> Floats:
    """Per core the largest of its loads over their limits; above 1 where a limit is exceeded."""
    limits, loads = mapping.limits, mapping.loads
    pairs = (
        (loads.neurons, limits.neurons),
        (loads.words, limits.words),
        (loads.axons_in, limits.axons_in),
        (loads.axons_out, limits.axons_out),
        (loads.groups, limits.groups),
    )
    shares = [used / limit for used, limit in pairs if limit]
    if limits.memory:
        taken = 8 * loads.words + limits.state_bytes * loads.neurons + limits.axon_bytes * loads.axons_in
        shares.append(taken / limits.memory)
    return np.max(np.stack(shares), axis=0) if shares else np.zeros(mapping.cores)


def core_energy(mapping: ChipMapping, profile: Profile) -> Floats:
    """Nominal dynamic energy of every core per run of the phase, nanojoules, of what the profile prices; every slot in
    every elapsed step (neurons as idle where it tells them apart), every spike as one event."""
    flow = mapping.traffic
    arriving: Floats = np.bincount(flow.target, weights=flow.messages, minlength=mapping.cores).astype(np.float64)
    native, microcode = slots_per_core(mapping)
    steps = float(serial_steps(mapping)[1:].sum()) * profile.substeps
    counts: dict[str, Floats] = {
        "synops": mapping.synapses.synops,
        "unit_ops": mapping.synapses.synops,
        "slot_steps_native": native * steps,
        "slot_steps_microcode": microcode * steps,
        "idle_updates": (native + microcode) * steps,
        "messages": arriving,
        "unit_messages": arriving,
    }
    energy = np.zeros(mapping.cores)
    for _, _, price, amount in charged(counts, profile):
        energy += amount * price.nominal
    return energy


def _blocks(mapping: ChipMapping) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Blocks in execution order, and per core the one that has most of its neurons."""
    populations = mapping.network.populations
    short = _short([p.block for p in populations if p.on_chip])
    names = tuple(dict.fromkeys(short.values()))
    place = {name: index for index, name in enumerate(names)}
    pieces = mapping.pieces
    width = np.array([p.width for p in populations], dtype=np.int64)
    of = np.array([place.get(short.get(p.block, ""), -1) for p in populations], dtype=np.int64)
    neurons = (pieces[:, 3] - pieces[:, 2]) * (pieces[:, 5] - pieces[:, 4]) * width[pieces[:, 1]]
    held = np.zeros((mapping.cores, max(len(names), 1)), dtype=np.int64)
    np.add.at(held, (pieces[:, 0], of[pieces[:, 1]]), neurons)
    return names, held.argmax(axis=1)


def _short(blocks: Sequence[str]) -> dict[str, str]:
    """Block -> the name it is coloured by: its own, or its first parts where there would be too many colours."""
    found = {block: block for block in blocks}
    for parts in (2, 1):
        if len(set(found.values())) <= _NAMED:
            break
        found = {block: ".".join(block.split(".")[:parts]) for block in blocks}
    return found


def draw(plan: Floorplan, form: str = "svg") -> Any:
    """Four maps on one page, blocks first. ``form``: ``svg`` (text) or ``png`` (bytes)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = plan.block.shape
    ratio = min(max(rows / columns, 0.35), 1.6)
    figure = Figure(figsize=(11.0, 2.0 + 11.0 * ratio), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plan.title, fontsize=11, color=_INK)
    axes = figure.subplots(2, 2).ravel()
    _draw_blocks(axes[0], plan)
    for ax, (title, values) in zip(axes[1:], plan.values.items()):
        _frame(ax, plan, title)
        image = ax.imshow(np.ma.masked_invalid(values), cmap="viridis", interpolation="nearest", vmin=0)
        figure.colorbar(image, ax=ax, shrink=0.8).ax.tick_params(labelsize=7)
    return pictures._svg(figure, plan.title) if form == "svg" else pictures._png(figure)


def _frame(ax: Any, plan: Floorplan, title: str) -> None:
    """Grey for cores without use, lines between chips."""
    ax.set_title(title, fontsize=9, color=_INK)
    ax.set_facecolor(_EMPTY)
    ax.set_xticks([])
    ax.set_yticks([])
    heavy = 1.2 if max(plan.chips) <= 8 else 0.4
    for index in range(1, plan.chips[0]):
        ax.axhline(index * plan.chip[0] - 0.5, color=_BORDER, linewidth=heavy)
    for index in range(1, plan.chips[1]):
        ax.axvline(index * plan.chip[1] - 0.5, color=_BORDER, linewidth=heavy)


def _draw_blocks(ax: Any, plan: Floorplan) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    order = _largest_blocks(plan)
    colour = dict(zip(order[:_NAMED], _BLOCK_COLOURS))
    image = np.empty((*plan.block.shape, 3))
    image[:] = to_rgb(_EMPTY)
    for index in range(len(plan.blocks)):
        image[plan.block == index] = to_rgb(colour.get(index, _OTHER))
    _frame(ax, plan, "blocks of the network (most neurons of the core)")
    ax.imshow(image, interpolation="nearest")
    handles = [
        Patch(color=colour[i], label=f"{plan.blocks[i]} ({int((plan.block == i).sum())})") for i in sorted(colour)
    ]
    rest = sum(int((plan.block == i).sum()) for i in order[_NAMED:])
    if rest:
        handles.append(Patch(color=_OTHER, label=f"others ({rest})"))
    ax.legend(handles=handles, fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.01))


def _largest_blocks(plan: Floorplan) -> Sequence[int]:
    """Blocks with cores, those with most first."""
    sizes = [(int((plan.block == index).sum()), -index) for index in range(len(plan.blocks))]
    return [-index for size, index in sorted(sizes, reverse=True) if size]


def write_pictures(plan: Floorplan, folder: Path) -> list[Path]:
    """``floorplan.svg`` and ``floorplan.png`` in ``folder``, which is made where it is missing: both or neither."""
    svg, png = folder / "floorplan.svg", folder / "floorplan.png"
    made = not folder.exists()
    try:
        with whole(svg) as first, whole(png) as second:
            first.write_text(draw(plan), encoding="utf-8")
            second.write_bytes(draw(plan, "png"))
    except BaseException:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return [svg, png]


def figure_html(plan: Floorplan) -> str:
    """The plan with its caption, for ``report.html``: self-contained SVG."""
    from spiketrack_deploy.report import html

    caption = (
        f"{plan.title}. Every cell is a neurocore, grey ones are not used; lines separate chips. A core belongs "
        "to the block with most of its neurons. Above 100 % a limit is exceeded. "
        "How a board connects its chips is assumed."
    )
    return html.figure(draw(plan), caption)
