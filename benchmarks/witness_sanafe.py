"""An independent witness: tiles of golden layers replayed spike by spike in SANA-FE.

    SPIKETRACK_SANAFE_PYTHON=/path/to/python python benchmarks/witness_sanafe.py [--json]

The interpreter named must have ``sanafe==2.2.9`` (PyPI, GPL-3.0: an external tool in an environment of its own). Spikes
of value n are n binary events in the first n of four sub-steps. Compared with our counts and our pricing under the
profile ``loihi1_sanafe``: synaptic operations exactly, synapse and neuron energy to the printed digits. In a tile every
target is below threshold, and SANA-FE charges the update of a neuron when input reaches it; the tile's neuron counts
are therefore those of neurons that input reached. Exit code 0: all agree; 1: one differs; 6: no SANA-FE.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests"), str(ROOT / "src")]

from witness_process import Witness, report  # noqa: E402
from witness_tiles import Tile  # noqa: E402

from spiketrack_deploy.energy.layers import LayerCounts  # noqa: E402
from spiketrack_deploy.energy.pricing import by_cause, price  # noqa: E402
from spiketrack_deploy.hardware.profiles import load_profile  # noqa: E402

SANAFE = Witness("SANA-FE", "sanafe==2.2.9", "SPIKETRACK_SANAFE_PYTHON", "sanafe_worker.py")
SYNAPSE = "loihi_conv_synapse"
SUBSTEPS = 4
DIGITS = 9
"""Decimals of a nanojoule that must agree: SANA-FE prints sums of binary floats."""


def replay(tile: Tile) -> dict[str, Any]:
    """What SANA-FE says of the tile: energies in joules, synaptic events, spikes fired."""
    events = tile.spikes.ravel()
    trains = [[int(value > step) for step in range(SUBSTEPS)] for value in events.tolist()]
    return SANAFE.ask({"outputs": int(np.prod(tile.out)), "spikes": trains, "edges": tile.edges(), "synapse": SYNAPSE})


def reached(tile: Tile) -> int:
    """Neuron-steps that input reaches: targets with a non-zero synapse from a spiking input, sub-step by sub-step."""
    pairs = np.array(tile.edges(), dtype=np.int64).reshape(-1, 2)
    values = tile.spikes.ravel()[pairs[:, 0]]
    return sum(len(np.unique(pairs[values > step, 1])) for step in range(SUBSTEPS))


def compare(tile: Tile) -> dict[str, Any]:
    """Counts and energies of one tile, ours and SANA-FE's."""
    ours, theirs = tile.counts(), replay(tile)
    targets = int(np.prod(tile.out))
    # One flush step follows the sub-steps: a soma consumes its input in the step after.
    updates = targets * (SUBSTEPS + 1)
    counts = {"synops": ours.synops, "unit_ops": ours.unit_ops}
    # loihi1_sanafe runs four sub-steps per neuron update; here every sub-step is stated, so one is one.
    profile = load_profile("loihi1_sanafe")
    profile = profile.model_copy(update={"limits": {k: v for k, v in profile.limits.items() if k != "substeps"}})
    layers = [
        LayerCounts("tile", "conv", tile.name, counts),
        LayerCounts("targets", "ni_lif", tile.name, {"neuron_updates": updates, "neuron_spiking": reached(tile)}),
    ]
    causes = by_cause([part for layer in layers for part in price(layer, profile).parts])
    figures = {
        "synaptic operations": (ours.unit_ops, theirs["spikes"]),
        "input spikes": (int(tile.spikes.sum()), theirs["neurons_fired"]),
        "synapse energy, nJ": (causes["synops"].nominal, theirs["energy"]["synapse"] * 1e9),
        "neuron energy, nJ": (causes["neuron"].nominal, theirs["energy"]["soma"] * 1e9),
    }
    return {
        "tile": tile.name,
        "layer": tile.op.name,
        "input": list(tile.spikes.shape),
        "targets": list(tile.out),
        "synapses": len(tile.edges()),
        "graded_events": ours.events,
        "graded_synops": ours.synops,
        "figures": {name: {"ours": a, "sanafe": b} for name, (a, b) in figures.items()},
        "ok": all(round(a - b, DIGITS) == 0 for a, b in figures.values()),
    }


def lines(result: dict[str, Any]) -> list[str]:
    """One compared tile in words."""
    head = f"{result['tile']}: {result['layer']}, {result['input']} to {result['targets']}, "
    pairs = result["figures"].items()
    figures = [f"       {name:20s} ours {p['ours']:.12g}   SANA-FE {p['sanafe']:.12g}" for name, p in pairs]
    return [f"{head}{result['synapses']} synapses", *figures]


if __name__ == "__main__":
    sys.exit(report(SANAFE, (__doc__ or "").splitlines()[0], "tiles", lambda tile: [compare(tile)], lines))
