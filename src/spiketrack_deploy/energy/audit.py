"""A published energy, derived again by every convention that papers use.

This module decides which conventions there are and what each takes from counts. Coefficients are those of profiles. It
must not know who published what.

    E = factor * ADD * sum of the convention + MAC * multiply-accumulates of the first layer

A paper's number read backwards gives the mean spike value that its convention would need: the same execution with its
spikes scaled until the sum is the number. A value that no neuron can reach says that it was another convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.units import ZERO, Interval

FIRST = "image_conv"
"""Kind of the first layer: it reads an image and no spikes."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A convention. ``sum_of``: what an addition is paid for, a key of :func:`sums`. ``profile``: whose ADD and MAC,
    and memory traffic where it prices that. ``exact``: needs counted spikes, shapes and a rate do not do. ``slip``: no
    convention, but a reading that has been seen. ``times_levels``: multiplied by the largest spike value."""

    name: str
    text: str
    source: str
    sum_of: str
    profile: str = "cmos45_fp32"
    factor: float = 1.0
    exact: bool = False
    slip: bool = False
    times_levels: bool = False


_SPIKETRACK = "arXiv 2602.23963"
_HOROWITZ = "Horowitz, ISSCC 2014"
FORMULAS = (
    Formula("rate x MACs", "MACs x mean spike value, layer by layer", _SPIKETRACK, "value_macs"),
    Formula("one rate x MACs", "all MACs x mean spike value of the network", "a network-wide firing rate", "mean_macs"),
    Formula("spikes x MACs", "MACs x share of positions that spike", "Spikformer, arXiv 2209.15425", "spiking_macs"),
    Formula(
        "rate x FLOPs", "as the first, a MAC as two FLOPs", "a reading of FLOPs", "value_macs", factor=2.0, slip=True
    ),
    Formula(
        "rate x MACs x D",
        "as the first, times the largest spike again",
        "the released firing-rate hook already holds D",
        "value_macs",
        slip=True,
        times_levels=True,
    ),
    Formula(
        "SyOPs, graded", "synapses visited by a spike", "NeuroBench, 10.1038/s41467-025-56739-4", "synops", exact=True
    ),
    Formula("SyOPs, binary", "the same, times the spike's value", "a spike of n as n events", "unit_ops", exact=True),
    Formula("SyOPs, int8", "as SyOPs, binary, in int8", _HOROWITZ, "unit_ops", "cmos45_int8", exact=True),
    Formula("SyOPs, memory", "as SyOPs, binary, with SRAM", _HOROWITZ, "unit_ops", "cmos45_fp32_memory", exact=True),
    Formula("SyOPs, int8, memory", "in int8, with SRAM", _HOROWITZ, "unit_ops", "cmos45_int8_memory", exact=True),
)


def sums(layers: Sequence[LayerCounts]) -> dict[str, float]:
    """What conventions multiply, of a mean run without its first layer; ``dense_macs`` too, and the ``mean_value`` of a
    spike position."""
    rest = [layer for layer in layers if layer.kind != FIRST and layer["dense_macs"]]
    size = sum(layer["input_size"] for layer in rest)
    mean = sum(layer["input_sum"] for layer in rest) / size if size else 0.0
    dense = sum(layer["dense_macs"] for layer in rest)
    return {
        "dense_macs": dense,
        "mean_value": mean,
        "value_macs": sum(layer["dense_macs"] * _share(layer, "input_sum") for layer in rest),
        "spiking_macs": sum(layer["dense_macs"] * _share(layer, "events") for layer in rest),
        "mean_macs": dense * mean,
        "synops": sum(layer["synops"] for layer in rest),
        "unit_ops": sum(layer["unit_ops"] for layer in rest),
    }


def _share(layer: LayerCounts, count: str) -> float:
    return layer[count] / layer["input_size"] if layer["input_size"] else 0.0


def assumed(layers: Sequence[LayerCounts], mean_value: float, per_spike: float = 1.0) -> list[LayerCounts]:
    """Layers of which only shapes are known, as if a position's mean spike value were ``mean_value``, a spike being
    ``per_spike`` (at least 1): every tap counts, no weight is zero. Counts are rounded; the image stays as it is."""
    share = min(1.0, mean_value / per_spike)

    def spiking(layer: LayerCounts) -> LayerCounts:
        shape = layer.counts
        size, dense, updates = (shape.get(name, 0) for name in ("input_size", "dense_macs", "neuron_updates"))
        spikes = {
            "events": round(share * size),
            "input_sum": round(mean_value * size),
            "synops": round(share * dense),
            "unit_ops": round(mean_value * dense),
            "neuron_spiking": round(share * updates),
            "output_sum": round(mean_value * updates),
        }
        return replace(layer, counts={**shape, **spikes})

    return [layer if layer.kind == FIRST else spiking(layer) for layer in layers]


@dataclass(frozen=True, slots=True)
class Reading:
    """A formula applied, nanojoules. ``rest``: without the first layer; ``first``: its multiply-accumulates.
    ``mean_value``: mean spike value that was counted; ``None`` where only shapes are known, ``rest`` then is of a mean
    value of 1. ``paper``: the published number."""

    formula: Formula
    rest: Interval
    first: Interval
    mean_value: float | None
    paper: float | None

    @property
    def energy(self) -> Interval:
        """With the first layer."""
        return self.rest + self.first

    def implied_value(self, first: bool = True) -> float | None:
        """Mean spike value at which the formula gives the paper's number, with or without the ``first`` layer;
        negative: the first layer alone is more."""
        if self.paper is None or not self.rest.nominal:
            return None
        left = self.paper - (self.first.nominal if first else 0.0)
        return (self.mean_value or 1.0) * left / self.rest.nominal

    @property
    def ratio(self) -> float | None:
        """This over the paper's number; ``None`` without either."""
        return self.energy.nominal / self.paper if self.paper and self.mean_value is not None else None

    def to_dict(self, chip: Interval | None = None) -> dict[str, Any]:
        """JSON data; ``chip``: what the execution costs on a chip, nanojoules."""
        counted = self.mean_value is not None
        return {
            "name": self.formula.name,
            "formula": self.formula.text,
            "source": self.formula.source,
            "profile": self.formula.profile,
            "slip": self.formula.slip,
            "energy_nj": self.energy.to_dict() if counted else None,
            "without_first_layer_nj": self.rest.to_dict() if counted else None,
            "first_layer_nj": self.first.to_dict(),
            "per_unit_mean_value_nj": self.rest.nominal / (self.mean_value or 1.0),
            "over_paper": self.ratio,
            "implied_mean_value": self.implied_value(),
            "implied_without_first_layer": self.implied_value(first=False),
            "chip_over_this": chip.nominal / self.energy.nominal if chip and counted and self.energy.nominal else None,
        }


def readings(
    layers: Sequence[LayerCounts], *, counted: bool, levels: int, paper: float | None = None
) -> tuple[Reading, ...]:
    """Every formula on a phase. ``counted``: spikes were counted; else shapes alone are known and the exact formulas
    are left out. ``levels``: largest spike. ``paper``: nanojoules. InputError where nothing multiplies."""
    found = sums(layers if counted else assumed(layers, 1.0))
    if not found["dense_macs"]:
        raise InputError("audit: the network has no multiply-accumulates behind its first layer; nothing to derive.")
    rows = []
    for formula in FORMULAS:
        if formula.exact and not counted:
            continue
        profile = load_profile(formula.profile)
        factor = formula.factor * (levels if formula.times_levels else 1)
        memory = (profile.price("synop_memory") or ZERO) * found["synops"]
        rest = profile.prices["unit_op"].interval * (found[formula.sum_of] * factor) + memory
        pixels = sum(layer["macs" if formula.exact else "dense_macs"] for layer in layers if layer.kind == FIRST)
        mac = profile.prices["mac"].interval + (profile.price("mac_memory") or ZERO)
        value = found["mean_value"] if counted else None
        rows.append(Reading(formula, rest, mac * (pixels * formula.factor), value, paper))
    return tuple(rows)
