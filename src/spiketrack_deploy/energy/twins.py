"""The network as a dense one beside itself, on equal terms, and the spike rate at which the two cost the same.

This module decides which profile of the dense twin meets which of the spiking network, and what a rate is. It must not
know how a network was made, nor how a figure is printed.

    rate         spikes a run over the positions that could have spiked (events / input_size), each of any value
    spiking(k)   cost of the counted run with k times its spikes: silent + k (counted - silent), the values, fan-outs
                 and zero weights of a spike held fixed
    crossover    rate * (dense - silent) / (counted - silent)

``silent`` is what is paid without any spike: pixels of the image convolution, steps of occupied slots, streams.
Products of two live activations scale with the square of the rate and are taken as linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.conventions import DenseTwin, dense_twin
from spiketrack_deploy.energy.frames import Run, counted_run
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.pricing import covering, event_prices
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import list_profiles, load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.units import Interval

SAME_TERMS = {"cmos45_int4": "cmos45_int8", "cmos45_int4_memory": "cmos45_int8_memory"}
"""Dense profile -> the spiking one it is set against, where that is not itself: the program's weights are int8."""

CAUSED = (
    "synops", "unit_ops", "synaptic_words", "active_updates", "messages", "unit_messages", "memory_reads", "hops_ew",
    "hops_ns",
)  # fmt: skip
"""What is charged because a spike happened."""


def dense_profiles() -> tuple[Profile, ...]:
    """Bundled profiles that price a multiply-accumulate of a dense network: conventions first, then accelerators."""
    found = [p for p in list_profiles() if "dense_mac" in p.prices or (p.kind == "convention" and "mac" in p.prices)]
    return tuple(sorted(found, key=lambda p: ("dense_mac" in p.prices, p.name)))


def as_dense(profile: Profile) -> Profile | None:
    """``profile`` with the price of a dense network's multiply-accumulate, whatever it calls it, as its price of one
    (``mac``): that of an accelerator, or of a convention with its memory traffic. None where it has none: a chip's
    price of a multiply-accumulate is that of its image convolution."""
    if profile.name not in {one.name for one in dense_profiles()} and "dense_mac" not in profile.prices:
        return None
    cost, known = dense_twin((), profile).mac, profile.prices.get("dense_mac") or profile.prices["mac"]
    values = {"value": cost.nominal, "low": cost.low, "high": cost.high, "unit": "nJ"}
    return profile.model_copy(update={"prices": {"mac": known.model_copy(update=values)}})


def silent(counts: Mapping[str, float]) -> dict[str, float]:
    """What is charged where no neuron spikes: pixels stay, streams, slots and steps; active neurons are idle."""
    kept = {name: count for name, count in counts.items() if name not in CAUSED}
    idle = counts.get("idle_updates", 0.0) + counts.get("active_updates", 0.0)
    return kept | ({"idle_updates": idle} if idle else {})


@dataclass(frozen=True, slots=True)
class Crossing:
    """Spiking against dense, of a layer or of a phase (``name``); nanojoules a run. ``rate``: spikes per position."""

    name: str
    rate: float
    counted: Interval
    silent: Interval
    dense: Interval

    @property
    def factor(self) -> Interval | None:
        """How many times its spikes the network could have at the dense twin's cost, band end by end against each
        other; 0 where it never wins; ``None`` where spikes cost nothing."""
        gain = [c - s for c, s in zip(_ends(self.counted), _ends(self.silent))]
        if min(gain) <= 0:
            return None
        worst = (self.dense.low - self.silent.high) / gain[2]
        best = (self.dense.high - self.silent.low) / gain[0]
        nominal = (self.dense.nominal - self.silent.nominal) / gain[1]
        return Interval(max(worst, 0.0), max(nominal, 0.0), max(best, 0.0))

    @property
    def crossover(self) -> Interval | None:
        """The rate at which both cost the same; above 1 the spiking network wins whatever it does."""
        found = self.factor
        return found * self.rate if found else None

    @property
    def limit(self) -> str:
        """The crossover in words."""
        found = self.crossover
        if found is None:
            return "spikes cost nothing"
        band = f" [{found.low:.3f} .. {found.high:.3f}]" if found.low != found.high else ""
        return f"{found.nominal:.3f}{band}"

    @property
    def wins(self) -> bool:
        """Whether the spiking network costs less at the counted rate, nominal."""
        return self.counted.nominal < self.dense.nominal

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        crossover = self.crossover
        return {
            "name": self.name,
            "rate": self.rate,
            "spiking_nj": self.counted.to_dict(),
            "silent_nj": self.silent.to_dict(),
            "dense_nj": self.dense.to_dict(),
            "crossover_rate": crossover.to_dict() if crossover else None,
            "spiking_wins_below": self.limit,
            "spiking_wins": self.wins,
        }


def _ends(value: Interval) -> tuple[float, float, float]:
    return value.low, value.nominal, value.high


@dataclass(frozen=True, slots=True)
class Duel:
    """One run of a phase under the prices of ``spiking``, beside its dense twin under those of ``twin.profile``;
    ``whole``: all operations, neurons among them; ``layers``: those with multiply-accumulates, each alone."""

    spiking: str
    twin: DenseTwin
    whole: Crossing
    layers: tuple[Crossing, ...]

    @property
    def lost(self) -> int:
        """Layers whose spikes cost more than their dense twin, nominal."""
        return sum(not layer.wins for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "spiking_profile": self.spiking,
            "dense": self.twin.to_dict(),
            "whole": self.whole.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "layers_lost": self.lost,
        }


def rate(layers: Sequence[LayerCounts]) -> float:
    """Spikes of a mean run over the positions that could have spiked, read by layers with multiply-accumulates; the
    image is no spike."""
    read = [layer for layer in layers if layer.kind != "image_conv" and layer["dense_macs"]]
    size = sum(layer["input_size"] for layer in read)
    return sum(layer["events"] for layer in read) / size if size else 0.0


def duel(layers: Sequence[LayerCounts], spiking: Profile, dense: Profile, run: Run | None = None) -> Duel:
    """Both networks under one pair of profiles. ``run``: the same run on ``spiking``'s chips, where it was placed;
    without one the program's own counts are charged. InputError where ``spiking`` prices no event."""
    if not event_prices(spiking):
        raise InputError(f"{spiking.name} prices no event: a spiking network has no energy there.")
    paid = run or counted_run("", layers, spiking)

    def crossing(name: str, chosen: Sequence[LayerCounts], counts: Mapping[str, float]) -> Crossing:
        costs = covering(counts, spiking), covering(silent(counts), spiking)
        return Crossing(name, rate(chosen), *costs, dense_twin(chosen, dense).energy)

    alone = tuple(
        crossing(layer.name, [layer], paid.operations.get(layer.name, {}))
        for layer in layers
        if layer["dense_macs"] and layer.kind != "image_conv"
    )
    return Duel(spiking.name, dense_twin(layers, dense), crossing("in all", layers, paid.counts), alone)


def duels(layers: Sequence[LayerCounts], chip: Profile, run: Run | None = None) -> tuple[Duel, ...]:
    """Against every dense profile: a convention against the spiking network under the same convention, an accelerator
    against it on ``chip`` (dynamic energy, of ``run`` where it lies on cores)."""
    found = []
    for dense in dense_profiles():
        same = dense.kind == "convention"
        terms = load_profile(SAME_TERMS.get(dense.name, dense.name)) if same else chip
        if event_prices(terms):
            found.append(duel(layers, terms, dense, None if same else run))
    return tuple(found)
