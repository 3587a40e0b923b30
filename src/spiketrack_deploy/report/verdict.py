"""The verdict: what an export found, in a few sentences that stand at the top of the report and on the terminal.

This module decides words and which caveat must never be missing. It must not compute results.
"""

from __future__ import annotations

from spiketrack_deploy.report import chip_section
from spiketrack_deploy.report.data import Json, ReportData, joules, percent

_NAMED = 3


def sentences(data: ReportData) -> list[str]:
    """Cost, exactness, faithfulness, dominant assumption, and what is not answered."""
    said = [_cost(data.energy), _exactness(data.parity), _faithfulness(data)]
    top = data.energy["per_frame"]["dominant"]
    if top:
        said.append(
            f"The figure hangs most on one price, '{top['price']}': {percent(top['share'])} of it, "
            f"known as '{top['tag']}' ({top['source']})."
        )
    if data.chips:
        said.append(chip_section.sentence(data.chips[0]))
        said.append("Not answered here: what the host, moving frames to the chip, and the board beside the chips add.")
    elif data.energy["profile"]["kind"] != "convention":
        said.append(
            "Not answered here: how many chips it needs and how fast it runs (mapping), hence its static energy."
        )
    return said


def _cost(energy: Json) -> str:
    cost = joules(energy["per_frame"]["dynamic_nj"])
    return (
        f"A search frame costs {cost} dynamic on {energy['profile']['title']}: "
        f"mean over {energy['frames']} frames, template updates amortised, an estimate from exact counts."
    )


def _exactness(parity: Json) -> str:
    engines = parity["engines"]
    if engines["engine"] == engines["against"]:
        return f"It was executed by the {engines['engine']} engine, which is the definition of the program."
    return (
        f"The program ran exactly: {engines['differing']} of {engines['integers']:,} integers differ "
        f"between the {engines['engine']} and the {engines['against']} engine."
    )


def _faithfulness(data: ReportData) -> str:
    """What 8-bit weights change. Boxes of drawn weights say nothing: such a network amplifies every rounding."""
    rows = data.parity["layers"]
    spikes = sum(row["spikes"] for row in rows)
    forced = sum(row["forced_mismatches"] for row in rows)
    said = f"Fed with the float64 tracker's spikes, its layers change {percent(forced / max(spikes, 1))} of them"
    boxes = data.parity["boxes"]
    if data.model.get("remark"):
        return f"{said}; its boxes are not judged, because the weights are drawn and not trained."
    return (
        f"{said}; left alone, its boxes overlap the tracker's by {percent(boxes['mean_iou'])} on average and "
        f"{percent(boxes['least_iou'])} at least over {boxes['frames']} frames."
    )


def remarks(data: ReportData) -> list[str]:
    """Warnings that stand beside the verdict."""
    found = []
    if data.model.get("remark"):
        found.append(f"{data.model['name']}: {data.model['remark']}.")
    if set(data.parity["calibration_frames"]) & set(data.parity["compared_frames"]):
        found.append("The clip was too short to compare on other frames than those the exponents were chosen on.")
    counted = [item["name"] for item in data.energy["unpriced"] if item["count"]]
    if counted:
        found.append(f"In no total, because they have no price: {', '.join(dict.fromkeys(counted))}.")
    silent = [row["name"] for row in data.energy["layers"] if row["phase"] == "search" and _silent(row)]
    if silent:
        more = ", ..." if len(silent) > _NAMED else ""
        found.append(
            f"{len(silent)} neuron populations of the search phase never spiked: {', '.join(silent[:_NAMED])}{more}."
        )
    return found


def _silent(row: Json) -> bool:
    return row["kind"] == "ni_lif" and not row["counts"].get("neuron_spiking")
