"""Streams summed by every reader: fewer neurons and levels, the same sums, more synaptic operations, all counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _cli import succeed
from _mapping import nano_program, small_program

from spiketrack_deploy.energy.layers import layer_counts
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.populations import populations
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


def test_every_neuron_still_gets_the_sum_that_the_program_adds_up() -> None:
    """Synapses from spikes to each neuron, followed through accumulators: the same operations reach it either way."""
    program = nano_program()

    def reached(streams: str) -> dict[str, set[str]]:
        network = populations(program, "search", streams)
        sums: dict[int, set[str]] = {}
        for index, incoming in enumerate(network.incoming()):
            found: set[str] = set()
            for s in (network.synapses[i] for i in incoming):
                carried = s.form == "identity" and network.populations[s.source].kind == "relay"
                found |= sums[s.source] if carried else {s.op}
            sums[index] = found
        return {p.name: sums[i] for i, p in enumerate(network.populations) if p.kind == "neurons"}

    assert reached("summed") == reached("relayed")


def test_counts_of_a_run_are_laid_on_every_copy() -> None:
    program = small_program(3, 1)
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
        counts[name] = layer_counts(phase.ops, result.counts)
    before, after = (mapped(program, streams, counts=counts) for streams in ("relayed", "summed"))
    for name, phase in program.phases.items():
        shared, relayed, summed = dropped(phase), before.phases[name].run.counts, after.phases[name].run.counts
        added = sum(one["synops"] * (shared[one.name] - 1) for one in counts[name] if one.name in shared)
        assert added > 0 and summed["synops"] == pytest.approx(relayed["synops"] + added)
        assert summed["relay_synops"] < relayed["relay_synops"]


def test_the_change_that_is_offered_is_what_mapping_it_so_costs() -> None:
    program = nano_program()
    before, after = mapped(program, "relayed", density=0.4), mapped(program, "summed", density=0.4)
    offered = next(change for change in before.changes if change.what == "streams summed by every reader")
    assert offered.cores == after.report.mapping.cores
    assert offered.cost.on_chip == after.cost.on_chip and offered.cost.dynamic == after.cost.dynamic
    assert not any(change.what.startswith("streams") for change in after.changes)
    assert "streams summed by every reader" in after.sentence and after.to_dict()["streams"] == "summed"


def test_the_command_takes_it_and_nothing_else(tmp_path: Path) -> None:
    assert succeed(tmp_path, "map", "spiketrack-nano", "--streams", "summed")["streams"] == "summed"
    with pytest.raises(UsageError, match="relayed or summed, not 'both'"):
        mapped(small_program(3, 1), "both")
