"""Somebody's own measurement of power rails, read and set beside the prediction.

This module decides what such a file must say and how residuals are taken. It must not know how the prediction came
about.

    static    P_static = sum of rails, powered and doing nothing
    dynamic   E = (P_running - P_static) * seconds / frames
    total     E = P_running * seconds / frames
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.hardware.vocabulary import RAILS, UNITS
from spiketrack_deploy.inputs.untrusted import Entry, read_json, read_toml
from spiketrack_deploy.units import Interval

SCHEMA = "spiketrack-measured/1"
REMEDY = "correct the file (docs/energy.md, 'Your own measurement')"
MAX_BYTES = 1 << 16
MAX_RAILS = 32
_KNOWN = ("schema", "network", "target", "chips", "frames", "seconds", "boundary", "rails")


@dataclass(frozen=True, slots=True)
class Rail:
    """Watts of one supply rail, all chips together: doing nothing, and while frames run."""

    name: str
    static: float
    running: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement. ``network``: program hash; ``target``: profile; ``seconds``: wall time of ``frames`` results;
    ``boundary``: what the rails feed, in the measurer's words."""

    network: str
    target: str
    chips: int
    frames: int
    seconds: float
    boundary: str
    rails: tuple[Rail, ...]

    @property
    def frame_s(self) -> float:
        """Seconds of a frame."""
        return self.seconds / self.frames

    @property
    def static(self) -> float:
        """Watts of all rails, doing nothing."""
        return sum(rail.static for rail in self.rails)

    @property
    def running(self) -> float:
        """Watts of all rails while frames run."""
        return sum(rail.running for rail in self.rails)


def read_measured(path: Path) -> Measured:
    """A TOML (or JSON) file of ``spiketrack-measured/1``; InputError names what is wrong with it and where."""
    if path.suffix == ".json":
        data = read_json(path, MAX_BYTES, REMEDY)
    else:
        data = Entry(read_toml(path, MAX_BYTES, REMEDY), str(path), "", REMEDY)
    data.schema(SCHEMA)
    unknown = [name for name, _ in data.members(64) if name not in _KNOWN]
    if unknown:
        raise InputError(f"{path}: {unknown[0]} is no entry of a measurement; {REMEDY}")
    rails = tuple(_rail(name, rail, path) for name, rail in data["rails"].members(MAX_RAILS))
    return Measured(
        network=data["network"].text(),
        target=data["target"].text(),
        chips=data["chips"].integer(1, 10**6),
        frames=data["frames"].integer(1, 10**12),
        seconds=_positive(data["seconds"], "a time in seconds"),
        boundary=data["boundary"].text(),
        rails=rails,
    )


def _rail(name: str, rail: Entry, path: Path) -> Rail:
    unit = rail["unit"].text()
    known = [symbol for symbol, (dimension, _) in UNITS.items() if dimension == "power"]
    if unit not in known:
        raise InputError(
            f"{path}: rails.{name}.unit {unit!r} is no unit of power, must be one of {', '.join(known)}; {REMEDY}"
        )
    static, running = (_positive(rail[key], "a power", zero=True) * UNITS[unit][1] for key in ("static", "running"))
    return Rail(name, static, running)


def _positive(entry: Entry, what: str, zero: bool = False) -> float:
    value = entry.number()
    if not (0 <= value if zero else 0 < value) or value > 1e12:
        raise entry.fault(f"{what} {'of at least' if zero else 'above'} 0")
    return value


def check(measured: Measured, path: Path, program_hash: str, target: Target) -> None:
    """InputError where it is of another network, or leaves a rail of the target's family out."""
    if measured.network != program_hash:
        raise InputError(
            f"{path}: it measured network {measured.network[:16]}, this bundle's is {program_hash[:16]} (program_hash "
            "in MANIFEST.json); give the bundle that was measured"
        )
    have = {rail.name for rail in measured.rails}
    missing = [name for name in RAILS.get(target.profile.family or "", ()) if name not in have]
    if missing or not have:
        absent = ", ".join(missing) or "all"
        raise InputError(
            f"{path}: rails of {target.name} are missing: {absent}; without them its power is not known; {REMEDY}"
        )


@dataclass(frozen=True, slots=True)
class Residual:
    """A measured value beside its prediction (``None``: none), in ``unit``."""

    name: str
    unit: str
    measured: float
    predicted: Interval | None

    @property
    def off(self) -> float | None:
        """Measured over predicted (nominal), minus one."""
        return self.measured / self.predicted.nominal - 1 if self.predicted and self.predicted.nominal else None

    def to_dict(self) -> dict[str, Any]:
        """JSON data; ``inside``: whether the prediction's band covers the measurement."""
        band = self.predicted
        return {
            "name": self.name,
            "unit": self.unit,
            "measured": self.measured,
            "predicted": band.to_dict() if band else None,
            "off": self.off,
            "inside": band.low <= self.measured <= band.high if band else None,
        }


def residuals(
    measured: Measured, static_w: Interval | None, predicted: Mapping[str, Interval | None]
) -> tuple[Residual, ...]:
    """Each quantity beside its prediction. ``static_w``: of one chip; ``predicted``: ``latency_s``, ``on_chip_s``,
    ``dynamic_nj`` of a frame. The total is over the measured time of a frame, so that a wrong latency shows in its own
    rows alone."""
    power = static_w * measured.chips if static_w else None
    dynamic = predicted.get("dynamic_nj")
    total = dynamic * 1e-9 + power * measured.frame_s if dynamic and power else None
    drawn = measured.running - measured.static
    return (
        Residual("static power, all chips", "W", measured.static, power),
        Residual("time of a frame, image's way in it", "s", measured.frame_s, predicted.get("latency_s")),
        Residual("time of a frame, on the chips alone", "s", measured.frame_s, predicted.get("on_chip_s")),
        Residual("dynamic energy of a frame", "J", drawn * measured.frame_s, dynamic * 1e-9 if dynamic else None),
        Residual("energy of a frame, static over its measured time", "J", measured.running * measured.frame_s, total),
    )
