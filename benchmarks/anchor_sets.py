"""What others measured on a Loihi 2, each figure with the counts that decide it: the anchors of the price model.

This module decides which published figure is an anchor, and from what its counts come. It must not know a price of this
repository, nor how prices are derived. Energies are nanojoules, times seconds, powers watts.

A1: PilotNet-LIF, notebooks in the history of lava-nc/lava-dl (commits b9e3691, baa23ad, b5200e2, 12f0402).
B1, B2: PilotNet-SDNN, counters of the same repository (@d825ac5), speed and energy of Shrestha 2024 (arXiv 2310.03251).
B4: winner-take-all networks, figures of github.com/OzU-CAST/LoihiScalingEfficiency@1c5a162, digitised.
B5: two LIF neurons, github.com/NECOTIS/TemporalLearningInRSNNs@3e64b51 (doi 10.1088/2634-4386/add293).
B6: fly connectome, arXiv 2508.16792.       B7: acoustic autoencoder on 16 chips, arXiv 2608.18341.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pilotnet_cores
from pilotnet import STEPS, LayerReplay, PilotNet
from pilotnet_cores import CoreWork

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.units import Interval

NJ = 1e9
"""Nanojoules of a joule."""


@dataclass(frozen=True, slots=True)
class Energy:
    """An energy (nJ) and its counts, named as ``energy.pricing`` bills them.

    ``chip_s``: chip-seconds of static power that the figure holds, at the price ``rails``; 0 for a dynamic energy.
    ``runs``: single measurements where there are several. ``board``: whose own static power it holds, if it does.
    ``decides``: a row of the fit; a sum of other rows is compared and not fitted again.
    """

    anchor: str
    what: str
    measured: Interval
    counts: Mapping[str, float]
    chip_s: float = 0.0
    rails: str = "static_power"
    runs: tuple[float, ...] = ()
    board: str = ""
    decides: bool = True


@dataclass(frozen=True, slots=True)
class StepTime:
    """A time (s) of ``steps`` steps of ``chips`` chips, and the work of the busiest cores in one.

    ``work``: ``synops``, ``words``, ``native``, ``microcode`` -> amount on the core that has most of it; where it is
    not published, a band. ``unknown_s``: seconds of a step that no count explains, solved from the anchor itself.
    """

    anchor: str
    what: str
    measured: Interval
    work: Mapping[str, Interval]
    chips: int = 1
    steps: float = 1.0
    unknown_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Power:
    """A power (W) that is one of the prices itself: ``price`` of one chip."""

    anchor: str
    what: str
    measured: Interval
    price: str


@dataclass(frozen=True, slots=True)
class Anchors:
    """All figures, and in words what was left out and why. ``readings``: other figures of an anchor that its
    publication allows, by what is read otherwise."""

    energies: list[Energy] = field(default_factory=list)
    times: list[StepTime] = field(default_factory=list)
    powers: list[Power] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    readings: dict[str, Anchors] = field(default_factory=dict)

    def read(self, reading: str) -> Anchors:
        """The same with one anchor read otherwise."""
        other = self.readings[reading]
        items: list[Energy | StepTime] = [*other.energies, *other.times]
        changed = {(item.anchor, item.what) for item in items}
        kept = [item for item in self.energies if (item.anchor, item.what) not in changed]
        times = [item for item in self.times if (item.anchor, item.what) not in changed]
        return Anchors(kept + other.energies, times + other.times, self.powers)

    @property
    def names(self) -> list[str]:
        """Anchors that have an energy or a time."""
        items: list[Energy | StepTime] = [*self.energies, *self.times]
        return sorted({item.anchor for item in items})


def _busiest(work: Sequence[CoreWork], slots: str) -> dict[str, Interval]:
    most = {"synops": max(c.synops for c in work), "words": max(c.words for c in work)}
    return {name: Interval.exact(value) for name, value in (most | {slots: max(c.neurons for c in work)}).items()}


def pilotnet_lif(into: Anchors, network: PilotNet, found: Sequence[LayerReplay]) -> None:
    """A1: counts by replay on the published layout; five runs of energy, two boards of step times."""
    layout = pilotnet_cores.published(network)
    work = pilotnet_cores.loads(layout, found)
    spikes = sum(int(item.spikes.sum()) for item in found) / STEPS
    neurons = sum(network.populations.values())
    counts = {
        "synops": sum(core.synops for core in work),
        "synaptic_words": sum(core.words for core in work),
        "slot_steps_native": neurons,
        "idle_updates": neurons - spikes,
        "active_updates": spikes,
        "messages": sum(pilotnet_cores.messages(layout, item) for item in found) / STEPS,
        "chip_steps": 1,
        "chip_ns": 151.8e3,
    }
    runs = (61.3e3, 66.9e3, 68.3e3, 74.9e3, 86.6e3)
    measured = Interval(min(runs), statistics.median(runs), max(runs))
    into.energies.append(Energy("A1", "dynamic, a step", measured, counts, runs=runs))
    busiest = _busiest(work, "native")
    into.times.append(StepTime("A1", "step, Oheo Gulch", Interval(150.7e-6, 151.8e-6, 152.8e-6), busiest))
    into.times.append(StepTime("A1", "step, Kapoho Point", Interval(182e-6, 182e-6, 182.6e-6), busiest, chips=8))
    into.powers.append(Power("A1", "static, Oheo Gulch", Interval(0.232, 0.307, 0.382), "static_power"))
    into.powers.append(Power("A1", "static, Kapoho Point", Interval(0.352, 0.355, 0.359), "static_power"))


SDNN_CHIP = {
    "conv1": (169e3, 12_809), "conv2": (185e3, 28_958), "conv3": (103e3, 50_917), "conv4": (89e3, 46_692),
    "conv5": (43e3, 36_200), "dense6": (4.2e3, 375), "dense7": (150, 150), "dense8": (50, 50), "dense9": (0, 0),
}  # fmt: skip
"""B1, counters of the chip over 2,000 frames of a drive, read off a plot (3 %): layer -> synaptic operations a step,
and those of its busiest core."""


def pilotnet_sdnn(into: Anchors, network: PilotNet, found: Sequence[LayerReplay]) -> None:
    """B2: operations as the chip counted them (B1); messages and words per operation by replay of a panned frame."""
    step = 1 / 7403.8
    layout = pilotnet_cores.published(network, with_input=False)
    work = pilotnet_cores.loads(layout, found)
    steps = found[0].spikes.shape[0]
    counted = sum(synops for synops, _ in SDNN_CHIP.values())
    scale = counted / sum(core.synops for core in work)
    neurons = sum(layer.neurons for layer in network.layers)
    sent = sum(int((item.spikes != 0).sum()) for item in found[:-1]) / steps * scale
    counts = {
        "synops": counted,
        "synaptic_words": sum(core.words for core in work) * scale,
        "slot_steps_microcode": neurons,
        "idle_updates": neurons - sent,
        "active_updates": sent,
        "messages": sum(pilotnet_cores.messages(layout, item) for item in found) / steps * scale,
        "chip_steps": 1,
        "chip_ns": step * NJ,
    }
    # 0.09 mJ is printed with one digit.
    into.energies.append(Energy("B2", "total, a frame", Interval(85e3, 90e3, 95e3), counts, chip_s=step))
    words = max(
        core.words / core.synops * SDNN_CHIP[core.layer][1] for core in work if core.synops and core.layer in SDNN_CHIP
    )
    busiest = _busiest(work, "microcode") | {
        "synops": Interval.exact(max(busy for _, busy in SDNN_CHIP.values())), "words": Interval.exact(words)
    }  # fmt: skip
    into.times.append(StepTime("B2", "step", Interval(step, step, step), busiest))


WTA_STEPS, WTA_GENERATORS = 80_000, 200
WTA_POWER_W, WTA_STEP_S = 0.003, 0.02e-6
"""How exactly the figures could be read."""


def winner_take_all(into: Anchors, file: Path) -> None:
    """B4: 44 networks of N neurons and 200 generators, power and step time by cores; InputError for another file.

    The neurons of a core were not published: between N/cores and all of them on one; nominal N over half of the cores,
    the other half holding generators and connections (assumed). Read otherwise: spread evenly.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            neurons, cores, power, step = (
                float(row[name]) for name in ("neurons", "cores", "power_W", "step_us")
            )  # fmt: skip
            step *= 1e-6
            kind = "native" if row["neuron"] == "LIF" else "microcode"
            counts = {"chip_steps": 1.0, "messages": float(row["spike_arrivals_total_1e8"]) * 1e8 / WTA_STEPS}
            counts["chip_ns"] = step * NJ
            counts |= {"slot_steps_native": float(WTA_GENERATORS), "idle_updates": neurons + WTA_GENERATORS}
            counts[f"slot_steps_{kind}"] = counts.get(f"slot_steps_{kind}", 0.0) + neurons
            name = f"{row['neuron']} {row['topology']} {row['neurons']}"
            ends = [(power + off) * (step + slip) * NJ for off, slip in ((-WTA_POWER_W, -WTA_STEP_S), (0, 0),
                                                                         (WTA_POWER_W, WTA_STEP_S))]  # fmt: skip
            into.energies.append(
                Energy("B4", f"total, a step: {name}", Interval(*ends), counts, chip_s=step, board="B4")
            )
            slots = Interval(neurons / cores, 2 * neurons / cores, neurons)
            if kind == "native":
                # Any share of 6 ns updates is below what tells the boards' floors apart: the mean core.
                slots = Interval.exact((neurons + WTA_GENERATORS) / cores)
            measured = Interval(step - WTA_STEP_S, step, step + WTA_STEP_S)
            into.times.append(StepTime("B4", f"step: {name}", measured, {kind: slots}))
            even = {kind: Interval(slots.low, slots.low, slots.high)}
            into.readings.setdefault("B4 even", Anchors()).times.append(StepTime("B4", f"step: {name}", measured, even))
    except (OSError, KeyError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{file}: is not the table of winner-take-all networks ({error})") from error
    if len(rows) != 44:
        raise InputError(f"{file}: has {len(rows)} networks, the published figures show 44")
    _growth(into, [item for item in into.energies if item.anchor == "B4"])


def _growth(into: Anchors, points: Sequence[Energy]) -> None:
    """What the largest network of a series draws more than the smallest, in a second: free of the board's own power."""
    series: dict[str, list[Energy]] = {}
    for item in points:
        series.setdefault(item.what.rsplit(" ", 1)[0].split(": ")[1], []).append(item)
    for name, items in series.items():
        small, large = items[0], items[-1]
        rates = {key: n / large.chip_s - small.counts.get(key, 0.0) / small.chip_s for key, n in large.counts.items()}
        # One series' steps are as long at both ends: nothing of them is left.
        rates = {key: max(rate, 0.0) for key, rate in rates.items()}
        more = large.measured.nominal / large.chip_s - small.measured.nominal / small.chip_s
        read = 2 * WTA_POWER_W * NJ
        measured = Interval(more - read, more, more + read)
        into.energies.append(Energy("B4", f"growth, a second: {name}", measured, rates, decides=False))


def two_neurons(into: Anchors, file: Path) -> None:
    """B5: two LIF neurons and one synapse, 18 cases of 10^7 steps; InputError for another file."""
    steps = 10**7
    try:
        cases = [case for group in json.loads(file.read_text(encoding="utf-8")).values() for case in group.values()]
        energy = [case["dynamic_energy"]["mean"] * NJ / steps for case in cases]
        time = [case["total_time"]["mean"] / steps for case in cases]
        static = [case["static_power"]["mean"] for case in cases]
        whole = [case["total_energy"]["mean"] * NJ / steps for case in cases]
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: is not the published table of two LIF neurons ({error})") from error
    chip_s = statistics.fmean(time)
    counts = {"slot_steps_native": 2.0, "idle_updates": 2.0, "chip_steps": 1.0, "chip_ns": chip_s * NJ}
    into.energies.append(Energy("B5", "dynamic, a step", _spread(energy), counts, runs=tuple(energy)))
    into.energies.append(Energy("B5", "total, a step", _spread(whole), counts, chip_s=chip_s, decides=False))
    into.times.append(StepTime("B5", "step", _spread(time), {"native": Interval.exact(2)}))
    into.powers.append(Power("B5", "static", _spread(static), "static_power"))


def _spread(values: Sequence[float]) -> Interval:
    return Interval(min(values), statistics.median(values), max(values))


FLY_SLOTS, FLY_CHIPS = 138_639 / 1440, 12
FLY_RATIO = 10
"""Activity of a step of 1 ms over that of a step of 0.1 ms."""


def connectome(into: Anchors) -> None:
    """B6: the fly's brain on 12 chips. What its busiest core does in a step is not published: the ten-fold activity of
    the long step is taken as the reason for its extra time, so the pair tests the floor alone. Read otherwise: the
    short step has nothing of it."""
    short, long = 5.376e-6, 12.40e-6
    active = (long - short) / (FLY_RATIO - 1)
    for target, first in ((into, active), (into.readings.setdefault("B6 idle", Anchors()), 0.0)):
        for name, time, spread, extra in (
            ("0.1 ms", short, 0.09e-6, first),
            ("1 ms", long, 0.28e-6, first + long - short),
        ):
            measured = Interval(time - spread, time, time + spread)
            work = {"native": Interval.exact(FLY_SLOTS)}
            target.times.append(StepTime("B6", f"step of {name}", measured, work, FLY_CHIPS, unknown_s=extra))


AUTOENCODER_NEURONS, AUTOENCODER_CORES, AUTOENCODER_CHIPS = 256 + 128 + 64 + 32 + 64 + 128 + 256, 74, 16


def autoencoder(into: Anchors) -> None:
    """B7: one inference by its published counts. Steps are neuron updates over neurons; words by the dense rule of the
    compiler's log, neurons shared out evenly over the cores (assumed). Read otherwise: the counter counts an update
    twice, as it does in A1 and B1, so half of them happened in half the steps."""
    _inference(into, 1.0e4)
    _inference(into.readings.setdefault("B7 half", Anchors()), 0.5e4)
    into.powers.append(Power("B7", "board", Interval.exact(16.05 / AUTOENCODER_CHIPS), "board_power"))


def _inference(into: Anchors, updates: float) -> None:
    synops, events, time = 3.0e5, 2.0e4, 48.3e-6
    steps = updates / AUTOENCODER_NEURONS
    slots = AUTOENCODER_NEURONS / AUTOENCODER_CORES
    words = synops / slots * pilotnet_cores.dense_words(round(slots))
    chip_s = AUTOENCODER_CHIPS * time
    counts = {
        "synops": synops, "synaptic_words": words, "slot_steps_microcode": updates, "idle_updates": 0.0,
        "active_updates": updates, "messages": events, "chip_steps": steps * AUTOENCODER_CHIPS, "chip_ns": chip_s * NJ,
    }  # fmt: skip
    into.energies.append(Energy("B7", "dynamic, an inference", Interval(40.6e3, 40.6e3, 42.6e3), counts))
    whole = Interval.exact(16.89 * time * NJ)
    into.energies.append(Energy("B7", "board, an inference", whole, counts, chip_s, "board_power", decides=False))
    each = {"synops": synops, "words": words, "microcode": updates}
    work = {name: Interval.exact(value / steps / AUTOENCODER_CORES) for name, value in each.items()}
    into.times.append(StepTime("B7", "inference, preloaded", Interval.exact(time), work, AUTOENCODER_CHIPS, steps))


def others(into: Anchors) -> None:
    """Static powers of boards that give nothing else: place recognition (github.com/vidurayashan/VPR_Loihi@80b99a2),
    sparse coding (arXiv 2307.13762), a language model (arXiv 2503.18002), cart and pole (arXiv 2609.32317)."""
    for watt in (0.189, 0.197, 0.208, 0.229, 0.266):
        into.powers.append(Power("B12", "static", Interval.exact(watt), "static_power"))
    into.powers.append(Power("LCA", "static", Interval.exact(0.54), "static_power"))
    for name, watt in (("B11", 0.70), ("B11", 1.02), ("B8", 1.80)):
        into.powers.append(Power(name, "board", Interval.exact(watt), "board_power"))
