"""Anchors A2 to A8: published figures of silicon and of the literature, reached again from the profiles' prices.

Each test states its tolerance. Only A2 is evidence; A4 and A5 are consistent with anything in a wide range, A3, A6, A7
and A8 are an input against its own quotient and guard against a slip of the pen (docs/energy.md). A1 is in
``benchmarks/anchors.py``; A9 (k-NN on Pohoiki Springs) is not checked: its operation counts were not published.
"""

from __future__ import annotations

import pytest

from spiketrack_deploy.energy.conventions import published_convention
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.trackers.published import published
from spiketrack_deploy.units import Interval


def price(profile: str, name: str) -> Interval:
    found = load_profile(profile).price(name)
    assert found is not None, f"{profile} has no price {name}"
    return found


def test_a2_reset_of_a_chip() -> None:
    """131,072 compartments at the idle neuron's price against 5.94 uJ per chip (Frady 2020): within 15 %.

    Assumes that a reset touches every compartment once.
    """
    loihi1 = load_profile("loihi1")
    compartments = loihi1.limits["cores_per_chip"].value * loihi1.limits["neurons_per_core"].value
    reset = price("loihi1_davies", "neuron_idle").nominal * compartments
    assert compartments == 131_072
    assert reset == pytest.approx(0.19e6 / 32, rel=0.15)
    band = price("loihi1", "state_reset")
    assert band.low <= reset <= band.high * 1.001, "the profile's band must hold the derived figure"


def test_a3_static_power_of_a_chip() -> None:
    """3.34 W over 32 chips (Frady 2020) against the profile's nominal: within 1 %."""
    assert price("loihi1", "static_power").nominal == pytest.approx(3.34 / 32, rel=0.01)


def test_a4_energy_of_an_inference_is_dynamic_power_over_rate() -> None:
    """Blouw 2019: 0.081 W dynamic (0.110 running - 0.029 idle) at 296 inferences a second, printed as 0.27 mJ: 2 %."""
    assert (0.110 - 0.029) / 296 == pytest.approx(0.27e-3, rel=0.02)
    assert price("loihi1", "static_power").low == pytest.approx(0.029), "their idle reading is the low end of the band"


def test_a5_boundaries_of_nxtf_differ_and_are_not_averaged() -> None:
    """NxTF 2021: 0.66 mJ in 6.65 ms is 99 mW on one chip, within the static band; 102 mJ in 340 ms over 7 chips is
    43 mW per chip, below the nominal static power: another boundary, still above the band's low end."""
    band = price("loihi1", "static_power")
    one, seven = 0.66e-3 / 6.65e-3, 102e-3 / 340e-3 / 7
    assert one == pytest.approx(0.099, rel=0.01) and seven == pytest.approx(0.043, rel=0.01)
    assert band.low <= one <= band.high
    assert band.low <= seven < band.nominal


def test_a6_transt_as_a_dense_tracker() -> None:
    """16.35 GMAC at the float32 multiply-accumulate: 75.2 mJ, within 0.1 %."""
    transt = next(tracker for tracker in published() if tracker.name == "TransT-N4")
    energy = price("cmos45_fp32", "mac") * transt.macs
    assert energy.nominal * 1e-9 == pytest.approx(75.2e-3, rel=1e-3)


def test_a7_b256_t3_in_the_published_convention() -> None:
    """14.592 GMAC at 0.9 pJ and a mean spike value of 0.753: 9.89 mJ, printed as 9.9 mJ; within 0.2 %."""
    counts = {"dense_macs": 14_592_000_000, "input_sum": 753, "input_size": 1000}
    layer = LayerCounts("search phase and head", "conv", "all", counts)
    convention = published_convention([layer], load_profile("cmos45_fp32"))
    assert convention.published.nominal * 1e-9 == pytest.approx(9.89e-3, rel=2e-3)
    transt = price("cmos45_fp32", "mac").nominal * 16.35e9
    assert transt / convention.published.nominal == pytest.approx(7.6, rel=0.01), "the paper's TransT / 7.6"


def test_a8_peak_of_hala_point_is_the_low_end_of_a_synop() -> None:
    """2,600 W over 380 T synaptic operations a second: 6.84 pJ, static included; within 1 % of the band's low end."""
    power = load_profile("hala_point").limits["board_power"].value
    peak = power / 3.8e14
    assert peak == pytest.approx(6.84e-12, rel=1e-3)
    assert price("loihi2", "synop").low * 1e-9 == pytest.approx(peak, rel=0.01)
