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

import numpy as np
import pytest
from _programs import PhaseBuilder, spikes

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.report import map_phase
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
    units = {"static_power": "mW"} | {name: "ns" for name in prices if name.startswith("t_")}
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


def close(data: dict[str, float], nominal: float) -> bool:
    """A band from half to double."""
    return data == pytest.approx({"low": nominal / 2, "nominal": nominal, "high": nominal * 2})


def test_cores_and_loads(tmp_path: Path) -> None:
    report = map_phase(pencil(), "look", toy(tmp_path)).to_dict()
    assert (report["fits"], report["cores"], report["chips"]) == (True, 2, 1)
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
    assert mapping.loads.neurons.tolist() == neurons and mapping.fits


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
    assert mapping.fits == (not breaches)


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
    # Words: stem 3 x 1, a window of nine 1-bit weights per channel, 4 x 4 taps of 7 bits per channel, out 2 x 1.
    assert report["synaptic_words"] == 3 + 2 * 9 + 2 * 16 + 2
    assert report["loads"]["axons_in"]["max"] == 72 + 72 + 8 + 32
    lines = {line["name"]: line["count"] for line in report["energy"]["lines"]}
    assert lines["stream synapses"] == pytest.approx(pooled + interpolated)
    assert lines["stream messages, every destination core"] == pytest.approx(144 + 16)


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
    lines = {line["name"]: line["count"] for line in report["energy"]["lines"]}
    # Convolutions 96, 96, 144 and 72 synapses, half visited. Into the matrix go half of the keys with half of the
    # values: 12 pairs a position. A spike of q (half of 4 x 6) meets the 3 entries of its row.
    products = 6 * 12 / 4 + 24 / 2 * 3
    assert lines["synaptic operations"] == pytest.approx((96 + 96 + 144 + 72) / 2 + products)
    assert lines["stream neuron updates"] == 12 + 12
    # s 1, q k v 2, matrix 3, fire 4, out 5: the queries wait one step.
    pipeline = report["pipeline"]
    assert (pipeline["depth_steps"], pipeline["longest_delay_steps"], pipeline["delay_neurons"]) == (5, 1, 24)


def test_a_message_of_the_short_way_waits(tmp_path: Path) -> None:
    """stem 1, s1 2, s2 3, s3 4, out 5: what the stem sends to s3 waits two steps, in 2 x 60 relay neurons."""
    pipeline = map_phase(pencil(), "look", toy(tmp_path)).to_dict()["pipeline"]
    assert pipeline == {
        "depth_steps": 5,
        "longest_delay_steps": 2,
        "delay_neurons": 120,
        "stream_messages_beyond_the_counts": 120.0,  # stem to s1 and to s3: the program's counts know neither
    }


# Messages: stem 60 to s1 (core 0), 60 to s3 (core 1); s1 30 to each core; s2 20 from core 0 and 25 from core 1 to s3;
# s3 30 to out. From core 0 to core 1 go 60 + 30 + 20 = 110. Operations: grow 1,092, back 180, out 60.
COUNTS = {
    "synaptic operations": ("synop", 1332), "stream synapses": ("relay_synop", 120),
    "image multiply-accumulates": ("mac", 1344), "idle neuron updates": ("neuron_idle", 105),
    "spiking neuron updates": ("neuron_active", 105), "stream neuron updates": ("relay_update", 90),
    "spike messages, every destination core": ("message", 60 + 45 + 30),
    "stream messages, every destination core": ("relay_message", 120), "hops east-west": ("hop_ew", 110),
    "hops north-south": ("hop_ns", 0),
}  # fmt: skip


def test_counts_and_energies(tmp_path: Path) -> None:
    energy = map_phase(pencil(), "look", toy(tmp_path)).to_dict()["energy"]
    assert {line["name"] for line in energy["lines"]} == set(COUNTS)
    for line in energy["lines"]:
        price, count = COUNTS[line["name"]]
        assert line["count"] == pytest.approx(count), line["name"]
        assert close(line["energy_nj"], count * PRICES[price] / 1000), line["name"]
    whole = sum(count * PRICES[price] for price, count in COUNTS.values()) / 1000
    assert close(energy["dynamic_nj"], whole)
    assert (energy["hops_east_west"], energy["hops_north_south"], energy["chips_powered"]) == (110.0, 0.0, 1)
    assert close(energy["static_camera_frame_nj"], 0.25 / 30 * 1e9)
    # Watts and seconds are both half or double: a quarter and four times.
    assert energy["static_full_speed_nj"] == pytest.approx(
        {"low": 0.25 * 7246 / 4, "nominal": 0.25 * 7246, "high": 0.25 * 7246 * 4}
    )
    assert energy["dominant_at_camera_rate"] == "static power"
    lacking = {item["name"]: item["count"] for item in energy["unpriced"]}
    assert lacking == {"pixels entering from the host": 180.0, "barriers": 1.0}


def test_the_other_axis_has_another_price(tmp_path: Path) -> None:
    """One column of two routers: the same 110 messages go south."""
    report = map_phase(pencil(), "look", toy(tmp_path, tiles_x=1, tiles_y=2)).to_dict()
    lines = {line["name"]: line for line in report["energy"]["lines"]}
    assert lines["hops east-west"]["count"] == 0 and lines["hops north-south"]["count"] == pytest.approx(110)
    assert close(lines["hops north-south"]["energy_nj"], 110 * 31.0 / 1000)
    link = next(cause for cause in report["latency"]["causes"] if cause["cause"] == "link")
    assert link["where"].startswith(("link south", "link north")) and close(link["time_s"], 110 * 17e-9)


def test_time_of_a_step(tmp_path: Path) -> None:
    """Core 0: 1,344 + 60 + 936 / 2 operations and 90 messages in, 160 updates and 200 messages out."""
    time = map_phase(pencil(), "look", toy(tmp_path)).to_dict()["latency"]
    causes = {cause["cause"]: cause for cause in time["causes"]}
    expected = {
        "synapses": (1872, 1872 * 3 + 90 * 7),
        "neurons": (160, 160 * 5 + 200 * 11),
        "link": (110, 110 * 13),
        "barrier": (1, 1000),
    }
    assert set(causes) == set(expected)
    for name, (amount, nanoseconds) in expected.items():
        assert causes[name]["amount"] == pytest.approx(amount), name
        assert close(causes[name]["time_s"], nanoseconds * 1e-9), name
    assert causes["synapses"]["where"] == "core 0 on chip 0: stem, s1 and 1 more"
    assert time["bottleneck"]["cause"] == "synapses"
    step = (1872 * 3 + 90 * 7 + 1000) * 1e-9
    assert close(time["step_s"], step) and close(time["frame_latency_s"], 5 * step)
    assert close(time["pipelined_frames_per_second"], 1 / step)
    assert (time["depth_steps"], time["substeps"]) == (5, 1)
    assert time["fall_through_frames_per_second"] == pytest.approx(1 / (5 * step))


@pytest.mark.parametrize("slow", ["t_neuron", "t_hop_ew"])
def test_the_slowest_part_sets_the_pace(tmp_path: Path, slow: str) -> None:
    time = map_phase(pencil(), "look", toy(tmp_path, PRICES | {slow: 1000.0})).to_dict()["latency"]
    part, nanoseconds = {"t_neuron": ("neurons", 162_200), "t_hop_ew": ("link", 110_000)}[slow]
    assert time["bottleneck"]["cause"] == part
    assert close(time["step_s"], (nanoseconds + 1000) * 1e-9)


def test_what_has_no_time_is_stated_and_never_zero(tmp_path: Path) -> None:
    prices = {name: value for name, value in PRICES.items() if not name.startswith("t_") and name != "hop_ew"}
    report = map_phase(pencil(), "look", toy(tmp_path, prices)).to_dict()
    assert all(cause["time_s"] is None and cause["amount"] > 0 for cause in report["latency"]["causes"])
    assert report["latency"]["bottleneck"] is None and report["latency"]["pipelined_frames_per_second"] is None
    lacking = {item["name"]: (item["count"], item["reason"]) for item in report["energy"]["unpriced"]}
    assert lacking["hops east-west"] == (110.0, "no price hop_ew in toy")


def test_chips_of_one_core_each(tmp_path: Path) -> None:
    """Messages between chips, the longer barrier, static power of both chips; the whole on one chip in two turns."""
    target = toy(tmp_path, cores_per_chip=1, tiles_x=1)
    report = map_phase(pencil(), "look", target).to_dict()
    assert (report["chips"], report["fits"], report["chips_available"]) == (2, True, None)
    energy, time = report["energy"], report["latency"]
    assert next(i["count"] for i in energy["unpriced"] if i["name"] == "messages between chips") == pytest.approx(110)
    assert close(energy["static_camera_frame_nj"], 2 * 0.25 / 30 * 1e9) and energy["chips_powered"] == 2
    assert close(time["step_s"], (1872 * 3 + 90 * 7 + 4000) * 1e-9)
    assert time["causes"][-1]["where"] == "2 chips"
    # Kept between turns: what core 0 alone holds and core 1 reads, stem and s1; every word of 8 bytes is loaded again.
    turns = report["in_turns"]
    assert (turns["turns_per_frame"], turns["values_kept_between_turns"]) == (2, 120)
    assert turns["weight_bytes_reloaded_per_frame"] == 117 * 8


@pytest.mark.parametrize(("per_chip", "alone", "together"), [(1, 9, 11), (2, 5, 6), (4, 3, 3), (9, 1, 2), (11, 1, 1)])
def test_chips_of_both_phases(tmp_path: Path, per_chip: int, alone: int, together: int) -> None:
    """``other``: (9 + 2) x 12 rows of 10 neurons, 16 rows a core, so 9 cores beside the 2 of ``look``."""
    report = map_phase(pencil(), "look", toy(tmp_path, cores_per_chip=per_chip, tiles_x=per_chip)).to_dict()
    (other,) = report["other_phases"]
    assert (other["phase"], other["neurons"], other["cores"]) == ("other", {"neurons": 1080, "relay": 240}, 9)
    assert (other["chips_alone"], other["chips_together"]) == (alone, together)


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
    assert not report["fits"] and report["chips_available"] == 1
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
    lines = {line["name"]: line["count"] for line in report["energy"]["lines"]}
    assert lines == pytest.approx(
        {
            "synaptic operations": 1332 * 2.5,
            "stream synapses": 120,
            "image multiply-accumulates": 1344,
            "idle neuron updates": 210 * 4 - 105 * 2.5,
            "spiking neuron updates": 105 * 2.5,
            "stream neuron updates": 90,
            "spike messages, every destination core": 135 * 2.5,
            "stream messages, every destination core": 120,
            "hops east-west": 110 * 2.5,
            "hops north-south": 0,
        }
    )
    causes = {cause["cause"]: cause["time_s"]["nominal"] for cause in report["latency"]["causes"]}
    assert causes == pytest.approx(
        {
            "synapses": (1872 * 3 + 90 * 7) * 2.5e-9,
            "neurons": (160 * 4 * 5 + 200 * 2.5 * 11) * 1e-9,
            "link": 110 * 2.5 * 13e-9,
            "barrier": 4 * 1e-6,
        }
    )


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
    lines = {line["name"]: line["count"] for line in report["energy"]["lines"]}
    assert lines == pytest.approx(
        {
            "synaptic operations": 940,
            "stream synapses": 15 + 15,
            "image multiply-accumulates": 1000,
            "idle neuron updates": 210 - 80,
            "spiking neuron updates": 80,
            "stream neuron updates": 90,
            "spike messages, every destination core": 2 * 20 + 45 + 15,
            "stream messages, every destination core": 15 + 15,
            "hops east-west": 55,
            "hops north-south": 0,
        }
    )
    assert report["pipeline"]["stream_messages_beyond_the_counts"] == pytest.approx(30)
    assert report["energy"]["activity"] == "counts of a run"
    # The busiest core: the stem, its 15 values in s1, and 936 of grow's 2,184 synapses; 15 + 20 messages enter it.
    synapses = report["latency"]["causes"][0]
    assert synapses["amount"] == pytest.approx(1000 + 15 + 700 * 936 / 2184)
    assert synapses["time_s"]["nominal"] == pytest.approx((synapses["amount"] * 3 + 35 * 7) * 1e-9)


def test_measured_spikes_have_a_mean_value(tmp_path: Path) -> None:
    """1,800 unit operations in 940: on a chip of binary spikes, 100 spike messages are 100 x 1,800 / 940."""
    program = pencil()
    counts = [LayerCounts(op.name, op.kind, op.block, MEASURED[op.name]) for op in program.phases["look"].ops]
    prices = {name: value for name, value in PRICES.items() if name not in ("synop", "message")}
    target = toy(tmp_path, prices | {"unit_op": 3.0, "unit_message": 13.0}, "loihi1", substeps=4)
    lines = {
        line["name"]: line["count"]
        for line in map_phase(program, "look", target, counts=counts).to_dict()["energy"]["lines"]
    }
    assert lines["synaptic operations"] == pytest.approx(1800)
    assert lines["spike messages, every destination core"] == pytest.approx(100 * 1800 / 940)
    assert lines["hops east-west"] == pytest.approx(55 * 1800 / 940)


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
    assert report["pipeline"]["depth_steps"] == 6
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
    energy, placement = report["energy"], report["placement"]
    assert (energy["hops_east_west"], energy["hops_north_south"]) == pytest.approx((east, south))
    counts = {item["name"]: item["count"] for item in [*energy["lines"], *energy["unpriced"]]}
    assert counts["hops east-west"] == pytest.approx(east) and counts["hops north-south"] == pytest.approx(south)
    assert counts["messages between chips"] == pytest.approx(crossing)
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
    lines = {line["name"]: line["count"] for line in report["energy"]["lines"]}
    assert lines["synaptic operations"] == pytest.approx(36) and not lines["image multiply-accumulates"]
