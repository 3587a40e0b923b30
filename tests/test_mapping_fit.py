"""Does it fit, how fast, what does it cost: breaches, fixes, times, energies, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _mapping import loihi2, map_search, nano_program, official_program, small_program
from _programs import random_inputs

from spiketrack_deploy.cli.main import run
from spiketrack_deploy.cli.map import map_command
from spiketrack_deploy.energy.layers import layer_counts
from spiketrack_deploy.errors import ProfileError, UsageError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.targets import Target, resolve_target
from spiketrack_deploy.mapping.activity import assumed, measured
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.cost import LINES, hops, mapped_counts, mapped_energy
from spiketrack_deploy.mapping.fixes import _fewer_channels, fixes, in_turns
from spiketrack_deploy.mapping.latency import latency
from spiketrack_deploy.mapping.limits import core_limits
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.report import map_phase
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.program.run import run_phase


def counted(program, phase="search"):
    inputs = random_inputs(program, 4)[phase]
    return layer_counts(program.phases[phase].ops, run_phase(program, phase, inputs).counts)


def test_s256_t1_does_not_fit_eight_chips_and_fits_hala_point():
    program = official_program("s256_t1")
    found = map_phase(program, "search", resolve_target("kapoho_point"), rounds=30)
    mapping, report = found.mapping, found.to_dict()
    assert not mapping.fits and not report["fits"] and mapping.chips > mapping.chips_available == 8
    (breach,) = [b for b in report["breaches"] if b["fatal"]]
    assert (breach["rule"], breach["used"], breach["limit"]) == ("chips", mapping.chips, 8)
    assert breach["over_by"] == mapping.chips - 8
    by_change = {fix["change"]: fix for fix in report["fixes"]}
    assert by_change["channels x 0.5"]["cores"] < mapping.cores
    assert any(fix["fits"] for name, fix in by_change.items() if name != "more chips")
    turns = report["in_turns"]
    assert turns["turns_per_frame"] == -(-mapping.cores // (8 * 128))
    assert turns["weight_bytes_reloaded_per_frame"] == 8 * int(mapping.loads.words.sum())
    assert "unknown" in turns["energy"]
    assert map_search(program, load_profile("hala_point"), rounds=5).fits


def test_verdict_names_every_operation_and_what_no_chip_does():
    program = small_program(1, 3)
    mapping = map_search(program, loihi2(), rounds=5)
    assert [v.op for v in mapping.verdicts] == [op.name for op in program.phases["search"].ops]
    by_kind = {v.kind: v for v in mapping.verdicts}
    assert by_kind["conv"].verdict == "native"
    assert by_kind["ni_lif"].verdict == "microcode"
    assert by_kind["gate"].verdict == "host"
    assert "two live activations" in by_kind["key_value"].reason


def test_binary_chip_names_the_missing_graded_messages():
    program = small_program(0, 1)
    mapping = map_search(program, load_profile("loihi1"), rounds=5)
    breach = next(b for b in mapping.breaches if b.rule == "payload_bits")
    assert (breach.used, breach.limit, breach.fatal) == (24, 0, False)
    assert {v.verdict for v in mapping.verdicts if v.kind in ("add", "image_conv")} == {"host"}


def test_network_that_no_chip_holds_says_so():
    """One row of one channel wider than a core: nothing but another network helps."""
    program = small_program(0, 1)
    tiny = loihi2(neurons_per_core=8, neurons_per_core_compiler=8)
    mapping = map_search(program, tiny, rounds=1)
    assert not mapping.fits
    assert {b.rule for b in mapping.breaches if b.fatal} == {"neurons"}
    more = next(f for f in fixes(mapping) if f.change == "more chips")
    assert more.fits is False and "does not help" in more.effect


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"neurons_per_core": 0, "neurons_per_core_compiler": 0}, "neurons_per_core is 0"),
        ({"neurons_per_core": 100}, "exceeds neurons_per_core"),
        ({"synaptic_words_per_core": 20000}, "exceed synaptic_memory_per_core"),
        ({"tiles_x": 1}, "do not hold"),
    ],
)
def test_contradictory_limits_are_refused(changed, message):
    with pytest.raises(ProfileError, match=message):
        core_limits(loihi2(**changed))


def test_a_convention_holds_no_network():
    with pytest.raises(ProfileError, match="families are loihi1, loihi2"):
        core_limits(load_profile("cmos45_fp32"))


def test_unknown_target_lists_chips_and_boards():
    with pytest.raises(UsageError, match=r"'loihi9'.*loihi2.*kapoho_point"):
        resolve_target("loihi9")


def test_step_time_by_hand():
    program = small_program(0, 1)
    profile = loihi2()
    mapping = map_search(program, profile, rounds=5)
    time = latency(mapping, profile)
    synapses = float(mapping.synapses.synops.max()) * 1.0e-9
    neurons = int(mapping.loads.neurons.max()) * 4.2e-9
    barrier = 0.2e-6 if mapping.chips == 1 else 3e-6
    assert time.step.nominal == pytest.approx(max(synapses, neurons) + barrier)
    assert time.bottleneck.what == ("synapses" if synapses > neurons else "neurons")
    assert time.frame.nominal == pytest.approx(time.step.nominal * mapping.network.depth)
    link = next(c for c in time.causes if c.what == "link")
    assert link.time is None and link.amount > 0, "no link rate of Loihi 2 was published: it must not be invented"


def test_binary_chip_runs_substeps():
    program = small_program(0, 1)
    profile = load_profile("loihi1")
    mapping = map_search(program, profile, rounds=5)
    time = latency(mapping, profile)
    assert time.substeps == 4
    neurons = next(c for c in time.causes if c.what == "neurons")
    assert neurons.amount == 4 * mapping.loads.neurons.max()


def test_energy_counts_are_the_programs():
    """Synaptic operations and multiply-accumulates as counted; streams and messages at least as many."""
    program, profile = small_program(1, 3), loihi2()
    counts = counted(program)
    activity = measured(populations(program, "search"), program.arrays, counts)
    mapping = map_search(program, profile, activity=activity, rounds=10)
    happened = mapped_counts(mapping, activity, 1, 2.5)
    lines = {need.what: happened[need.count] for need in LINES}
    gate = {op.name for op in program.phases["search"].ops if op.kind == "gate"}
    assert lines["synaptic operations"] == pytest.approx(sum(c["synops"] for c in counts if c.name not in gate))
    assert lines["image multiply-accumulates"] == pytest.approx(sum(c["macs"] for c in counts))
    assert lines["stream synapses"] >= sum(c["relay_synops"] for c in counts) * (1 - 1e-9)
    updates = sum(c["neuron_updates"] for c in counts)
    assert lines["idle neuron updates"] + lines["spiking neuron updates"] == updates
    assert lines["spiking neuron updates"] == sum(c["neuron_spiking"] for c in counts)
    energy = mapped_energy(mapping, activity, profile, latency(mapping, profile))
    assert energy.dynamic.nominal == pytest.approx(sum(line.energy.nominal for line in energy.lines))
    assert sum(energy.hops) == pytest.approx(mapping.placement.hops)
    assert energy.static_camera.nominal == pytest.approx(mapping.chips * 0.30 / 30 * 1e9)
    missing = {item.name for item in energy.unpriced}
    assert "barriers" in missing and "pixels entering from the host" in missing


def test_every_line_of_a_mapping_is_a_count_times_the_profiles_price():
    """The bill written out once more, on both families, with 1.75 events a spike where spikes are binary."""
    for name, seed, value in (("loihi2", 1, 1.0), ("loihi1", 0, 1.75)):
        profile = load_profile(name)
        program = small_program(seed, 1)
        network = populations(program, "search")
        activity = assumed(network, program.arrays, 0.3)
        mapping = map_search(program, profile, activity=activity, rounds=3)
        energy = mapped_energy(mapping, activity, profile, latency(mapping, profile), 1.75)
        lines = {line.name: line for line in energy.lines}
        flow, at = mapping.traffic, mapping.placement
        walked = [abs(axis[flow.source] - axis[flow.target]) @ flow.messages for axis in (at.x, at.y)]
        steps = 4 if name == "loihi1" else 1
        wanted = {
            "hops east-west": ("hop_ew", walked[0] * value),
            "hops north-south": ("hop_ns", walked[1] * value),
            "spiking neuron updates": ("neuron_active", activity.spiking * value),
            "idle neuron updates": ("neuron_idle", network.slots["neurons"] * steps - activity.spiking * value),
        }
        products = [i for i, s in enumerate(network.synapses) if s.form in ("conv", "matrix", "product")]
        synops = sum(
            activity.synops[i] for i in products if network.populations[network.synapses[i].source].kind != "image"
        )
        wanted["synaptic operations"] = ("unit_op" if steps == 4 else "synop", synops * value)
        for line, (price, count) in wanted.items():
            assert lines[line].count == pytest.approx(count), f"{name}: {line}"
            for end in ("low", "nominal", "high"):
                paid = getattr(profile.price(price), end) * count
                assert getattr(lines[line].energy, end) == pytest.approx(paid), f"{name}: {line}"
        free = {item.name: item for item in energy.unpriced}
        crossing = flow.messages[at.chip[flow.source] != at.chip[flow.target]].sum() * value
        assert "messages between chips" not in free or free["messages between chips"].count == pytest.approx(crossing)
        assert ("stream synapses" in free) == (name == "loihi1"), "a binary chip has no price for a stream"
        assert all(item.per in ("search", "chip") for item in energy.unpriced)


def test_the_cores_of_every_other_phase_are_stated():
    program, target = small_program(2, 3), Target("small", loihi2(neurons_per_core=400, neurons_per_core_compiler=400))
    reports = {name: map_phase(program, name, target, rounds=1) for name in program.phases}
    search, template = (reports[name].mapping for name in ("search", "template"))
    for name, report in reports.items():
        (other,) = report.other_phases
        mapped = reports[other.phase].mapping
        assert other.phase != name and other.cores == mapped.cores and other.chips_alone == mapped.chips
        assert other.chips_together == -(-(search.cores + template.cores) // 128)
        assert other.neurons == mapped.network.slots


def test_fewer_channels_keep_heads_images_and_results():
    """Widths shrink to multiples of the program's own heads; what comes in and goes out keeps its channels."""
    program = small_program(2, 3)
    heads = {op.attrs["heads"] for op in program.phases["search"].ops if "heads" in op.attrs}
    graph = populations(program, "search")
    half = _fewer_channels(graph, 0.5)
    outputs = set(program.phases["search"].outputs.values())
    narrowed = 0
    for before, after in zip(graph.populations, half.populations):
        if before.kind == "image" or before.op in outputs:
            assert after == before
        elif after.channels != before.channels:
            narrowed += 1
            assert all(after.channels % n == 0 for n in heads) and after.channels < before.channels
    assert narrowed and all(s.groups > 0 for s in half.synapses)
    assert split(half, core_limits(loihi2())).neurons.sum() < split(graph, core_limits(loihi2())).neurons.sum()


def test_denser_spikes_cost_more_and_take_longer():
    program, profile = nano_program(), loihi2()
    network = populations(program, "search")
    results = []
    for density in (0.1, 0.9):
        activity = assumed(network, program.arrays, density)
        mapping = map_search(program, profile, activity=activity, rounds=5)
        time = latency(mapping, profile)
        results.append((time.step.nominal, mapped_energy(mapping, activity, profile, time).dynamic.nominal))
        assert hops(mapping)[0] >= 0
    assert results[0][0] < results[1][0] and results[0][1] < results[1][1]


def test_balance_shortens_the_step_and_takes_more_cores():
    program, profile = nano_program(), loihi2()
    plain = map_search(program, profile, rounds=1)
    even = map_search(program, profile, rounds=1, balance=1.5)
    assert even.cores > plain.cores
    assert latency(even, profile).step.nominal < 0.5 * latency(plain, profile).step.nominal
    mean = float(plain.synapses.synops.mean())
    assert even.synapses.synops.max() <= 1.5 * mean * (1 + 1e-9), "no single row of nano exceeds this cap"
    assert even.synapses.nonzero.sum() == plain.synapses.nonzero.sum()
    assert defects(even, program) == []
    with pytest.raises(UsageError, match="at least 1"):
        map_search(program, profile, rounds=1, balance=0.5)
    with pytest.raises(UsageError, match="contiguous rule only"):
        map_search(program, profile, rounds=1, balance=2.0, rule="power_of_two")


def test_no_turns_where_it_fits_at_once():
    mapping = map_search(nano_program(), loihi2(), rounds=1)
    assert in_turns(mapping, 1) is None
    assert in_turns(replace(mapping, loads=mapping.loads), 128) is None


def call(capsys, *args):
    code = run(map_command, "spiketrack map", list(args))
    out, err = capsys.readouterr()
    return code, out, err


def test_command_reports_first_and_then_ends_with_4(capsys):
    code, out, err = call(capsys, "spiketrack-untrained", "--target", "oheo_gulch", "--json")
    report = json.loads(out)
    assert code == 4 and report["fits"] is False and report["chips_available"] == 1
    assert err.startswith("error: spiketrack-untrained does not fit oheo_gulch")
    assert report["energy"]["static_camera_frame_nj"]["nominal"] == pytest.approx(report["chips"] * 1e7)
    code, out, _ = call(capsys, "spiketrack-untrained", "--target", "oheo_gulch")
    assert code == 4 and "Nearest fixes" in out and "In turns on 1 chip" in out


def test_command_maps_to_a_family_with_code_0(capsys):
    code, out, err = call(capsys, "spiketrack-untrained")
    assert code == 0 and err == "" and "fits loihi2" in out and "static, 30 frames/s" in out


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (("spiketrack-untrained", "--target", "loihi9"), 2, "no target 'loihi9'"),
        (("spiketrack-untrained", "--target", "cmos45_fp32"), 3, "nothing can be mapped"),
        (("spiketrack-untrained", "--target", "odin"), 3, "names no family of chips"),
        (("spiketrack-untrained", "--phase", "sideways"), 2, "no phase 'sideways'"),
        (("nowhere.pth",), 3, "no such checkpoint"),
        (("spiketrack-untrained", "--density", "2"), 2, "not in the range"),
    ],
)
def test_bad_input_is_one_sentence(capsys, args, code, part):
    found, out, err = call(capsys, *args)
    assert found == code and part in err and err.count("\n") == 1 and out == ""


def test_report_is_plain_json_and_stable():
    program = small_program(1, 3)
    target = Target("loihi2", loihi2())
    one, two = (map_phase(program, "search", target, rounds=10).to_dict() for _ in range(2))
    assert json.dumps(one, allow_nan=False) == json.dumps(two, allow_nan=False)
    assert np.isfinite(one["energy"]["dynamic_nj"]["nominal"])


def test_benchmark_of_the_sizes_prints_one_object():
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "mapping_sizes.py"
    done = subprocess.run(
        [sys.executable, str(script), "--size", "nano", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (row,) = json.loads(done.stdout)["sizes"]
    assert row["chips"] == 1 and row["cores"] <= 128 and row["core_level_breaches"] == 0
    assert row["static_mj_per_camera_frame"] == pytest.approx(10.0) and row["fits"]["kapoho_point"]
