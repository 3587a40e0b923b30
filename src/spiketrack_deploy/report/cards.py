"""The four cards that open the report: fits? fast enough? how much? believable?

This module decides each answer's sentence, its colour and where its proof stands. It must not compute a figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from spiketrack_deploy.energy.compare import priced
from spiketrack_deploy.report import html
from spiketrack_deploy.report.data import ReportData, joules, micro, percent
from spiketrack_deploy.units import Interval, number_of, si_interval

GOOD, DOUBTFUL, BAD, UNKNOWN = "good", "doubtful", "bad", "unknown"
_TRUSTED = ("measured", "derived")
"""Tags of a price that comes from silicon."""


@dataclass(frozen=True, slots=True)
class Card:
    """``colour``: one of the four; ``proof``: anchor of the section that shows it."""

    question: str
    colour: str
    sentence: str
    proof: str


def cards(data: ReportData) -> tuple[Card, ...]:
    """The answers, in the order in which people ask."""
    return _fits(data), _fast(data), _costs(data), _believable(data)


def _fits(data: ReportData) -> Card:
    ask = "Does it fit?"
    if data.chips is None:
        return Card(ask, UNKNOWN, f"{data.energy.profile.title} is no chip that cores are known of.", "prices")
    whole = data.chips[0]
    chosen, mapping = whole.chosen, whole.report.mapping
    low, high = chosen.band
    chips = number_of(chosen.chips, "chip")
    size = f"{number_of(chosen.cores, 'core')} on {chips} [{low:,} .. {high:,}] of {whole.target.name}"
    others = f", {chosen.words}" if chosen.words else ""
    if not chosen.holds:
        limits = sum(breach.fatal for breach in mapping.breaches)
        why = f"{limits} limits are exceeded" if limits else f"it takes {chosen.chips:,} chips"
        return Card(ask, BAD, f"No, not {whole.target.name}: {why}.", "chips")
    if chosen.host_operations:
        words = f"Not alone: {size}, and a host for {chosen.host_operations:,} operations{others}."
        return Card(ask, DOUBTFUL, words, "chips")
    return Card(ask, GOOD, f"Yes: {size}{others}.", "chips")


def _fast(data: ReportData) -> Card:
    ask = "Fast enough?"
    if data.chips is None or not data.chips[0].cost.on_chip.high:
        return Card(ask, UNKNOWN, "No time was published for this target.", "chips" if data.chips else "prices")
    cost = data.chips[0].cost
    limit = cost.period_s
    took = f"{_seconds(cost.latency)} a {data.energy.result}"
    of_it = f", {_seconds(cost.on_chip)} of it on the chips" if cost.image else ", without the image's way"
    camera = f"a camera gives one every {1e3 * limit:.0f} ms"
    if cost.latency.high <= limit:
        return Card(ask, GOOD, f"Yes, {took}{of_it}: {camera}.", "chips")
    if cost.latency.low > limit:
        return Card(ask, BAD, f"No, {took}{of_it}: {camera}.", "chips")
    return Card(ask, DOUBTFUL, f"Perhaps: {took}{of_it}; {camera}, inside the band.", "chips")


def _seconds(time: Interval) -> str:
    return micro(si_interval(time, "s"))


def _costs(data: ReportData) -> Card:
    ask = "How much energy?"
    energy = data.energy
    if not priced(energy):
        return Card(ask, UNKNOWN, "Nothing that happens has a price on this target.", "prices")
    placed = energy.placed
    if placed and placed.mean.static:
        dynamic, wide = joules(energy.dynamic), energy.total.high > 3 * energy.total.low
        words = f"{joules(energy.total)} a {energy.result} with the chips' static power, {dynamic} of it dynamic."
        return Card(ask, DOUBTFUL if wide else GOOD, words, "chips")
    words = f"{joules(energy.dynamic)} a {energy.result}, without static power, host or board."
    return Card(ask, DOUBTFUL, words, "totals")


def _believable(data: ReportData) -> Card:
    ask = "Why believe it?"
    engines = data.parity["engines"]
    if engines["differing"]:
        return Card(ask, BAD, f"Do not: {engines['differing']:,} integers differ between two engines.", "parity")
    top = data.energy.main.dominant
    exact = f"{engines['integers']:,} integers are exact"
    if engines["engine"] == engines["against"]:
        exact = "The integers are the program's definition"
    if top is None:
        return Card(ask, DOUBTFUL, f"{exact}; there is no price to believe.", "parity")
    share = percent(top.share)
    if top.price.tag in _TRUSTED:
        return Card(ask, GOOD, f"{exact}; {share} of the energy hangs on '{top.name}', {top.price.tag}.", "parity")
    words = f"{exact}, the prices are not: {share} of the energy hangs on '{top.name}', known by {top.price.tag} alone."
    return Card(ask, DOUBTFUL, words, "prices")


def draw(found: tuple[Card, ...]) -> str:
    """The cards as HTML: a question, an answer, a colour that is also a word, and a link."""
    return (
        '<div class="answers">'
        + "".join(
            f'<a class="answer {card.colour}" href="#{card.proof}"><b>{html.text(card.question)}</b>'
            f"<span>{html.text(card.sentence)}</span></a>"
            for card in found
        )
        + "</div>"
    )
