"""Tiles for independent witnesses: their synapses are walked twice, and without the witness the benchmarks say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from witness_tiles import Tile, tiles  # noqa: E402

from spiketrack_deploy.program.types import Op  # noqa: E402

WITNESSES = {
    "witness_sanafe.py": "SPIKETRACK_SANAFE_PYTHON",
    "witness_neurobench.py": "SPIKETRACK_NEUROBENCH_PYTHON",
}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_edges_and_the_counting_rule_agree(data: st.DataObject) -> None:
    groups, kernel = data.draw(st.sampled_from([1, 2]), label="groups"), data.draw(st.integers(1, 3), label="kernel")
    stride, padding, dilation = (
        data.draw(st.integers(low, 2), label=what) for what, low in (("s", 1), ("p", 0), ("d", 1))
    )
    side = max(dilation * (kernel - 1) + 1 - 2 * padding, 1) + data.draw(st.integers(0, 3), label="extra")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    weight = rng.integers(-1, 2, (2 * groups, 2, kernel, kernel)).astype(np.int8)
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    attrs = {f"{name}_{axis}": value for name, value in pairs.items() for axis in "hw"} | {"groups": groups}
    spikes = rng.integers(0, 5, (2 * groups, side, side))
    tile = Tile("drawn", Op("drawn", "conv", ("x",), "b", attrs), spikes, weight)
    values = spikes.ravel()
    edges = tile.edges()
    assert len(set(edges)) == len(edges), "a synapse is listed twice"
    assert sum(1 for source, _ in edges if values[source]) == tile.counts().synops
    assert sum(int(values[source]) for source, _ in edges) == tile.counts().unit_ops


@pytest.mark.parametrize("script", sorted(WITNESSES))
def test_without_the_witness_the_benchmark_says_how_to_get_it(script: str) -> None:
    env = {key: value for key, value in os.environ.items() if key != WITNESSES[script]}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    assert WITNESSES[script] in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_golden_tiles_cover_the_kinds_of_layers() -> None:
    found = list(tiles(ROOT / "tests" / "golden", "n128_t1"))
    assert {tile.name for tile in found} == {"convolution", "depthwise", "1x1", "dense"}
    assert all(tile.counts().synops > 0 and tile.spikes.size <= 1000 for tile in found)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(WITNESSES))
def test_the_witness_agrees(script: str) -> None:
    if not os.environ.get(WITNESSES[script]):
        pytest.skip(f"set {WITNESSES[script]} to a Python that has the witness")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
