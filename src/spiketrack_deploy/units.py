"""Physical numbers: an interval with a nominal value, and one formatter for joules, seconds, bytes and things.

This module decides how an uncertain number is added, scaled and printed. It must not know what the number is of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "u"),
    (1e-9, "n"),
    (1e-12, "p"),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """``low <= nominal <= high``, all finite, in one unit that the holder names.

    Sums and products by a non-negative number are taken end by end: coefficients that several terms share are fully
    correlated, so bands add linearly and never in quadrature (docs/energy.md).
    """

    low: float
    nominal: float
    high: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.low, self.nominal, self.high)):
            raise ValueError(f"interval has a value that is not finite: {self}")
        if not self.low <= self.nominal <= self.high:
            raise ValueError(f"interval is not ordered low <= nominal <= high: {self}")

    @classmethod
    def exact(cls, value: float) -> Interval:
        """A number without a band."""
        return cls(value, value, value)

    @classmethod
    def from_dict(cls, data: Mapping[str, float]) -> Interval:
        """What :meth:`to_dict` gave, as a file holds it."""
        return cls(data["low"], data["nominal"], data["high"])

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.nominal + other.nominal, self.high + other.high)

    def __mul__(self, factor: float) -> Interval:
        if factor < 0:
            raise ValueError("an interval is only scaled by a non-negative number")
        return Interval(self.low * factor, self.nominal * factor, self.high * factor)

    __rmul__ = __mul__

    def to_dict(self) -> dict[str, float]:
        """``{"nominal", "low", "high"}``, as energy.json writes it."""
        return {"nominal": self.nominal, "low": self.low, "high": self.high}


ZERO = Interval.exact(0.0)


def total(intervals: Iterable[Interval]) -> Interval:
    """Linear sum of intervals in one unit."""
    out = ZERO
    for item in intervals:
        out = out + item
    return out


def number_of(number: int, what: str) -> str:
    """``1 chip``, ``1,152 chips``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def si(value: float, unit: str, digits: int = 3) -> str:
    """``si(2.5e-6, "J") -> "2.5 uJ"``: ``digits`` significant digits (at least 3) and the SI prefix that fits them."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    # Rounded before the prefix is chosen: 999.96 u is 1 m, and never 1e+03 u.
    scaled = [(f"{value / factor:.{digits}g}", prefix) for factor, prefix in _PREFIXES]
    text, prefix = next((s for s in scaled if abs(float(s[0])) >= 1), scaled[-1])
    return f"{float(text):,.0f} {prefix}{unit}" if "e+" in text else f"{text} {prefix}{unit}"


def si_interval(value: Interval, unit: str) -> str:
    """``"2.5 uJ [1.1 uJ .. 4 uJ]"``; a number without a band is printed alone."""
    if value.low == value.high:
        return si(value.nominal, unit)
    return f"{si(value.nominal, unit)} [{si(value.low, unit)} .. {si(value.high, unit)}]"
