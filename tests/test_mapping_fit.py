"""Does it fit, how fast, what does it cost: breaches, fixes, times, energies, and the command."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _mapping import loihi2, nano_program, official_program, small_program
from _programs import random_inputs

from spiketrack_deploy.api import chips
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.cli.map import map_command
from spiketrack_deploy.energy.layers import layer_counts
from spiketrack_deploy.errors import ProfileError, UsageError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.mapping.activity import assumed, measured
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.cost import event_counts, hops, mapped_energy
from spiketrack_deploy.mapping.fit import map_program
from spiketrack_deploy.mapping.fixes import fixes, in_turns
from spiketrack_deploy.mapping.latency import latency
from spiketrack_deploy.mapping.limits import core_limits, resolve_target
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.report import mapping_report
from spiketrack_deploy.program.run import run_phase


def counted(program, phase="search"):
    inputs = random_inputs(program, 4)[phase]
    return layer_counts(program.phases[phase].ops, run_phase(program, phase, inputs).counts)


def test_s256_t1_does_not_fit_eight_chips_and_fits_hala_point():
    program = official_program("s256_t1")
    point, chips = resolve_target("kapoho_point")
    mapping, report = mapping_report(program, point, chips_available=chips, target="kapoho_point", rounds=30)
    assert not mapping.fits and not report["fits"] and mapping.chips > chips == 8
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
    hala, chips = resolve_target("hala_point")
    assert map_program(program, hala, chips_available=chips, rounds=5).fits


def test_verdict_names_every_operation_and_what_no_chip_does():
    program = small_program(1, 3)
    mapping = map_program(program, loihi2(), rounds=5)
    assert [v.op for v in mapping.verdicts] == [op.name for op in program.phases["search"].ops]
    by_kind = {v.kind: v for v in mapping.verdicts}
    assert by_kind["conv"].verdict == "native"
    assert by_kind["ni_lif"].verdict == "microcode"
    assert by_kind["gate"].verdict == "host"
    assert "two live activations" in by_kind["key_value"].reason


def test_binary_chip_names_the_missing_graded_messages():
    program = small_program(0, 1)
    mapping = map_program(program, load_profile("loihi1"), rounds=5)
    breach = next(b for b in mapping.breaches if b.rule == "payload_bits")
    assert (breach.used, breach.limit, breach.fatal) == (24, 0, False)
    assert {v.verdict for v in mapping.verdicts if v.kind in ("add", "image_conv")} == {"host"}


def test_network_that_no_chip_holds_says_so():
    """One row of one channel wider than a core: nothing but another network helps."""
    program = small_program(0, 1)
    tiny = loihi2(neurons_per_core=8, neurons_per_core_compiler=8)
    mapping = map_program(program, tiny, rounds=1)
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
    with pytest.raises(ProfileError, match="nothing can be mapped"):
        core_limits(load_profile("cmos45_fp32"))


def test_unknown_target_lists_chips_and_boards():
    with pytest.raises(UsageError, match=r"'loihi9'.*loihi2.*kapoho_point"):
        resolve_target("loihi9")


def test_step_time_by_hand():
    program = small_program(0, 1)
    profile = loihi2()
    mapping = map_program(program, profile, rounds=5)
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
    mapping = map_program(program, profile, rounds=5)
    time = latency(mapping, profile)
    assert time.substeps == 4
    neurons = next(c for c in time.causes if c.what == "neurons")
    assert neurons.amount == 4 * mapping.loads.neurons.max()


def test_energy_counts_are_the_programs():
    """Synaptic operations and multiply-accumulates as counted; streams and messages at least as many."""
    program, profile = small_program(1, 3), loihi2()
    counts = counted(program)
    activity = measured(populations(program, "search"), program.arrays, counts)
    mapping = map_program(program, profile, activity=activity, rounds=10)
    lines = {name: count for name, (_, count) in event_counts(mapping, activity, 1.0, 1).items()}
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


def test_denser_spikes_cost_more_and_take_longer():
    program, profile = nano_program(), loihi2()
    network = populations(program, "search")
    results = []
    for density in (0.1, 0.9):
        activity = assumed(network, program.arrays, density)
        mapping = map_program(program, profile, activity=activity, rounds=5)
        time = latency(mapping, profile)
        results.append((time.step.nominal, mapped_energy(mapping, activity, profile, time).dynamic.nominal))
        assert hops(mapping)[0] >= 0
    assert results[0][0] < results[1][0] and results[0][1] < results[1][1]


def test_balance_shortens_the_step_and_takes_more_cores():
    program, profile = nano_program(), loihi2()
    plain = map_program(program, profile, rounds=1)
    even = map_program(program, profile, rounds=1, balance=1.5)
    assert even.cores > plain.cores
    assert latency(even, profile).step.nominal < 0.5 * latency(plain, profile).step.nominal
    mean = float(plain.synapses.synops.mean())
    assert even.synapses.synops.max() <= 1.5 * mean * (1 + 1e-9), "no single row of nano exceeds this cap"
    assert even.synapses.nonzero.sum() == plain.synapses.nonzero.sum()
    assert defects(even, program) == []
    with pytest.raises(UsageError, match="at least 1"):
        map_program(program, profile, rounds=1, balance=0.5)
    with pytest.raises(UsageError, match="contiguous rule only"):
        map_program(program, profile, rounds=1, balance=2.0, rule="power_of_two")


def test_no_turns_where_it_fits_at_once():
    mapping = map_program(nano_program(), loihi2(), rounds=1)
    assert in_turns(mapping, 1) is None
    assert in_turns(replace(mapping, loads=mapping.loads), 128) is None


@pytest.fixture(scope="module")
def loaded():
    """Lowering a model takes seconds; once is enough."""
    return functools.lru_cache(maxsize=8)(chips.program_and_counts)


@pytest.fixture(autouse=True)
def _lowered_once(loaded, monkeypatch):
    monkeypatch.setattr(chips, "program_and_counts", loaded)


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
        (("nowhere.pth",), 3, "no such checkpoint"),
        (("spiketrack-untrained", "--density", "2"), 2, "not in the range"),
    ],
)
def test_bad_input_is_one_sentence(capsys, args, code, part):
    found, out, err = call(capsys, *args)
    assert found == code and part in err and err.count("\n") == 1 and out == ""


def test_report_is_plain_json_and_stable():
    program = small_program(1, 3)
    one, two = (mapping_report(program, loihi2(), rounds=10)[1] for _ in range(2))
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
