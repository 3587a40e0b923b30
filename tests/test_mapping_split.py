"""Splitting over cores: nothing lost or twice, limits kept, sums equal to the program's counts, tighter never fewer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _mapping import SMALL, loihi2, map_search, nano_program, official_program, small_program
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.mapping.activity import assumed, measured
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.fanin import fan_in
from spiketrack_deploy.mapping.loads import core_synapses
from spiketrack_deploy.mapping.memory import SynapseMemory
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.conv import conv_geometry, fan_out

PHASES = ("search", "template")


def painted(network, parts):
    paint = [np.zeros((p.channels, p.height), dtype=int) for p in network.populations]
    for _, index, c0, c1, y0, y1 in parts.pieces.tolist():
        paint[index][c0:c1, y0:y1] += 1
    return paint


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 5), st.sampled_from([1, 3]), st.sampled_from(PHASES), st.integers(32, 3000),
    st.integers(20, 16000), st.integers(40, 16000), st.integers(1, 8),
    st.sampled_from(["contiguous", "power_of_two"]),
)  # fmt: skip
def test_every_row_lies_on_exactly_one_core(seed, steps, phase, neurons, words, axons, groups, rule):
    network = populations(small_program(seed, steps), phase)
    parts = split(network, replace(SMALL, neurons=neurons, words=words, axons_in=axons, groups=groups), rule)
    for population, paint in zip(network.populations, painted(network, parts)):
        wanted = 1 if population.on_chip else 0
        assert (paint == wanted).all(), f"{population.name}: a row is lost or lies on two cores"
    if not parts.overflows and rule == "contiguous":
        assert parts.neurons.max() <= neurons and parts.words.max() <= words
        assert parts.axons_in.max() <= axons and parts.groups.max() <= groups


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.sampled_from([1, 3]), st.sampled_from(PHASES), st.data())
def test_tighter_limits_never_need_fewer_cores(seed, steps, phase, data):
    network = populations(small_program(seed, steps), phase)
    loose = {
        "neurons": data.draw(st.integers(64, 5000)),
        "words": data.draw(st.integers(64, 20000)),
        "axons_in": data.draw(st.integers(64, 5000)),
        "groups": data.draw(st.integers(1, 9)),
    }
    tight = {key: data.draw(st.integers(32 if key != "groups" else 1, value)) for key, value in loose.items()}
    many, few = (split(network, replace(SMALL, **limits)).cores for limits in (tight, loose))
    assert many >= few, f"limits {tight} take {many} cores, the looser {loose} take {few}"


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("seed", "steps"), [(0, 1), (1, 3), (2, 3)])
def test_synapses_equal_the_programs_fan_out(seed, steps, phase):
    """Counted from the neurons' side here, from the spikes' side in program.counts."""
    program = small_program(seed, steps)
    network = populations(program, phase)
    here: dict[str, int] = {}
    for s in network.synapses:
        if s.form == "conv":
            here[s.op] = here.get(s.op, 0) + int(fan_in(network, s, program.arrays).sum())
    for op in program.phases[phase].ops:
        if not OP_TABLE[op.kind].weighted:
            continue
        shape = program.phases[phase].spec(op.inputs[0]).shape
        fan = fan_out(program.arrays[op.arrays["weight"]], shape[2:], *conv_geometry(op))
        assert here[op.name] == int(fan.sum()) * (shape[0] // fan.shape[0]), f"{op.name}: synapses lost or twice"


@pytest.mark.parametrize("phase", PHASES)
def test_sum_over_cores_is_the_programs_count(phase):
    """Non-zero synapses exactly, visits of a counted run to rounding."""
    from _programs import random_inputs

    from spiketrack_deploy.energy.layers import layer_counts
    from spiketrack_deploy.program.run import run_phase

    program = small_program(1, 3)
    network = populations(program, phase)
    inputs = random_inputs(program, 4)[phase]
    counts = layer_counts(program.phases[phase].ops, run_phase(program, phase, inputs).counts)
    activity = measured(network, program.arrays, counts)
    parts = split(network, SMALL)
    sums = core_synapses(network, parts.pieces, parts.cores, activity, SynapseMemory.of(SMALL))
    assert sums.nonzero.sum() == sum(int(share.sum()) for share in activity.share)
    wanted = sum(c["synops"] + c["macs"] for c in counts)
    wanted += sum(c["relay_synops"] for c in counts if c.kind in ("avg_pool", "upsample"))
    streams = sum(activity.synops[i] for i, s in enumerate(network.synapses) if s.form == "identity")
    assert sums.synops.sum() == pytest.approx(wanted + streams, rel=1e-12)


def test_counts_of_another_program_are_refused():
    program = small_program(0, 1)
    with pytest.raises(InputError, match="another program"):
        measured(populations(program, "search"), program.arrays, [])


def test_neuron_slots_of_the_smallest_official_size():
    """17,070,080 slots: docs/spiketrack.md, "Size on a chip", counted on the published graph."""
    assert populations(official_program("s256_t1"), "search").slots["neurons"] == 17_070_080


@pytest.mark.parametrize(("rule", "cores"), [("contiguous", 66), ("power_of_two", 114)])
def test_nano_fits_a_chip_by_both_rules(rule: str, cores: int):
    """Of 128 cores on paper 120 to 122 can be used."""
    program = nano_program()
    mapping = map_search(program, loihi2(), rule=rule)
    assert mapping.holds, [b.to_dict() for b in mapping.breaches]
    assert mapping.chips == 1 and mapping.cores == cores
    assert defects(mapping, program) == [], "the independent check disagrees with the mapper"


@pytest.mark.parametrize("rule", ["contiguous", "power_of_two"])
@pytest.mark.parametrize(("seed", "steps", "phase"), [(0, 1, "search"), (1, 3, "search"), (2, 3, "template")])
def test_independent_check_agrees(seed, steps, phase, rule):
    program = small_program(seed, steps)
    profile = loihi2(neurons_per_core=400, neurons_per_core_compiler=400, synaptic_words_per_core=6000)
    mapping = map_search(program, profile, phase=phase, rule=rule, rounds=20)
    assert defects(mapping, program) == []


def test_independent_check_finds_what_is_wrong():
    program = small_program(0, 1)
    mapping = map_search(program, loihi2(neurons_per_core=400, neurons_per_core_compiler=400), rounds=5)
    lost = replace(mapping, pieces=mapping.pieces[:-1])
    assert any("rows lie on 0" in d for d in defects(lost, program))
    twice = replace(mapping, pieces=np.concatenate([mapping.pieces, mapping.pieces[-1:]]))
    assert any("to 2 cores" in d for d in defects(twice, program))
    moved = mapping.pieces.copy()
    moved[0, 0] = mapping.cores - 1
    assert any("neurons, the mapping says" in d for d in defects(replace(mapping, pieces=moved), program))
    place = mapping.placement
    heap = replace(place, x=np.zeros_like(place.x), y=np.zeros_like(place.y))
    assert any("router" in d for d in defects(replace(mapping, placement=heap), program))
    fewer = replace(mapping, network=replace(mapping.network, synapses=mapping.network.synapses[:-1]))
    assert defects(fewer, program), "a missing bundle of synapses went unnoticed"


def test_assumed_density_must_be_a_share():
    program = small_program(0, 1)
    with pytest.raises(InputError, match="between 0 and 1"):
        assumed(populations(program, "search"), program.arrays, 1.5)


def test_unknown_phase_is_named():
    with pytest.raises(InputError, match="no phase 'sideways'"):
        populations(small_program(0, 1), "sideways")
