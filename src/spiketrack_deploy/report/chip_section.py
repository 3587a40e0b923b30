"""The part of the report that speaks of chips: does it fit, how fast, what static power adds, and the floorplan.

This module decides which figure of a mapping report stands in which table. It must not compute one.
"""

from __future__ import annotations

from typing import Any

from spiketrack_deploy.report import html
from spiketrack_deploy.report.data import Json, interval, joules, thin
from spiketrack_deploy.units import si, si_interval

_VERDICTS = ("native", "needs microcode", "microcode", "host")


def section(chips: Json, picture: str) -> str:
    """Headline, limits exceeded, times, energy of the mapped frame, verdicts, and the floorplan (an HTML figure)."""
    parts = [
        html.paragraph(sentence(chips)),
        _limits(chips),
        _times(chips["latency"]),
        _energy(chips["energy"]),
        _verdicts(chips),
        picture,
        "<h3>Assumed</h3>",
        html.bullets(chips["assumptions"]),
    ]
    return "".join(parts)


def sentence(chips: Json) -> str:
    """Chips, cores, time and static energy in one sentence."""
    available = f" of {chips['chips_available']}" if chips["chips_available"] else ""
    answer = "It fits" if chips["fits"] else "It does not fit"
    time, energy = chips["latency"], chips["energy"]
    said = (
        f"{answer} {chips['target']}: {chips['cores']:,} cores on {chips['chips']:,}{available} chip"
        f"{'s' if chips['chips'] > 1 else ''}, {_seconds(time['step_s'])} a step, "
        f"{time['depth_steps']} steps a frame"
    )
    static = energy["static_camera_frame_nj"]
    if not static:
        return f"{said}; static power has no price."
    return (
        f"{said}; the chips' static power adds {joules(static)} a frame at 30 frames a second, and the largest term "
        f"there is {energy['dominant_at_camera_rate']}."
    )


def _limits(chips: Json) -> str:
    rows = []
    for breach in chips["breaches"]:
        over = thin(breach["over_by"])
        rows.append((breach["rule"], breach["op"], thin(breach["used"]), thin(breach["limit"]), over, breach["remedy"]))
    if not rows:
        return html.paragraph("No limit of a core or of the chips is exceeded.")
    head = ["limit", "where", "used", "allowed", "over by", "what would help"]
    return "<h3>Limits exceeded</h3>" + html.table(head, rows)


def _times(time: Json) -> str:
    rows: list[tuple[Any, ...]] = [
        (cause["cause"], cause["where"], thin(round(cause["amount"])), _seconds(cause["time_s"]))
        for cause in time["causes"]
    ]
    rows.append(("a step", f"set by {time['bottleneck']['cause']}", "", _seconds(time["step_s"])))
    rows.append(("a frame", f"{time['depth_steps']} steps, pipelined", "", _seconds(time["frame_latency_s"])))
    missing = html.paragraph("Not modelled: " + "; ".join(time["not_modelled"]) + ".")
    return "<h3>Time</h3>" + html.table(["what", "where", "amount", "time"], rows) + missing


def _seconds(value: Json | None) -> str:
    return si_interval(interval(value), "s").replace(" u", " \u00b5") if value else "no price"


def _energy(energy: Json) -> str:
    rows = [(line["name"], thin(round(line["count"])), joules(line["energy_nj"])) for line in energy["lines"]]
    rows.append(("dynamic, mapped", "", joules(energy["dynamic_nj"])))
    chips = energy["chips_powered"]
    for key, name in (
        ("static_camera_frame_nj", f"static power of {chips} chips over 1/30 s"),
        ("static_full_speed_nj", f"static power of {chips} chips over one step (full speed)"),
    ):
        rows.append((name, "", joules(energy[key]) if energy[key] else "no price"))
    missing = [
        (u["name"], "" if u["count"] is None else thin(round(u["count"])), u["reason"]) for u in energy["unpriced"]
    ]
    table = html.table(["term of a search frame", "number", "energy"], rows)
    hops = f"{si(energy['hops_east_west'], '')} east-west and {si(energy['hops_north_south'], '')} north-south hops"
    without = html.table(["without a price", "number", "why"], missing) if missing else ""
    return "<h3>Energy of a mapped search frame</h3>" + html.paragraph(f"With {hops} a frame.") + table + without


def _verdicts(chips: Json) -> str:
    counted = chips["verdicts"]["count"]
    rows = [(name, str(counted[name])) for name in _VERDICTS if name in counted]
    reasons: dict[tuple[str, str], int] = {}
    for item in chips["verdicts"]["operations"]:
        key = (item["verdict"], item["reason"])
        reasons[key] = reasons.get(key, 0) + 1
    why = [(verdict, str(count), reason) for (verdict, reason), count in reasons.items() if verdict != "native"]
    return (
        "<h3>What the chip can do itself</h3>"
        + html.table(["verdict", "operations"], rows)
        + html.table(["verdict", "operations", "why"], why)
    )
