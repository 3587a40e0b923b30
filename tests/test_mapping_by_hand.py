"""A network small enough to map, time and price with a pencil: every figure of the report, and how it comes about.

Image 3 x 6 x 10, ``stem`` 4 x 3 x 5 (stride 2), ``s1``, ``s2`` 6 x 3 x 5, back to 4 channels and added to the stem,
``s3``, two maps out. All weights are 1. Streams that one population alone reads are summed in its neurons, so five
populations take cores: stem 60 (it is read twice), s1 60, s2 90, s3 60, out 30. Cores of 160 neurons hold

    core 0: stem, s1, and of s2 row 0 and two channels of row 1 (8 rows of one channel, 5 neurons each)
    core 1: the other 10 rows of s2, s3, out

Synapses: stem 8 x 14 taps x 3 x 4 = 1,344; grow 7 x 13 x 4 x 6 = 2,184; back 15 x 6 x 4 = 360; out 15 x 4 x 2 = 120;
stem to s1 and to s3 one to one, 60 each. Of grow, (2 x 6 + 3 x 2) x 13 x 4 = 936 end in core 0. Half of the neurons
spike.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _programs import PhaseBuilder, spikes

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.report import map_phase
from spiketrack_deploy.mapping.whole import map_network
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.types import Op, Phase, Program, TensorSpec, states_of

PRICES = {  # pJ, ns, mW: every value another, so that no two can be mixed up
    "synop": 3.0, "mac": 5.0, "neuron_idle": 7.0, "neuron_active": 11.0, "message": 13.0, "relay_update": 17.0,
    "relay_message": 19.0, "relay_synop": 23.0, "hop_ew": 29.0, "hop_ns": 31.0, "static_power": 250.0, "t_synop": 3.0,
    "t_message_in": 7.0, "t_neuron": 5.0, "t_message_out": 11.0, "t_hop_ew": 13.0, "t_hop_ns": 17.0,
    "t_barrier_chip": 1000.0, "t_barrier_chips": 4000.0,
}  # fmt: skip
LIMITS = {
    "cores_per_chip": ("cores", 2), "cores_per_tile": ("cores", 1), "tiles_x": ("tiles", 2), "tiles_y": ("tiles", 1),
    "neurons_per_core": ("neurons", 160), "synaptic_words_per_core": ("words", 9000), "weight_bits": ("bits", 8),
    "input_axons_per_core": ("axons", 9000), "axon_map_per_core": ("entries", 9000), "payload_bits": ("bits", 24),
    "neuron_groups_per_core": ("groups", 8),
}  # fmt: skip


def toy(folder: Path, prices: dict[str, float] = PRICES, family: str = "loihi2", **limits: int) -> Target:
    """A chip of one's own; a price may be half or double its value."""
    units = {"static_power": "mW", "board_power": "mW"} | {name: "ns" for name in prices if name.startswith("t_")}
    kind = 'kind = "board"\nchip = "loihi2"' if "chips" in limits else f'kind = "chip"\nfamily = "{family}"'
    lines = [f'schema = 1\nname = "toy"\ntitle = "Toy"\n{kind}\nunknown = []\nassumptions = []\n[limits]']
    held = {name: (unit, limits.get(name, value)) for name, (unit, value) in LIMITS.items()}
    held["neurons_per_core_compiler"] = held["neurons_per_core"]
    held |= {name: (name.replace("substeps", "steps"), n) for name, n in limits.items() if name not in LIMITS}
    for name, (unit, value) in held.items():
        lines.append(f'{name} = {{ value = {value}, unit = "{unit}", tag = "assumed", source = "toy" }}')
    for name, value in prices.items():
        band = f"value = {value}\nlow = {value / 2}\nhigh = {value * 2}"
        lines.append(f'[prices.{name}]\n{band}\nunit = "{units.get(name, "pJ")}"\ntag = "assumed"\nsource = "toy"')
    path = folder / "toy.toml"
    path.write_text("\n".join(lines))
    return Target("toy", load_profile(str(path)))


def pencil(steps: int = 1) -> Program:
    """Phase ``look`` as described above; phase ``other``: 9 x 12 x 10 neurons on the image, two maps out."""
    arrays: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    b = PhaseBuilder("look", rng, arrays)
    b.inputs["image"] = TensorSpec("image", (steps, 3, 6, 10), top=255)
    stem = b.conv("stem", "image", 4, "a", 3, 2, 1, kind="image_conv")
    s1 = b.ni_lif("s1", stem, "a")
    s2 = b.ni_lif("s2", b.conv("grow", s1, 6, "b", 3, 1, 1), "b")
    back = b.conv("back", s2, 4, "b", unit=b.spec(stem).unit)
    s3 = b.ni_lif("s3", b.add("sum", stem, back, "b"), "b")
    b.outputs["maps"] = b.conv("out", s3, 2, "c", kind="head_out")
    other = PhaseBuilder("other", rng, arrays)
    other.inputs["image"] = TensorSpec("image", (1, 3, 12, 10), top=255)
    s = other.ni_lif("o1", other.conv("first", "image", 9, "o", kind="image_conv"), "o")
    other.outputs["rest"] = other.conv("last", s, 2, "o", kind="head_out")
    for key in arrays:
        if key.endswith(".weight"):
            arrays[key] = np.ones_like(arrays[key])
    phases = {"look": b.finish(), "other": other.finish()}
    program = Program(phases, arrays, states_of(phases))
    check_program(program)
    return program


def counted(report: dict[str, Any]) -> dict[str, float]:
    """Price -> how often it is paid in the run."""
    return {line["price"]: line["count"] for line in report["run"]["lines"]}


def close(data: dict[str, float], nominal: float) -> bool:
    """A band from half to double."""
    return data == pytest.approx({"low": nominal / 2, "nominal": nominal, "high": nominal * 2})


def test_cores_and_loads(tmp_path: Path) -> None:
    report = map_phase(pencil(), "look", toy(tmp_path)).to_dict()
    assert (report["holds"], report["cores"], report["chips"]) == (True, 2, 1)
    assert report["neurons"] == {"relay": 90, "neurons": 210} and report["synapses"] == 4128
    # Words: one input channel towards C channels of b bits takes kh kw ceil((C (b + 1) + 10) / 64).
    # core 0: stem 3 x 9, s1 4 x 1, grow 4 x 9; core 1: grow 4 x 9, back 6 x 1, stem to s3 4 x 1, out 4 x 1.
    # Axons in: positions read; core 0: image 60, stem 15, s1 15; core 1: s1 15, s2 15, stem 15, s3 15.
    # Axons out: positions x destination cores; core 0: stem 15 + 15, s1 15 x 2, s2 2 rows of 5; core 1: s2 10, s3 15.
    loads = {"neurons": (160, 140), "words": (67, 50), "axons_in": (90, 60), "axons_out": (70, 25), "groups": (3, 3)}
    assert report["loads"] == {name: {"max": max(two), "mean": sum(two) / 2} for name, two in loads.items()}
    assert report["synaptic_words"] == 117
    assert [(layer["name"], layer["neurons"], layer["cores"]) for layer in report["largest_layers"]] == [
        ("s2", 90, 2), ("stem", 60, 1), ("s1", 60, 1), ("s3", 60, 1), ("out", 30, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "value", "neurons"),
    [
        ("neurons_per_core", 300, [300]),
        ("neurons_per_core", 299, [295, 5]),  # whole rows of one channel
        ("synaptic_words_per_core", 67, [160, 140]),
        ("synaptic_words_per_core", 66, [120, 160, 20]),  # grow's kernels take 36 however few channels are there
        ("input_axons_per_core", 90, [160, 140]),
        ("input_axons_per_core", 89, [150, 150]),  # row 1 of s2 would read the last row of s1
        ("neuron_groups_per_core", 3, [160, 140]),
        ("neuron_groups_per_core", 2, [120, 150, 30]),
    ],
)
def test_a_core_takes_what_its_limits_hold_and_no_more(
    tmp_path: Path, limit: str, value: int, neurons: list[int]
) -> None:
    mapping = map_phase(pencil(), "look", toy(tmp_path, **{limit: value, "cores_per_chip": 4, "tiles_x": 4})).mapping
    assert mapping.loads.neurons.tolist() == neurons and mapping.holds


def test_rows_in_powers_of_two(tmp_path: Path) -> None:
    """Cores of 40 neurons that no layer shares: of four channels and five columns two rows, of six channels one, of
    the two maps all three. Input axons: positions of the rows that the kernels of a core read."""
    target = toy(tmp_path, neurons_per_core=40, cores_per_chip=16, tiles_x=16)
    loads = map_phase(pencil(), "look", target, rule="power_of_two").mapping.loads
    assert loads.neurons.tolist() == [40, 20, 40, 20, 30, 30, 30, 40, 20, 30]
    assert loads.words.tolist() == [27, 27, 4, 4, 36, 36, 36, 10, 10, 4]
    assert loads.axons_in.tolist() == [40, 30, 10, 5, 10, 15, 10, 20, 10, 15]
    assert loads.groups.tolist() == [1] * 10


@pytest.mark.parametrize(("entries", "breaches"), [(70, []), (69, [("axons_out", "stem", 70, 69)])])
def test_more_destinations_than_the_axon_map_holds(tmp_path: Path, entries: int, breaches: list) -> None:
    mapping = map_phase(pencil(), "look", toy(tmp_path, axon_map_per_core=entries)).mapping
    assert [(b.rule, b.op, b.used, b.limit) for b in mapping.breaches] == breaches
    assert mapping.holds == (not breaches)


def test_axon_slots_of_wide_positions() -> None:
    slots = [
        [FAMILIES[name].axon_slots(channels) for channels in (1, 32, 33, 512, 513, 1024, 1025)] for name in FAMILIES
    ]
    assert dict(zip(FAMILIES, slots)) == {"loihi1": [1, 1, 2, 2, 4, 4, 6], "loihi2": [1] * 7}


def test_pooling_and_interpolation(tmp_path: Path) -> None:
    """Windows of 3 x 3 and bilinear weights: an output row of the factor 2 reads one source row at either end and two
    between, so 2 rows are read 6 times and 4 columns 14 times."""
    b = PhaseBuilder("look", np.random.default_rng(0), {})
    b.inputs["image"] = TensorSpec("image", (1, 3, 6, 12), top=255)
    stem = b.conv("stem", "image", 2, "a", kind="image_conv")
    unit = b.spec(stem).unit
    assert unit is not None
    s = b.ni_lif("s", b.up("up", b.pool("pool", stem, 3, "a"), 2, "a", unit), "a")
    b.outputs["map"] = b.conv("out", s, 1, "a", kind="head_out")
    for key in ("stem.weight", "out.weight"):
        b.arrays[key] = np.ones_like(b.arrays[key])
    phases = {"look": b.finish()}
    program = Program(phases, b.arrays, states_of(phases))
    check_program(program)
    report = map_phase(program, "look", toy(tmp_path, neurons_per_core=300)).to_dict()
    assert report["neurons"] == {"relay": 144 + 16 + 32, "neurons": 64} and report["cores"] == 1
    stem_synapses, pooled, interpolated, out = 72 * 3 * 2, 2 * 8 * 9, 2 * 6 * 14, 32 * 2
    assert report["synapses"] == stem_synapses + pooled + interpolated + out
    # Words: stem 3 x 1, a window of nine 1-bit weights per channel, out 2 x 1. Interpolated by 2, a pixel in the middle
    # of a row or column is read by 4 outputs, the first and the last by 3, each with weights of its own: of 2 rows both
    # are at a border, of 4 columns two are not. So 3 + 3 times 3 + 4 + 3 taps of 7 bits per channel.
    assert report["synaptic_words"] == 3 + 2 * 9 + 2 * (6 * 10) + 2
    assert report["loads"]["axons_in"]["max"] == 72 + 72 + 8 + 32
    whole = map_network(program, toy(tmp_path, neurons_per_core=300))
    assert [one.words for one in whole.arrangements] == [""] and set(whole.chosen.results) == {"steady"}
    assert " with " not in whole.sentence, "a program of one phase shares its chips with nothing"
    lines = counted(report)
    assert lines["relay_synop"] == pytest.approx(pooled + interpolated)
    assert lines["relay_message"] == pytest.approx(144 + 16)


def test_a_product_of_two_live_activations(tmp_path: Path) -> None:
    """Self-attention of 2 heads over 6 positions: 4 channels of q and k, 6 of v; half of each spikes."""
    b = PhaseBuilder("look", np.random.default_rng(0), {})
    b.inputs["image"] = TensorSpec("image", (1, 3, 4, 6), top=255)
    s = b.ni_lif("s", b.conv("stem", "image", 4, "a", 3, 2, 1, kind="image_conv"), "a")
    q, k, v = (b.ni_lif(f"{n}s", b.conv(n, s, wide, "a"), "a") for n, wide in (("q", 4), ("k", 4), ("v", 6)))
    found = b.query("find", q, b.key_value("matrix", k, v, 2, "a"), 2, "a", 0)
    b.outputs["map"] = b.conv("out", b.query_spike("fire", found, "a", 1.0), 2, "a", kind="head_out")
    for key in b.arrays:
        if key.endswith(".weight"):
            b.arrays[key] = np.ones_like(b.arrays[key])
    phases = {"look": b.finish()}
    program = Program(phases, b.arrays, states_of(phases))
    check_program(program)
    report = map_phase(program, "look", toy(tmp_path)).to_dict()
    assert report["neurons"] == {"neurons": 24 + 24 + 24 + 36 + 36, "memory": 12, "relay": 12}
    lines = counted(report)
    # Convolutions 96, 96, 144 and 72 synapses, half visited. Into the matrix go half of the keys with half of the
    # values: 12 pairs a position. A spike of q (half of 4 x 6) meets the 3 entries of its row.
    products = 6 * 12 / 4 + 24 / 2 * 3
    assert lines["synop"] == pytest.approx((96 + 96 + 144 + 72) / 2 + products)
    # The matrix and its query take the 6 positions one after the other: levels 3 and 4 six steps, the others one.
    assert [level["steps"] for level in report["closed_loop"]["levels"]] == [1, 1, 6, 6, 1]
    assert lines["relay_update"] == (12 + 12) * 15 and report["closed_loop"]["elapsed_steps"] == 15
    pipeline = report["pipeline"]
    assert (pipeline["steps_between_results"], pipeline["targets_that_fill_the_pipeline"]) == (6, 3)
    # s 1, q k v 2, matrix 3, fire 4, out 5: the queries wait one step.
    assert (pipeline["levels"], pipeline["longest_delay_steps"], pipeline["delay_neurons"]) == (5, 1, 24)


def test_a_message_of_the_short_way_waits(tmp_path: Path) -> None:
    """stem 1, s1 2, s2 3, s3 4, out 5: what the stem sends to s3 waits two steps, in 2 x 60 relay neurons."""
    pipeline = map_phase(pencil(), "look", toy(tmp_path)).to_dict()["pipeline"]
    pipeline.pop("period_s"), pipeline.pop("results_per_second")
    assert pipeline == {
        "targets_that_fill_the_pipeline": 5,
        "steps_between_results": 1,
        "levels": 5,
        "longest_delay_steps": 2,
        "delay_neurons": 120,
        "stream_messages_beyond_the_counts": 120.0,  # stem to s1 and to s3: the program's counts know neither
    }


# Messages: stem 60 to s1 (core 0), 60 to s3 (core 1); s1 30 to each core; s2 20 from core 0 and 25 from core 1 to s3;
# s3 30 to out. From core 0 to core 1 go 60 + 30 + 20 = 110. Operations: grow 1,092, back 180, out 60.
# Five levels, so every slot is stepped five times: 210 neurons, of which 105 spike once, and 90 stream accumulators.
COUNTS = {
    "synop": 1332, "relay_synop": 120, "mac": 1344, "neuron_idle": 5 * 210 - 105, "neuron_active": 105,
    "relay_update": 5 * 90, "message": 60 + 45 + 30, "relay_message": 120, "hop_ew": 110,
}  # fmt: skip


def test_counts_and_energies(tmp_path: Path) -> None:
    run = map_phase(pencil(), "look", toy(tmp_path)).to_dict()["run"]
    assert {line["price"] for line in run["lines"]} == set(COUNTS)
    for line in run["lines"]:
        count = COUNTS[line["price"]]
        assert line["count"] == pytest.approx(count), line["price"]
        assert close(line["energy_nj"], count * PRICES[line["price"]] / 1000), line["price"]
    whole = sum(count * PRICES[price] for price, count in COUNTS.items()) / 1000
    assert close(run["dynamic_nj"], whole)
    lacking = {item["name"]: item["count"] for item in run["unpriced"]}
    assert lacking == {"chip_steps": 5.0, "entering": 180.0, "barriers": 5.0, "image_way": 180}


def test_words_of_memory_read(tmp_path: Path) -> None:
    """A position and tap reads a row of the core's kernel once for all channels that it holds there, all in one word.

    stem 8 x 14 taps of 3 channels; stem to s1 and to s3 60 each; of grow 52 x (2, 3, 2) by rows, and row 1 lies on both
    cores; back 15 x 6, out 15 x 4. Half of the spikes come."""
    words = 8 * 14 * 3 + 2 * 60 + 52 * (2 + 3 + 3 + 2) / 2 + 15 * 6 / 2 + 15 * 4 / 2
    report = map_phase(pencil(), "look", toy(tmp_path, PRICES | {"synop_word": 1000.0})).to_dict()
    assert report["run"]["counts"]["synaptic_words"] == pytest.approx(words)
    rest = sum(n * PRICES[p] for p, n in COUNTS.items() if p not in ("synop", "mac", "relay_synop")) / 1000
    assert close(report["run"]["structures_nj"]["words"], words + rest), "a word is not charged beside an operation"
    one, other = (report["run"]["structures_nj"][name] for name in ("operations", "words"))
    assert report["run"]["dynamic_nj"] == pytest.approx(
        {"low": min(one["low"], other["low"]), "nominal": one["nominal"], "high": max(one["high"], other["high"])}
    )


def test_the_other_axis_has_another_price(tmp_path: Path) -> None:
    """One column of two routers: the same 110 messages go south, 80 of them while s3 works."""
    report = map_phase(pencil(), "look", toy(tmp_path, PRICES | {"t_hop_ns": 1e4}, tiles_x=1, tiles_y=2)).to_dict()
    lines = {line["price"]: line for line in report["run"]["lines"]}
    assert "hop_ew" not in lines and lines["hop_ns"]["count"] == pytest.approx(110)
    assert close(lines["hop_ns"]["energy_nj"], 110 * 31.0 / 1000)
    level = report["closed_loop"]["levels"][3]
    assert level["set_by"] == "link" and close(level["time_s"], (80 * 1e4 + 1000) * 1e-9)


# Nanoseconds of the levels of ``look``, one run in flight, before the barrier of 1,000: operations x 3 and messages in
# x 7, or slots x 5 (160 of core 0, 140 of core 1, working or not) and messages out x 11, or messages to core 1 x 13.
LEVELS = {
    "stem": (1344 * 3, "synapses"),  # core 0
    "s1": (160 * 5 + 60 * 11, "slots"),  # 60 x 3 + 60 x 7 is less
    "s2": (624 * 3 + 30 * 7, "synapses"),  # core 1; core 0 has 468 operations
    "s3": (160 * 5 + 80 * 11, "slots"),  # core 0 sends; core 1 does 240 operations of 105 messages
    "out": (140 * 5 + 30 * 11, "slots"),  # core 1
}


def test_time_of_a_run_level_after_level(tmp_path: Path) -> None:
    loop = map_phase(pencil(), "look", toy(tmp_path)).to_dict()["closed_loop"]
    assert [level["set_by"] for level in loop["levels"]] == [what for _, what in LEVELS.values()]
    for level, (nanoseconds, _) in zip(loop["levels"], LEVELS.values(), strict=True):
        assert level["steps"] == 1 and close(level["time_s"], (nanoseconds + 1000) * 1e-9)
    assert [level["synops"] for level in loop["levels"]] == pytest.approx([1344, 60, 624, 240, 60])
    assert {level["slots"] for level in loop["levels"]} == {160}
    assert close(loop["latency_s"], sum(n + 1000 for n, _ in LEVELS.values()) * 1e-9)
    assert (loop["elapsed_steps"], loop["substeps"], loop["untimed"]) == (5, 1, [])


def test_interleaved_targets_fill_the_levels(tmp_path: Path) -> None:
    """Five targets, one a level: every core does the work of all levels in each step, core 0 1,872 operations and 90
    messages; what is then charged is one step for each."""
    found = map_network(pencil(), toy(tmp_path), sharing="turns")
    pipe = found.report.to_dict()["pipeline"]
    assert close(pipe["period_s"], (1872 * 3 + 90 * 7 + 1000) * 1e-9)
    assert pipe["targets_that_fill_the_pipeline"] == 5
    (many,) = [change for change in found.changes if "interleaved" in change.what]
    stepped = {"neuron_idle": 5 * 210 - 105, "relay_update": 450}
    saved = sum(count * PRICES[price] * 4 / 5 for price, count in stepped.items()) / 1000
    assert many.cost.dynamic.nominal == pytest.approx(found.report.run.dynamic(found.profile).nominal - saved)
    assert many.cost.static.nominal == pytest.approx(found.chosen.chips * 0.25 * pipe["period_s"]["nominal"] * 1e9)


@pytest.mark.parametrize("slow", ["t_neuron", "t_hop_ew"])
def test_the_slowest_part_sets_the_pace(tmp_path: Path, slow: str) -> None:
    loop = map_phase(pencil(), "look", toy(tmp_path, PRICES | {slow: 1e4})).to_dict()["closed_loop"]
    part, nanoseconds = {"t_neuron": ("slots", 1.6e6 + 80 * 11), "t_hop_ew": ("link", 80 * 1e4)}[slow]
    assert loop["levels"][3]["set_by"] == part == loop["set_by"]
    assert close(loop["levels"][3]["time_s"], (nanoseconds + 1000) * 1e-9)


def test_what_has_no_time_is_stated_and_never_zero(tmp_path: Path) -> None:
    prices = {name: value for name, value in PRICES.items() if not name.startswith("t_") and name != "hop_ew"}
    found = map_network(pencil(), toy(tmp_path, prices), sharing="turns")
    report = found.report.to_dict()
    assert report["closed_loop"]["untimed"] == ["t_synop", "t_slot_microcode", "t_barrier_chip"]
    assert found.camera() == ("At 30 frames a second: not known, toy has no time for what happens.",)
    assert report["pipeline"]["results_per_second"] is None
    lacking = {item["name"]: (item["count"], item["reason"]) for item in report["run"]["unpriced"]}
    assert lacking["hops_ew"] == (110.0, "hops east-west: no price hop_ew in toy")


def test_what_a_result_takes_and_costs(tmp_path: Path) -> None:
    """15.3 us on the chip, 180 pixels of 1 ms each: at 30 frames a second the chip is powered for 33 ms by itself, and
    for the 180 ms of the image's way with it; the board beside it for as long."""
    target = toy(tmp_path, PRICES | {"t_image": 1e6, "board_power": 1000.0})
    found = map_network(pencil(), target, sharing="turns")
    steady = found.chosen.results["steady"]
    own, other = (found.phases[name].loop.latency.nominal for name in ("look", "other"))
    assert own == pytest.approx(sum(n + 1000 for n, _ in LEVELS.values()) * 1e-9)
    assert steady.on_chip.nominal == pytest.approx(own + other) and steady.chips == found.chosen.chips == 5
    pixels = found.phases["look"].run.entering + found.phases["other"].run.entering
    assert steady.image.nominal == pytest.approx(pixels * 1e-3)
    assert steady.latency.nominal == pytest.approx(pixels * 1e-3 + own + other)
    assert steady.static.nominal == pytest.approx(5 * 0.25 / 30 * 1e9)
    assert steady.static.nominal + steady.input.nominal == pytest.approx(5 * 0.25 * steady.latency.nominal * 1e9)
    assert steady.board.nominal == pytest.approx(5 * 1.0 * steady.latency.nominal * 1e9)
    assert steady.total.nominal == pytest.approx(steady.dynamic.nominal + 5 * 0.25 * steady.latency.nominal * 1e9)
    alone, way = found.camera()
    assert "the chips alone: yes" in alone and "with it no, " in way


def test_chips_of_one_core_each(tmp_path: Path) -> None:
    """Messages between chips, the longer barrier, a slow link between them; the whole on one chip in two turns."""
    target = toy(tmp_path, PRICES | {"t_link": 1e4}, cores_per_chip=1, tiles_x=1)
    report = map_phase(pencil(), "look", target).to_dict()
    assert (report["chips"], report["holds"], report["chips_available"]) == (2, True, None)
    lacking = {item["name"]: item["count"] for item in report["run"]["unpriced"]}
    assert lacking["chip_crossings"] == pytest.approx(110) and lacking["chip_steps"] == 2 * 5
    levels = report["closed_loop"]["levels"]
    assert [level["crossing"] for level in levels] == pytest.approx([0, 0, 30, 80, 0])
    assert [level["set_by"] for level in levels] == ["synapses", "barrier", "chip link", "chip link", "barrier"]
    assert close(levels[0]["time_s"], (1344 * 3 + 4000) * 1e-9)
    assert close(levels[3]["time_s"], (80 * 1e4 + 4000) * 1e-9)
    # Kept between turns: what core 0 alone holds and core 1 reads, stem and s1; every word of 8 bytes is loaded again.
    turns = report["in_turns"]
    assert (turns["turns_per_frame"], turns["values_kept_between_turns"]) == (2, 120)
    assert turns["weight_bytes_reloaded_per_frame"] == 117 * 8


@pytest.mark.parametrize(("per_chip", "own", "turns"), [(1, 11, 9), (2, 6, 5), (4, 4, 3), (9, 2, 1), (11, 2, 1)])
def test_chips_of_both_phases(tmp_path: Path, per_chip: int, own: int, turns: int) -> None:
    """``other``: (9 + 2) x 12 rows of 10 neurons, 16 rows a core, so 9 cores beside the 2 of ``look``, on other chips,
    on the same ones, or on the host with all its operations."""
    found = map_network(pencil(), toy(tmp_path, cores_per_chip=per_chip, tiles_x=per_chip))
    other = found.phases["other"].mapping
    assert (other.network.slots, other.cores) == ({"neurons": 1080, "relay": 240}, 9)
    arranged = {one.sharing: one for one in found.arrangements}
    assert (arranged["own"].chips, arranged["turns"].chips) == (own, turns)
    assert found.chosen is arranged["own"], "a phase of every result has its own chips if there are any"
    operations = len(pencil().phases["other"].ops)
    host = arranged["host"]
    assert (host.chips, host.host_operations, host.fits) == (-(-2 // per_chip), operations, False)
    assert host.answer == f"needs a host for {operations} operations beside"
    assert host.results["steady"].phases == ("look",)


def test_usable_cores_and_both_rules_are_a_band_of_chips(tmp_path: Path) -> None:
    """Of four cores three or two are usable: the 2 and 9 cores of the phases take 1 + 3 or 1 + 5 chips."""
    target = toy(tmp_path, cores_per_chip=4, tiles_x=4)
    text = (tmp_path / "toy.toml").read_text()
    usable = 'usable_cores_per_chip = { value = 2, low = 2, high = 3, unit = "cores", tag = "assumed", source = "toy" }'
    (tmp_path / "toy.toml").write_text(text.replace("[limits]", f"[limits]\n{usable}"))
    found = map_network(pencil(), Target("toy", load_profile(str(tmp_path / "toy.toml"))))
    by_rule = found.cores_by_rule
    most = sum(-(-by_rule[name]["power_of_two"] // 2) for name in ("look", "other"))
    assert found.chosen.chips == 1 + 5 and found.chosen.band == (1 + 3, most)
    assert f"[4 .. {most}]" in found.sentence and target.profile.limits["cores_per_chip"].value == 4


def test_words_state_and_axons_share_a_cores_memory(tmp_path: Path) -> None:
    """Core 0 holds 67 words, 160 neurons and 90 axons: 8 x 67 + 3 x 160 + 2 x 90 = 1,196 bytes, a row less is less."""

    def cores(memory: int) -> list[int]:
        target = toy(tmp_path, cores_per_chip=4, tiles_x=4)
        extra = {"memory_per_core": memory, "neuron_state_bytes": 3, "input_axon_bytes": 2}
        lines = [f'{n} = {{ value = {v}, unit = "bytes", tag = "assumed", source = "toy" }}' for n, v in extra.items()]
        path = tmp_path / "toy.toml"
        path.write_text(path.read_text().replace("[limits]", "\n".join(["[limits]", *lines])))
        mapping = map_phase(pencil(), "look", Target(target.name, load_profile(str(path)))).mapping
        assert not [d for d in defects(mapping, pencil()) if "bytes" in d]
        return mapping.loads.neurons.tolist()

    assert cores(1196) == [160, 140]
    assert max(cores(1195)) < 160 and sum(cores(1195)) == 300


def test_an_even_split(tmp_path: Path) -> None:
    """No core above the mean of 2,796 / 2 operations: core 0 takes the stem's 1,344 and ten rows of s1 (5 each), core 1
    the rest up to 160 neurons, ``out`` is alone. Twice the mean is no limit here."""
    target = toy(tmp_path)
    plain = map_phase(pencil(), "look", target).to_dict()["balance"]
    assert plain == {
        "synops_busiest_core": 1872.0,
        "synops_mean_core": 1398.0,
        "ratio": pytest.approx(1872 / 1398),
        "even": {"balance": 2.0, "cores": 2, "chips": 1, "synops_busiest_core": 1872.0},
    }
    even = map_phase(pencil(), "look", target, balance=1.0)
    assert even.mapping.synapses.synops.tolist() == [1394.0, 1342.0, 60.0]
    assert even.mapping.loads.neurons.tolist() == [110, 160, 30] and even.to_dict()["chips"] == 2


def test_what_would_help_on_a_board_of_one_small_chip(tmp_path: Path) -> None:
    """Two cores are needed and one is there. Half the channels are 30 + 30 + 45 + 30 + 30 neurons (the maps stay), a
    quarter 15 + 15 + 30 + 15 + 30; three quarters of the side give 2 x 4 positions: 160 neurons, exactly one core."""
    report = map_phase(pencil(), "look", toy(tmp_path, chips=1, cores_per_chip=1, tiles_x=1)).to_dict()
    assert not report["holds"] and report["chips_available"] == 1
    (breach,) = [b for b in report["breaches"] if b["fatal"]]
    assert (breach["rule"], breach["used"], breach["limit"], breach["over_by"]) == ("chips", 2, 1, 1)
    assert "largest layer s2" in breach["op"]
    assert [(fix["change"], fix["cores"], fix["chips"], fix["fits"]) for fix in report["fixes"]] == [
        ("channels x 0.75", 2, 2, False),
        ("channels x 0.5", 2, 2, False),
        ("channels x 0.25", 1, 1, True),
        ("crop side x 0.75", 1, 1, True),
        ("weights of 4 bits", 2, 2, False),
        ("more chips", 2, 2, True),
    ]


def test_binary_spikes_travel_one_by_one(tmp_path: Path) -> None:
    """Four sub-steps and a mean spike of 2.5: what a spike does happens 2.5 times, streams and the barrier apart."""
    prices = {name: value for name, value in PRICES.items() if name not in ("synop", "message")}
    report = map_phase(
        pencil(), "look", toy(tmp_path, prices | {"unit_op": 3.0, "unit_message": 13.0}, "loihi1", substeps=4)
    ).to_dict()
    assert counted(report) == pytest.approx(
        {
            "unit_op": 1332 * 2.5,
            "relay_synop": 120,
            "mac": 1344,
            "neuron_idle": 210 * 4 * 5 - 105 * 2.5,
            "neuron_active": 105 * 2.5,
            "relay_update": 90 * 4 * 5,
            "unit_message": 135 * 2.5,
            "relay_message": 120,
            "hop_ew": 110 * 2.5,
        }
    )
    loop = report["closed_loop"]
    assert (loop["elapsed_steps"], [level["steps"] for level in loop["levels"]]) == (20, [4] * 5)
    # s2: 624 operations of 30 messages on core 1, or 60 messages out of core 0, both 2.5 times and in four sub-steps.
    s2 = max((624 * 3 + 30 * 7) * 2.5, 4 * 160 * 5 + 60 * 2.5 * 11) + 4 * 1000
    assert loop["levels"][2]["time_s"]["nominal"] == pytest.approx(s2 * 1e-9)


MEASURED = {
    "stem": {"macs": 1000, "events": 100}, "s1": {"neuron_updates": 60, "neuron_spiking": 20},
    "grow": {"events": 20, "input_size": 60, "synops": 700, "unit_ops": 1400},
    "s2": {"neuron_updates": 90, "neuron_spiking": 45},
    "back": {"events": 45, "input_size": 90, "synops": 200, "unit_ops": 300}, "sum": {"relays": 15, "relay_synops": 15},
    "s3": {"neuron_updates": 60, "neuron_spiking": 15},
    "out": {"events": 15, "input_size": 60, "synops": 40, "unit_ops": 100},
}  # fmt: skip


@pytest.mark.parametrize("runs", [1, 4])
def test_counts_of_a_run_take_the_place_of_the_density(tmp_path: Path, runs: int) -> None:
    """A third of s1, half of s2, a quarter of s3 and of the stem's values are sent; sums of several runs are divided.

    From core 0 to core 1: 15 values of the stem, 20 spikes of s1, half of the 40 neurons of s2 there: 55."""
    program = pencil()
    counts = [
        LayerCounts(op.name, op.kind, op.block, {key: n * runs for key, n in MEASURED[op.name].items()}, runs)
        for op in program.phases["look"].ops
    ]
    report = map_phase(program, "look", toy(tmp_path), counts=counts).to_dict()
    assert counted(report) == pytest.approx(
        {
            "synop": 940,
            "relay_synop": 15 + 15,
            "mac": 1000,
            "neuron_idle": 5 * 210 - 80,
            "neuron_active": 80,
            "relay_update": 5 * 90,
            "message": 2 * 20 + 45 + 15,
            "relay_message": 15 + 15,
            "hop_ew": 55,
        }
    )
    assert report["pipeline"]["stream_messages_beyond_the_counts"] == pytest.approx(30)
    assert report["run"]["activity"] == "counts of a run"
    # The busiest core of s2: 1,248 of grow's 2,184 synapses, 20 messages of s1.
    level = report["closed_loop"]["levels"][2]
    assert level["synops"] == pytest.approx(700 * 1248 / 2184)
    wanted = max(level["synops"] * 3 + 20 * 7, 160 * 5 + 40 * 11) + 1000
    assert level["time_s"]["nominal"] == pytest.approx(wanted * 1e-9)


def test_another_run_of_the_same_phase_keeps_its_cores(tmp_path: Path) -> None:
    """Counts of one frame on the cores of the mean: what the mapper counts of it alone, but for hops (of all alike)."""
    program = pencil()
    mean, found = map_phase(program, "look", toy(tmp_path)), MEASURED
    layers = [LayerCounts(op.name, op.kind, op.block, found[op.name]) for op in program.phases["look"].ops]
    alone = map_phase(program, "look", toy(tmp_path), counts=layers).run.counts
    again = mean.rerun(program.arrays, layers).counts
    assert {k: v for k, v in again.items() if k not in ("hops_ew", "chip_ns")} == pytest.approx(
        {k: v for k, v in alone.items() if k not in ("hops_ew", "chip_ns")}
    )
    assert again["hops_ew"] == pytest.approx(110 * (100 + 30) / (135 + 120))


def test_measured_spikes_have_a_mean_value(tmp_path: Path) -> None:
    """1,800 unit operations in 940: on a chip of binary spikes, 100 spike messages are 100 x 1,800 / 940."""
    program = pencil()
    counts = [LayerCounts(op.name, op.kind, op.block, MEASURED[op.name]) for op in program.phases["look"].ops]
    prices = {name: value for name, value in PRICES.items() if name not in ("synop", "message")}
    target = toy(tmp_path, prices | {"unit_op": 3.0, "unit_message": 13.0}, "loihi1", substeps=4)
    lines = counted(map_phase(program, "look", target, counts=counts).to_dict())
    assert lines["unit_op"] == pytest.approx(1800)
    assert lines["unit_message"] == pytest.approx(100 * 1800 / 940)
    assert lines["hop_ew"] == pytest.approx(55 * 1800 / 940)


def test_time_steps_are_unrolled(tmp_path: Path) -> None:
    """Two steps: each neuron's second step waits for its first, so s1, s2, s3, out come one level later; the stem's
    messages wait 2 steps in step 0, and 1 (to s1) and 3 (to s3) in step 1: 60 x (2 + 3) relay neurons."""
    program, target = pencil(steps=2), toy(tmp_path, cores_per_chip=8, tiles_x=8)
    report = map_phase(program, "look", target).to_dict()
    assert report["neurons"] == {"relay": 180, "neurons": 420}
    assert report["synapses"] == 2 * 4128 + 210  # a membrane is handed over by one synapse each
    fading = np.concatenate([program.arrays["back.weight"], 0 * program.arrays["back.weight"]])
    own = {
        **program.arrays,
        "back.weight": fading,
        "back.shift": np.zeros((2, 4), int),
        "back.bias": np.zeros((2, 4), int),
    }
    assert map_phase(replace(program, arrays=own), "look", target).to_dict()["synapses"] == 2 * 4128 + 210 - 360
    assert report["pipeline"]["levels"] == 6
    assert (report["pipeline"]["longest_delay_steps"], report["pipeline"]["delay_neurons"]) == (3, 300)
    assert report["pipeline"]["stream_messages_beyond_the_counts"] == 2 * 120 + 210


def test_places_hops_and_bound_are_recounted(tmp_path: Path) -> None:
    """30 cores of 10 neurons, two to a router, 2 x 2 routers to a chip: every message is walked, and a core's partners
    are seated as near as any placement can: one on its own router, 8 at one hop, 16 at two, and so on."""
    target = toy(tmp_path, neurons_per_core=10, cores_per_chip=8, cores_per_tile=2, tiles_x=2, tiles_y=2)
    found = map_phase(pencil(), "look", target)
    mapping, report = found.mapping, found.to_dict()
    flow, at = mapping.traffic, mapping.placement
    assert (mapping.cores, mapping.chips) == (30, 4)
    seats: dict[tuple[int, int], int] = {}
    east = south = crossing = 0.0
    pairs: dict[tuple[int, int], float] = {}
    for core in range(mapping.cores):
        seats[int(at.x[core]), int(at.y[core])] = seats.get((int(at.x[core]), int(at.y[core])), 0) + 1
    assert max(seats.values()) <= 2
    for a, b, messages in zip(flow.source.tolist(), flow.target.tolist(), flow.messages.tolist()):
        east += messages * abs(int(at.x[a]) - int(at.x[b]))
        south += messages * abs(int(at.y[a]) - int(at.y[b]))
        crossing += messages if at.chip[a] != at.chip[b] else 0
        if a != b:
            for pair in ((a, b), (b, a)):
                pairs[pair] = pairs.get(pair, 0.0) + messages
    assert east > 0 and south > 0 and crossing > 0
    counts, placement = report["run"]["counts"], report["placement"]
    assert (counts["hops_ew"], counts["hops_ns"]) == pytest.approx((east, south))
    assert counts["chip_crossings"] == pytest.approx(crossing)
    nearest = [0] + [distance for distance in range(1, 9) for _ in range(4 * distance * 2)]
    bound = 0.0
    for core in range(mapping.cores):
        partners = sorted((w for (a, _), w in pairs.items() if a == core), reverse=True)
        bound += sum(w * distance for w, distance in zip(partners, nearest)) / 2
    assert placement["weighted_hops"] == pytest.approx(east + south)
    assert placement["lower_bound_hops"] == pytest.approx(bound) and bound > 0
    assert placement["gap_to_lower_bound"] == pytest.approx((east + south) / bound - 1)
    # Program order, chip by chip, router by router; of 2 x 2 chips the third lies below the second: rows turn.
    column = [2 * (0, 1, 1, 0)[n // 8] + n % 8 // 2 % 2 for n in range(mapping.cores)]
    row = [2 * (n // 16) + n % 8 // 4 for n in range(mapping.cores)]
    ordered = sum(w * (abs(column[a] - column[b]) + abs(row[a] - row[b])) for (a, b), w in pairs.items()) / 2
    assert placement["row_major_hops"] == pytest.approx(ordered)
    assert placement["saved_over_row_major"] == pytest.approx(1 - (east + south) / ordered)
    assert (placement["chips_x"], placement["chips_y"]) == (2, 2)
    for x, y, chip in zip(at.x.tolist(), at.y.tolist(), at.chip.tolist()):
        assert (x // 2, y // 2) == ((0, 0), (1, 0), (1, 1), (0, 1))[chip], "a core lies on another chip's routers"


def test_a_stored_matrix_is_as_wide_as_what_wrote_it(tmp_path: Path) -> None:
    """Written from 5 x 6 positions, an entry reaches 16 x 30 = 480: ten bits with the sign, whoever queries it. A chip
    of 8-bit weights chains two synapses for each, and two rows of 8 bits take their words."""
    memory = TensorSpec("memory", (1, 2, 2, 3), scale=1 / 16)
    write = Op("kv", "key_value", ("k", "v"), "b", {"heads": 2})
    read = Op("find", "query", ("q", "matrix"), "b", {"heads": 2, "shift": 0})
    fire = Op("fire", "ni_lif", ("find",), "b", {"steps": 1}, {"thresholds": "thresholds"})
    stream = TensorSpec("stream", (1, 6, 2, 3), None, 0.1)
    sides = {"k": spikes((1, 4, 5, 6)), "v": spikes((1, 6, 5, 6))}
    values = {"find": stream, "fire": spikes(stream.shape)}
    phases = {
        "store": Phase("store", sides, (write,), {"kv": memory}, {"matrix": "kv"}),
        "look": Phase("look", {"q": spikes((1, 4, 2, 3)), "matrix": memory}, (read, fire), values, {"seen": "fire"}),
    }
    program = Program(phases, {"thresholds": np.array([[1, 2, 3, 4]])}, states_of(phases))
    check_program(program)
    report = map_phase(program, "look", toy(tmp_path)).to_dict()
    (breach,) = report["breaches"]
    assert (breach["rule"], breach["used"], breach["limit"], breach["fatal"]) == ("weight_bits", 10, 8, False)
    # Four channels of q, each with one head's three outputs: two chained words of ceil((3 x 9 + 10) / 64) each.
    assert report["synaptic_words"] == 4 * 2
    # Spikes from outside are spikes: 36 outputs of two synapses each, half of them visited; no pixel, no product.
    assert counted(report)["synop"] == pytest.approx(36) and "mac" not in counted(report)
