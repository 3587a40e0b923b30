"""The float64 reference under a framework's preset does what that framework did with its own export, spike by spike.

The files and answers were drawn by ``tests/draw_nir_frameworks.py`` in environments that have the frameworks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiketrack_deploy.frontends.nir.build import read_network
from spiketrack_deploy.frontends.nir.conventions import PRESETS, Convention
from spiketrack_deploy.frontends.nir.reference import outputs

HERE = Path(__file__).parent / "nir_frameworks"
NAMES = sorted(path.stem for path in HERE.glob("*.npz"))
FRAMEWORKS = ("norse", "snntorch", "spikingjelly", "sinabs", "rockpool")


def convention_of(words: str) -> Convention:
    """``snntorch --reset subtract`` as the command line reads it."""
    preset, *rest = words.split()
    given: dict[str, Any] = {key[2:].replace("-", "_"): value for key, value in zip(rest[::2], rest[1::2])}
    if "dt" in given:
        given["dt"] = float(given["dt"])
    return replace(PRESETS[preset], **given)


def answered(name: str) -> tuple[Any, Convention, Any, Any]:
    recorded = np.load(HERE / f"{name}.npz")
    network = read_network(HERE / f"{name}.nir", isolate=False).network
    return network, convention_of(str(recorded["convention"])), recorded["input"], recorded["output"]


def test_every_framework_is_there() -> None:
    assert {name.split("_")[0] for name in NAMES} == set(FRAMEWORKS)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_spikes_as_the_framework_did(name: str) -> None:
    network, convention, given, want = answered(name)
    got = outputs(network, convention, {network.inputs[0]: given})[network.outputs[0]]
    assert want.any() and got.shape == want.shape
    assert int((got != want).sum()) == 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("snntorch_dense", {"reset": "subtract"}),
        ("snntorch_subtract", {"late": "no"}),
        ("norse_dense", {"initial": "zero"}),
        ("norse_current", {"synapse": "w_in"}),
        ("spikingjelly_conv", {"if_unit": "one"}),
        ("sinabs_dense", {"several": False}),
        ("sinabs_dense", {"integrate": "euler"}),
        ("sinabs_norm_input", {"gain": "one"}),
        ("rockpool_current", {"synapse": "one"}),
        ("rockpool_dense", {"reset": "value"}),
    ],
)
def test_each_word_of_a_convention_matters(name: str, change: dict[str, Any]) -> None:
    """Another word than the preset's gives other spikes from the same file: silence about it would be a guess."""
    network, convention, given, want = answered(name)
    got = outputs(network, replace(convention, **change), {network.inputs[0]: given})[network.outputs[0]]
    assert (got != want).any()
