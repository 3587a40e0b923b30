"""The verdict: what an export found, in a few sentences that stand at the top of the report and on the terminal.

This module decides words and which caveat must never be missing. It must not compute results.
"""

from __future__ import annotations

from spiketrack_deploy.energy.compare import priced
from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.report import chip_section
from spiketrack_deploy.report.data import Json, ReportData, how_often, joules, micro, percent

_NAMED = 3


def sentences(data: ReportData) -> list[str]:
    """Fit, cost, whether it keeps up, exactness, faithfulness, what the figures hang on, and what is not answered."""
    if data.chips is None:
        said = [cost(data.energy)]
    else:
        whole = data.chips[0]
        said = [whole.sentence, cost(data.energy), *(micro(words) for words in whole.camera())]
        said.append(chip_section.dominance(whole))
    said += [_exactness(data.parity), _faithfulness(data)]
    top = data.energy.main.dominant
    if top:
        said.append(
            f"The dynamic figure hangs most on one price, '{top.name}': {percent(top.share)} of it, "
            f"known as '{top.price.tag}' ({top.price.source})."
        )
    if data.chips:
        said.append("Not answered here: what the host costs that makes the crops and reads the results.")
    elif data.energy.profile.kind != "convention":
        said.append(
            "Not answered here: how many chips it needs and how fast it runs (mapping), hence its static energy."
        )
    return said


def cost(energy: EnergyReport) -> str:
    """What a result costs, in one sentence."""
    if not priced(energy):
        return f"Nothing that happened has a price on {energy.profile.title}: the energy is unknown, which is not 0 J."
    often = ", ".join(f"{phase.name} {how_often(phase.per_result, energy.result)}" for phase in energy.phases)
    mean = f"mean over {energy.main.runs} runs, an estimate from exact counts"
    if energy.placed is None:
        said = f"A {energy.result} costs {joules(energy.dynamic)} dynamic on {energy.profile.title}"
        return f"{said}: {often}; {mean}."
    mean_result = energy.placed.mean
    parts = [f"{joules(mean_result.dynamic)} dynamic"]
    parts += [f"{joules(mean_result.static)} static power"] if mean_result.static else []
    parts += [f"{joules(mean_result.input)} more of it while the image enters"] if mean_result.input else []
    total = "in all" if mean_result.static else "without static power, which has no price"
    said = f"A {energy.result} costs {joules(mean_result.total)} {total} on {energy.profile.title} ({', '.join(parts)})"
    return f"{said}: {often}; {mean}."


def _exactness(parity: Json) -> str:
    engines = parity["engines"]
    if engines["engine"] == engines["against"]:
        return f"It was executed by the {engines['engine']} engine, which is the definition of the program."
    return (
        f"The program ran exactly: {engines['differing']} of {engines['integers']:,} integers differ "
        f"between the {engines['engine']} and the {engines['against']} engine{in_stock(engines)}."
    )


def in_stock(engines: Json) -> str:
    """What ran in Processes that Lava ships, if anything did."""
    found = engines.get("stock")
    return f", {found['differing']} of {found['integers']:,} in Processes that Lava ships" if found else ""


def _faithfulness(data: ReportData) -> str:
    """What 8-bit weights change. Boxes of drawn weights say nothing: such a network amplifies every rounding."""
    rows = data.parity["layers"]
    spikes = sum(row["spikes"] for row in rows)
    forced = sum(row["forced_mismatches"] for row in rows)
    said = f"Fed with the float64 tracker's spikes, its layers change {percent(forced / max(spikes, 1))} of them"
    boxes = data.parity["boxes"]
    if data.remark:
        return f"{said}; its boxes are not judged, because the weights are drawn and not trained."
    return (
        f"{said}; left alone, its boxes overlap the tracker's by {percent(boxes['mean_iou'])} on average and "
        f"{percent(boxes['least_iou'])} at least over {boxes['frames']} frames."
    )


def remarks(data: ReportData) -> list[str]:
    """Warnings that stand beside the verdict."""
    found = []
    if data.remark:
        found.append(f"{data.model}: {data.remark}.")
    if set(data.parity["calibration_frames"]) & set(data.parity["compared_frames"]):
        found.append("The clip was too short to compare on other frames than those the exponents were chosen on.")
    counted = [item.name for item in data.energy.unpriced if item.count]
    if counted:
        found.append(f"In no total, because they have no price: {', '.join(dict.fromkeys(counted))}.")
    for phase in data.energy.phases:
        silent = [row.name for row in phase.counts if row.kind == "ni_lif" and not row["neuron_spiking"]]
        if silent:
            more = ", ..." if len(silent) > _NAMED else ""
            names = ", ".join(silent[:_NAMED])
            found.append(f"{len(silent)} neuron populations of phase {phase.name} never spiked: {names}{more}.")
    return found
