"""Prices out of measured figures: the fit on figures made from known prices, odd systems, bands, what ships.

The real figures are not part of this repository: ``SPIKETRACK_ANCHOR_DATA`` names their folder (see
``benchmarks/anchors.py``).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.units import Interval

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import anchor_fit
import anchor_score
import anchor_sets
import anchors as command
from anchor_fit import Row
from anchor_sets import Anchors, Energy, Power, StepTime

DATA = os.environ.get("SPIKETRACK_ANCHOR_DATA")


def by_enumeration(a: np.ndarray, b: np.ndarray) -> float:
    """Smallest residual over all sets of free columns whose least squares are not negative."""
    best = float(np.linalg.norm(b))
    for size in range(1, a.shape[1] + 1):
        for free in itertools.combinations(range(a.shape[1]), size):
            x = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            if x.min() >= -1e-9:
                best = min(best, float(np.linalg.norm(a[:, free] @ x - b)))
    return best


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 5), (9, 3), (2, 6), (30, 5)])
@pytest.mark.parametrize("seed", range(6))
def test_the_solver_finds_the_best_non_negative_prices(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 6, shape[1]), rng.normal(size=shape[0])
    x = anchor_fit.nnls(a, b)
    assert x.shape == (shape[1],) and x.min() >= 0
    assert np.linalg.norm(a @ x - b) == pytest.approx(by_enumeration(a, b), abs=1e-8)


def test_degenerate_systems_have_an_answer() -> None:
    """A column of zeros, two that cannot be told apart, no column, nothing to explain."""
    a = np.array([[1.0, 0.0, 2.0, 2.0], [3.0, 0.0, 1.0, 1.0]])
    x = anchor_fit.nnls(a, np.array([5.0, 5.0]))
    assert x[1] == 0 and x.min() >= 0 and a @ x == pytest.approx([5.0, 5.0])
    assert anchor_fit.nnls(np.zeros((3, 0)), np.ones(3)).size == 0
    assert not anchor_fit.nnls(a, np.zeros(2)).any()
    assert not anchor_fit.nnls(-np.ones((2, 1)), np.ones(2)).any(), "no price is negative"


TRUE = {"synop": 0.02, "slot": 0.3, "static": 0.25, "t_synop": 1.0, "t_slot": 40.0, "floor": 1500.0}
PRIOR = {"synop": 0.03, "slot": 0.1, "t_synop": 0.7, "t_slot": 9.0}


def figures(noise: float = 0.0, seed: int = 0) -> list[Row]:
    """Energies and step times of seven made-up anchors with :data:`TRUE` prices."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(7):
        synops, slots = 10.0 ** rng.uniform(4, 7), 10.0 ** rng.uniform(3, 6)
        for _ in range(number % 3 + 1):
            terms = {"synop": synops, "slot": slots, "static": 1e4 * (number + 1)}
            off = 1 + noise * rng.normal()
            rows.append(Row(f"N{number}", sum(TRUE[n] * c for n, c in terms.items()) * off, terms))
        sides = ({"t_synop": synops / 60}, {"t_slot": slots / 120})
        longest = max(TRUE[n] * c for side in sides for n, c in side.items())
        rows.append(Row(f"N{number}", TRUE["floor"] + longest, {"floor": 1.0}, sides))
    return rows


def test_known_prices_come_back() -> None:
    found = anchor_fit.fit(figures(), {})
    assert {name: pytest.approx(value, rel=1e-6) for name, value in TRUE.items()} == found
    held = anchor_fit.fit(figures(), PRIOR)
    for name, value in TRUE.items():
        assert held[name] == pytest.approx(value, rel=0.25), f"{name}: the older chip's prices are weak"


def test_a_price_that_nothing_decides_is_the_older_chips() -> None:
    rows = [Row("N", 12.0, {"a": 3.0, "never": 0.0})]
    found = anchor_fit.fit(rows, {"never": 7.0, "elsewhere": 2.0})
    assert found == {"a": pytest.approx(4.0), "never": pytest.approx(7.0), "elsewhere": 2.0}
    assert anchor_fit.fit([], {"a": 1.0}) == {"a": 1.0}


def test_the_longer_side_is_found_from_a_wrong_start() -> None:
    """The older chip's prices make synapses the longer side of a step that slots decide."""
    rows = [
        Row("A", 150.0, {}, ({"t_synop": 150.0}, {"t_slot": 2.0})),
        Row("B", 120.0, {}, ({"t_synop": 50.0}, {"t_slot": 3.0})),
    ]
    found = anchor_fit.fit(rows, {"t_synop": 0.7, "t_slot": 9.0})
    assert found["t_synop"] == pytest.approx(1.0, rel=0.05) and found["t_slot"] == pytest.approx(40.0, rel=0.2)


def test_an_anchor_counts_once_and_leaving_it_out_leaves_all_of_it() -> None:
    many = [Row("many", 10.0, {"a": 1.0})] * 40 + [Row("one", 20.0, {"a": 1.0})]
    single = [Row("many", 10.0, {"a": 1.0}), Row("one", 20.0, {"a": 1.0})]
    assert anchor_fit.fit(many, {}) == {"a": pytest.approx(anchor_fit.fit(single, {})["a"])}
    assert [row.anchor for row in anchor_fit.without(many, "many")] == ["one"]


def test_the_band_holds_the_prices_that_made_the_figures() -> None:
    """20 % noise on every energy: the nominal prices near, the 5 to 95 % band around them and the truth, drawn alike
    in every run."""
    rows = figures(noise=0.2, seed=4)
    bands = anchor_fit.derive(rows, PRIOR, draws=60)
    for name in ("synop", "slot", "static"):
        assert bands[name].low <= bands[name].nominal <= bands[name].high
        assert bands[name].low * 0.8 <= TRUE[name] <= bands[name].high * 1.2, name
    assert bands == anchor_fit.derive(rows, PRIOR, draws=60)


def test_bands_widen_and_never_narrow() -> None:
    band = Interval(2.0, 3.0, 4.0)
    assert anchor_fit.envelope({"a": band}, [{"a": 1.0}, {"a": 3.5}, {}])["a"] == Interval(1.0, 3.0, 4.0)
    assert anchor_fit.widen(band, 2.0, 1.5) == Interval(1.0, 3.0, 6.0)
    assert anchor_fit.reach(lambda factor: factor < 7.3) == pytest.approx(7.3, rel=1e-3)
    assert anchor_fit.reach(lambda factor: False) == 1.0 and anchor_fit.reach(lambda factor: True, 50.0) == 50.0


def made_up() -> Anchors:
    """Anchors of a chip that costs exactly twice what the profile says, on odd counts."""
    profile = load_profile("loihi2")
    double = anchor_score.priced(
        profile, {n: b * 2 for n in anchor_score.FITTED if (b := profile.price(n)) is not None}, "twice"
    )
    found = Anchors()
    one = Interval.exact(1.0)
    for number in range(1, 6):
        counts = {"synops": 1e4 * number**3, "synaptic_words": 1.1e3 * number**3, "slot_steps_native": 3e3 * number,
                  "slot_steps_microcode": 1e5 / number, "messages": 7e2 * number**2, "chip_ns": 1e3}  # fmt: skip
        energy = Energy(f"M{number}", "total", one, counts, chip_s=1e-6 * number)
        work = {"native": Interval.exact(100.0 * number), "microcode": Interval.exact(4e3 / number**2),
                "synops": Interval.exact(1e3 * number)}  # fmt: skip
        step = StepTime(f"M{number}", "step", one, work, chips=1 if number < 4 else number, steps=number)
        told = [anchor_score.predict(item, double) for item in (energy, step)]
        assert told[0] is not None and told[1] is not None
        exact = [Interval.exact(item.nominal) for item in told if item is not None]
        found.energies.append(Energy(energy.anchor, "total", exact[0], counts, chip_s=energy.chip_s))
        found.times.append(StepTime(step.anchor, "step", exact[1], work, step.chips, step.steps))
    for name in ("static_power", "board_power"):
        price = double.price(name)
        assert price is not None
        found.powers.append(Power("M9", "itself", Interval.exact(price.nominal), name))
    return found


def test_widened_bands_cover_every_figure_of_another_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices of one chip, bands widened until a chip twice as dear lies inside; the fit itself finds the factor."""
    profile, found = load_profile("loihi2"), made_up()
    narrow = {n: Interval.exact(b.nominal) for n in anchor_score.FITTED if (b := profile.price(n)) is not None}
    cheap = anchor_score.priced(profile, narrow, "narrow")
    assert not any(score.inside for score in anchor_score.scores(found.energies, cheap))
    wide = anchor_score.covering_bands(found, narrow, {}, profile)
    covering = anchor_score.scores(anchor_score.judged(found), anchor_score.priced(profile, wide, "wide"))
    assert all(score.inside for score in covering)
    assert all(wide[n].low <= band.nominal <= wide[n].high for n, band in narrow.items())
    # A chip made up so dear is far from the older one.
    monkeypatch.setattr(anchor_fit, "PRIOR_SPREAD", 1e3)
    fitted = anchor_score.derived(found, 0)
    told = anchor_score.scores(found.energies, anchor_score.priced(profile, fitted, "fitted"))
    assert max(abs(score.miss or 0.0) for score in told) < 0.01, "the bill and the fit must count alike"
    left = anchor_score.derived(found, 0, leave="M9")
    assert left["static_power"] != fitted["static_power"]


def test_slack_is_the_range_in_which_a_price_is_not_tested() -> None:
    profile = load_profile("loihi2")
    price = profile.price("slot_native")
    assert price is not None
    item = Energy(
        "M", "all in slots", Interval.exact(price.nominal * 1e3), {"slot_steps_native": 1e3, "messages": 1e-9}
    )
    tested = anchor_score.slack(item, "slot_native", profile, 0.3)
    assert tested is not None and tested == (pytest.approx(0.7, rel=1e-2), pytest.approx(1.3, rel=1e-2))
    assert anchor_score.slack(item, "message", profile, 0.3) == (0.0, float("inf"))
    hopeless = Energy("M", "too much", Interval.exact(1e-12), {"slot_steps_native": 1e3, "messages": 1e3})
    assert anchor_score.slack(hopeless, "message", profile, 0.3) is None


@pytest.mark.parametrize(
    "name, text",
    [
        ("points.csv", "neuron,neurons\nLIF,200\n"),
        ("points.csv", "a\n"),
        ("res.json", "[]"),
        ("res.json", '{"a": {"b": 3}}'),
    ],
)
def test_another_table_is_refused(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    read = anchor_sets.winner_take_all if name.endswith("csv") else anchor_sets.two_neurons
    with pytest.raises(InputError, match=name):
        read(Anchors(), file)


def test_an_empty_folder_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def nothing() -> dict[str, bytes]:
        raise EngineError("no network")

    monkeypatch.setattr(command.pilotnet, "fetch", nothing)
    monkeypatch.setattr(sys, "argv", ["anchors.py", "--data", str(tmp_path)])
    assert command.main() == InputError("").exit_code
    error = capsys.readouterr().err
    assert "points.csv" in error and "res.json" in error and "Traceback" not in error


def test_without_data_the_rest_is_shown_and_what_is_missing_named(monkeypatch, tmp_path: Path, capsys) -> None:
    def nothing() -> dict[str, bytes]:
        raise EngineError("no network")

    monkeypatch.setattr(command.pilotnet, "fetch", nothing)
    written = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["anchors.py", "--json", str(written)])
    assert command.main() in (0, 1)
    told = capsys.readouterr().out
    assert "left out: A1, B1, B2, B3" in told and "B4, B5" in told and "B7 inference" in told
    result = json.loads(written.read_text())
    assert {group["group"] for group in result["ships"]} >= {"B6 step of 0.1 ms", "B7 dynamic, an inference"}
    assert "prices" not in result, "nothing is derived from half of the anchors"


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="SPIKETRACK_ANCHOR_DATA does not name the folder of the measured figures")
def test_what_ships_is_what_the_anchors_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Counts agree, every figure lies in the band, and the profile's prices are the derived ones, rounded outwards."""
    written = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["anchors.py", "--data", str(DATA), "--json", str(written)])
    assert command.main() == 0
    result = json.loads(written.read_text())
    profile = load_profile("loihi2")
    for name in anchor_score.FITTED:
        band = result["prices"]["widened"][name]
        ships = profile.price(name)
        assert ships is not None
        assert ships.nominal == pytest.approx(band["nominal"], rel=0.03), name
        assert ships.low <= band["low"] * 1.001 and band["high"] <= ships.high * 1.001, name
        assert ships.low >= band["low"] * 0.9 - 1e-12 and ships.high <= band["high"] * 1.1, f"{name}: too wide"
