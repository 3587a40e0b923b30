"""The parts of the report that speak of energy: totals, causes, blocks, layers, yardsticks, prices.

This module decides which figure of an energy report stands in which table. It must not compute one, nor know what a
phase is for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from spiketrack_deploy.energy.conventions import ConventionLayer
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.pricing import CAUSES, LayerEnergy, priced_causes
from spiketrack_deploy.energy.report import EnergyReport, PhaseEnergy
from spiketrack_deploy.energy.twins import duels
from spiketrack_deploy.hardware.schema import Price
from spiketrack_deploy.report import html, pictures
from spiketrack_deploy.report.data import how_often, joules, nominal, percent, thin

_LAYER_COUNTS = ("events", "synops", "unit_ops", "neuron_updates", "neuron_spiking", "dense_macs")
_LAYER_HEAD = ("events", "synops", "unit ops", "neurons", "spiking", "dense MACs")


def totals(energy: EnergyReport, dense: bool = False) -> str:
    """Headline figures, causes and counts. ``dense``: multiply-accumulates are the only cause there can be."""
    boxes = []
    if energy.placed:
        cost = energy.placed.mean
        boxes.append((f"a {energy.result}, in all", nominal(cost.total), joules(cost.total)))
        for name, part in (("static", cost.static), ("static while the image enters", cost.input)):
            if part:
                boxes.append((f"of it {name}", nominal(part), f"{joules(part)}, {energy.placed.chips} chips"))
        if cost.board:
            boxes.append(("whole board instead of static", nominal(cost.board), f"{joules(cost.board)}; in no sum"))
    title = f"a {energy.result}, dynamic, every phase with its share"
    boxes.append((title, nominal(energy.dynamic), joules(energy.dynamic)))
    for phase in energy.phases:
        often = how_often(phase.per_result, energy.result)
        share = f": {nominal(phase.amortised)} a {energy.result}" if 0 < phase.per_result != 1 else ""
        boxes.append((f"one run of {phase.name}", nominal(phase.dynamic), f"{joules(phase.dynamic)}; {often}{share}"))
    static = energy.static
    if static and not energy.placed:
        rate = f"at {1 / static.period_s:.3g} frames/s; not in the dynamic figures"
        boxes.append(("static, per chip and frame", nominal(static.energy), f"{joules(static.energy)} {rate}"))
    return html.cards(boxes) + _intervals(energy) + ("" if dense else _causes(energy)) + _counts(energy)


def _intervals(energy: EnergyReport) -> str:
    """The two uncertainties of a run, apart; bands beside them need no distribution."""
    rows: list[tuple[str, ...]] = []
    for phase in energy.phases:
        for spread in (phase.over_prices, phase.over_runs):
            if spread:
                ends = (nominal(end) for end in (spread.low, spread.median, spread.high))
                drawn = f"{percent(spread.coverage)}, {thin(spread.samples)} draws: {spread.method}"
                rows.append((phase.name, *ends, drawn))
    if not rows:
        return ""
    head = ["one run of", "low", "median", "high", "interval"]
    return "<h3>Two uncertainties, apart</h3>" + html.table(head, rows)


def _causes(energy: EnergyReport) -> str:
    priced = priced_causes(energy.profile)
    rows: list[tuple[Any, ...]] = []
    for cause in CAUSES:
        cells: list[Any] = []
        for phase in energy.phases:
            value, every = phase.by_cause[cause], phase.dynamic.nominal or 1.0
            share = value.nominal / every
            cells += [html.number(value.nominal, joules(value)), html.number(share, percent(share))]
        if cause not in priced:
            cells = [html.Cell("no price", -1.0), html.Cell("", -1.0)] * len(energy.phases)
        rows.append((cause, *cells))
    head = ["cause", *(text for phase in energy.phases for text in (f"one run of {phase.name}", "share of nominal"))]
    return "<h3>By cause</h3>" + html.table(head, rows, sortable=True)


def _counts(energy: EnergyReport) -> str:
    means = [phase.means for phase in energy.phases]
    rows: list[tuple[Any, ...]] = []
    for key in dict.fromkeys(key for counts in means for key in counts):
        values = [counts.get(key, 0) for counts in means]
        rows.append((key.replace("_", " "), *(html.number(value, thin(value)) for value in values)))
    head = ["count", *(f"{phase.name} (mean of {thin(phase.runs)} runs)" for phase in energy.phases)]
    return "<h3>Counts</h3>" + html.table(head, rows)


def where(energy: EnergyReport) -> str:
    """Energy by block, as pictures."""
    return "".join(_figure(phase) for phase in energy.phases)


def _figure(phase: PhaseEnergy) -> str:
    caption = f"One run of {phase.name}"
    words = "dynamic energy per block, in execution order; coloured by cause (nominal), line: band of the block."
    return html.figure(block_picture(phase, caption), f"{caption}: {words}")


def block_picture(phase: PhaseEnergy, title: str, form: str = "svg") -> Any:
    """The picture of one phase as SVG text, or as PNG bytes with ``form="png"``."""
    blocks = phase.by_block
    parts: dict[str, dict[str, float]] = {name: {} for name in blocks}
    for layer in phase.layers:
        causes = parts[layer.block]
        for part in layer.parts:
            causes[part.cause] = causes.get(part.cause, 0.0) + part.energy.nominal
    present = [c for c in pictures.CAUSE_COLOURS if any(c in b for b in parts.values())]
    highest = max((band.high for band in blocks.values()), default=0.0)
    unit, scale = ("\u00b5J", 1e-3) if highest >= 1000 else ("nJ", 1.0)
    values = {c: [parts[name].get(c, 0.0) * scale for name in blocks] for c in present}
    ends = [band.low * scale for band in blocks.values()], [band.high * scale for band in blocks.values()]
    return pictures.stacked_bands(list(blocks), values, *ends, unit, title, form)


def layers(energy: EnergyReport) -> str:
    """One sortable table per phase."""
    body = html.paragraph("Means, rounded; click a column to sort. layers.csv has every count and every cause in full.")
    shown = [any(counts[key] for phase in energy.phases for counts in phase.counts) for key in _LAYER_COUNTS]
    keys = list(itertools.compress(_LAYER_COUNTS, shown))
    head = ["layer", "kind", *itertools.compress(_LAYER_HEAD, shown), "nJ [low .. high]"]
    for phase in energy.phases:
        rows = [_layer_row(layer, counts, keys) for layer, counts in zip(phase.layers, phase.counts, strict=True)]
        title = f"Phase {phase.name}, mean of {thin(phase.runs)} runs"
        body += f"<h3>{html.text(title)}</h3>" + html.table(head, rows, sortable=True, scroll=True)
    return body


def _layer_row(layer: LayerEnergy, counts: LayerCounts, keys: Sequence[str]) -> list[Any]:
    cost = layer.total
    cells: list[Any] = [layer.name, layer.kind]
    for key in keys:
        value = counts[key]
        cells.append(html.number(value, thin(round(value)) if value else "\u00b7"))
    band = f"{cost.nominal:.1f} [{cost.low:.1f} .. {cost.high:.1f}]"
    return [*cells, html.number(cost.nominal, band)]


def yardsticks(energy: EnergyReport) -> str:
    """The same execution of the main phase under other conventions."""
    phase = energy.main
    rows = [(f"this profile, one run of {phase.name}, dynamic", joules(phase.dynamic))]
    for twin in phase.twins:
        rows.append((f"dense twin as an ANN, {twin.profile}", f"{joules(twin.energy)} for {thin(twin.macs)} MACs"))
    convention = phase.convention
    difference = f"{(convention.published.nominal - convention.exact.nominal) * 1e-3:+.4g} \u00b5J"
    rows.append((f"published convention, {convention.profile}", joules(convention.published)))
    rows.append(("same prices, exact counts", f"{joules(convention.exact)}; the convention differs by {difference}"))
    head = ["layer", "mean spike value", "published, nJ", "exact, nJ", "difference, nJ"]
    listed = [_convention_row(row) for row in convention.layers]
    note = (
        "Other conventions for the same execution, so that the figure above can be compared with the literature. "
        "They are not predictions for a chip."
    )
    table = html.table(head, listed, sortable=True, scroll=True)
    return html.paragraph(note) + html.table(["yardstick", "energy"], rows) + _duels(phase) + table


def _duels(phase: PhaseEnergy) -> str:
    """The network against its dense twin on equal terms, and the spike rate at which both cost the same."""
    rows: list[tuple[Any, ...]] = []
    for found in duels(phase.counts, phase.profile, phase.run):
        whole, crossover = found.whole, found.whole.crossover
        below = html.Cell(whole.limit, crossover.nominal if crossover else -1.0)
        names = (found.spiking, found.twin.profile, "spiking" if whole.wins else "dense")
        costs = (html.number(cost.nominal, joules(cost)) for cost in (whole.counted, whole.dense))
        rows.append((*names, *costs, html.number(whole.rate, f"{whole.rate:.3f}"), below, f"{found.lost}"))
    head = [
        "spiking under",
        "dense under",
        "wins",
        "spiking",
        "dense",
        "spikes a position",
        "wins below",
        "layers lost",
    ]
    words = (
        "The same network with every multiply-accumulate done, on equal terms: arithmetic, with the same memory "
        "traffic; accelerators (what they drew) stand against the spiking network on this profile (dynamic). A limit "
        "above 1 is no limit."
    )
    return "<h3>Spiking against quantised</h3>" + html.paragraph(words) + html.table(head, rows)


def _convention_row(row: ConventionLayer) -> list[Any]:
    mean = row.mean_input
    shown = html.Cell("pixels", -1.0) if mean is None else html.number(mean, f"{mean:.4f}")
    costs = [html.number(cost.nominal) for cost in (row.published, row.exact)]
    difference = row.published.nominal - row.exact.nominal
    return [row.name, shown, *costs, html.number(difference, f"{difference:+.4g}")]


def prices(energy: EnergyReport) -> str:
    """Every price that was used, every assumption, everything without a price."""
    profile = energy.profile
    rows = [(name, _value(p), p.tag, _source(p)) for name, p in energy.prices.items()]
    missing = [(u.name, "not counted" if u.count is None else thin(u.count), u.per, u.reason) for u in energy.unpriced]
    unknown = html.bullets(profile.unknown) if profile.unknown else html.paragraph("nothing stated")
    parts = (
        f"<h3>Prices of {html.text(profile.title)}</h3>",
        html.table(["price", "value and band", "tag", "source"], rows),
        "<h3>Assumptions</h3>",
        html.bullets(energy.assumptions),
        "<h3>Without a price: not in any total</h3>",
        html.table(["what", "count", "per run of", "why"], missing),
        "<h3>Not known of this target</h3>",
        unknown,
    )
    return "".join(parts)


def _value(price: Price) -> str:
    return f"{price.value:g} [{price.low:g} .. {price.high:g}] {price.unit}"


def _source(price: Price) -> str:
    return f"{price.source}; {price.note}" if price.note else price.source
