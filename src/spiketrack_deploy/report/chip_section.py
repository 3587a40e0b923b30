"""The part of the report that speaks of chips: does it fit, how fast, what static power adds, and the floorplan.

This module decides which figure of a mapping stands in which table. It must not compute one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from spiketrack_deploy.mapping.cost import MappedEnergy
from spiketrack_deploy.mapping.latency import NOT_MODELLED, Latency
from spiketrack_deploy.mapping.report import MappingReport
from spiketrack_deploy.mapping.types import ChipMapping
from spiketrack_deploy.report import html
from spiketrack_deploy.report.data import joules, thin
from spiketrack_deploy.units import Interval, si, si_interval

_VERDICTS = ("native", "microcode", "host")


def section(chips: MappingReport, picture: str) -> str:
    """Headline, limits exceeded, times, energy of the mapped run, verdicts, and the floorplan (an HTML figure)."""
    parts = [
        html.paragraph(sentence(chips)),
        _limits(chips.mapping),
        _times(chips.time),
        _energy(chips.energy, chips.phase),
        _verdicts(chips),
        picture,
        "<h3>Assumed</h3>",
        html.bullets(chips.assumptions),
    ]
    return "".join(parts)


def sentence(chips: MappingReport) -> str:
    """Chips, cores, time and static energy in one sentence."""
    mapping, time, static = chips.mapping, chips.time, chips.energy.static_camera
    available = f" of {mapping.chips_available}" if mapping.chips_available else ""
    answer = "It fits" if mapping.fits else "It does not fit"
    said = (
        f"{answer} {mapping.target}: {mapping.cores:,} cores on {mapping.chips:,}{available} chip"
        f"{'s' if mapping.chips > 1 else ''}, {_seconds(time.step)} a step, {time.depth} steps a frame"
    )
    if not static:
        return f"{said}; static power has no price."
    return (
        f"{said}; the chips' static power adds {joules(static)} a frame at 30 frames a second, and the largest term "
        f"there is {chips.energy.dominant}."
    )


def _limits(mapping: ChipMapping) -> str:
    rows = [(b.rule, b.op, thin(b.used), thin(b.limit), thin(b.used - b.limit), b.remedy) for b in mapping.breaches]
    if not rows:
        return html.paragraph("No limit of a core or of the chips is exceeded.")
    head = ["limit", "where", "used", "allowed", "over by", "what would help"]
    return "<h3>Limits exceeded</h3>" + html.table(head, rows)


def _times(time: Latency) -> str:
    rows: list[tuple[Any, ...]] = [
        (cause.what, cause.where, thin(round(cause.amount)), _seconds(cause.time)) for cause in time.causes
    ]
    if time.bottleneck:
        rows.append(("a step", f"set by {time.bottleneck.what}", "", _seconds(time.step)))
        rows.append(("a frame", f"{time.depth} steps, pipelined", "", _seconds(time.frame)))
    missing = html.paragraph("Not modelled: " + "; ".join(NOT_MODELLED) + ".")
    return "<h3>Time</h3>" + html.table(["what", "where", "amount", "time"], rows) + missing


def _seconds(value: Interval | None) -> str:
    return si_interval(value, "s").replace(" u", " \u00b5") if value else "no price"


def _energy(energy: MappedEnergy, phase: str) -> str:
    rows = [(line.name, thin(round(line.count)), joules(line.energy)) for line in energy.lines]
    rows.append(("dynamic, mapped", "", joules(energy.dynamic)))
    for static, name in (
        (energy.static_camera, f"static power of {energy.chips} chips over 1/30 s"),
        (energy.static_step, f"static power of {energy.chips} chips over one step (full speed)"),
    ):
        rows.append((name, "", joules(static) if static else "no price"))
    missing = [(u.name, "" if u.count is None else thin(round(u.count)), u.reason) for u in energy.unpriced]
    table = html.table([f"term of one run of {phase}", "number", "energy"], rows)
    east, north = energy.hops
    hops = f"{si(east, '')} east-west and {si(north, '')} north-south hops"
    without = html.table(["without a price", "number", "why"], missing) if missing else ""
    return f"<h3>Energy of a mapped run of {html.text(phase)}</h3>" + html.paragraph(f"With {hops}.") + table + without


def _verdicts(chips: MappingReport) -> str:
    counted = chips.verdicts
    rows = [(name, str(counted[name])) for name in _VERDICTS if name in counted]
    reasons = Counter((item.verdict, item.reason) for item in chips.mapping.verdicts)
    why = [(verdict, str(count), reason) for (verdict, reason), count in reasons.items() if verdict != "native"]
    return (
        "<h3>What the chip can do itself</h3>"
        + html.table(["verdict", "operations"], rows)
        + html.table(["verdict", "operations", "why"], why)
    )
