"""The report of an export as one self-contained HTML page.

This module decides what a reader sees first and what beside it. It must not compute results; :mod:`data` says where
they come from. Sections follow the reader's questions: what does it say, of what, how much, where, is it right, how do
I know.
"""

from __future__ import annotations

from collections.abc import Mapping

from spiketrack_deploy.energy.report import PhaseEnergy
from spiketrack_deploy.report import cards, chip_section, energy_sections, html, parity_sections, pictures
from spiketrack_deploy.report.data import ReportData, how_often, percent, thin
from spiketrack_deploy.report.guide import GUIDE
from spiketrack_deploy.report.network import network
from spiketrack_deploy.report.network_picture import picture
from spiketrack_deploy.report.verdict import remarks, sentences


def build(data: ReportData) -> str:
    """The whole page."""
    title = f"{data.model} on {data.energy.profile.title}"
    sections = [
        ("network", "The network", _network(data)),
        ("subject", "Model and clip", _subject(data)),
        ("totals", f"Energy of a {data.energy.result}", energy_sections.totals(data.energy)),
        ("where", "Where it goes", energy_sections.where(data.energy)),
        ("frames", "Over the frames", _frames(data)),
        *([("chips", "On the chip", chip_section.section(*data.chips))] if data.chips else []),
        ("parity", "Is the program the tracker?", parity_sections.parity(data.parity, data.energy.main.name)),
        ("ranges", "Range proof", parity_sections.ranges(data.parity)),
        ("layers", "Layer by layer", energy_sections.layers(data.energy)),
        ("yardsticks", "Yardsticks", energy_sections.yardsticks(data.energy)),
        ("prices", "Prices, assumptions, and what has no price", energy_sections.prices(data.energy)),
        ("again", "How to reproduce", _again(data)),
        ("guide", "Reading guide", html.definitions(GUIDE)),
    ]
    answers = cards.draw(cards.cards(data))
    verdict = "".join(html.paragraph(s) for s in sentences(data))
    warnings = "".join(f'<div class="warn">{html.text(w)}</div>' for w in remarks(data))
    head = f'<h1>{html.text(title)}</h1><p class="dim">spiketrack-deploy export report</p>'
    return html.page(title, f'{head}{answers}<div class="verdict">{verdict}</div>{warnings}', sections)


def _subject(data: ReportData) -> str:
    program, clip, config = data.program, data.clip, data.program["config"] or {}
    layout = "; ".join(f"{key} {_short(value)}" for key, value in config.items())
    zero = percent(program["zero_weights"] / max(program["weights"], 1))
    rows = [
        ("model", f"{data.model} ({data.weights})"),
        ("layout", layout),
        ("weights", f"{thin(program['weights'])} int8, of which {zero} are zero"),
        *(_phase_row(data, phase) for phase in data.energy.phases),
        (
            "clip",
            f"{clip.name}: {clip.frames} frames of {clip.width}x{clip.height}, first box {list(clip.init)}",
        ),
        ("executed by", f"{data.engine} engine, exact integers; no neuromorphic hardware"),
    ]
    return html.table(["what", "value"], rows) + html.photographs(data.stills)


def _network(data: ReportData) -> str:
    mapped = data.chips[0].phases if data.chips else {}
    found = [
        network(
            phase,
            data.program["phases"][phase.name],
            data.parity["layers"],
            mapped[phase.name].mapping if phase.name in mapped else None,
        )
        for phase in data.energy.phases
    ]
    words = (
        "Blocks in the order of execution; a line is as wide as the root of the messages that it carries; a thin one "
        "carries none, the reader is the same neurons. Disagreement: share of spikes that differ from the float "
        "network's when a layer is fed with its."
    )
    return html.paragraph(words) + picture(found)


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)


def _phase_row(data: ReportData, phase: PhaseEnergy) -> tuple[str, str]:
    found = data.program["phases"][phase.name]
    often = how_often(phase.per_result, data.energy.result)
    return (
        f"phase {phase.name}",
        f"{found['operations']} operations in {len(found['blocks'])} blocks, {thin(found['neurons'])} NI-LIF neuron "
        f"steps a run, {thin(found['memory_words_in'])} words of memory read; runs {often}",
    )


def _frames(data: ReportData) -> str:
    frames = data.frames
    series = {
        "energy": ("\u00b5J", [f.energy.nominal / 1000 for f in frames]),
        "active neurons": ("%", [100 * f.active for f in frames]),
        "spike messages": ("1000", [f.events / 1000 for f in frames]),
        "confidence": ("", [f.confidence for f in frames]),
    }
    updates = [f.frame for f in frames if f.updated]
    svg = pictures.over_frames([f.frame for f in frames], series, updates, "Activity over frames")
    caption = (
        f"Nominal energy of each {data.energy.result} with all that it took, share of NI-LIF neurons that spike, spike "
        "messages read, and the tracker's confidence. Axes do not start at zero."
    )
    return html.figure(svg, caption)


def _again(data: ReportData) -> str:
    rows = [("content hash", data.content_hash), ("program hash", data.program_hash)]
    words = (
        "The content hash must come out the same; spiketrack verify re-executes the recorded vectors with NumPy alone. "
        "Versions and input hashes are in provenance.json."
    )
    command = f"<pre>{html.text(data.command)}\nspiketrack verify BUNDLE</pre>"
    return command + html.paragraph(words) + html.table(["what", "SHA-256"], rows)
