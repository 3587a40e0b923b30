"""The parts of the report that speak of faithfulness: engines, boxes, neurons, convolutions, range proof.

This module decides which figure of parity.json stands in which table. It must not compute one beyond shares and sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from spiketrack_deploy.program.describe import tightest
from spiketrack_deploy.report import html, pictures
from spiketrack_deploy.report.data import Json, percent, thin
from spiketrack_deploy.report.verdict import in_stock

_MARGINS_SHOWN = 15
_CONV_HEAD = ["convolution", "weights", "zero", "exponents", "clipped weights", "channels held down by range", "SQNR"]


def parity(found: Json, main: str) -> str:
    """Integers between engines, boxes and spikes against the float tracker, convolutions. ``main``: the phase drawn."""
    engines, boxes = found["engines"], found["boxes"]
    differing = f"{thin(engines['differing'])} of {thin(engines['integers'])} differ"
    covered = f"{engines['operations']} operations in {engines['runs']} runs"
    stock = in_stock(engines)
    overlap = f"mean overlap (IoU) {boxes['mean_iou']:.4f}, least {boxes['least_iou']:.4f}"
    frames = f"exponents chosen on frames {_list(found['calibration_frames'])}"
    rows = [
        ("integers", f"{differing} ({covered}, {engines['engine']} engine against {engines['against']}){stock}"),
        ("boxes against the float64 tracker", f"{overlap}, largest difference {boxes['largest_difference_px']:.3g} px"),
        ("same best cell", f"{boxes['same_cell']} of {boxes['frames']} frames"),
        ("frames", f"{frames}; compared on {_list(found['compared_frames'])}"),
        ("operations that round", ", ".join(found["requantised"]) or "none: only the weights were rounded"),
    ]
    layers = _neurons(found["layers"], main) + _convolutions(found["convolutions"])
    return html.table(["check", "result"], rows) + layers


def _list(frames: Sequence[int]) -> str:
    return ", ".join(str(f) for f in frames) or "none"


def _neurons(layers: Sequence[Json], main: str) -> str:
    if not layers:
        return ""
    blocks = _by_block(row for row in layers if row["phase"] == main)
    rates = [b[0] for b in blocks.values()], [b[1] for b in blocks.values()]
    axis = "spikes that differ from the float64 tracker, %"
    svg = pictures.two_rates(list(blocks), *rates, ("teacher-forced", "free-running"), axis, "Mismatch per block")
    caption = (
        "Spikes (0..4) that differ from the float64 tracker's on the compared frames, per block of the phase "
        f"{main}. Teacher-forced: each layer reads the tracker's own spikes. Free-running: differences accumulate."
    )
    head = ["phase", "neurons", "compared", "teacher-forced", "free-running"]
    table = html.table(head, [_neuron_row(r) for r in layers if r["spikes"]], sortable=True, scroll=True)
    return html.figure(svg, caption) + "<h3>Neurons</h3>" + table


def _by_block(layers: Iterable[Json]) -> dict[str, tuple[float, float]]:
    sums: dict[str, list[float]] = {}
    for row in layers:
        total = sums.setdefault(row["block"], [0.0, 0.0, 0.0])
        total[0] += row["forced_mismatches"]
        total[1] += row["free_mismatches"]
        total[2] += row["spikes"]
    return {block: (100 * a / n, 100 * b / n) for block, (a, b, n) in sums.items() if n}


def _neuron_row(row: Json) -> list[Any]:
    rates = (row["forced_mismatches"] / row["spikes"], row["free_mismatches"] / row["spikes"])
    shown = [html.number(rate, percent(rate)) for rate in rates]
    return [row["phase"], row["name"], html.number(row["spikes"], thin(row["spikes"])), *shown]


def _convolutions(rows: Sequence[Json]) -> str:
    listed = [_convolution_row(row) for row in rows]
    return "<h3>Convolutions</h3>" + html.table(_CONV_HEAD, listed, sortable=True, scroll=True)


def _convolution_row(row: Json) -> list[Any]:
    zero, noise = row["zero_weights"] / max(row["weights"], 1), row["sqnr_db"]
    return [
        row["name"],
        html.number(row["weights"]),
        html.number(zero, percent(zero)),
        html.Cell(f"{row['exponent_low']}..{row['exponent_high']}", float(row["exponent_low"])),
        html.number(row["clipped_weights"]),
        html.number(row["capped_channels"]),
        html.Cell("not measured", -1.0) if noise is None else html.number(noise, f"{noise:.1f} dB"),
    ]


def ranges(found: Json) -> str:
    """The tightest worst cases."""
    tight = tightest(found["ranges"], _MARGINS_SHOWN)
    names = [f"{phase} {entry['op']}" for phase, entry in tight]
    svg = pictures.margins(names, [entry["margin_bits"] for _, entry in tight], "Tightest margins")
    rows = [
        (
            phase,
            entry["op"],
            html.number(entry["low"]),
            html.number(entry["high"]),
            html.number(entry["margin_bits"], f"{entry['margin_bits']:.2f}"),
        )
        for phase, entry in tight
    ]
    words = (
        "Worst case over every possible image and every possible spike, by interval arithmetic. All sums stay within "
        "signed 24 bits, the width of the chip's membranes."
    )
    caption = f"The {len(tight)} tightest of {sum(len(v) for v in found['ranges'].values())} operations."
    table = html.table(["phase", "operation", "lowest", "highest", "headroom, bits"], rows, sortable=True)
    return html.paragraph(words) + html.figure(svg, caption) + table
