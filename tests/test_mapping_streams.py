"""Streams summed by every reader or merged with a neuron that reads them: the same sums on fewer neurons and levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _cli import refuse, succeed
from _mapping import nano_program, small_program

from spiketrack_deploy.energy.layers import layer_counts
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.report import MERGED_ASSUMPTION
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.mapping.whole import WholeNetwork, map_network
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.types import Phase, Program

pytestmark = pytest.mark.timeout(120)
LOIHI2 = resolve_target("loihi2")


def mapped(program: Program, streams: str, **options: Any) -> WholeNetwork:
    return map_network(program, LOIHI2, rounds=1, way=Way(streams=streams), **options)


def dropped(phase: Phase) -> dict[str, int]:
    """Convolutions whose output several neurons or sums of the same steps read, by the program alone -> readers."""
    found = {}
    kinds = ("ni_lif", "add", "requantise")
    for op in phase.ops:
        readers = [r for r in phase.ops if op.name in r.inputs]
        alike = all(r.kind in kinds and phase.spec(r.name).shape[0] == phase.spec(op.name).shape[0] for r in readers)
        if op.kind == "conv" and len(readers) > 1 and alike:
            found[op.name] = len(readers)
    return found


@pytest.mark.parametrize("made", [lambda: small_program(3, 1), lambda: small_program(5, 3), nano_program])
def test_only_shared_convolutions_lose_their_neurons_and_every_reader_has_their_synapses(made: Any) -> None:
    program = made()
    before, after = mapped(program, "relayed"), mapped(program, "summed")
    for name, phase in program.phases.items():
        gone = dropped(phase)
        assert gone, "nothing shared would prove nothing"
        one, other = before.phases[name].mapping, after.phases[name].mapping
        assert defects(other, program) == []
        left = {p.op for p in one.network.populations} - {p.op for p in other.network.populations}
        assert left == set(gone)
        wired = [s.op for s in other.network.synapses if s.form == "conv"]
        steps = {op: phase.spec(op).shape[0] for op in gone}
        assert {op: wired.count(op) for op in gone} == {op: n * steps[op] for op, n in gone.items()}
        slots = sum(p.slots for p in one.network.populations if p.op in gone)
        assert sum(one.network.slots.values()) - sum(other.network.slots.values()) == slots
        assert other.network.depth < one.network.depth


def merging(phase: Phase) -> dict[str, str]:
    """Streams that a neuron of one step reads, by the program alone -> the first such neuron."""
    found = {}
    for op in phase.ops:
        readers = [r for r in phase.ops if op.name in r.inputs]
        once = [r for r in readers if r.kind == "ni_lif" and phase.spec(r.name).shape[0] == 1]
        handed_on = op.name in phase.outputs.values() or phase.spec(op.name).shape[0] > 1
        if once and not handed_on and phase.spec(op.name).kind != "spikes":
            found[op.name] = once[0].name
    return found


@pytest.mark.parametrize("made", [lambda: small_program(3, 1), lambda: small_program(5, 3), nano_program])
def test_a_neuron_that_reads_an_accumulator_becomes_it(made: Any) -> None:
    program, merged_somewhere = made(), 0
    before, after = mapped(program, "relayed", density=0.4), mapped(program, "merged", density=0.4)
    for name, phase in program.phases.items():
        one, other = before.phases[name].mapping.network, after.phases[name].mapping.network
        relays = {p.op for p in one.populations if p.kind == "relay"}
        wanted = {stream: neuron for stream, neuron in merging(phase).items() if stream in relays}
        assert {p.keeps: p.op for p in other.populations if p.keeps} == wanted
        assert {p.op for p in other.populations if p.kind == "relay"} == relays - set(wanted)
        assert defects(after.phases[name].mapping, program) == []
        slots = sum(p.slots for p in one.populations if p.op in wanted)
        assert sum(one.slots.values()) - sum(other.slots.values()) == slots
        assert other.depth < one.depth if wanted else other.depth == one.depth
        bundles = [[s.op for s in network.synapses if s.form != "identity"] for network in (one, other)]
        assert sorted(bundles[0]) == sorted(bundles[1])
        programmed = dict(zip((p.name for p in other.populations), after.phases[name].mapping.programmed))
        assert all(programmed[p.name] for p in other.populations if p.keeps)
        merged_somewhere += len(wanted)
    assert merged_somewhere


def test_every_neuron_still_gets_the_sum_that_the_program_adds_up() -> None:
    """Synapses from spikes to each neuron, followed through accumulators: the same operations reach it any way."""
    program = nano_program()

    def reached(streams: str) -> dict[str, set[str]]:
        network = populations(program, "search", streams)
        sums: dict[int, set[str]] = {}
        for index, incoming in enumerate(network.incoming()):
            found: set[str] = set()
            for s in (network.synapses[i] for i in incoming):
                source = network.populations[s.source]
                carried = s.form == "identity" and (source.kind == "relay" or source.keeps)
                found |= sums[s.source] if carried else {s.op}
            sums[index] = found
        return {p.name: sums[i] for i, p in enumerate(network.populations) if p.kind == "neurons"}

    assert reached("summed") == reached("relayed") == reached("merged")


def counted(program: Program) -> dict[str, list[Any]]:
    """Counts of one run of every phase on drawn pictures."""
    rng = np.random.default_rng(4)
    counts = {}
    values: dict[str, Any] = {}
    for name, phase in program.phases.items():
        images = {
            key: rng.integers(0, 256, spec.shape).astype(np.uint8)
            for key, spec in phase.inputs.items()
            if spec.kind == "image"
        }
        result = run_phase(program, name, {**values, **images})
        values |= {key: result.outputs[key] for key in program.states if key in result.outputs}
        counts[name] = list(layer_counts(phase.ops, result.counts))
    return counts


def test_counts_of_a_run_are_laid_on_every_copy() -> None:
    program = small_program(3, 1)
    counts = counted(program)
    before, after = (mapped(program, streams, counts=counts) for streams in ("relayed", "summed"))
    for name, phase in program.phases.items():
        shared, relayed, summed = dropped(phase), before.phases[name].run.counts, after.phases[name].run.counts
        added = sum(one["synops"] * (shared[one.name] - 1) for one in counts[name] if one.name in shared)
        assert added > 0 and summed["synops"] == pytest.approx(relayed["synops"] + added)
        assert summed["relay_synops"] < relayed["relay_synops"]


def test_a_merged_neuron_spares_the_messages_of_its_stream_to_it_and_nothing_else() -> None:
    program = small_program(3, 1)
    counts = counted(program)
    before, after = (mapped(program, streams, counts=counts) for streams in ("relayed", "merged"))
    for name, phase in program.phases.items():
        one, other = before.phases[name], after.phases[name]
        ends = set(merging(phase).items())
        network, spared = one.mapping.network, 0.0
        for s, synops in zip(network.synapses, one.activity.synops):
            if (network.populations[s.source].op, network.populations[s.target].op) in ends:
                spared += synops
        assert spared > 0 and other.run.counts["relay_synops"] == pytest.approx(one.run.counts["relay_synops"] - spared)
        assert other.run.counts["synops"] == pytest.approx(one.run.counts["synops"])
        assert other.activity.spiking == one.activity.spiking


@pytest.mark.parametrize(
    ("streams", "words"),
    [("summed", "streams summed by every reader"), ("merged", "streams merged with a neuron that reads them")],
)
def test_the_change_that_is_offered_is_what_mapping_it_so_costs(streams: str, words: str) -> None:
    program = nano_program()
    before, after = mapped(program, "relayed", density=0.4), mapped(program, streams, density=0.4)
    offered = next(change for change in before.changes if change.what == f"{words} (the same integers)")
    assert offered.cores == after.report.mapping.cores
    assert offered.cost.on_chip == after.cost.on_chip and offered.cost.dynamic == after.cost.dynamic
    assert not any(change.what.startswith(words) for change in after.changes)
    assert words in after.sentence and after.to_dict()["streams"] == streams
    assert (MERGED_ASSUMPTION in after.report.assumptions) == (streams == "merged")
    assert MERGED_ASSUMPTION not in before.report.assumptions


def test_the_command_takes_it_and_nothing_else(tmp_path: Path) -> None:
    for streams in ("summed", "merged"):
        assert succeed(tmp_path, "map", "spiketrack-nano", "--streams", streams)["streams"] == streams
    with pytest.raises(UsageError, match="relayed, summed, merged, not 'both'"):
        mapped(small_program(3, 1), "both")
    fixed = ("map", "spiketrack-nano", "--target", "loihi1", "--streams", "merged")
    refuse(tmp_path, 2, ("--streams merged", "loihi1", "fixed"), *fixed)


def test_fixed_neurons_relay_what_programmed_ones_merge() -> None:
    program, target = nano_program(), resolve_target("loihi1")
    merged, relayed = (map_network(program, target, rounds=1, way=Way(streams=s)) for s in ("merged", "relayed"))
    assert merged.way == relayed.way and merged.cost == relayed.cost
    assert not any("merged" in change.what for change in relayed.changes)
