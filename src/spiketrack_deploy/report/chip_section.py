"""The part of the report that speaks of chips: does it fit, how fast, what a result costs there, and the floorplan.

This module decides which figure of a mapping stands in which table. It must not compute one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from spiketrack_deploy.energy.frames import ResultCost
from spiketrack_deploy.hardware.vocabulary import PRICES
from spiketrack_deploy.mapping.closed_loop import ClosedLoop
from spiketrack_deploy.mapping.report import MappingReport
from spiketrack_deploy.mapping.thermometer import reasons
from spiketrack_deploy.mapping.types import ChipMapping
from spiketrack_deploy.mapping.whole import WholeNetwork
from spiketrack_deploy.report import html
from spiketrack_deploy.report.data import joules, micro, nominal, percent, thin
from spiketrack_deploy.units import Interval, si, si_interval

_VERDICTS = ("native", "microcode", "host")


def section(whole: WholeNetwork, picture: str) -> str:
    """Headline, results by arrangement, what would change them, limits, time, verdicts, and the floorplan (HTML)."""
    report = whole.report
    parts = [
        *(html.paragraph(micro(words)) for words in (whole.sentence, *whole.camera())),
        results(whole),
        _changes(whole),
        _forms(whole),
        _limits(report.mapping),
        _times(report.loop),
        _bill(report),
        _verdicts(report),
        picture,
        "<h3>Assumed</h3>",
        html.bullets(report.assumptions),
    ]
    return "".join(parts)


def results(whole: WholeNetwork) -> str:
    """A row per arrangement and kind of result, the chosen arrangement first."""
    order = sorted(whole.arrangements, key=lambda one: one is not whole.chosen)
    rows = [
        (one.words or "all phases", one.answer, _chips(one.chips, one.band), kind, *_cost_cells(cost))
        for one in order
        for kind, cost in one.results.items()
    ]
    head = ["arrangement", "answer", "chips", "result", "on the chip", "image's way", "total", "dynamic", "static",
            "input", "whole board instead"]  # fmt: skip
    pipe = whole.report.interleaved
    words = (
        f"A pipelined rate holds only for independent targets: {pipe.targets} of them, interleaved, fill the pipeline, "
        f"then there is a result every {pipe.interval} steps, {_seconds(pipe.period)}, for all of them together."
    )
    note = (
        "One frame in flight. Static is the chips' power over the frame period or the time on the chip, whichever is "
        "longer; input is what that power adds while the image enters."
    )
    return "<h3>What a result takes and costs</h3>" + html.table(head, rows) + html.paragraph(f"{note} {words}")


def _chips(number: int, band: tuple[int, int]) -> str:
    return f"{number:,} [{band[0]:,} .. {band[1]:,}]"


def _cost_cells(cost: ResultCost) -> list[str]:
    parts = (cost.dynamic, cost.static, cost.input, cost.board)
    times = [_seconds(cost.on_chip), _seconds(cost.image)] if cost.phases else ["the host's: not known", ""]
    return [*times, joules(cost.total), *(nominal(part) if part else "no price" for part in parts)]


def _changes(whole: WholeNetwork) -> str:
    now = whole.chosen.results["steady"]
    rows: list[tuple[Any, ...]] = [("as it is", whole.report.mapping.cores, whole.chosen.chips, now)]
    rows += [(c.what, c.cores, c.chips, c.cost) for c in whole.changes]
    listed = [
        (what, html.number(cores), html.number(chips), *(nominal(x) for x in (cost.total, cost.dynamic)),
         si(cost.on_chip.nominal, "s"))
        for what, cores, chips, cost in rows
    ]  # fmt: skip
    head = ["change", "cores", "chips", "total", "dynamic", "time on the chip"]
    note = (
        "With the same integers everything is mapped afresh and counted. Of another network cores and slots are "
        "counted, synaptic work is scaled, and accuracy is not known."
    )
    return "<h3>What would change it</h3>" + html.table(head, listed) + html.paragraph(note)


def _forms(whole: WholeNetwork) -> str:
    """Own neurons beside hard-coded ones; empty where there is no choice."""
    if not whole.forms:
        return ""
    rows = [
        (f.name + ("" if f.mapping.holds else " (exceeds a core)"), thin(sum(f.mapping.network.slots.values())),
         thin(f.programmed), thin(int(f.mapping.synapses.nonzero.sum())), thin(f.mapping.cores), thin(f.chips),
         thin(f.mapping.network.depth), si(f.cost.on_chip.nominal, "s"), nominal(f.cost.total),
         nominal(f.cost.dynamic))
        for f in whole.forms
    ]  # fmt: skip
    head = ["neurons of four levels as", "neurons", "programmed", "synapses", "cores", "chips", "levels",
            "on the chip", "total", "dynamic"]  # fmt: skip
    why = [(kind, str(n), reason) for _, kind, reason, n in reasons(whole.forms[-1].needs)]
    return (
        "<h3>The same integers with hard-coded neurons</h3>"
        + html.table(head, rows)
        + html.paragraph(f"What still needs a program as {whole.forms[-1].name}:")
        + html.table(["kind", "operations", "why"], why)
    )


def _limits(mapping: ChipMapping) -> str:
    rows = [(b.rule, b.op, thin(b.used), thin(b.limit), thin(b.used - b.limit), b.remedy) for b in mapping.breaches]
    if not rows:
        return html.paragraph("No limit of a core or of the chips is exceeded.")
    head = ["limit", "where", "used", "allowed", "over by", "what would help"]
    return "<h3>Limits exceeded</h3>" + html.table(head, rows)


def _times(loop: ClosedLoop) -> str:
    rows = [
        (html.number(x.number), html.number(x.steps), html.number(round(x.synops)), html.number(round(x.words)),
         html.number(x.slots), html.number(round(x.crossing)), x.set_by, html.number(x.time.nominal, _seconds(x.time)))
        for x in loop.levels
    ]  # fmt: skip
    head = ["level", "steps", "synops", "words", "slots", "between chips", "set by", "time"]
    words = (
        f"A run takes {_seconds(loop.latency)}: {loop.steps} elapsed steps of {len(loop.levels)} levels, every "
        f"occupied slot stepped in each, every step with a barrier of {_seconds(loop.barrier)}. Synaptic operations, "
        "words of memory and slots are those of the busiest core; messages those of the busiest link between chips."
    )
    missing = f" Without a time: {', '.join(loop.untimed)}." if loop.untimed else ""
    table = html.table(head, rows, sortable=True, scroll=True)
    return "<h3>Time, level after level</h3>" + html.paragraph(words + missing) + table


def _seconds(value: Interval | None) -> str:
    return micro(si_interval(value, "s")) if value else "no price"


def _bill(report: MappingReport) -> str:
    bill = report.bill()
    rows = [
        (PRICES[line["price"]][1], html.number(line["count"], si(line["count"], "").strip()),
         joules(Interval.from_dict(line["energy_nj"])))
        for line in bill["lines"]
    ]  # fmt: skip
    for name, found in report.run.structures(report.profile).items():
        rows.append((f"dynamic, synaptic energy by {name}", html.number(0.0, ""), joules(found)))
    missing = [(u.name, "" if u.count is None else thin(round(u.count)), u.reason) for u in report.unpriced]
    title = f"<h3>Bill of a run of {html.text(report.phase)}</h3>"
    without = html.table(["without a price", "number", "why"], missing) if missing else ""
    return title + html.table(["what", "number", "energy"], rows) + without


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


def dominance(whole: WholeNetwork) -> str:
    """What most of the total is, and the change that takes most off it."""
    name, share = whole.dominant
    changes = [change for change in whole.changes if change.alone]
    best = min(changes, key=lambda change: change.cost.total.nominal, default=None)
    said = f"The largest part of the total is {name}: {percent(share)}"
    return f"{said}; {best.what}: {nominal(best.cost.total)} in all." if best else f"{said}."
