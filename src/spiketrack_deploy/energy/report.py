"""The energy of a run as one value, and as the files ``energy.json`` and ``layers.csv``.

This module decides what an energy statement must contain: band, causes, template updates amortised and not, static
apart from dynamic, the dense twin, the published convention, and everything without a price. It must not know how the
frames were run, nor how the statement is drawn.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiketrack_deploy.energy.conventions import Convention, DenseTwin, dense_twin, published_convention
from spiketrack_deploy.energy.layers import COUNTS, LayerCounts, Mean, mean_layers, sum_counts
from spiketrack_deploy.energy.montecarlo import Spread, frame_energies, over_frames, over_prices, price_counts
from spiketrack_deploy.energy.pricing import (
    LayerEnergy,
    Part,
    Unpriced,
    by_cause,
    dominant,
    intervals,
    needs_mapping,
    price,
    unpriced,
)
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.vocabulary import CAUSES, PRICES
from spiketrack_deploy.inputs.whole_file import whole, write_whole
from spiketrack_deploy.units import ZERO, Interval, total

SCHEMA = "spiketrack-energy/1"
CAMERA_PERIOD_S = 1 / 30
"""Frame period of an ordinary camera, seconds: the time over which static power is stated without a mapping."""

_CAVEATS = (
    "Energies are estimates from event counts of an exact execution; no neuromorphic hardware was used.",
    "Bands are added end by end: coefficients are shared by all layers and therefore fully correlated.",
    "Boundary: chip rails, without host, input, output and board.",
)


@dataclass(frozen=True, slots=True)
class PhaseEnergy:
    """One phase: ``runs`` search frames or template updates, means per run. ``layers`` and ``counts`` go together."""

    phase: str
    counts: tuple[Mean, ...]
    layers: tuple[LayerEnergy, ...]

    @property
    def runs(self) -> int:
        """Number of runs averaged over."""
        return self.counts[0].runs if self.counts else 0

    @property
    def parts(self) -> list[Part]:
        """All parts of all layers."""
        return [part for layer in self.layers for part in layer.parts]

    @property
    def dynamic(self) -> Interval:
        """Dynamic energy of one run, nanojoules."""
        return total(layer.total for layer in self.layers)


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """What a run costs on one profile. Energies in nanojoules, always with band.

    ``template`` is ``None`` where no template update was run. ``update_interval``: search frames per template update.
    ``price_spread``, ``frame_spread``: intervals of a search frame over the prices' bands and over resampled frames;
    ``None`` where there is nothing to draw from.
    """

    profile: Profile
    frames: int
    search: PhaseEnergy
    template: PhaseEnergy | None
    update_interval: int
    frame_period_s: float
    twins: tuple[DenseTwin, ...]
    template_twins: tuple[DenseTwin, ...]
    convention: Convention
    unpriced: tuple[Unpriced, ...]
    price_spread: Spread | None = None
    frame_spread: Spread | None = None

    @property
    def template_amortised(self) -> Interval:
        """Dynamic energy of template updates per search frame, nanojoules."""
        return self.template.dynamic * (1 / self.update_interval) if self.template else ZERO

    @property
    def per_frame(self) -> Interval:
        """Dynamic energy of one search frame with its share of template updates, nanojoules."""
        return self.search.dynamic + self.template_amortised

    @property
    def static_per_chip_frame(self) -> Interval | None:
        """Static energy of one powered chip over one frame period, nanojoules; ``None`` where the profile has none."""
        power = self.profile.price("static_power")
        return power * (self.frame_period_s * 1e9) if power else None

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the reader must know beside the numbers."""
        return (*_CAVEATS, *self.profile.assumptions)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``energy.json``: plain JSON data, energies in nanojoules."""
        return {
            "schema": SCHEMA,
            "profile": self._profile(),
            "frames": self.frames,
            "per_frame": self._per_frame(),
            "template_update": self._template_update(),
            "static": self._static(),
            "dense_twin": {
                "search_frame": [twin.to_dict() for twin in self.twins],
                "template_update": [twin.to_dict() for twin in self.template_twins],
            },
            "published_convention": self.convention.to_dict(),
            "layers": [row for phase in self._branches() for row in _layer_rows(phase)],
            "unpriced": [item.to_dict() for item in self.unpriced],
            "uncertainty": {
                "search_frame_over_prices": self.price_spread.to_dict() if self.price_spread else None,
                "search_frame_over_frames": self.frame_spread.to_dict() if self.frame_spread else None,
            },
            "assumptions": list(self.assumptions),
        }

    def _branches(self) -> list[PhaseEnergy]:
        return [self.search, self.template] if self.template else [self.search]

    def _profile(self) -> dict[str, Any]:
        used = {name: item.model_dump() for name, item in self.profile.prices.items() if PRICES[name].cause is not None}
        return {
            "name": self.profile.name,
            "title": self.profile.title,
            "kind": self.profile.kind,
            "sha256": self.profile.digest,
            "prices": used,
            "unknown": list(self.profile.unknown),
        }

    def _per_frame(self) -> dict[str, Any]:
        return {
            "search_nj": self.search.dynamic.to_dict(),
            "template_amortised_nj": self.template_amortised.to_dict(),
            "dynamic_nj": self.per_frame.to_dict(),
            "by_cause_nj": intervals(by_cause(self.search.parts)),
            "by_block_nj": intervals(_by_block(self.search.layers)),
            "counts": sum_counts(self.search.counts),
            "dominant": self._dominant(self.search),
        }

    def _template_update(self) -> dict[str, Any]:
        runs = self.template.runs if self.template else 0
        base: dict[str, Any] = {"updates": runs, "interval_frames": self.update_interval}
        if self.template is None:
            return base
        return base | {
            "unamortised_nj": self.template.dynamic.to_dict(),
            "amortised_per_frame_nj": self.template_amortised.to_dict(),
            "by_cause_nj": intervals(by_cause(self.template.parts)),
            "by_block_nj": intervals(_by_block(self.template.layers)),
            "counts": sum_counts(self.template.counts),
            "dominant": self._dominant(self.template),
        }

    def _static(self) -> dict[str, Any] | None:
        energy, power = self.static_per_chip_frame, self.profile.price("static_power")
        if energy is None or power is None:
            return None
        chips = self.profile.chips
        board = {"chips_of_board": chips, "energy_nj_board_frame": (energy * chips).to_dict()} if chips else {}
        return {
            "power_w_per_chip": power.to_dict(),
            "frame_period_s": self.frame_period_s,
            "energy_nj_per_chip_frame": energy.to_dict(),
            **board,
            "tag": self.profile.prices["static_power"].tag,
            "note": "one powered chip over one frame period; not in dynamic_nj; the number of chips needs a mapping",
        }

    def _dominant(self, phase: PhaseEnergy) -> dict[str, Any] | None:
        found = dominant(phase.layers)
        if found is None:
            return None
        item = self.profile.prices[found[0]]
        return {"price": found[0], "share": found[1], "tag": item.tag, "source": item.source}


def _by_block(layers: Sequence[LayerEnergy]) -> dict[str, Interval]:
    sums: dict[str, Interval] = {}
    for layer in layers:
        sums[layer.block] = sums.get(layer.block, ZERO) + layer.total
    return sums


def _layer_rows(phase: PhaseEnergy) -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "block": layer.block,
            "phase": phase.phase,
            "counts": counts.means(),
            "counts_total": {key: value for key, value in counts.sums.items() if value},
            "energy_nj": layer.total.to_dict(),
            "by_cause_nj": {cause: energy.to_dict() for cause, energy in layer.by_cause.items() if energy != ZERO},
        }
        for layer, counts in zip(phase.layers, phase.counts, strict=True)
    ]


def _phase(name: str, runs: Sequence[Sequence[LayerCounts]], what: str, profile: Profile) -> PhaseEnergy:
    counts = mean_layers(runs, what)
    return PhaseEnergy(name, tuple(counts), tuple(price(layer, profile) for layer in counts))


def _price_spread(layers: Sequence[Mean], profile: Profile) -> Spread | None:
    counts = price_counts(layers, profile)
    return over_prices(counts, profile) if counts else None


def assess(
    frames: Sequence[Sequence[LayerCounts]],
    template_updates: Sequence[Sequence[LayerCounts]],
    profile: Profile,
    *,
    update_interval: int,
    frame_period_s: float = CAMERA_PERIOD_S,
    fp32: Profile | None = None,
    int8: Profile | None = None,
    single_frames: bool = True,
) -> EnergyReport:
    """Price a run.

    ``frames``: per search frame the counts of every layer; totals are means over them. ``template_updates``: the same
    per template update; amortised over ``update_interval`` search frames. ``frame_period_s``: time over which a chip's
    static power is stated. ``fp32`` and ``int8``: profiles of the dense twins, by default the bundled ``cmos45`` ones;
    the published convention uses ``fp32``. ``single_frames``: every entry of ``frames`` is one frame; where only their
    sum is known, there is no interval over frames.

    Raises InputError for no frames, runs with different layers, or an interval or period that is not positive.
    """
    if update_interval < 1:
        raise InputError(f"energy: the template update interval is {update_interval} frames, must be at least 1.")
    if not (math.isfinite(frame_period_s) and frame_period_s > 0):
        raise InputError(f"energy: the frame period is {frame_period_s} s, must be positive.")
    search = _phase("search", frames, "search frame", profile)
    template = _phase("template", template_updates, "template update", profile) if template_updates else None
    fp32, int8 = fp32 or load_profile("cmos45_fp32"), int8 or load_profile("cmos45_int8")
    missing = unpriced(search.counts, profile, "search frame")
    if template:
        missing += unpriced(template.counts, profile, "template update")
    else:
        missing.append(Unpriced("template_update", None, "template update", "no template update was run"))
    return EnergyReport(
        profile=profile,
        frames=len(frames),
        search=search,
        template=template,
        update_interval=update_interval,
        frame_period_s=frame_period_s,
        twins=tuple(dense_twin(search.counts, twin) for twin in (fp32, int8)),
        template_twins=tuple(dense_twin(template.counts, twin) for twin in (fp32, int8)) if template else (),
        convention=published_convention(search.counts, fp32),
        price_spread=_price_spread(search.counts, profile),
        frame_spread=over_frames([frame_energies(frames, profile)]) if single_frames and len(frames) > 1 else None,
        unpriced=(*missing, *needs_mapping(profile, "search frame")),
    )


def write_energy_json(report: EnergyReport, path: Path) -> None:
    """Write ``energy.json``: the same report gives the same bytes."""
    write_whole(path, json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")


def write_layers_csv(report: EnergyReport, path: Path) -> None:
    """Write ``layers.csv``: a row per layer and phase, mean counts per run, nanojoules with band, causes nominal."""
    energies = ["energy_nj", "energy_low_nj", "energy_high_nj", *(f"{cause}_nj" for cause in CAUSES)]
    header = ["phase", "name", "kind", "block", *COUNTS, *energies]
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for phase in [report.search, report.template]:
            if phase is None:
                continue
            for layer, counts in zip(phase.layers, phase.counts, strict=True):
                means, energy = counts.means(), layer.total
                causes = [layer.by_cause[cause].nominal for cause in CAUSES]
                row = [phase.phase, layer.name, layer.kind, layer.block, *(means.get(key, 0) for key in COUNTS)]
                writer.writerow([*row, energy.nominal, energy.low, energy.high, *causes])
