"""Monte-Carlo over prices, bootstrap over frames, comparison of profiles: against closed forms and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.energy.compare import Comparison, compare, default_profiles
from spiketrack_deploy.energy.layers import LayerCounts, add_runs
from spiketrack_deploy.energy.montecarlo import over_frames, over_prices, price_counts, triangular
from spiketrack_deploy.energy.report import EnergyReport, assess
from spiketrack_deploy.errors import InputError, ProfileError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.inputs.resources import profile_names
from spiketrack_deploy.trackers.published import published, spmtrack_macs

Bands = dict[str, tuple[float, float, float]]


def toy(bands: Bands, follows: dict[str, str] | None = None) -> Profile:
    known = {"unit": "nJ", "tag": "assumed", "source": "the test"}
    prices = {
        name: {"low": low, "value": value, "high": high, "follows": (follows or {}).get(name, ""), **known}
        for name, (low, value, high) in bands.items()
    }
    head = {"schema": 1, "name": "toy", "title": "A toy", "kind": "chip", "unknown": [], "assumptions": ["a toy"]}
    return Profile.model_validate(head | {"prices": prices})


def single(layers: list[LayerCounts], profile: Profile) -> EnergyReport:
    """One run of a workload of one phase."""
    return assess({"look": layers}, profile, {"look": 1})


def side_by_side(*names: str) -> Comparison:
    return compare(reports(*names), published())


def conv(synops: int, **more: int) -> LayerCounts:
    return LayerCounts("conv", "conv", "b", {"synops": synops, "events": 1, **more})


def test_triangular_is_the_inverse_of_its_distribution() -> None:
    u = np.linspace(0, 1, 100_001)
    x = triangular(u, 2.0, 3.0, 10.0)
    assert x[0] == 2.0 and x[-1] == 10.0 and np.all(np.diff(x) >= 0)
    assert x.mean() == pytest.approx((2 + 3 + 10) / 3, rel=1e-4), "mean of a triangular distribution"
    assert x.var() == pytest.approx((4 + 9 + 100 - 6 - 20 - 30) / 18, rel=1e-3)
    assert np.all(triangular(u, 4.0, 4.0, 4.0) == 4.0)
    assert triangular(np.array([0.0, 1.0]), 0.0, 0.0, 1.0).tolist() == [0.0, 1.0], "mode at the low end"


def test_one_price_gives_the_quantiles_of_its_own_distribution() -> None:
    profile = toy({"synop": (0.0, 0.5, 1.0)})
    spread = over_prices({"synop": 1000.0}, profile, samples=200_000)
    assert spread.low == pytest.approx(1000 * math.sqrt(0.05 / 2), rel=0.01), "5 % quantile of a triangle"
    assert spread.median == pytest.approx(500, rel=0.01) and spread.high == pytest.approx(1000 - spread.low, rel=0.01)


def test_layers_share_a_draw_and_prices_do_not() -> None:
    bands: Bands = {"synop": (0.0, 0.5, 1.0), "mac": (0.0, 0.5, 1.0)}
    together = over_prices({"synop": 1.0, "mac": 1.0}, toy(bands, {"mac": "synop"}), samples=50_000)
    apart = over_prices({"synop": 1.0, "mac": 1.0}, toy(bands), samples=50_000)
    alone = over_prices({"synop": 2.0}, toy(bands), samples=50_000)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=1e-9), "tied prices move together"
    assert apart.high - apart.low < 0.8 * (alone.high - alone.low), "independent prices partly cancel"
    assert price_counts({"synops": 42, "macs": 4, "hops_ew": 9}, toy(bands)) == {"synop": 42.0, "mac": 4.0}


def test_an_interval_lies_within_the_band_and_is_the_same_every_time() -> None:
    layers = [conv(10**9), LayerCounts("lif", "ni_lif", "b", {"neuron_updates": 10**7, "neuron_spiking": 10**6})]
    for name in default_profiles(profile_names()):
        phase = single(layers, load_profile(name)).main
        spread, band = phase.over_prices, phase.dynamic
        if spread is None:
            assert not band.high, f"{name} has a band and no interval"
            continue
        assert band.low * (1 - 1e-12) <= spread.low <= spread.median <= spread.high <= band.high * (1 + 1e-12), name
        assert single(layers, load_profile(name)).main.over_prices == spread, name


def test_bootstrap_knows_the_standard_error_of_independent_frames() -> None:
    values = np.random.default_rng(5).normal(100.0, 10.0, size=400)
    spread = over_frames([values.tolist()], samples=20_000)
    error = 1.645 * values.std() / math.sqrt(values.size)
    assert spread.median == pytest.approx(values.mean(), abs=0.2)
    assert (spread.high - spread.low) / 2 == pytest.approx(error, rel=0.25)


def test_bootstrap_sees_that_neighbours_are_alike_and_that_sequences_differ() -> None:
    slow = np.repeat(np.random.default_rng(6).normal(100.0, 10.0, size=40), 10)
    shuffled = np.random.default_rng(7).permutation(slow)
    wide, narrow = over_frames([slow.tolist()]), over_frames([shuffled.tolist()])
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low), "frames that resemble each other say less"
    within = over_frames([[10.0] * 50])
    between = over_frames([[10.0] * 50, [20.0] * 50, [30.0] * 50])
    assert within.low == within.high == 10.0
    assert between.low <= 14 and between.high >= 26 and between.median == pytest.approx(20, abs=2)
    assert over_frames([[1.0, 2.0, 4.0]]) == over_frames([[1.0, 2.0, 4.0]]), "the seed is fixed"


def test_the_two_uncertainties_are_apart() -> None:
    frames = [[conv(n)] for n in (100, 200, 300, 400)]
    counts = {"look": add_runs(frames, "look")}
    profile = toy({"synop": (2.0, 2.0, 2.0)})
    phase = assess(counts, profile, {"look": 1}, apart={"look": [200.0, 400.0, 600.0, 800.0]}).main
    assert phase.over_prices is not None and phase.over_runs is not None
    assert phase.over_prices.low == phase.over_prices.high == pytest.approx(500.0), "no band, no interval"
    assert phase.over_runs.low < 500.0 < phase.over_runs.high
    assert single(frames[0], toy({"synop": (1.0, 2.0, 3.0)})).main.over_runs is None
    assert assess(counts, profile, {"look": 1}).main.over_runs is None, "sums alone say nothing of single runs"
    assert set(phase.to_dict()["uncertainty"]) == {"over_prices", "over_runs"}


@pytest.mark.parametrize("sequences", [[], [[]], [[1.0], []]])
def test_no_frame_is_refused(sequences: list[list[float]]) -> None:
    with pytest.raises(InputError, match="no frame"):
        over_frames(sequences)


def test_bad_settings_are_refused() -> None:
    profile = toy({"synop": (1.0, 2.0, 3.0)})
    with pytest.raises(InputError, match="draws"):
        over_prices({"synop": 1.0}, profile, samples=0)
    with pytest.raises(InputError, match="coverage"):
        over_frames([[1.0]], coverage=1.0)
    with pytest.raises(InputError, match="'mac'"):
        over_prices({"mac": 1.0}, profile)


def test_a_price_follows_only_a_price_that_stands_for_itself(tmp_path: Path) -> None:
    text = Path(__file__).resolve().parents[1].joinpath("hardware_profiles", "loihi2.toml").read_text(encoding="utf-8")
    path = tmp_path / "toy.toml"
    for wrong in ('follows = "relay_synop"', 'follows = "mac"', 'follows = "nothing"'):
        path.write_text(text.replace('follows = "synop"', wrong, 1), encoding="utf-8")
        with pytest.raises(ProfileError, match=r"mac\.follows"):
            load_profile(path)


def reports(*names: str) -> list[EnergyReport]:
    layers = [
        LayerCounts("stem", "image_conv", "a", {"events": 9, "macs": 90, "dense_macs": 100}),
        conv(1000, unit_ops=2000, dense_macs=5000, input_sum=20, input_size=40),
    ]
    return [single(layers, load_profile(name)) for name in names]


def test_profiles_stand_side_by_side_and_nothing_priced_is_not_zero() -> None:
    found = side_by_side("loihi2", "cmos45_int8", "akida", "truenorth").to_dict()
    rows = {row["profile"]: row for row in found["profiles"]}

    def price(name: str) -> float:
        return load_profile("loihi2").prices[name].interval.nominal

    assert rows["loihi2"]["priced"] and rows["loihi2"]["phases_nj"]["look"]["nominal"] == pytest.approx(
        sum(n * price(name) for n, name in ((1000, "synop"), (90, "mac"), (1, "message")))
    )
    for name in ("akida", "truenorth"):
        row = rows[name]
        assert not row["priced"], f"{name} has no price, which is not 0 J"
        assert row["phases_nj"]["look"] is None and row["dynamic_nj"] is None
        assert rows[name]["unpriced"], "what is not priced must be named"
    assert rows["truenorth"]["static_per_chip_frame_nj"]["nominal"] == pytest.approx(42e6 / 30)


def test_dense_lines_hold_the_twin_and_published_trackers() -> None:
    found = side_by_side("loihi2").to_dict()
    lines = {line["name"]: line for line in found["dense"]}
    assert lines["this network, dense twin"]["macs"] == 5100
    assert lines["TransT-N4"]["energy_nj"]["cmos45_fp32"]["nominal"] == pytest.approx(75.2e6, rel=1e-3)
    assert {"SPMTrack-B", "SPMTrack-L", "SPMTrack-G", "OSTrack-256"} <= set(lines)
    ratio = (
        lines["TransT-N4"]["energy_nj"]["cmos45_fp32"]["nominal"]
        / lines["TransT-N4"]["energy_nj"]["cmos45_int8"]["nominal"]
    )
    assert ratio == pytest.approx(4.6 / 0.23), "both precisions must be printed"


@pytest.mark.parametrize(
    ("shape", "gmac"), [((768, 12, False), 181.70), ((1024, 24, False), 581.71), ((1536, 40, True), 1970.55)]
)
def test_spmtrack_is_counted_from_its_shapes(shape: tuple[int, int, bool], gmac: float) -> None:
    """Counted on the official modules: within the printed digits."""
    assert spmtrack_macs(*shape) * 1e-9 == pytest.approx(gmac, abs=0.006)


def test_other_counts_are_refused() -> None:
    (one,) = reports("loihi2")
    other = single([conv(5)], load_profile("loihi2"))
    with pytest.raises(InputError, match="different runs"):
        compare([one, other])
    with pytest.raises(InputError, match="no profile"):
        compare([])


def test_every_reference_says_where_it_comes_from() -> None:
    assert all(item.source and item.macs > 0 for item in published())


def test_by_default_only_profiles_that_price_events_are_compared() -> None:
    names = default_profiles(profile_names())
    assert {"loihi1", "loihi1_davies", "loihi1_sanafe", "loihi2", "cmos45_fp32", "odin"} <= set(names)
    assert not {"akida", "truenorth", "kapoho_point", "speck"} & set(names)


def test_a_board_pays_static_power_for_every_chip() -> None:
    board, chip = (report.to_dict()["static"] for report in reports("kapoho_point", "loihi2"))
    assert board["chips_of_board"] == 8 and "chips_of_board" not in chip
    assert board["energy_nj_board_frame"]["nominal"] == pytest.approx(8 * chip["energy_nj_per_chip_frame"]["nominal"])
