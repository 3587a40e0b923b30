"""Prices out of measured figures: a non-negative fit, its band by bootstrap, and the widening of that band.

This module decides how prices are derived; it must not know which anchors there are. Settings were fixed before the
first comparison and are stated here, each with its reason.

Every figure is one row, divided by what was measured, so that misses are relative; an anchor counts once however many
rows it has. A step time is the longest of its sides plus the barrier: the side is found by search. A price that no
row decides (a column of zeros, or one that cannot be told from another) is held by a weak row at what the older chip,
Loihi 1, costs. The band: 5 to 95 % over draws of exponential weights on anchors and rows (a Bayesian bootstrap, which
never leaves a column empty).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiketrack_deploy.units import Interval

BOARD_SPREAD = 0.30
"""One standard deviation of a row: boards of one kind differ by 30 %."""
PRIOR_SPREAD = 3.0
"""The same of a price of Loihi 1: another chip, whose prices the vendor says are some times higher."""
DRAWS, SEED = 400, 20_260_901
TAILS = (0.05, 0.95)
MOST_ROUNDS = 50

FloatArray = NDArray[np.float64]
Prices = dict[str, float]
Bands = dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ``anchor``: ``fixed`` (price -> count) plus the largest of ``sides``, which made ``measured``;
    ``spread``: its relative standard deviation."""

    anchor: str
    measured: float
    fixed: Mapping[str, float]
    sides: tuple[Mapping[str, float], ...] = ()
    spread: float = BOARD_SPREAD

    def terms(self, prices: Mapping[str, float]) -> dict[str, float]:
        """Counts of the row at these prices, the largest side alone."""
        found = dict(self.fixed)
        if self.sides:
            most = max(self.sides, key=lambda side: sum(n * prices.get(name, 0.0) for name, n in side.items()))
            found.update({name: found.get(name, 0.0) + n for name, n in most.items()})
        return found


def nnls(a: FloatArray, b: FloatArray) -> FloatArray:
    """``argmin |a x - b|`` with ``x >= 0`` (Lawson and Hanson 1974, chapter 23): ``a`` ``[rows, columns]``.

    Columns of zeros get 0; of columns that cannot be told apart one solution is returned.
    """
    columns = a.shape[1]
    x, free = np.zeros(columns), np.zeros(columns, dtype=bool)
    # Columns of one size: prices differ by ten orders.
    size = np.linalg.norm(a, axis=0)
    unit = np.divide(a, size, out=np.zeros_like(a), where=size > 0)
    small = 1e-10 * max(float(np.linalg.norm(b)), 1e-300)
    for _ in range(3 * columns + 10):
        gradient = unit.T @ (b - unit @ x)
        gradient[free] = -np.inf
        best = int(np.argmax(gradient)) if columns else 0
        if not columns or gradient[best] <= small:
            break
        free[best] = True
        while free.any():
            y = np.zeros(columns)
            y[free] = np.linalg.lstsq(unit[:, free], b, rcond=None)[0]
            if y[free].min() > 0:
                x = y
                break
            down = free & (y <= 0)
            step = np.min(x[down] / np.maximum(x[down] - y[down], 1e-300))
            x = x + step * (y - x)
            free &= x > small * 1e-6
            x[~free] = 0.0
    found: FloatArray = np.divide(x, size, out=np.zeros_like(x), where=size > 0)
    return found


def fit(rows: Sequence[Row], priors: Mapping[str, float], weights: Sequence[float] | None = None) -> Prices:
    """Prices (never negative) that meet ``rows`` best; ``priors``: what the older chip costs; one weight a row.

    Which side of a row is the longest follows from the prices and back, from several starts; then each row's side is
    tried otherwise until none lowers the cost.
    """
    if not rows:
        return dict(priors)
    system = _System.of(rows, priors, weights)
    best = min((system.settle(start) for start in system.starts()), key=system.cost)
    improved = True
    while improved:
        improved = False
        for other in system.turned(best):
            settled = system.settle(other)
            if system.cost(settled) < system.cost(best) * (1 - 1e-9):
                best, improved = settled, True
    return {**priors, **best}


@dataclass(frozen=True, slots=True)
class _System:
    """Rows, priors and weights of one fit; ``names``: its prices, ``scale``: one factor a row."""

    rows: Sequence[Row]
    priors: Mapping[str, float]
    names: tuple[str, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, rows: Sequence[Row], priors: Mapping[str, float], weights: Sequence[float] | None) -> _System:
        many = Counter(row.anchor for row in rows)
        given = [1.0] * len(rows) if weights is None else weights
        scale = tuple(float(np.sqrt(w / many[row.anchor])) / row.spread for row, w in zip(rows, given))
        names = tuple(sorted({name for row in rows for part in (row.fixed, *row.sides) for name in part}))
        return cls(rows, priors, names, scale)

    def solve(self, terms: Sequence[Mapping[str, float]]) -> Prices:
        """Best prices where each row is the sum of ``terms``."""
        column = {name: index for index, name in enumerate(self.names)}
        held = [name for name in self.names if self.priors.get(name, 0.0) > 0]
        matrix = np.zeros((len(terms) + len(held), len(self.names)))
        wanted = np.zeros(len(terms) + len(held))
        for index, (row, part, weight) in enumerate(zip(self.rows, terms, self.scale)):
            for name, count in part.items():
                matrix[index, column[name]] = count / row.measured * weight
            wanted[index] = weight
        for index, name in enumerate(held, start=len(terms)):
            matrix[index, column[name]] = 1 / self.priors[name] / PRIOR_SPREAD
            wanted[index] = 1 / PRIOR_SPREAD
        return {name: float(value) for name, value in zip(self.names, nnls(matrix, wanted))}

    def settle(self, prices: Prices) -> Prices:
        """Fit with the sides that are the longest at these prices, until they stay so."""
        terms = [row.terms(prices) for row in self.rows]
        for _ in range(MOST_ROUNDS):
            prices = self.solve(terms)
            now = [row.terms(prices) for row in self.rows]
            if now == terms:
                break
            terms = now
        return prices

    def starts(self) -> list[Prices]:
        """The older chip's prices, and each price so high that its sides are the longest."""
        first: Prices = {name: self.priors.get(name, 0.0) for name in self.names}
        alone = sorted({name for row in self.rows if len(row.sides) > 1 for side in row.sides for name in side})
        return [first, *({**first, name: 1e9} for name in alone)]

    def turned(self, prices: Prices) -> list[Prices]:
        """Prices of the fits in which one row has another side than the longest at ``prices``."""
        terms = [row.terms(prices) for row in self.rows]
        found = []
        for index, row in enumerate(self.rows):
            for side in row.sides if len(row.sides) > 1 else ():
                other = Row(row.anchor, row.measured, row.fixed, (side,)).terms({})
                if other != terms[index]:
                    found.append(self.solve([*terms[:index], other, *terms[index + 1 :]]))
        return found

    def cost(self, prices: Prices) -> float:
        """Weighted sum of squares of relative misses, the longest sides as they are at ``prices``."""
        off = [w * (predict(row, prices) / row.measured - 1) for row, w in zip(self.rows, self.scale)]
        off += [(prices[n] / p - 1) / PRIOR_SPREAD for n, p in self.priors.items() if p > 0 and n in prices]
        return float(np.square(off).sum())


def predict(row: Row, prices: Mapping[str, float]) -> float:
    """What ``prices`` say about a row, in the unit of its ``measured``."""
    return sum(count * prices.get(name, 0.0) for name, count in row.terms(prices).items())


def derive(rows: Sequence[Row], priors: Mapping[str, float], draws: int = DRAWS) -> Bands:
    """The fit as nominal prices with their bootstrap band."""
    nominal = fit(rows, priors)
    rng = np.random.default_rng(SEED)
    anchors = sorted({row.anchor for row in rows})
    samples: dict[str, list[float]] = {name: [value] for name, value in nominal.items()}
    for _ in range(draws):
        of_anchor = dict(zip(anchors, rng.exponential(size=len(anchors))))
        weights = [of_anchor[row.anchor] * w for row, w in zip(rows, rng.exponential(size=len(rows)))]
        for name, value in fit(rows, priors, weights).items():
            samples.setdefault(name, []).append(value)
    bands = {}
    for name, value in nominal.items():
        low, high = (float(np.quantile(samples[name], tail)) for tail in TAILS)
        bands[name] = Interval(min(low, value), value, max(high, value))
    return bands


def without(rows: Sequence[Row], anchor: str) -> list[Row]:
    """The rows of all other anchors."""
    return [row for row in rows if row.anchor != anchor]


def envelope(bands: Bands, others: Sequence[Mapping[str, float]]) -> Bands:
    """Bands wide enough for the nominal prices of other fits too."""
    return {
        name: Interval(
            min([band.low, *(prices.get(name, band.low) for prices in others)]),
            band.nominal,
            max([band.high, *(prices.get(name, band.high) for prices in others)]),
        )
        for name, band in bands.items()
    }


def widen(band: Interval, down: float, up: float) -> Interval:
    """Low end divided by ``down``, high end multiplied by ``up`` (both at least 1)."""
    return Interval(band.low / down, band.nominal, band.high * up)


def reach(short: Callable[[float], bool], most: float = 1e3) -> float:
    """The smallest factor from 1 to ``most`` at which ``short`` no longer holds; ``most`` if it always does."""
    if not short(1.0):
        return 1.0
    low, high = 1.0, most
    while high / low > 1.0005:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if short(middle) else (low, middle)
    return high
