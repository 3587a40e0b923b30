"""The energy of a run as one value, and as the files ``energy.json`` and ``layers.csv``.

This module decides what an energy statement must contain: the total of a result, per phase a run and its share, band,
causes, static apart from dynamic, the dense twin, the published convention, and everything without a price. It must not
know what a phase is for, how it was run or placed, nor how the statement is drawn.

Where the network lies on chips (:class:`frames.Placed`), every operation is charged for what it does there; where it
does not, for what the program counts.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiketrack_deploy.energy.conventions import Convention, DenseTwin, dense_twin, published_convention
from spiketrack_deploy.energy.frames import CAMERA_PERIOD_S, Placed, Run, counted_run
from spiketrack_deploy.energy.layers import COUNTS, LayerCounts, Number, whole
from spiketrack_deploy.energy.montecarlo import Spread, over_frames, over_prices, price_counts
from spiketrack_deploy.energy.pricing import (
    CAUSES,
    LayerEnergy,
    Part,
    Unpriced,
    bill,
    by_cause,
    dominant,
    event_prices,
    intervals,
    needs_mapping,
    price,
    unpriced,
)
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.schema import Price, Profile
from spiketrack_deploy.inputs.whole_file import whole as whole_file
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.units import ZERO, Interval, total

SCHEMA = "spiketrack-energy/3"

_CAVEATS = (
    "Energies are estimates from event counts of an exact execution; no neuromorphic hardware was used.",
    "Bands are added end by end: coefficients are shared by all layers and therefore fully correlated.",
    "Boundary: chip rails; the board beside the chips is a line of its own, the host is outside.",
)


@dataclass(frozen=True, slots=True)
class Dominant:
    """The price on which a figure hangs most, its share of the nominal energy, and how it is known."""

    name: str
    share: float
    price: Price

    def to_dict(self) -> dict[str, Any]:
        """As energy.json writes it."""
        return {"price": self.name, "share": self.share, "tag": self.price.tag, "source": self.price.source}


@dataclass(frozen=True, slots=True)
class PhaseEnergy:
    """One phase on one profile. ``counts`` and ``layers`` go together, in execution order; both are of a mean run.
    ``whole``: what belongs to no layer (a chip's steps, hops); ``run``: all of it, as it is billed.

    ``per_result``: runs of the phase for one result of the workload; 0 where it runs at the start alone, which is paid
    once and is no part of a result. ``over_prices``, ``over_runs``: intervals of a run's energy over the prices' bands
    and over resampled runs; ``None`` where there is nothing to draw from.
    """

    name: str
    per_result: float
    profile: Profile
    counts: tuple[LayerCounts, ...]
    layers: tuple[LayerEnergy, ...]
    whole: tuple[Part, ...]
    run: Run
    twins: tuple[DenseTwin, ...]
    convention: Convention
    over_prices: Spread | None
    over_runs: Spread | None

    @property
    def runs(self) -> int:
        """Number of runs averaged over."""
        return self.counts[0].runs

    @property
    def parts(self) -> list[Part]:
        """All parts of all layers, and those of none."""
        return [*(part for layer in self.layers for part in layer.parts), *self.whole]

    @property
    def dynamic(self) -> Interval:
        """Dynamic energy of one run, nanojoules: nominal the sum of all parts, the band over both structures of
        synaptic energy where the profile has both."""
        return self.run.dynamic(self.profile)

    @property
    def amortised(self) -> Interval:
        """Its share of a result's dynamic energy, nanojoules."""
        return self.dynamic * self.per_result

    @property
    def by_cause(self) -> dict[str, Interval]:
        """Cause -> nanojoules of one run."""
        return by_cause(self.parts)

    @property
    def by_block(self) -> dict[str, Interval]:
        """Block -> nanojoules of one run, in execution order."""
        sums: dict[str, Interval] = {}
        for layer in self.layers:
            sums[layer.block] = sums.get(layer.block, ZERO) + layer.total
        return sums

    @property
    def means(self) -> dict[str, Number]:
        """Mean counts of one run, all layers together."""
        return whole(self.counts).means()

    @property
    def dominant(self) -> Dominant | None:
        """The price that most of a run's energy is; ``None`` where nothing is priced."""
        found = dominant(self.parts)
        return Dominant(*found, self.profile.prices[found[0]]) if found else None

    def to_dict(self) -> dict[str, Any]:
        """As energy.json writes it."""
        return {
            "runs": self.runs,
            "per_result": self.per_result,
            "unamortised_nj": self.dynamic.to_dict(),
            "amortised_nj": self.amortised.to_dict(),
            "structures_nj": intervals(self.run.structures(self.profile)),
            "charged": dict(self.run.counts),
            "of_no_layer_nj": {part.price: part.energy.to_dict() for part in self.whole},
            "by_cause_nj": intervals(self.by_cause),
            "by_block_nj": intervals(self.by_block),
            "counts": self.means,
            "dominant": self.dominant.to_dict() if self.dominant else None,
            "dense_twin": [twin.to_dict() for twin in self.twins],
            "published_convention": self.convention.to_dict(),
            "uncertainty": {
                "over_prices": self.over_prices.to_dict() if self.over_prices else None,
                "over_runs": self.over_runs.to_dict() if self.over_runs else None,
            },
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a layer, as energy.json writes them."""
        return [
            {
                "name": layer.name,
                "kind": layer.kind,
                "block": layer.block,
                "phase": self.name,
                "counts": counts.means(),
                "counts_total": {key: value for key, value in counts.counts.items() if value},
                "energy_nj": layer.total.to_dict(),
                "by_cause_nj": {cause: energy.to_dict() for cause, energy in layer.by_cause.items() if energy != ZERO},
            }
            for layer, counts in zip(self.layers, self.counts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Static:
    """Static energy of one powered chip over a period: watts, seconds, nanojoules; ``chips`` of a board."""

    power: Interval
    period_s: float
    chips: int | None
    tag: str

    @property
    def energy(self) -> Interval:
        """Nanojoules of one chip."""
        return self.power * (self.period_s * 1e9)

    def to_dict(self) -> dict[str, Any]:
        """As energy.json writes it."""
        chips = self.chips
        board = {"chips_of_board": chips, "energy_nj_board_frame": (self.energy * chips).to_dict()} if chips else {}
        return {
            "power_w_per_chip": self.power.to_dict(),
            "frame_period_s": self.period_s,
            "energy_nj_per_chip_frame": self.energy.to_dict(),
            **board,
            "tag": self.tag,
            "note": "one powered chip over one frame period; not in dynamic_nj",
        }


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """What a workload costs on one profile. Energies in nanojoules, always with band.

    ``result``: what one result of the workload is called (``frame``). ``phases``: those that ran, the one that runs
    most often for a result first. ``placed``: on which chips it lies, where it does.
    """

    profile: Profile
    result: str
    phases: tuple[PhaseEnergy, ...]
    frame_period_s: float
    unpriced: tuple[Unpriced, ...]
    placed: Placed | None = None

    @property
    def dynamic(self) -> Interval:
        """Dynamic energy of one result: every phase by as many runs as a result takes, nanojoules."""
        return self.placed.mean.dynamic if self.placed else total(phase.amortised for phase in self.phases)

    @property
    def total(self) -> Interval:
        """All that a result costs, nanojoules: with static power and input where the network lies on chips."""
        return self.placed.mean.total if self.placed else self.dynamic

    @property
    def main(self) -> PhaseEnergy:
        """The phase that runs most often for a result."""
        return self.phases[0]

    @property
    def static(self) -> Static | None:
        """Static energy over one frame period; ``None`` where the profile has no price for it."""
        power = self.profile.price("static_power")
        if power is None:
            return None
        return Static(power, self.frame_period_s, self.profile.chips, self.profile.prices["static_power"].tag)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the reader must know beside the numbers."""
        return (*_CAVEATS, *self.profile.assumptions)

    @property
    def prices(self) -> dict[str, Price]:
        """The prices that multiply counts of the program."""
        return {name: self.profile.prices[name] for name in event_prices(self.profile)}

    def to_dict(self) -> dict[str, Any]:
        """The content of ``energy.json``: plain JSON data, energies in nanojoules, the whole profile with it."""
        profile = self.profile
        return {
            "schema": SCHEMA,
            "result": self.result,
            "profile": {"sha256": profile.digest, **profile.model_dump(by_alias=True)},
            "per_result": {"total_nj": self.total.to_dict(), "dynamic_nj": self.dynamic.to_dict()},
            "placed": self.placed.to_dict() if self.placed else None,
            "phases": {phase.name: phase.to_dict() for phase in self.phases},
            "static": self.static.to_dict() if self.static else None,
            "layers": [row for phase in self.phases for row in phase.rows()],
            "unpriced": [item.to_dict() for item in self.unpriced],
            "assumptions": list(self.assumptions),
        }


def assess(
    counts: Mapping[str, Sequence[LayerCounts]],
    profile: Profile,
    per_result: Mapping[str, float],
    *,
    result: str = "result",
    placed: Placed | None = None,
    apart: Mapping[str, Sequence[float]] | None = None,
    frame_period_s: float = CAMERA_PERIOD_S,
    fp32: Profile | None = None,
    int8: Profile | None = None,
) -> EnergyReport:
    """Price a workload.

    ``counts``: phase -> its layers, summed over its runs; a phase that did not run may be empty or missing.
    ``per_result``: phase -> runs for one result (1: for each; 1/25: every 25th; 0: at the start alone). ``result``:
    what a result is called. ``placed``: on which chips it lies. ``apart``: phase -> nominal dynamic energies of its
    runs one by one (nanojoules), where they are known, for an interval over them.
    ``frame_period_s``: time over which a chip's static power is stated. ``fp32`` and ``int8``: profiles of the dense
    twins, by default the bundled ``cmos45`` ones; the published convention uses ``fp32``.

    What did not run and is not scheduled costs nothing; what is scheduled and did not run is listed as unpriced.
    Raises InputError where nothing that a result needs ran, for a phase without a schedule, or a period that is not
    positive.
    """
    _check(counts, per_result, frame_period_s)
    fp32, int8 = fp32 or load_profile("cmos45_fp32"), int8 or load_profile("cmos45_int8")
    phases, listed = [], []
    for name, share in sorted(per_result.items(), key=lambda item: -item[1]):
        layers = tuple(counts.get(name, ()))
        if layers:
            run = placed.runs[name] if placed else counted_run(name, layers, profile)
            phases.append(_phase(share, layers, run, (apart or {}).get(name, ()), profile, (fp32, int8)))
            listed += [] if placed else unpriced(layers, profile, name)
        elif share:
            listed.append(Unpriced(name, None, result, f"phase {name} is part of a {result} and did not run"))
    return EnergyReport(
        profile=profile,
        result=result,
        phases=tuple(phases),
        frame_period_s=frame_period_s,
        unpriced=(*listed, *(placed.unpriced if placed else needs_mapping(profile, result))),
        placed=placed,
    )


def _check(counts: Mapping[str, Sequence[LayerCounts]], per_result: Mapping[str, float], frame_period_s: float) -> None:
    for name, share in per_result.items():
        if not (math.isfinite(share) and share >= 0):
            raise InputError(f"energy: phase {name} runs {share} times per result, must be at least 0.")
    unknown = next((name for name, layers in counts.items() if layers and name not in per_result), None)
    if unknown is not None:
        raise InputError(f"energy: it is not said how often phase {unknown} runs per result.")
    if not any(counts.get(name) for name, share in per_result.items() if share):
        raise InputError("energy: no phase that a result needs was run; run at least one.")
    for name, layers in counts.items():
        if len({layer.runs for layer in layers}) > 1:
            raise InputError(f"energy: the layers of phase {name} were counted over different numbers of runs.")
    if not (math.isfinite(frame_period_s) and frame_period_s > 0):
        raise InputError(f"energy: the frame period is {frame_period_s} s, must be positive.")


def _phase(
    per_result: float,
    layers: tuple[LayerCounts, ...],
    run: Run,
    apart: Sequence[float],
    profile: Profile,
    twins: tuple[Profile, Profile],
) -> PhaseEnergy:
    paid = price_counts(run.counts, profile)
    return PhaseEnergy(
        name=run.phase,
        per_result=per_result,
        profile=profile,
        counts=layers,
        layers=tuple(price(layer, run.operations.get(layer.name, {}), profile) for layer in layers),
        whole=bill(run.whole, profile),
        run=run,
        twins=tuple(dense_twin(layers, twin) for twin in twins),
        convention=published_convention(layers, twins[0]),
        over_prices=over_prices(paid, profile) if paid else None,
        over_runs=over_frames([apart]) if len(apart) > 1 else None,
    )


def write_energy_json(report: EnergyReport, path: Path) -> None:
    """Write ``energy.json``: the same report gives the same bytes."""
    write_whole(path, json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")


def write_layers_csv(report: EnergyReport, path: Path) -> None:
    """Write ``layers.csv``: a row per layer and phase, mean counts per run, nanojoules with band, causes nominal."""
    energies = ["energy_nj", "energy_low_nj", "energy_high_nj", *(f"{cause}_nj" for cause in CAUSES)]
    header = ["phase", "name", "kind", "block", *COUNTS, *energies]
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for phase in report.phases:
            for layer, counts in zip(phase.layers, phase.counts, strict=True):
                energy = layer.total
                causes = [layer.by_cause[cause].nominal for cause in CAUSES]
                row = [phase.name, layer.name, layer.kind, layer.block, *(counts[key] for key in COUNTS)]
                writer.writerow([*row, energy.nominal, energy.low, energy.high, *causes])
