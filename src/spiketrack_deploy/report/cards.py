"""The four cards that open the report: fits? fast enough? how much? believable?

This module decides each answer's sentence, its colour and where its proof stands. It must not compute a figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from spiketrack_deploy.energy.compare import priced
from spiketrack_deploy.report import html
from spiketrack_deploy.report.data import ReportData, joules, percent
from spiketrack_deploy.units import si_interval

GOOD, DOUBTFUL, BAD, UNKNOWN = "good", "doubtful", "bad", "unknown"
CAMERA_RATE = 30
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
    report = data.chips[0]
    mapping, host = report.mapping, report.verdicts.get("host", 0)
    size = f"{mapping.cores:,} cores on {mapping.chips:,} chip{'' if mapping.chips == 1 else 's'}"
    if not mapping.fits:
        return Card(ask, BAD, f"No: {len(mapping.breaches)} limits of {mapping.target} are exceeded.", "chips")
    if host:
        words = f"Not alone: {size} of {mapping.target}, and a host for {host} operations."
        return Card(ask, DOUBTFUL, words, "chips")
    return Card(ask, GOOD, f"Yes: {size} of {mapping.target}.", "chips")


def _fast(data: ReportData) -> Card:
    ask = "Fast enough?"
    if data.chips is None or data.chips[0].time.bottleneck is None:
        return Card(ask, UNKNOWN, "No time was published for this target.", "chips" if data.chips else "prices")
    time = data.chips[0].time.frame
    took, limit = si_interval(time, "s").replace(" u", " \u00b5"), 1 / CAMERA_RATE
    if time.high <= limit:
        return Card(
            ask, GOOD, f"Yes, {took} a {data.energy.result}: a camera gives one every {1e3 * limit:.0f} ms.", "chips"
        )
    if time.low > limit:
        return Card(
            ask, BAD, f"No, {took} a {data.energy.result}: a camera gives one every {1e3 * limit:.0f} ms.", "chips"
        )
    words = f"Perhaps: {took} a {data.energy.result}, the {1e3 * limit:.0f} ms of a camera lie inside the band."
    return Card(ask, DOUBTFUL, words, "chips")


def _costs(data: ReportData) -> Card:
    ask = "How much energy?"
    energy = data.energy
    if not priced(energy):
        return Card(ask, UNKNOWN, "Nothing that happens has a price on this target.", "prices")
    static = data.chips[0].energy.static_camera if data.chips else None
    if data.chips and static:
        whole = data.chips[0].energy.dynamic + static
        words = f"{joules(whole)} a {energy.result} with the chips' static power at {CAMERA_RATE} a second"
        wide = whole.high > 3 * whole.low
        return Card(
            ask, DOUBTFUL if wide else GOOD, f"{words}, {joules(data.chips[0].energy.dynamic)} of it dynamic.", "chips"
        )
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
