"""Energy: totals computed by hand, bands in order, nothing without a price forgotten."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.energy.conventions import dense_twin, published_convention
from spiketrack_deploy.energy.layers import COUNTS, LayerCounts, add_runs, layer_counts
from spiketrack_deploy.energy.pricing import CAUSES, CHARGES, MAPPED, covering, dynamic_energy, payable, price, unpriced
from spiketrack_deploy.energy.report import EnergyReport, assess, write_energy_json, write_layers_csv
from spiketrack_deploy.errors import InputError, ProfileError
from spiketrack_deploy.hardware.profiles import list_profiles, load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.types import Op
from spiketrack_deploy.units import Interval

# One price per word of the vocabulary, each (low, nominal, high) in pJ a different prime, so that no mix-up cancels.
TOY = {
    "synop": (2, 3, 5),
    "synop_memory": (7, 11, 13),
    "mac": (17, 19, 23),
    "neuron_idle": (29, 31, 37),
    "neuron_active": (41, 43, 47),
    "message": (53, 59, 61),
    "relay_update": (67, 71, 73),
    "relay_message": (79, 83, 89),
    "relay_synop": (97, 101, 103),
    "memory_read": (107, 109, 113),
    "memory_write": (127, 131, 137),
}


def toy(prices: dict[str, tuple[float, float, float]], *, kind: str = "chip", substeps: int = 1) -> Profile:
    known = {"tag": "assumed", "source": "the test"}
    return Profile.model_validate(
        {
            "schema": 1,
            "name": "toy",
            "title": "A toy",
            "kind": kind,
            "limits": {"substeps": {"value": substeps, "unit": "steps", **known}},
            "prices": {
                name: {
                    "low": low,
                    "value": value,
                    "high": high,
                    "unit": "W" if name == "static_power" else "pJ",
                    **known,
                }
                for name, (low, value, high) in prices.items()
            },
            "unknown": [],
            "assumptions": ["a toy costs nothing"],
        }
    )


IMAGE = LayerCounts("stem", "image_conv", "down1", {"events": 10, "macs": 90, "dense_macs": 100})
CONV = LayerCounts(
    "conv",
    "conv",
    "block1",
    {"events": 4, "synops": 30, "unit_ops": 50, "dense_macs": 200, "input_sum": 8, "input_size": 32},
)
NEURON = LayerCounts("lif", "ni_lif", "block1", {"neuron_updates": 64, "neuron_spiking": 5})
ADD = LayerCounts("add", "add", "block1", {"relays": 6, "relay_synops": 7})
QUERY = LayerCounts(
    "query",
    "query",
    "mrm",
    {"events": 2, "synops": 9, "unit_ops": 12, "dense_macs": 16, "memory_reads": 20, "input_sum": 3, "input_size": 4},
)
GATE = LayerCounts("gate", "gate", "mrm", {"events": 3, "host_ops": 17})
WRITE = LayerCounts("write", "key_value", "mrm", {"events": 5, "synops": 6, "unit_ops": 9, "memory_writes": 16})
FRAME = [IMAGE, CONV, NEURON, ADD, QUERY, GATE]
UPDATE = [IMAGE, NEURON, WRITE]

Run = list[LayerCounts]


def priced(frames: list[Run], updates: list[Run], profile: Profile, every: int = 25, **options: Any) -> EnergyReport:
    """A workload of two phases: one for every result, one every so many."""
    runs = {"look": frames, "learn": updates}
    counts = {name: add_runs(found, name) for name, found in runs.items()}
    apart = {name: [dynamic_energy(run, profile).nominal for run in found] for name, found in runs.items()}
    return assess(counts, profile, {"look": 1, "learn": 1 / every}, apart=apart, **options)


def phase(report: EnergyReport, name: str = "look") -> dict[str, Any]:
    found: dict[str, Any] = report.to_dict()["phases"][name]
    return found


def by_hand(end: int) -> dict[str, float]:
    """Energy of FRAME by cause in pJ; ``end`` 0 low, 1 nominal, 2 high."""
    p = {name: values[end] for name, values in TOY.items()}
    return {
        "mac": 90 * p["mac"],
        "synops": (30 + 9) * p["synop"],
        "neuron": (64 - 5) * p["neuron_idle"] + 5 * p["neuron_active"],
        # the 10 pixels of the image convolution are not messages of the chip
        "message": (4 + 2 + 3) * p["message"],
        "relay": 6 * (p["relay_update"] + p["relay_message"]) + 7 * p["relay_synop"],
        "memory": (30 + 9) * p["synop_memory"] + 20 * p["memory_read"],
    }


def ends(interval: Interval) -> tuple[float, float, float]:
    return interval.low, interval.nominal, interval.high


def test_a_frame_costs_what_it_costs_by_hand() -> None:
    report = priced([FRAME], [UPDATE], toy(TOY))
    causes = phase(report)["by_cause_nj"]
    for end, key in enumerate(("low", "nominal", "high")):
        for cause, picojoules in by_hand(end).items():
            assert causes[cause][key] == pytest.approx(picojoules * 1e-3, rel=1e-12), f"{cause} {key}"
        assert ends(report.main.dynamic)[end] == pytest.approx(sum(by_hand(end).values()) * 1e-3, rel=1e-12)
    assert set(causes) == set(CAUSES)
    alone = ends(dynamic_energy(FRAME, toy(TOY)))
    assert alone == pytest.approx(ends(report.main.dynamic), rel=1e-14), "a frame alone and the mean of one differ"


def test_a_phase_is_shown_whole_and_by_its_share_of_a_result() -> None:
    report = priced([FRAME], [UPDATE, UPDATE], toy(TOY))
    whole = (90 * 19 + 59 * 31 + 5 * 43 + 6 * (3 + 11) + 16 * 131 + 5 * 59) * 1e-3
    shown = phase(report, "learn")
    assert shown["unamortised_nj"]["nominal"] == pytest.approx(whole)
    assert shown["amortised_nj"]["nominal"] == pytest.approx(whole / 25)
    assert (shown["runs"], shown["per_result"]) == (2, 1 / 25)
    dynamic = report.to_dict()["per_result"]["dynamic_nj"]["nominal"]
    assert dynamic == report.dynamic.nominal == pytest.approx(report.main.dynamic.nominal + whole / 25)
    assert "energy_nj" in report.to_dict()["layers"][-1] and report.to_dict()["layers"][-1]["phase"] == "learn"
    # Three runs of one phase for a result, and none of the other behind the start.
    often = assess({"look": FRAME, "learn": UPDATE}, toy(TOY), {"look": 3, "learn": 0})
    assert often.dynamic.nominal == pytest.approx(3 * report.main.dynamic.nominal)
    assert phase(often, "learn")["unamortised_nj"]["nominal"] == pytest.approx(whole)
    assert phase(often, "learn")["amortised_nj"] == {"nominal": 0, "low": 0, "high": 0}, "it runs at the start alone"


def test_what_did_not_run_and_is_not_scheduled_costs_nothing() -> None:
    report = assess({"look": FRAME, "learn": []}, toy(TOY), {"look": 1, "learn": 0})
    assert [item.name for item in report.phases] == ["look"] and report.dynamic == report.main.dynamic
    assert "learn" not in {item.name for item in report.unpriced}
    scheduled = assess({"look": FRAME}, toy(TOY), {"look": 1, "learn": 0.5}, result="frame")
    (missing,) = [item for item in scheduled.unpriced if item.name == "learn"]
    assert missing.per == "frame" and missing.count is None and "did not run" in missing.reason


def test_frames_are_averaged_by_exact_sums() -> None:
    frames = [[LayerCounts("conv", "conv", "b", {"synops": n, "events": 2})] for n in (10**17, 1, 1)]
    report = priced(frames, [], toy({"synop": (1, 1, 1)}))
    row = report.to_dict()["layers"][0]
    assert row["counts_total"]["synops"] == 10**17 + 2, "counts were added in floating point"
    assert row["counts"]["events"] == 2 and isinstance(row["counts"]["events"], int)
    assert report.main.dynamic.nominal == pytest.approx((10**17 + 2) / 3 * 1e-3, rel=1e-15)
    twice = add_runs([report.main.counts, report.main.counts], "look")
    assert twice[0].runs == 6 and twice[0]["events"] == 2, "sums of sums forget how many runs they are of"


@settings(deadline=None)
@given(
    counts=st.lists(st.fixed_dictionaries({key: st.integers(0, 10**10) for key in COUNTS}), min_size=1, max_size=4),
    kind=st.sampled_from(["conv", "image_conv", "ni_lif", "add"]),
)
def test_bands_are_ordered_and_bigger_counts_never_cost_less(counts: list[dict[str, int]], kind: str) -> None:
    layers = []
    for i, item in enumerate(counts):
        item["neuron_spiking"] = min(item["neuron_spiking"], item["neuron_updates"])
        item["output_sum"] = min(item["output_sum"], 4 * item["neuron_spiking"])
        layers.append(LayerCounts(str(i), kind, "b", item))
    for profile in list_profiles():
        energy = dynamic_energy(layers, profile)
        assert 0 <= energy.low <= energy.nominal <= energy.high, profile.name
        assert dynamic_energy(layers[:1], profile).nominal <= energy.nominal, profile.name


def names(report: EnergyReport, per: str = "look") -> dict[str, float | None]:
    return {item.name: item.count for item in report.unpriced if item.per == per}


def test_what_has_no_price_is_listed_with_its_count() -> None:
    only_synops = priced([FRAME], [UPDATE], toy({"synop": (1, 1, 1)}))
    listed = names(only_synops)
    wanted = {
        "macs": 90, "neuron_updates": 64, "neuron_spiking": 5, "messages": 9, "relays": 6, "relay_synops": 7,
        "memory_reads": 20, "host_ops": 17, "pixel_messages": 10,
    }  # fmt: skip
    assert {key: listed[key] for key in wanted} == wanted
    assert "synops" not in listed and "memory_writes" not in listed
    assert names(only_synops, "learn")["memory_writes"] == 16
    mapped = {"hops", "barrier", "static_power_x_latency", "destination_cores", "host_io"}
    assert mapped <= set(names(only_synops, "result"))
    assert all(item.reason for item in only_synops.unpriced)


def test_a_price_moves_a_count_from_the_list_into_the_total() -> None:
    for name in CHARGES:
        if name in MAPPED:
            continue
        without = {key: value for key, value in TOY.items() if key != name}
        if name == "unit_op":
            del without["synop"]
        if name == "unit_message":
            del without["message"]
        before = priced([FRAME + [WRITE]], [], toy(without))
        after = priced([FRAME + [WRITE]], [], toy({**without, name: (1, 1, 1)}))
        assert before.dynamic.nominal < after.dynamic.nominal, f"{name} is in the vocabulary and never paid"
        # Memory traffic is an addition to a price, not the price of a count.
        if name not in ("synop_memory", "mac_memory"):
            assert len(after.unpriced) == len(before.unpriced) - 1, f"{name}: missing, it is not listed as unpriced"


def test_every_count_is_priced_or_listed_on_every_profile() -> None:
    """Each count alone, on each profile: it either costs something or appears among the unpriced."""
    described = {"dense_macs", "input_size", "output_sum", "saturated"}
    # These describe the twin and the means, nothing happens.
    binary = {"events": "input_sum", "synops": "unit_ops"}
    for profile in list_profiles():
        for count in COUNTS:
            if count in described or count in binary.values():
                continue
            happens = {count: 3} | ({binary[count]: 5} if count in binary else {})
            happens |= {"neuron_updates": 3} if count == "neuron_spiking" else {}
            layer = LayerCounts("a", "conv", "b", happens)
            paid, listed = dynamic_energy([layer], profile).nominal, unpriced([layer], profile, "run")
            assert paid > 0 or listed, f"{profile.name} loses {count}"


def test_a_convention_has_no_hops_and_a_missing_update_is_said() -> None:
    report = priced([FRAME], [], load_profile("cmos45_fp32"))
    assert not {"hops", "barrier", "host_io"} & set(names(report, "result"))
    assert report.to_dict()["static"] is None
    assert "learn" in names(report, "result") and list(report.to_dict()["phases"]) == ["look"]


def test_binary_spikes_cost_unit_operations_and_every_substep() -> None:
    """Loihi 1: a spike of value n is n events; a neuron is updated in each of 4 sub-steps."""
    loihi1 = load_profile("loihi1")
    conv = price(CONV, payable(CONV, loihi1.substeps), loihi1)
    assert conv.by_cause["synops"].nominal == pytest.approx(50 * 24.0e-3), "50 unit operations, not 30 synops"
    assert conv.by_cause["message"].nominal == pytest.approx(8 * 180.3e-3), "8 unit spikes, not 4 events"
    emitted = LayerCounts("lif", "ni_lif", "b", {"neuron_updates": 64, "neuron_spiking": 5, "output_sum": 9})
    cost = price(emitted, payable(emitted, 4), loihi1).total.nominal
    assert cost == pytest.approx(((64 * 4 - 9) * 52 + 9 * 81) * 1e-3)
    assert price(NEURON, payable(NEURON, 4), loihi1).total.nominal == pytest.approx(((64 * 4 - 5) * 52 + 5 * 81) * 1e-3)
    assert "active_substeps" in {item.name for item in unpriced([NEURON], loihi1, "run")}
    assert "active_substeps" not in {item.name for item in unpriced([emitted], loihi1, "run")}
    listed = {item.name: item.reason for item in unpriced([emitted], load_profile("loihi2"), "run")}
    assert "needs a mapping" in listed["neuron_updates"], "occupied slots are stepped in every elapsed step"


def test_static_energy_is_apart_and_per_chip() -> None:
    profile = toy({"synop": (1, 2, 3), "static_power": (0.2, 0.3, 0.4)})
    at_camera = priced([FRAME], [], profile).to_dict()
    assert at_camera["static"]["energy_nj_per_chip_frame"]["nominal"] == pytest.approx(0.3 / 30 * 1e9), (
        "10 mJ at 30 fps"
    )
    slower = priced([FRAME], [], profile, frame_period_s=0.1).to_dict()
    assert slower["static"]["energy_nj_per_chip_frame"]["high"] == pytest.approx(0.4 * 0.1 * 1e9)
    for key in ("phases", "per_result"):
        assert slower[key] == at_camera[key], "static power leaked into the dynamic energy"


def test_dense_twin_counts_every_tap_in_both_precisions() -> None:
    report = priced([FRAME], [UPDATE], load_profile("loihi2"))
    fp32, int8 = phase(report)["dense_twin"]
    assert fp32["dense_macs"] == int8["dense_macs"] == 316
    assert fp32["energy_nj"]["nominal"] == pytest.approx(316 * 4.6e-3)
    assert int8["energy_nj"]["nominal"] == pytest.approx(316 * 0.23e-3)
    assert fp32["mac_to_addition"] == pytest.approx(5.1, abs=0.05)
    assert int8["mac_to_addition"] == pytest.approx(2.3, abs=0.05)
    assert phase(report, "learn")["dense_twin"][0]["dense_macs"] == 100


def test_published_convention_and_its_difference_from_the_exact_count() -> None:
    report = phase(priced([FRAME, FRAME], [], load_profile("loihi2")))["published_convention"]
    stem, conv, query = report["layers"]
    assert stem["mean_input"] is None
    assert stem["published_nj"]["nominal"] == pytest.approx(100 * 4.6e-3), (
        "the image convolution is multiply-accumulates"
    )
    assert stem["exact_nj"]["nominal"] == pytest.approx(90 * 4.6e-3)
    assert conv["mean_input"] == 0.25
    assert conv["published_nj"]["nominal"] == pytest.approx(200 * 0.25 * 0.9e-3)
    assert conv["exact_nj"]["nominal"] == pytest.approx(50 * 0.9e-3)
    assert conv["difference_nj"] == pytest.approx(0.0, abs=1e-12), "no border, no zero weight: both conventions agree"
    assert query["difference_nj"] == pytest.approx((16 * 3 / 4 - 12) * 0.9e-3, abs=1e-12)
    assert report["difference_nj"] == pytest.approx(10 * 4.6e-3)


def test_anchor_transt_dense_energy() -> None:
    """A6: TransT, 16.35 GMAC at 4.6 pJ is the published 75.2 mJ."""
    layer = LayerCounts("transt", "conv", "all", {"dense_macs": 16_350_000_000})
    assert dense_twin([layer], load_profile("cmos45_fp32")).energy.nominal * 1e-6 == pytest.approx(75.2, abs=0.05)


def test_anchor_spiketrack_published_energy() -> None:
    """A7: B256-T3, 14.592 GMAC at a mean spike value of 0.753 is 9.89 mJ."""
    counts = {"dense_macs": 14_592_000_000, "input_sum": 753, "input_size": 1000}
    convention = published_convention([LayerCounts("b256", "conv", "all", counts)], load_profile("cmos45_fp32"))
    assert convention.published.nominal * 1e-6 == pytest.approx(9.89, abs=0.005)


def test_anchor_pilotnet_on_loihi2() -> None:
    """A1: the one public measurement: 61.3 to 86.6 uJ dynamic per step; the nominal lies inside, the band covers it."""
    counts = {"synops": 2_269_529, "messages": 34_600, "slot_steps_native": 158_509, "chip_ns": 151e3}
    step = covering(counts, load_profile("loihi2"))
    assert 61.3e3 <= step.nominal <= 86.6e3, f"nominal {step.nominal / 1e3:.1f} uJ"
    assert step.low < 61.3e3 and step.high > 86.6e3


def test_the_dominant_coefficient_is_named_with_its_tag() -> None:
    shown = phase(priced([FRAME], [], toy(TOY)))["dominant"]
    largest = max(90 * 19, 39 * 3, 59 * 31, 5 * 43, 9 * 59, 6 * 71, 6 * 83, 7 * 101, 39 * 11, 20 * 109)
    assert shown["price"] == "memory_read" and shown["tag"] == "assumed"
    assert shown["share"] == pytest.approx(largest / sum(by_hand(1).values()))


def test_energy_json_has_the_agreed_fields_and_is_reproducible(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    for path in (first, second):
        write_energy_json(priced([FRAME, FRAME], [UPDATE], load_profile("loihi2"), result="frame"), path)
    assert first.read_bytes() == second.read_bytes()
    data = json.loads(first.read_text())
    agreed = {"schema", "result", "profile", "per_result", "phases", "static", "layers", "unpriced", "assumptions"}
    assert agreed | {"placed"} == set(data) and data["result"] == "frame"
    assert {name: item["runs"] for name, item in data["phases"].items()} == {"look": 2, "learn": 1}
    assert data["profile"].pop("sha256") == load_profile("loihi2").digest
    assert Profile.model_validate(data["profile"]) == load_profile("loihi2"), "the file holds the whole profile"
    assert {"name", "kind", "counts", "energy_nj"} <= set(data["layers"][0])
    for name, item in data["phases"].items():
        layers = [row for row in data["layers"] if row["phase"] == name]
        for end in ("low", "nominal", "high"):
            added = sum(row["energy_nj"][end] for row in layers)
            assert added == pytest.approx(item["unamortised_nj"][end]), f"layers do not add up to {name} ({end})"
            blocks = sum(block[end] for block in item["by_block_nj"].values())
            assert blocks == pytest.approx(item["unamortised_nj"][end]), f"blocks do not add up to {name} ({end})"
    shares = sum(item["amortised_nj"]["nominal"] for item in data["phases"].values())
    assert shares == pytest.approx(data["per_result"]["dynamic_nj"]["nominal"])
    assert all(item["tag"] and item["source"] for item in data["profile"]["prices"].values())
    assert any("whole-chip measurements" in text for text in data["assumptions"])


def test_layers_csv_has_a_row_per_layer_and_branch(tmp_path: Path) -> None:
    report = priced([FRAME], [UPDATE], toy(TOY))
    write_layers_csv(report, tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["name"]) for row in rows] == [("look", x.name) for x in FRAME] + [
        ("learn", x.name) for x in UPDATE
    ]
    conv = rows[1]
    assert int(conv["synops"]) == 30 and int(conv["macs"]) == 0
    assert float(conv["energy_nj"]) == pytest.approx(sum(float(conv[f"{cause}_nj"]) for cause in CAUSES))
    assert float(conv["energy_low_nj"]) < float(conv["energy_nj"]) < float(conv["energy_high_nj"])


def test_what_cannot_be_priced_is_refused() -> None:
    profile = toy(TOY)
    with pytest.raises(InputError, match="no phase that a result needs was run"):
        assess({"learn": UPDATE}, profile, {"look": 1, "learn": 0})
    with pytest.raises(InputError, match="run 1 of look has other layers"):
        priced([FRAME, FRAME[:-1]], [], profile)
    with pytest.raises(InputError, match="names a layer twice"):
        priced([[CONV, CONV]], [], profile)
    with pytest.raises(InputError, match="not said how often phase learn"):
        assess({"look": FRAME, "learn": UPDATE}, profile, {"look": 1})
    with pytest.raises(InputError, match="different numbers of runs"):
        assess({"look": [CONV, replace(NEURON, runs=2)]}, profile, {"look": 1})
    for share in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="times per result"):
            assess({"look": FRAME}, profile, {"look": share})
    for period in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="frame period"):
            priced([FRAME], [], profile, frame_period_s=period)
    for runs in (0, -1, True, 1.5):
        with pytest.raises(InputError, match="runs are"):
            LayerCounts("a", "conv", "b", {}, runs)  # type: ignore[arg-type]
    for counts, word in (
        ({"synapses": 1}, "synapses"),
        ({"synops": -1}, "-1"),
        ({"synops": 1.5}, "1.5"),
        ({"synops": True}, "True"),
    ):
        with pytest.raises(InputError, match=word):
            LayerCounts("a", "conv", "b", counts)  # type: ignore[dict-item]
    with pytest.raises(ProfileError, match=r"prices\.unit_op is missing"):
        priced([FRAME], [], profile, fp32=profile)


def test_counts_of_a_program_run_become_layers() -> None:
    ops = [Op("a", "conv", ("image",), "block1"), Op("b", "ni_lif", ("a",), "block1")]
    layers = layer_counts(ops, {"a": OpCounts(synops=3, events=1), "b": OpCounts(neuron_updates=7)})
    assert [(x.name, x.kind, x.block, x["synops"], x["neuron_updates"]) for x in layers] == [
        ("a", "conv", "block1", 3, 0),
        ("b", "ni_lif", "block1", 0, 7),
    ]
    with pytest.raises(InputError, match="1 operations have no counts, first b"):
        layer_counts(ops, {"a": OpCounts()})
