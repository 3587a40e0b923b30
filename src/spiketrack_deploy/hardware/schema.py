"""What a hardware profile is: the schema that refuses a number without unit, tag and source.

This module decides which profile is well formed; it must not know where profiles lie (``profiles``) nor what is done
with them (``energy``, ``mapping``).
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spiketrack_deploy.hardware.vocabulary import (
    BANDED,
    EXCLUSIVE,
    FAMILIES,
    LIMIT_TAGS,
    LIMITS,
    MESH,
    MOST_CORES,
    NOT_BELOW,
    ORDERED,
    POSITIVE,
    PRICES,
    TAGS,
    UNITS,
)
from spiketrack_deploy.units import Interval

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, populate_by_name=False)

Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")]
# The ceiling keeps products with counts finite; no real coefficient in any unit comes near it.
Number = Annotated[float, Field(ge=0, le=1e15)]


class Price(BaseModel):
    """A coefficient: nominal value with band, unit, and how it is known."""

    model_config = _STRICT

    value: Number
    unit: Text
    low: Number
    high: Number
    tag: Text
    source: Text
    note: str = ""
    follows: str = ""
    """the price that this one was taken from: they are uncertain together"""

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str) -> str:
        if unit not in UNITS:
            raise ValueError(f"unknown unit {unit!r}; known are {', '.join(UNITS)}")
        return unit

    @field_validator("tag")
    @classmethod
    def _known_tag(cls, tag: str) -> str:
        if tag not in TAGS:
            raise ValueError(f"unknown tag {tag!r}; known are {', '.join(TAGS)}")
        return tag

    @model_validator(mode="after")
    def _ordered(self) -> Price:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value {self.value} is outside its band low {self.low} .. high {self.high}")
        return self

    @property
    def interval(self) -> Interval:
        """The band in the base unit of its dimension: nJ, s or W."""
        return Interval(self.low, self.value, self.high) * UNITS[self.unit][1]


Count = Annotated[int, Field(ge=0, le=10**15)]


class Limit(BaseModel):
    """What a chip can hold: a count with unit, tag and source, and a band where sources disagree (``BANDED``)."""

    model_config = _STRICT

    value: Count
    unit: Text
    low: Count | None = None
    high: Count | None = None
    tag: Text
    source: Text
    note: str = ""

    @field_validator("tag")
    @classmethod
    def _known_tag(cls, tag: str) -> str:
        if tag not in LIMIT_TAGS:
            raise ValueError(f"unknown tag {tag!r}; known are {', '.join(LIMIT_TAGS)}")
        return tag

    @model_validator(mode="after")
    def _ordered(self) -> Limit:
        low, high = self.band
        if not low <= self.value <= high:
            raise ValueError(f"value {self.value} is outside its band low {low} .. high {high}")
        return self

    @property
    def band(self) -> tuple[int, int]:
        """``(low, high)``; the value alone where there is no band."""
        return self.value if self.low is None else self.low, self.value if self.high is None else self.high


class Profile(BaseModel):
    """One chip, board or pricing convention.

    ``limits``: name -> :class:`Limit` (names, units: ``vocabulary.LIMITS``). ``boards``: board -> number of chips.
    ``chip``: the bundled profile of the chip it builds on (``profiles.load_profile`` joins them): a board has that
    chip's limits, prices and family, another set of coefficients of the same chip has its limits and family alone.
    ``family``: one of ``vocabulary.FAMILIES``; without one nothing can be mapped to the chip.
    ``prices``: name -> :class:`Price` (``vocabulary.PRICES``). ``unknown``: what is not known and must not be filled by
    analogy. ``assumptions``: sentences that every report of this profile prints.
    """

    model_config = _STRICT

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    title: Text
    kind: Literal["chip", "board", "convention"]
    chip: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] | None = None
    family: str | None = None
    limits: dict[str, Limit] = Field(default_factory=dict)
    boards: dict[str, Limit] = Field(default_factory=dict)
    prices: dict[str, Price]
    unknown: list[Text]
    assumptions: list[Text]

    @field_validator("family")
    @classmethod
    def _known_family(cls, family: str | None) -> str | None:
        if family is not None and family not in FAMILIES:
            raise ValueError(f"unknown family {family!r}; known are {', '.join(FAMILIES)}")
        return family

    @field_validator("limits")
    @classmethod
    def _known_limits(cls, limits: dict[str, Limit]) -> dict[str, Limit]:
        for name, limit in limits.items():
            if name not in LIMITS:
                raise ValueError(f"unknown limit {name!r}; known are {', '.join(LIMITS)}")
            if limit.unit != LIMITS[name][0]:
                raise ValueError(f"{name}.unit is {limit.unit!r}, must be {LIMITS[name][0]!r}")
            if name in POSITIVE and limit.value < 1:
                raise ValueError(f"{name}.value must be at least 1")
            if name not in BANDED and (limit.low is not None or limit.high is not None):
                raise ValueError(f"{name} has no band; leave out low and high")
            if name in MESH and limit.value > MOST_CORES:
                raise ValueError(f"{name}.value must be at most {MOST_CORES}")
        return limits

    @field_validator("boards")
    @classmethod
    def _boards_in_chips(cls, boards: dict[str, Limit]) -> dict[str, Limit]:
        for name, limit in boards.items():
            if limit.unit != "chips":
                raise ValueError(f"{name}.unit is {limit.unit!r}, must be 'chips'")
        return boards

    @field_validator("prices")
    @classmethod
    def _known_prices(cls, prices: dict[str, Price]) -> dict[str, Price]:
        for name, price in prices.items():
            if name not in PRICES:
                raise ValueError(f"unknown price {name!r}; known are {', '.join(PRICES)}")
            lead = prices.get(price.follows)
            if price.follows and (price.follows == name or lead is None or lead.follows):
                raise ValueError(f"{name}.follows {price.follows!r} is not another price that stands for itself")
            dimension, wanted = UNITS[price.unit][0], PRICES[name][0]
            if dimension != wanted:
                raise ValueError(f"{name}.unit {price.unit!r} is a unit of {dimension}, must be one of {wanted}")
        for one, other in EXCLUSIVE:
            if one in prices and other in prices:
                raise ValueError(f"{one} and {other} price the same event twice; keep one")
        for whole, part in NOT_BELOW:
            if whole in prices and part in prices and prices[whole].interval.nominal < prices[part].interval.nominal:
                raise ValueError(f"{whole} is less than {part}, which is part of it")
        return prices

    @model_validator(mode="after")
    def _whole(self) -> Profile:
        if self.kind == "board" and (self.chip is None or "chips" not in self.limits):
            raise ValueError("a board names its chip and has limits.chips")
        if self.kind != "board" and "chips" in self.limits:
            raise ValueError(f"limits.chips is for boards, kind is {self.kind!r}")
        if self.kind == "convention" and (self.chip is not None or self.family is not None or not self.prices):
            raise ValueError("a convention has prices of its own, no chip and no family")
        contradiction = self._contradiction()
        if contradiction:
            raise ValueError(contradiction)
        return self

    def _contradiction(self) -> str | None:
        """Two numbers that cannot both hold."""
        have = {name: limit.value for name, limit in self.limits.items()}
        usable, power = self.limits.get("usable_cores_per_chip"), self.price("static_power")
        if usable is not None and usable.band[1] > have.get("cores_per_chip", usable.band[1]):
            return f"limits.usable_cores_per_chip: {usable.band[1]} are more than limits.cores_per_chip"
        if power is not None and have.get("board_power", math.inf) < power.low * have.get("chips", 1):
            return f"limits.board_power {have['board_power']} W is less than the static power of its chips"
        for small, large in ORDERED:
            if small in have and large in have and have[small] > have[large]:
                return f"limits.{small} {have[small]} is more than limits.{large} {have[large]}"
        if {"tiles_x", "tiles_y", "cores_per_tile", "cores_per_chip"} <= have.keys():
            columns, rows, per_tile = have["tiles_x"], have["tiles_y"], have["cores_per_tile"]
            if columns * rows * per_tile != have["cores_per_chip"]:
                cores = have["cores_per_chip"]
                return f"limits: {columns} x {rows} tiles of {per_tile} cores are not {cores} cores"
        if have.get("tiles_x", 1) * have.get("tiles_y", 1) > MOST_CORES:
            return f"limits: {have['tiles_x']} x {have['tiles_y']} tiles are more than {MOST_CORES}"
        words, size = have.get("synaptic_words_per_core"), have.get("synaptic_memory_per_core")
        if words is not None and size is not None and 8 * words > size:
            return f"limits.synaptic_words_per_core: {words} words of 64 bits are more than {size} bytes"
        return None

    @property
    def chips(self) -> int | None:
        """Chips of a board; ``None`` for a chip family, of which a mapping takes as many as it needs."""
        return self.limits["chips"].value if "chips" in self.limits else None

    @property
    def substeps(self) -> int:
        """Chip steps per time step of the network: 1 where spikes are graded."""
        return self.limits["substeps"].value if "substeps" in self.limits else 1

    @property
    def digest(self) -> str:
        """SHA-256 over the profile's content, for provenance."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()

    def price(self, *names: str) -> Interval | None:
        """The first of these prices that the profile has, in its base unit (nJ, s, W), or ``None``."""
        return next((self.prices[name].interval for name in names if name in self.prices), None)
