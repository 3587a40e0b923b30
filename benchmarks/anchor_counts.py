"""Counts of the two PilotNets against what a Loihi 2 counted and what Lava recorded: nothing here has a price.

This module decides which counts must agree and how far. It must not know energies or times.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pilotnet
import pilotnet_cores
import pilotnet_sdnn
from anchor_sets import SDNN_CHIP
from pilotnet import LayerReplay, PilotNet

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.program.types import IntArray

COUNTERS = {"conv2": (1.60e6, 1.62e6), "conv3": (452e3, 452e3), "conv4": (151e3, 151e3), "conv5": (67e3, 67e3)}
"""A1: synaptic operations per step that the chip counted, read from a plot: from, to."""
NEURONS = {
    "input": 200 * 66 * 3, "conv1": 99 * 32 * 24, "conv2": 49 * 15 * 36, "conv3": 24 * 7 * 48, "conv4": 22 * 4 * 64,
    "conv5": 20 * 2 * 64, "dense6": 100, "dense7": 50, "dense8": 10, "dense9": 1,
}  # fmt: skip
"""A1: neurons per layer of the published resource log."""
VECTORS = {"B1": (37_198_306, 29_182), "B3": (19_201_202, 50_848)}
"""Network -> synaptic operations of steps 12 to 23 on the ramp, and its output at step 23, by another replay."""
VECTOR_STEPS, VECTOR_FROM = 24, 12
TIMING = "lava"
"""Of the sigma-delta networks: a layer sees what the one below it sent a step before, as on the chip and in Lava."""
SYNOP_TOLERANCE, CORE_TOLERANCE, SHARE_TOLERANCE = 0.05, 0.10, 0.05
"""Of an operation count and of cores, relative; of a layer's share of all operations, absolute."""
PAN_PIXELS, PAN_STEPS, PAN_SKIP = 1.25, 36, 12
"""The stand-in for the drive: pixels of the drive that a frame moves, steps, steps before the counts settle."""


@dataclass(frozen=True, slots=True)
class Check:
    """One count against a published one. ``off``: relative distance from the interval, ``None`` where only equal is
    right."""

    name: str
    found: float
    published: str
    off: float | None
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {"check": self.name, "found": self.found, "published": self.published, "off": self.off, "ok": self.ok}


def within(name: str, found: float, low: float, high: float, tolerance: float) -> Check:
    """Whether ``found`` lies in the interval, widened by ``tolerance`` of its ends."""
    found = float(found)
    off = found / low - 1 if found < low else found / high - 1 if found > high else 0.0
    shown = f"{low:g}" if low == high else f"{low:g} .. {high:g}"
    return Check(name, found, f"{shown} +-{tolerance:.0%}", off, abs(off) <= tolerance)


def same(name: str, found: float, published: float) -> Check:
    """Whether two integers are the same."""
    return Check(name, found, f"{published:,}", None, found == published)


def lif(network: PilotNet, found: Sequence[LayerReplay], files: Mapping[str, bytes], profile: Profile) -> list[Check]:
    """A1: spikes, neurons, counters, cores of the log by its rules and by this package's mapper."""
    wrong = sum(pilotnet.wrong_spikes(network, files).values())
    synops = {item.layer.name: item.counts.synops / pilotnet.STEPS for item in found}
    logged = sum(pilotnet_cores.PUBLISHED.values())
    own = pilotnet_cores.mapped(network, profile, "power_of_two")
    work = pilotnet_cores.loads(pilotnet_cores.published(network), found)
    most = max(core.synops for core in work), max(core.words for core in work)
    # The mapping knows mean rates per layer, the replay every neuron.
    mean = pilotnet_cores.chip_mapping(network, pilotnet.per_step(network, found), profile, "power_of_two").synapses
    return [
        same("A1 spikes that differ from Lava's record, 8 layers", wrong, 0),
        same("A1 layers with the published neurons", sum(network.populations[n] == c for n, c in NEURONS.items()), 10),
        *(within(f"A1 synops {name}", synops[name], *ends, SYNOP_TOLERANCE) for name, ends in COUNTERS.items()),
        same("A1 cores by the log's rules", pilotnet_cores.published(network).cores, logged),
        within("A1 cores by this mapper", own.cores, logged, logged, CORE_TOLERANCE),
        within("A1 synops of the mapping's busiest core", mean.synops.max(), most[0], most[0], SYNOP_TOLERANCE),
        within("A1 words of its busiest core", mean.words.sum(axis=0).max(), most[1], most[1], SYNOP_TOLERANCE),
    ]


def image(files: Mapping[str, bytes]) -> IntArray:
    """The recorded input of the wheel's sigma-delta network ``[1, C, H, W]``."""
    found: IntArray = pilotnet.array(files, f"{pilotnet.SDNN}input.npy").transpose(3, 2, 1, 0)
    return found


def golden(network: PilotNet, files: Mapping[str, bytes]) -> list[Check]:
    """B3: the wheel's sigma-delta network, its recorded output and the vectors on the ramp."""
    record = pilotnet.array(files, f"{pilotnet.SDNN}output.npy").ravel()
    output = pilotnet.replay(network, np.repeat(image(files), record.size, axis=0), TIMING)[-1].spikes.ravel()
    wrong = int((output != record).sum())
    return [same("B3 outputs that differ from Lava's record, 9 steps", wrong, 0), *vectors("B3", network)]


def vectors(name: str, network: PilotNet) -> list[Check]:
    """Operations and output of a sigma-delta network on the ramp."""
    found = pilotnet.replay(network, pilotnet_sdnn.ramp(network.input_shape, VECTOR_STEPS), TIMING)
    total = sum(int(pilotnet_sdnn.synops_per_step(item)[VECTOR_FROM:].sum()) for item in found)
    output = int(found[-1].spikes[-1].item())
    synops, last = VECTORS[name]
    return [
        same(f"{name} synops of steps 12 to 23 on the ramp", total, synops),
        same(f"{name} output at step 23", output, last),
    ]


def table(file: Path, tutorial: PilotNet, wheel: PilotNet, still: IntArray) -> Check:
    """Every number of another replay's table (operations by layer, input and step) against this one's; columns of
    layers are matched in order, an empty one is a layer that the network has not. InputError for another file."""
    runs = {
        ("tutorial", "ramp"): (tutorial, pilotnet_sdnn.ramp(tutorial.input_shape, VECTOR_STEPS)),
        ("wheel", "ramp"): (wheel, pilotnet_sdnn.ramp(wheel.input_shape, VECTOR_STEPS)),
        ("wheel", "input.npy"): (wheel, np.repeat(still, VECTOR_STEPS, axis=0)),
    }
    counts = {
        key: np.array([pilotnet_sdnn.synops_per_step(item) for item in pilotnet.replay(*run, TIMING)])
        for key, run in runs.items()
    }
    wrong = compared = 0
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            for row in csv.reader(stream):
                if row[0] == "network":
                    continue
                steps = slice(VECTOR_FROM, None) if row[2].startswith("sum") else slice(int(row[2]), int(row[2]) + 1)
                own = counts[row[0], row[1]][:, steps].sum(axis=1)
                theirs = [int(cell) for cell in row[3:] if cell]
                wrong += int((np.append(own, own.sum()) != theirs).sum())
                compared += len(theirs)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise InputError(f"{file}: is not the table of exact operation counts ({error})") from error
    return same(f"B1, B3 numbers that differ, of {compared} by layer and step", wrong, 0)


def pan(network: PilotNet, files: Mapping[str, bytes]) -> list[LayerReplay]:
    """B1's network on the wheel's driving frame, panned: the drive itself is not public."""
    frame = pilotnet.array(files, f"{pilotnet.LIF}image.npy").transpose(2, 1, 0)
    return pilotnet.replay(network, pilotnet_sdnn.panned(frame, PAN_STEPS, PAN_PIXELS), TIMING, PAN_SKIP)


def shares(found: Sequence[LayerReplay]) -> list[Check]:
    """B1: each layer's share of the operations beside the chip's."""
    own = {item.layer.name: item.counts.synops for item in found}
    chip = sum(synops for synops, _ in SDNN_CHIP.values())
    checks = []
    for name, (synops, _) in SDNN_CHIP.items():
        mine, theirs = own[name] / sum(own.values()), synops / chip
        off = mine - theirs
        shown = f"{theirs:.3f} +-{SHARE_TOLERANCE:.2f}"
        checks.append(Check(f"B1 share of {name}", round(mine, 4), shown, off, abs(off) <= SHARE_TOLERANCE))
    return checks
