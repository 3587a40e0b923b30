"""Anchors against prices: predictions by the package's own bill and step time, leave one out, the bands that ship.

This module decides how a set of prices is judged. It must not know how a price is derived (``anchor_fit``) nor where
the figures come from (``anchor_sets``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anchor_fit
from anchor_fit import Bands, Row
from anchor_sets import NJ, Anchors, Energy, Power, StepTime

from spiketrack_deploy.energy.pricing import CHARGES, bill_by_words, covering
from spiketrack_deploy.hardware.schema import Price, Profile
from spiketrack_deploy.hardware.vocabulary import PRICES
from spiketrack_deploy.mapping.closed_loop import step_time
from spiketrack_deploy.units import Interval, total

Item = Energy | StepTime | Power

LOIHI1 = {
    "synop": 0.0236, "slot_native": 0.052, "slot_microcode": 0.081, "message": 0.0175, "static_power": 0.104,
    "t_synop": 0.7e-9, "t_slot_native": 4.2e-9, "t_slot_microcode": 8.4e-9, "t_barrier_chips": 3e-6,
}  # fmt: skip
"""What holds a price that no figure decides (nJ, s, W): Davies 2018 Table 2 (message: middle of 1.7 and 180 pJ; times
divided by the vendor's factors of Loihi 2), Frady 2020; several chips' barrier: assumed."""
OPERATIONS_PER_WORD = 9
"""Of PilotNet-LIF's convolutions: what turns the older chip's price of an operation into one of a word."""
LOIHI1 |= {"synop_word": LOIHI1["synop"] * OPERATIONS_PER_WORD, "t_word": LOIHI1["t_synop"] * OPERATIONS_PER_WORD}
BEFORE = {
    "synop": (6.8, 24.0, 38.0, "pJ"), "neuron_idle": (26.0, 52.0, 104.0, "pJ"),
    "neuron_active": (52.0, 104.0, 400.0, "pJ"), "message": (2.0, 180.0, 180.0, "pJ"),
    "static_power": (0.18, 0.30, 0.38, "W"), "t_synop": (0.7, 1.0, 1.2, "ns"), "t_neuron": (2.7, 4.2, 44.0, "ns"),
    "t_barrier_chip": (0.0, 0.2, 0.2, "us"), "t_barrier_chips": (1.0, 3.0, 6.0, "us"),
}  # fmt: skip
"""The profile as it was before these anchors decided it (commit e24bbdf)."""
SYNAPTIC = {"operations": ("synop", "t_synop"), "words": ("synop_word", "t_word")}
"""The two structures that one measurement of synaptic energy and time allows; a fit has one of them."""
STEPPING = {"by time": "stepping_power", "by the step": "chip_step"}
"""The two structures of what stepping itself costs; the first ships (:func:`stepping`)."""
ENERGY_PRICES = {name: charge.count for name, charge in CHARGES.items()} | {"synop_word": "synaptic_words"}
TIMES = {"synops": "t_synop", "words": "t_word", "native": "t_slot_native", "microcode": "t_slot_microcode"}
FITTED = (
    "synop", "synop_word", "slot_native", "slot_microcode", "message", "stepping_power", "static_power", "board_power",
    "t_synop", "t_word", "t_slot_native", "t_slot_microcode", "t_barrier_chip", "t_barrier_chips",
)  # fmt: skip
"""Prices that the anchors decide."""
BOARDS = ("static of B4",)
"""Powers of single boards that a fit finds beside the prices: shown, priced nowhere."""
SPANS = {"message": (0.0017, 0.18), "synop": (0.0068,)}
"""What a band holds beside the figures, nJ. A message is decided by B4 alone, whose arrivals may be operations: span
of Loihi 1's sources (Davies 2018 within a tile; spike generation and message of SANA-FE 2.2.9). An operation: the
vendor's peak of Hala Point, 2,600 W over 3.8e14 a second."""
READING_SPREAD = 0.03
"""One standard deviation of a figure whose board's own static power is a price of its own: points of one board among
each other."""
OLD = ("neuron_idle", "neuron_active", "t_neuron", "chip_step")
"""Prices that slots and the power of a stepping chip replace."""


def energy_rows(anchors: Anchors, structure: str, overhead: str = "stepping_power") -> list[Row]:
    """Energies and powers; ``overhead``: the price of stepping itself (:data:`STEPPING`)."""
    other = {names[0] for names in SYNAPTIC.values()} - {SYNAPTIC[structure][0]} | {*STEPPING.values()} - {overhead}
    prices = [name for name in (*FITTED, overhead) if name in ENERGY_PRICES and name not in other]
    found = []
    for item in anchors.energies:
        if not item.decides:
            continue
        terms = {p: float(item.counts[ENERGY_PRICES[p]]) for p in prices if item.counts.get(ENERGY_PRICES[p])}
        if item.chip_s:
            terms[f"static of {item.board}" if item.board else item.rails] = item.chip_s * NJ
        spread = READING_SPREAD if item.board else anchor_fit.BOARD_SPREAD
        found += [Row(item.anchor, run, terms, spread=spread) for run in item.runs or (item.measured.nominal,)]
    return found + [Row(item.anchor, item.measured.nominal, {item.price: 1.0}) for item in anchors.powers]


def time_rows(anchors: Anchors, structure: str) -> list[Row]:
    """Times of a step; they share no price with energies."""
    found = []
    for step in anchors.times:
        sides = tuple({TIMES[what]: n.nominal} for what, n in step.work.items() if TIMES[what] in _timed(structure))
        barrier = "t_barrier_chip" if step.chips == 1 else "t_barrier_chips"
        known = step.measured.nominal / step.steps - step.unknown_s
        found.append(Row(step.anchor, known, {barrier: 1.0}, sides))
    return found


def _timed(structure: str) -> set[str]:
    return {SYNAPTIC[structure][1], "t_slot_native", "t_slot_microcode"}


def derived(anchors: Anchors, draws: int, leave: str = "", overhead: str = "stepping_power") -> Bands:
    """Prices with bootstrap band (base units) from all anchors but ``leave``; a price's band covers both structures.
    ``overhead``: the price of stepping itself (:data:`STEPPING`)."""
    bands: Bands = {}
    systems = [energy_rows(anchors, structure, overhead) for structure in SYNAPTIC]
    systems += [time_rows(anchors, structure) for structure in SYNAPTIC]
    for system in systems:
        kept = anchor_fit.without(system, leave)
        own = {name for row in kept for part in (row.fixed, *row.sides) for name in part}
        held = {name: value for name, value in LOIHI1.items() if name in own}
        for name, band in anchor_fit.derive(kept, held, draws).items():
            if name in bands:
                band = anchor_fit.envelope({name: bands[name]}, [{name: band.low}, {name: band.high}])[name]
            bands[name] = band
    return {name: bands[name] for name in (*FITTED, *BOARDS, overhead) if name in bands}


BASE = {"energy": ("nJ", 1.0), "time": ("ns", 1e9), "power": ("W", 1.0)}


def priced(profile: Profile, bands: Mapping[str, Interval], source: str) -> Profile:
    """``profile`` with these prices (base units) and without those that they replace."""
    gone = {*OLD, *(STEPPING.values() if {*STEPPING.values()} & {*bands} else ())}
    prices = {name: price for name, price in profile.prices.items() if name not in gone}
    for name, band in ((name, band) for name, band in bands.items() if name in PRICES):
        unit, factor = BASE[PRICES[name][0]]
        low, value, high = (end * factor for end in (band.low, band.nominal, band.high))
        prices[name] = Price(value=value, unit=unit, low=low, high=high, tag="fit", source=source)
    return profile.model_copy(update={"prices": prices})


def before(profile: Profile) -> Profile:
    """The profile as it was before (:data:`BEFORE`)."""
    prices = {
        name: Price(value=value, unit=unit, low=low, high=high, tag="assumed", source="commit e24bbdf")
        for name, (low, value, high, unit) in BEFORE.items()
    }
    return profile.model_copy(update={"prices": prices})


def predict(item: Item, profile: Profile) -> Interval | None:
    """What the package says under these prices, in the unit of ``measured``; ``None`` where a price is missing."""
    if isinstance(item, Power):
        return profile.price(item.price)
    if isinstance(item, StepTime):
        return _step(item, profile)
    found = covering(item.counts, profile)
    if item.chip_s:
        static = profile.price(item.rails)
        return None if static is None else found + static * (item.chip_s * NJ)
    return found


def _step(item: StepTime, profile: Profile) -> Interval:
    """Ends of an unknown amount of work go with the same ends of the prices."""
    ends = []
    for end in ("low", "nominal", "high"):
        work = {what: getattr(item.work[what], end) if what in item.work else 0.0 for what in TIMES}
        one = step_time(profile, work["synops"], work["words"], work["native"], work["microcode"], item.chips)
        ends.append((getattr(one, end) + item.unknown_s) * item.steps)
    return Interval(*ends)


@dataclass(frozen=True, slots=True)
class Score:
    """A figure, and what prices say about it; ``words``: an energy's nominal prediction in the other structure."""

    item: Item
    predicted: Interval | None
    words: float | None = None

    @property
    def miss(self) -> float | None:
        """Nominal prediction over the measured figure, less one."""
        return None if self.predicted is None else self.predicted.nominal / self.item.measured.nominal - 1

    @property
    def by_words(self) -> float | None:
        """The same miss where synaptic energy is in words of memory read; ``None`` where no words were counted."""
        return self.words / self.item.measured.nominal - 1 if self.words else None

    @property
    def inside(self) -> bool:
        """Whether every measured run lies in the band."""
        if self.predicted is None:
            return False
        low, high = self.item.measured.low, self.item.measured.high
        return self.predicted.low <= low * (1 + 1e-9) and high <= self.predicted.high * (1 + 1e-9)


def scores(items: Sequence[Item], profile: Profile) -> list[Score]:
    """Every figure beside its prediction."""
    return [Score(item, predict(item, profile), _by_words(item, profile)) for item in items]


def _by_words(item: Item, profile: Profile) -> float | None:
    parts = bill_by_words(item.counts, profile) if isinstance(item, Energy) else None
    static = profile.price(item.rails) if isinstance(item, Energy) and item.chip_s else Interval.exact(0.0)
    if parts is None or static is None or not isinstance(item, Energy):
        return None
    return total(part.energy for part in parts).nominal + static.nominal * item.chip_s * NJ


def judged(anchors: Anchors) -> list[Item]:
    """Energies and step times: what a band must cover."""
    return [*anchors.energies, *anchors.times]


def prices_of(item: Item) -> list[str]:
    """Prices that a prediction of ``item`` depends on."""
    if isinstance(item, Power):
        return [item.price]
    if isinstance(item, StepTime):
        return ["t_barrier_chip" if item.chips == 1 else "t_barrier_chips", *(TIMES[what] for what in item.work)]
    counted = [name for name, count in ENERGY_PRICES.items() if name in FITTED and item.counts.get(count)]
    return counted + ([item.rails] if item.chip_s else [])


def left_out(anchors: Anchors, left: Mapping[str, Bands], profile: Profile) -> list[Score]:
    """Every anchor under the prices of ``left`` that never saw it."""
    found = []
    for name, bands in left.items():
        items = [item for item in judged(anchors) if item.anchor == name]
        found += scores(items, priced(profile, bands, f"all anchors but {name}"))
    return found


def stepping(anchors: Anchors, profile: Profile) -> dict[str, list[Score]]:
    """Structure of :data:`STEPPING` -> every figure under prices from the other anchors: what decided the structure."""
    found = {}
    for structure, overhead in STEPPING.items():
        left = {name: derived(anchors, 0, name, overhead=overhead) for name in anchors.names}
        found[structure] = left_out(anchors, left, profile)
    return found


def covering_bands(anchors: Anchors, joint: Bands, left: Mapping[str, Bands], profile: Profile) -> Bands:
    """The joint bands, widened: by every board's own power, by what each price was without each anchor and in other
    readings of one (``left``), then by one factor on the prices of a figure that lies outside, figure by figure."""
    wide = anchor_fit.envelope(joint, [{n: band.nominal for n, band in bands.items()} for bands in left.values()])
    for power in anchors.powers:
        ends = [{power.price: end} for end in (power.measured.low, power.measured.high)]
        wide = anchor_fit.envelope(wide, ends)
    wide = anchor_fit.envelope(wide, [{name: end} for name, ends in SPANS.items() for end in ends])
    for item in judged(anchors):
        for end in ("low", "high"):
            wide = _covering(item, end, wide, profile)
    return wide


def _covering(item: Item, end: str, bands: Bands, profile: Profile) -> Bands:
    """``bands`` with those of ``item`` widened at one ``end`` by the least factor that covers every run of it."""
    wanted = getattr(item.measured, end)
    nudged = {"low": (1.001, 1.0), "high": (1.0, 1.001)}[end]

    def moves(name: str) -> bool:
        changed = bands | {name: anchor_fit.widen(bands[name], *nudged)}
        now, then = (predict(item, priced(profile, prices, "widened")) for prices in (bands, changed))
        return bool(getattr(now, end) != getattr(then, end))

    names = [name for name in prices_of(item) if name in bands and moves(name)]

    def stretched(factor: float) -> Bands:
        down, up = (factor, 1.0) if end == "low" else (1.0, factor)
        return {n: anchor_fit.widen(band, down, up) if n in names else band for n, band in bands.items()}

    def short(factor: float) -> bool:
        found = getattr(predict(item, priced(profile, stretched(factor), "widened")), end)
        return bool(found > wanted if end == "low" else found < wanted)

    return stretched(anchor_fit.reach(short))


def slack(item: Item, name: str, profile: Profile, tolerance: float) -> tuple[float, float] | None:
    """Between which factors on the nominal price ``name`` the nominal prediction of ``item`` stays within ``tolerance``
    of what was measured, the others unchanged; ``None`` where no factor does."""
    nominal = {n: Interval.exact(band.nominal) for n in FITTED if (band := profile.price(n)) is not None}

    def at(factor: float) -> float:
        bands = nominal | {name: nominal[name] * factor}
        found = predict(item, priced(profile, bands, "slack"))
        return float("nan") if found is None else found.nominal

    low, high = item.measured.low * (1 - tolerance), item.measured.high * (1 + tolerance)
    if at(0.0) > high or at(MOST_FACTOR) < low:
        return None
    least = 0.0 if at(0.0) >= low else anchor_fit.reach(lambda f: at(f / MOST_FACTOR) < low, MOST_FACTOR**2)
    most = float("inf")
    if at(MOST_FACTOR) > high:
        most = anchor_fit.reach(lambda f: at(f / MOST_FACTOR) <= high, MOST_FACTOR**2)
    return least / MOST_FACTOR, most if most == float("inf") else most / MOST_FACTOR


MOST_FACTOR = 1e3
"""A price that may be this many times wrong is not tested at all."""
