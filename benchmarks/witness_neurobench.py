"""An independent witness: NeuroBench counts the synaptic operations of golden layers and of a small binary network.

    SPIKETRACK_NEUROBENCH_PYTHON=/path/to/python python benchmarks/witness_neurobench.py [--json]

The interpreter named must have ``neurobench==2.3.0`` (PyPI, Apache-2.0; it brings PyTorch, so it lives in an
environment of its own). NeuroBench files operations under ACs where every input is 0 or 1 and under MACs where one is
not, and never multiplies by the value: binary inputs must give our ``synops`` as effective ACs, graded ones as
effective MACs. Exit code 0: all agree; 1: one differs; 6: no NeuroBench.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests"), str(ROOT / "src")]

from witness_process import Witness, report  # noqa: E402
from witness_tiles import Tile  # noqa: E402

from spiketrack_deploy.program.ops.conv import weighted_sum  # noqa: E402
from spiketrack_deploy.program.types import IntArray, Op  # noqa: E402

NEUROBENCH = Witness("NeuroBench", "neurobench==2.3.0", "SPIKETRACK_NEUROBENCH_PYTHON", "neurobench_worker.py")


def _layer(tile: Tile, threshold: float | None) -> dict[str, Any]:
    a = tile.op.attrs
    pairs = {name: [a[f"{name}_h"], a[f"{name}_w"]] for name in ("stride", "padding", "dilation")}
    return {"weight": tile.weight.tolist(), "groups": a["groups"], "threshold": threshold, **pairs}


def ask(layers: Sequence[dict[str, Any]], spikes: IntArray) -> dict[str, float]:
    """NeuroBench's Effective_ACs, Effective_MACs and Dense of one frame."""
    return NEUROBENCH.ask({"frames": [spikes.tolist()], "layers": list(layers)})


def _result(name: str, ours: int, found: dict[str, float], kind: str) -> dict[str, Any]:
    other = "Effective_MACs" if kind == "Effective_ACs" else "Effective_ACs"
    return {
        "network": name,
        "ours": ours,
        kind: found[kind],
        other: found[other],
        "ok": found == {**found, kind: ours, other: 0.0},
    }


def chain(tile: Tile) -> tuple[list[dict[str, Any]], int]:
    """A binary network of two layers, the tile's and a drawn 1x1 behind: as NeuroBench's layers, and our count."""
    binary = np.minimum(tile.spikes, 1)
    a = tile.op.attrs
    stride, padding, dilation = ((a[f"{name}_h"], a[f"{name}_w"]) for name in ("stride", "padding", "dilation"))
    summed = weighted_sum(binary[None], tile.weight[None], stride, padding, dilation, a["groups"])[0]
    threshold = int(np.median(summed)) + 1
    weight = np.random.default_rng(11).integers(-1, 2, (5, summed.shape[0], 1, 1)).astype(np.int8)
    ones = {
        f"{name}_{axis}": value for name, value in (("stride", 1), ("padding", 0), ("dilation", 1)) for axis in "hw"
    }
    behind = Tile(
        "behind",
        Op("behind", "conv", ("x",), "b", ones | {"groups": 1}),
        (summed >= threshold).astype(np.int64),
        weight,
    )
    ours = Tile(tile.name, tile.op, binary, tile.weight).counts().synops + behind.counts().synops
    return [_layer(tile, threshold), _layer(behind, None)], ours


def compare(tile: Tile) -> list[dict[str, Any]]:
    """The tile with binary spikes, with its graded ones, and as the first layer of a binary network."""
    binary = Tile(tile.name, tile.op, np.minimum(tile.spikes, 1), tile.weight)
    results = [
        _result(
            f"{tile.name}, binary",
            binary.counts().synops,
            ask([_layer(tile, None)], binary.spikes),
            "Effective_ACs",
        )
    ]
    if tile.spikes.max() > 1:
        found = ask([_layer(tile, None)], tile.spikes)
        results.append(_result(f"{tile.name}, graded", tile.counts().synops, found, "Effective_MACs"))
    layers, ours = chain(tile)
    results.append(_result(f"{tile.name}, two binary layers", ours, ask(layers, binary.spikes), "Effective_ACs"))
    return results


def lines(result: dict[str, Any]) -> list[str]:
    """One compared network in words."""
    acs, macs = result["Effective_ACs"], result["Effective_MACs"]
    return [f"{result['network']:28s} ours {result['ours']}   NeuroBench ACs {acs:.0f}, MACs {macs:.0f}"]


if __name__ == "__main__":
    sys.exit(report(NEUROBENCH, (__doc__ or "").splitlines()[0], "networks", compare, lines))
