"""Published energies derived again, dense twins, and the spike rate at which both cost the same: by hand, and through
the command line with its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from _cli import refuse, spiketrack, succeed

from spiketrack_deploy import api
from spiketrack_deploy.energy.audit import FORMULAS, assumed, readings, sums
from spiketrack_deploy.energy.conventions import dense_twin
from spiketrack_deploy.energy.frames import counted_run
from spiketrack_deploy.energy.layers import LayerCounts, shape_counts
from spiketrack_deploy.energy.pricing import covering
from spiketrack_deploy.energy.twins import CAUSED, dense_profiles, duel, duels, rate, silent
from spiketrack_deploy.hardware.profiles import load_profile

STEM = LayerCounts("stem", "image_conv", "stem", {"events": 40, "macs": 90, "dense_macs": 100, "input_size": 50})
CONV = LayerCounts(
    "conv",
    "conv",
    "body",
    {"events": 20, "synops": 150, "unit_ops": 300, "dense_macs": 1000, "input_sum": 40, "input_size": 100},
)
NEURONS = LayerCounts("lif", "ni_lif", "body", {"neuron_updates": 100, "neuron_spiking": 20, "output_sum": 40})
LAYERS = [STEM, NEURONS, CONV]


def by_name(found: tuple) -> dict:
    return {row.formula.name: row for row in found}


def test_every_formula_by_hand() -> None:
    rows = by_name(readings(LAYERS, counted=True, levels=4, paper=1.0))
    stem, exact_stem = 100 * 4.6e-3, 90 * 4.6e-3
    expected = {
        "rate x MACs": 1000 * 0.4 * 0.9e-3 + stem,
        "one rate x MACs": 1000 * 0.4 * 0.9e-3 + stem,
        "spikes x MACs": 1000 * 0.2 * 0.9e-3 + stem,
        "rate x FLOPs": 2 * (1000 * 0.4 * 0.9e-3 + stem),
        "rate x MACs x D": 4 * 1000 * 0.4 * 0.9e-3 + stem,
        "SyOPs, graded": 150 * 0.9e-3 + exact_stem,
        "SyOPs, binary": 300 * 0.9e-3 + exact_stem,
        "SyOPs, int8": 300 * 0.1e-3 + 90 * 0.23e-3,
        "SyOPs, memory": 300 * 0.9e-3 + 150 * 15e-3 + 90 * (4.6e-3 + 15e-3),
        "SyOPs, int8, memory": 300 * 0.1e-3 + 150 * 11.25e-3 + 90 * (0.23e-3 + 11.25e-3),
    }
    assert {name: row.energy.nominal for name, row in rows.items()} == pytest.approx(expected)
    assert set(expected) == {formula.name for formula in FORMULAS}
    for name, row in rows.items():
        assert row.ratio == pytest.approx(expected[name]), "over a paper's 1 nJ"
        assert row.rest.nominal == pytest.approx(expected[name] - row.first.nominal)


def test_a_number_read_backwards_gives_the_spikes_that_it_needs() -> None:
    for row in readings(LAYERS, counted=True, levels=4, paper=2.0):
        value = row.implied_value()
        assert value is not None and row.rest.nominal * value / 0.4 + row.first.nominal == pytest.approx(2.0)
        without = row.implied_value(first=False)
        assert without is not None and row.rest.nominal * without / 0.4 == pytest.approx(2.0)
    own = by_name(readings(LAYERS, counted=True, levels=4, paper=1000 * 0.4 * 0.9e-3 + 100 * 4.6e-3))
    assert own["rate x MACs"].implied_value() == pytest.approx(0.4), "its own number gives back the counted value"
    less = by_name(readings(LAYERS, counted=True, levels=4, paper=0.1))["rate x MACs"].implied_value()
    assert less is not None and less < 0, "the first layer alone is more than the paper's number"


def test_shapes_alone_leave_the_exact_formulas_out() -> None:
    shapes = [STEM, LayerCounts("conv", "conv", "body", {"dense_macs": 1000, "input_size": 100})]
    rows = by_name(readings(shapes, counted=False, levels=4, paper=1000 * 0.75 * 0.9e-3 + 100 * 4.6e-3))
    assert not [name for name in rows if name.startswith("SyOPs")]
    assert rows["rate x MACs"].implied_value() == pytest.approx(0.75)
    assert rows["rate x MACs"].ratio is None and rows["rate x MACs"].to_dict()["energy_nj"] is None


def test_assumed_spikes_have_the_mean_value_that_was_asked_for() -> None:
    for value, each in ((0.4, 1.0), (0.4, 2.0), (3.0, 4.0)):
        found = sums(assumed([STEM, CONV], value, each))
        assert found["mean_value"] == pytest.approx(value) and found["unit_ops"] == pytest.approx(1000 * value)
        assert found["synops"] == pytest.approx(1000 * value / each)


def test_a_dense_twin_pays_memory_on_the_terms_of_the_spikes() -> None:
    for bits, mac, word in (("fp32", 4.6, 3.0), ("int8", 0.23, 2.25), ("int4", 0.065, 2.125)):
        plain, memory = load_profile(f"cmos45_{bits}"), load_profile(f"cmos45_{bits}_memory")
        assert dense_twin(LAYERS, plain).energy.nominal == pytest.approx(1100 * mac * 1e-3)
        assert dense_twin(LAYERS, memory).energy.nominal == pytest.approx(1100 * (mac + 5 * word) * 1e-3)
        assert memory.prices["mac_memory"].value == memory.prices["synop_memory"].value
    for accelerator, value in (("eyeriss", 16.2), ("edge_tpu", 4.09), ("nvidia_vsq4", 0.0518)):
        twin = dense_twin(LAYERS, load_profile(accelerator))
        assert twin.energy.nominal == pytest.approx(1100 * value * 1e-3) and twin.addition is None
        assert twin.energy.low < twin.energy.nominal < twin.energy.high


def test_the_bands_of_accelerators_follow_from_their_sources() -> None:
    eyeriss, tpu, vsq = (load_profile(n).prices["dense_mac"] for n in ("eyeriss", "edge_tpu", "nvidia_vsq4"))
    assert eyeriss.low == pytest.approx(0.278 / (35 * 666e6) * 1e12, rel=0.01), "AlexNet"
    assert eyeriss.high == pytest.approx(0.236 / (0.7 * 15.3e9) * 1e12, rel=0.01), "VGG-16"
    assert tpu.low == pytest.approx(2 / 2e12 * 1e12) and tpu.high == pytest.approx(2 / (400 * 0.3e9) * 1e12, rel=0.01)
    for price in (eyeriss, tpu):
        assert price.value == pytest.approx((price.low * price.high) ** 0.5, rel=0.01)
    ends = [2 / (tops * 1e12) * 1e12 for tops in (95.6, 38.6, 17.0)]
    assert [vsq.low, vsq.value, vsq.high] == pytest.approx(ends, rel=0.01)


def test_at_the_crossover_both_cost_the_same() -> None:
    for found in duels(LAYERS, load_profile("loihi2")):
        for row in (found.whole, *found.layers):
            crossover = row.crossover
            assert crossover is not None and crossover.low <= crossover.nominal <= crossover.high
            if crossover.nominal:
                many = crossover.nominal / row.rate
                cost = row.silent.nominal + many * (row.counted.nominal - row.silent.nominal)
                assert cost == pytest.approx(row.dense.nominal)
            else:
                assert row.silent.nominal >= row.dense.nominal, "it loses without a spike"
            assert row.wins == (row.rate < crossover.nominal)


def test_halving_the_spikes_moves_the_cost_along_the_line() -> None:
    """Half of the spikes, charged, cost what the line says: prices are linear in everything that a spike causes."""
    for name in ("cmos45_int8_memory", "loihi2", "loihi1"):
        profile = load_profile(name)
        paid = counted_run("look", LAYERS, profile).counts
        without = silent(paid)
        half = {key: (paid.get(key, 0) + without.get(key, 0)) / 2 for key in {*paid, *without}}
        ends = [covering(counts, profile).nominal for counts in (paid, half, without)]
        assert ends[1] == pytest.approx((ends[0] + ends[2]) / 2) and ends[0] > ends[2], name
        assert not set(CAUSED) & set(without) and without.get("macs") == 90


def test_slots_of_a_placed_run_are_paid_without_spikes() -> None:
    """On cores a silent network still steps its slots, so the limit is lower than that of counts alone."""
    loihi2, dense = load_profile("loihi2"), load_profile("eyeriss")
    free = duel(LAYERS, loihi2, dense)
    counted = counted_run("look", LAYERS, loihi2)
    run = replace(counted, whole={"slot_steps_microcode": 30.0})
    found = duel(LAYERS, loihi2, dense, run)
    more = found.whole.silent.nominal - free.whole.silent.nominal
    assert more == pytest.approx(30 * loihi2.prices["slot_microcode"].interval.nominal)
    assert found.whole.counted.nominal - free.whole.counted.nominal == pytest.approx(more)
    assert found.whole.crossover and free.whole.crossover
    assert found.whole.crossover.nominal < free.whole.crossover.nominal


def test_a_silent_network_has_no_crossover() -> None:
    mute = [STEM, LayerCounts("conv", "conv", "body", {"dense_macs": 1000, "input_size": 100})]
    found = duel(mute, load_profile("cmos45_int8"), load_profile("cmos45_int8")).whole
    assert found.crossover is None and found.limit == "spikes cost nothing" and found.wins and rate(mute) == 0


def test_dense_profiles_are_conventions_and_accelerators() -> None:
    names = [profile.name for profile in dense_profiles()]
    assert names[-3:] == ["edge_tpu", "eyeriss", "nvidia_vsq4"]
    assert set(names[:-3]) == {f"cmos45_{b}{m}" for b in ("fp32", "int8", "int4") for m in ("", "_memory")}


def test_shapes_are_counted_as_a_run_counts_them(exported: Path) -> None:
    from spiketrack_deploy.bundle.contents import read_alone
    from spiketrack_deploy.bundle.recorded import recorded_counts

    program, recorded = read_alone(exported), recorded_counts(exported / "energy.json")
    for phase, layers in recorded.counts.items():
        for shape, layer in zip(shape_counts(program, phase), layers, strict=True):
            for count in ("dense_macs", "input_size", "neuron_updates"):
                assert shape[count] == layer[count], (phase, layer.name, count)


def test_a_bundle_is_audited_from_its_own_counts(exported: Path, tmp_path: Path) -> None:
    found = succeed(tmp_path, "audit", exported, "--paper", "3uJ")
    (case,) = found["cases"]
    assert case["counted"] and case["paper_nj"] == 3000.0
    energies = succeed(tmp_path, "energy", exported, "--profile", "cmos45_int8")
    exact = next(row for row in case["conventions"] if row["name"] == "SyOPs, int8")
    main = energies["profiles"][0]["phases"][energies["main"]]["unamortised_nj"]["nominal"]
    assert exact["energy_nj"]["nominal"] == pytest.approx(main), "the same counts and prices by another way"
    assert case["chip"]["total_nj"]["nominal"] > exact["energy_nj"]["nominal"]
    assert {d["dense"]["profile"] for d in case["duels"]} == {p.name for p in dense_profiles()}
    done = spiketrack(tmp_path, "audit", exported)
    assert done.returncode == 0 and "spiking wins below" in done.stdout


@pytest.mark.slow
def test_the_table_of_the_paper_from_counted_multiply_accumulates() -> None:
    """arXiv 2602.23963: 2.9 mJ for S256, by the multiply-accumulates that its own layout has (3.525 G, 4.172 G)."""
    for layout, macs, value in (("s256_t1", 3.5248e9, 0.868), ("s256_t3", 4.1718e9, 0.732)):
        (case,) = api.audit(layout)["cases"]
        assert case["dense_macs"] == pytest.approx(macs, rel=1e-4) and case["paper_nj"] == 2.9e6
        first = case["conventions"][0]
        assert first["name"] == "rate x MACs" and first["implied_mean_value"] == pytest.approx(value, abs=5e-4)
        assert case["chip"]["total_nj"]["low"] > case["paper_nj"], "no chip price reaches the paper's number"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--paper", "2.9mJ"), 2, "bundle, model or layout"),
        (("s256_t1", "--paper", "2.9 mW"), 2, "is no energy"),
        (("s256_t1", "--paper", "0"), 2, "is no energy"),
        (("s256_t1", "--paper", "1e999J"), 2, "is no energy"),
        (("s256_t1", "--target", "akida"), 2, "prices no event"),
        (("nowhere.pth",), 3, "no such checkpoint"),
    ],
)
def test_what_cannot_be_audited_is_refused(arguments: tuple[str, ...], code: int, words: str, tmp_path: Path) -> None:
    refuse(tmp_path, code, (words,), "audit", *arguments)
