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
from spiketrack_deploy.energy.frames import phases_of_results
from spiketrack_deploy.energy.layers import layer_counts
from spiketrack_deploy.energy.pricing import bill
from spiketrack_deploy.errors import ProfileError, UsageError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.targets import Target, resolve_target
from spiketrack_deploy.mapping.activity import assumed, measured
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.closed_loop import closed_loop, serial_steps
from spiketrack_deploy.mapping.cost import hops, mapped_run, unpriced_of
from spiketrack_deploy.mapping.fixes import fewer_channels, fixes, in_turns
from spiketrack_deploy.mapping.limits import core_limits
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.report import map_phase
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.mapping.whole import map_network
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.types import Cadence


def counted(program, phase="search"):
    inputs = random_inputs(program, 4)[phase]
    return layer_counts(program.phases[phase].ops, run_phase(program, phase, inputs).counts)


def test_s256_t1_does_not_fit_eight_chips_and_fits_hala_point():
    program = official_program("s256_t1")
    found = map_phase(program, "search", resolve_target("kapoho_point"), rounds=30)
    mapping, report = found.mapping, found.to_dict()
    assert not mapping.holds and not report["holds"] and mapping.chips > mapping.chips_available == 8
    (breach,) = [b for b in report["breaches"] if b["fatal"]]
    assert (breach["rule"], breach["used"], breach["limit"]) == ("chips", mapping.chips, 8)
    assert breach["over_by"] == mapping.chips - 8
    by_change = {fix["change"]: fix for fix in report["fixes"]}
    assert by_change["channels x 0.5"]["cores"] < mapping.cores
    assert any(fix["fits"] for name, fix in by_change.items() if name != "more chips")
    turns = report["in_turns"]
    assert turns["turns_per_frame"] == -(-mapping.cores // (8 * 120))
    assert turns["weight_bytes_reloaded_per_frame"] == 8 * int(mapping.loads.words.sum())
    assert "unknown" in turns["energy"]
    assert map_search(program, load_profile("hala_point"), rounds=5).holds


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
    assert not mapping.holds
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


def test_a_run_is_the_sum_of_its_levels():
    """Level by level, from the loads of every core: the busiest one, one link's messages, one barrier each."""
    program, profile = small_program(0, 1), loihi2()
    mapping = map_search(program, profile, rounds=5)
    loop = closed_loop(mapping, profile)
    ns = {name: profile.prices[name].interval.nominal for name in ("t_synop", "t_word", "t_slot_microcode", "t_link")}
    barrier = profile.prices["t_barrier_chip" if mapping.chips == 1 else "t_barrier_chips"].interval.nominal
    total = 0.0
    for level in range(1, mapping.network.depth + 1):
        synops, words = (float(x[level].max()) for x in (mapping.synapses.by_level, mapping.synapses.words))
        steps, slots = loop.levels[level - 1].steps, int(mapping.loads.neurons.max()) * ns["t_slot_microcode"]
        total += max(synops * ns["t_synop"], words * ns["t_word"], slots * steps) + barrier * steps
        assert loop.levels[level - 1].synops == pytest.approx(synops)
    assert mapping.chips == 1 and loop.latency.nominal == pytest.approx(total)
    assert mapping.synapses.synops.sum() == pytest.approx(mapping.synapses.by_level.sum())


def test_binary_chip_runs_substeps():
    program = small_program(0, 1)
    profile = load_profile("loihi1")
    mapping = map_search(program, profile, rounds=5)
    loop = closed_loop(mapping, profile)
    assert loop.substeps == 4 and loop.steps == 4 * serial_steps(mapping)[1:].sum() > 4 * mapping.network.depth
    assert "t_barrier_chip" not in loop.untimed


def test_operation_counts_are_the_programs():
    """Synaptic operations and multiply-accumulates as counted; streams and messages at least as many; every slot in
    every elapsed step."""
    program, profile = small_program(1, 3), loihi2()
    counts = counted(program)
    activity = measured(populations(program, "search"), program.arrays, counts)
    mapping = map_search(program, profile, activity=activity, rounds=10)
    loop = closed_loop(mapping, profile)
    run = mapped_run(mapping, activity, profile, loop)
    happened = run.counts
    gate = {op.name for op in program.phases["search"].ops if op.kind == "gate"}
    assert happened["synops"] == pytest.approx(sum(c["synops"] for c in counts if c.name not in gate))
    for layer in counts:
        if layer.kind in ("conv", "head_out"):
            assert run.operations[layer.name]["synops"] == pytest.approx(layer["synops"]), layer.name
    assert happened["macs"] == pytest.approx(sum(c["macs"] for c in counts))
    assert happened["relay_synops"] >= sum(c["relay_synops"] for c in counts) * (1 - 1e-9)
    assert happened["active_updates"] == sum(c["neuron_spiking"] for c in counts)
    slots = sum(mapping.network.slots.values())
    assert happened["slot_steps_microcode"] == slots * loop.steps and not happened.get("slot_steps_native")
    assert happened["chip_steps"] == mapping.chips * loop.steps
    assert happened["hops_ew"] + happened["hops_ns"] == pytest.approx(mapping.placement.hops)
    assert set(run.operations) <= {op.name for op in program.phases["search"].ops}, "a layer's row would not have it"
    missing = {item.name for item in unpriced_of(run, profile)}
    assert {"barriers", "entering"} <= missing


def test_every_line_of_a_mapping_is_a_count_times_the_profiles_price():
    """The bill written out once more, on both families, with 1.75 events a spike where spikes are binary."""
    for name, seed, value in (("loihi2", 1, 1.0), ("loihi1", 0, 1.75)):
        profile = load_profile(name)
        program = small_program(seed, 1)
        network = populations(program, "search")
        activity = assumed(network, program.arrays, 0.3)
        mapping = map_search(program, profile, activity=activity, rounds=3)
        loop = closed_loop(mapping, profile, 1.75)
        run = mapped_run(mapping, activity, profile, loop, 1.75)
        lines = {part.price: part for part in bill(run.counts, profile)}
        flow, at = mapping.traffic, mapping.placement
        walked = [abs(axis[flow.source] - axis[flow.target]) @ flow.messages for axis in (at.x, at.y)]
        spiking = sum(activity.spiking.values()) * value
        slots = sum(network.slots.values()) * loop.steps
        wanted = {"hop_ew": walked[0] * value, "hop_ns": walked[1] * value}
        if name == "loihi2":
            wanted |= {"slot_microcode": slots, "stepping_power": mapping.chips * loop.latency.nominal * 1e9}
        else:
            wanted |= {"neuron_active": spiking, "neuron_idle": network.slots["neurons"] * loop.steps - spiking}
        products = [i for i, s in enumerate(network.synapses) if s.form in ("conv", "matrix", "product")]
        synops = sum(
            activity.synops[i] for i in products if network.populations[network.synapses[i].source].kind != "image"
        )
        wanted["unit_op" if name == "loihi1" else "synop"] = synops * value
        for price, count in wanted.items():
            assert lines[price].count == pytest.approx(count), f"{name}: {price}"
            for end in ("low", "nominal", "high"):
                paid = getattr(profile.prices[price].interval, end) * count
                assert getattr(lines[price].energy, end) == pytest.approx(paid), f"{name}: {price}"
        free = {item.name: item for item in unpriced_of(run, profile)}
        crossing = flow.messages[at.chip[flow.source] != at.chip[flow.target]].sum() * value
        assert "chip_crossings" not in free or free["chip_crossings"].count == pytest.approx(crossing)
        assert ("relay_synops" in free) == (name == "loihi1"), "a binary chip has no price for a stream"
        assert ("relay_updates" in free) == (name == "loihi1")


def test_every_arrangement_of_the_phases_is_stated():
    target = Target("small", loihi2(neurons_per_core=400, neurons_per_core_compiler=400))
    drawn = small_program(2, 3)
    later = replace(drawn.phases["template"], cadence=Cadence(start=True, every=25))
    program = replace(drawn, phases={**drawn.phases, "template": later})
    whole = map_network(program, target, rounds=1)
    chips = {name: report.mapping.chips for name, report in whole.phases.items()}
    gates = sum(op.kind == "gate" for op in program.phases["search"].ops)
    arranged = {one.sharing: one for one in whole.arrangements}
    assert arranged["own"].chips == sum(chips.values()) and arranged["turns"].chips == max(chips.values())
    assert arranged["host"].chips == chips["search"] and gates
    assert arranged["host"].host_operations == gates + len(program.phases["template"].ops)
    for one in (arranged["own"], arranged["turns"]):
        assert one.answer == f"needs a host for {gates} operations beside" and not one.fits and one.holds
    assert whole.sentence.startswith(f"It needs a host for {gates} operations beside small: ")
    own = arranged["own"]
    assert {kind: cost.phases for kind, cost in own.results.items()} == phases_of_results(program)
    steady, update = own.results["steady"], own.results["update"]
    assert update.dynamic.nominal > steady.dynamic.nominal and update.on_chip.nominal > steady.on_chip.nominal
    share = program.phases["template"].cadence.per_result
    assert own.mean.dynamic.nominal == pytest.approx(
        steady.dynamic.nominal * (1 - share) + update.dynamic.nominal * share
    )
    with pytest.raises(UsageError, match="no way 'both' to share chips"):
        map_network(program, target, sharing="both")


def test_fewer_channels_keep_heads_images_and_results():
    """Widths shrink to multiples of the program's own heads; what comes in and goes out keeps its channels."""
    program = small_program(2, 3)
    heads = {op.attrs["heads"] for op in program.phases["search"].ops if "heads" in op.attrs}
    graph = populations(program, "search")
    half = fewer_channels(graph, 0.5)
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
        loop = closed_loop(mapping, profile)
        results.append((loop.latency.nominal, mapped_run(mapping, activity, profile, loop).dynamic(profile).nominal))
        assert hops(mapping)[0] >= 0
    assert results[0][0] < results[1][0] and results[0][1] < results[1][1]


def test_balance_shortens_the_step_and_takes_more_cores():
    program, profile = nano_program(), loihi2()
    plain = map_search(program, profile, rounds=1)
    even = map_search(program, profile, rounds=1, balance=1.5)
    assert even.cores > plain.cores
    assert closed_loop(even, profile).latency.nominal < 0.9 * closed_loop(plain, profile).latency.nominal
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
    assert in_turns(mapping, mapping.chips) is None
    assert in_turns(replace(mapping, loads=mapping.loads), 128) is None


def call(capsys, *args):
    code = run(map_command, "spiketrack map", list(args))
    out, err = capsys.readouterr()
    return code, out, err


def test_command_reports_first_and_then_ends_with_4(capsys):
    code, out, err = call(capsys, "spiketrack-untrained", "--target", "oheo_gulch", "--json")
    report = json.loads(out)
    assert code == 4 and report["fits"] is report["holds"] is False and report["detail"]["chips_available"] == 1
    assert err.startswith("error: spiketrack-untrained does not fit oheo_gulch")
    power, cost = load_profile("loihi2").price("static_power").nominal, report["cost"]
    seconds = max(1 / 30, cost["latency_s"]["nominal"])
    assert cost["static_nj"]["nominal"] + cost["input_nj"]["nominal"] == pytest.approx(
        power * report["chips"] * seconds * 1e9
    )
    code, out, _ = call(capsys, "spiketrack-untrained", "--target", "oheo_gulch")
    assert code == 4 and "Nearest fixes" in out and "In turns on 1 chip" in out


def test_command_maps_to_a_family_with_code_0(capsys):
    code, out, err = call(capsys, "spiketrack-untrained")
    assert code == 0 and err == "" and "At 30 frames a second" in out
    assert "It needs a host for 6 operations beside loihi2" in out


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
    assert np.isfinite(one["run"]["dynamic_nj"]["nominal"])


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
    assert row["chips"] == 1 and row["cores"] == 66 and row["core_level_breaches"] == 0
    assert row["chips_all_phases"] == 1 and row["fits"]["kapoho_point"] and row["total_mj_per_frame"]["nominal"] > 1
