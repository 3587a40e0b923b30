"""Neurons of four levels as four hard-coded LIF: by hand, against counts of expanded spikes, and Lava's Processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _mapping import nano_program, small_program
from _programs import random_inputs
from test_mapping_by_hand import pencil, toy

from spiketrack_deploy.cli.map import _forms as printed
from spiketrack_deploy.energy.layers import LayerCounts, layer_counts, main_phase, runs_per_result
from spiketrack_deploy.engines.stock_neurons import levels_of
from spiketrack_deploy.engines.stock_parts import Answer
from spiketrack_deploy.engines.stock_plan import stock_plan
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.thermometer import LIF, OWN, SUMS, Form
from spiketrack_deploy.mapping.whole import WholeNetwork, map_network
from spiketrack_deploy.program.bounds import prove_ranges
from spiketrack_deploy.program.lif import levels_defect
from spiketrack_deploy.program.ops.conv import conv_counts
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.report.chip_section import _forms as reported

SLOTS = {"neuron_idle": 7.0, "neuron_active": 11.0, "synop": 3.0, "static_power": 250.0, "t_neuron": 5.0,
         "t_barrier_chip": 1000.0, "t_barrier_chips": 4000.0}  # fmt: skip


def by_name(whole: WholeNetwork) -> dict[str, Form]:
    return {form.name: form for form in whole.forms}


def bundles(form: Form) -> dict[tuple[str, str], tuple[int, float, float]]:
    """Source and target -> synapses, visits in a run, sending share."""
    network, activity = form.mapping.network, form.activity
    return {
        (network.populations[s.source].op, network.populations[s.target].op): (
            int(activity.share[i].sum()), float(activity.synops[i]), float(activity.rate[i]),
        )
        for i, s in enumerate(network.synapses)
    }  # fmt: skip


def test_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """stem 60 and out 30 stay accumulators; s1, s2, s3 are 210 neurons, 840 LIF. Between two of them a connection is
    there sixteen times. Half of the neurons spike, with 2.5 of four levels in the mean."""
    target = toy(tmp_path, cores_per_chip=16, tiles_x=16)
    whole = map_network(pencil(), target, sharing="turns")
    forms = by_name(whole)
    assert list(forms) == [OWN, LIF, SUMS]
    own, lif, sums = forms.values()
    assert (own.programmed, lif.programmed, sums.programmed) == (300, 90, 30)
    assert bundles(lif) == {
        ("image", "stem"): (1344, 1344.0, 1.0),
        ("stem", "s1"): (240, 240.0, 1.0),
        ("stem", "s3"): (240, 240.0, 1.0),
        ("s1", "s2"): (16 * 2184, 4 * 2184 / 2 * 2.5, 2.5 / 8),
        ("s2", "s3"): (16 * 360, 4 * 360 / 2 * 2.5, 2.5 / 8),
        ("s3", "out"): (4 * 120, 120 / 2 * 2.5, 2.5 / 8),
    }
    assert lif.mapping.network.slots == {"relay": 90, "neurons": 840}
    # The stem is summed by both who read it: 1,344 synapses onto s1 and s3, each of four LIF; a level less.
    summed = bundles(sums)
    assert summed["image", "s1"] == summed["image", "s3"] == (4 * 1344, 4 * 1344.0, 1.0)
    assert {key: value for key, value in summed.items() if key[0] != "image"} == {
        key: value for key, value in bundles(lif).items() if key[0] not in ("image", "stem")
    }
    assert (own.mapping.network.depth, lif.mapping.network.depth, sums.mapping.network.depth) == (5, 5, 4)
    assert {v.op for v in own.needs} == {"stem", "s1", "s2", "s3", "out"}
    assert {v.op for v in lif.needs} == {"stem", "out"} and {v.op for v in sums.needs} == {"out"}
    for form in (lif, sums):
        assert form.mapping.loads.neurons.sum() == sum(form.mapping.network.slots.values())
        assert form.mapping.synapses.nonzero.sum() == sum(n for n, *_ in bundles(form).values())
        assert form.cost.dynamic.nominal > own.cost.dynamic.nominal and form.cost.on_chip.nominal > 0
    printed([form.to_dict() for form in whole.forms])
    shown = capsys.readouterr().out
    assert all(words in " ".join(shown.split()) for words in ("four LIF", "930", "no port for its membrane"))
    assert "four LIF, streams as sums" in reported(whole)


def counted(program: Program, phase: str) -> tuple[dict[str, np.ndarray], list[LayerCounts]]:
    values: dict[str, np.ndarray] = {}
    result = run_phase(
        program, phase, random_inputs(program, 3)[phase], watch=lambda op, x: values.update({op.name: x})
    )
    return values, layer_counts(program.phases[phase].ops, result.counts)


@pytest.mark.parametrize("seed", [0, 1])
def test_visits_are_those_of_the_four_binary_spikes(seed: int) -> None:
    """Every convolution behind LIF: the spikes of a run spread over their levels, counted by the program's own rule."""
    program = small_program(seed, 1)
    main = main_phase(runs_per_result(program))
    values, counts = counted(program, main)
    whole = map_network(program, resolve_target("loihi2"), counts={main: counts}, sharing="turns")
    form = by_name(whole)[LIF]
    network, done = form.mapping.network, 0
    lif = {v.op for v in form.mapping.verdicts if v.kind == "ni_lif" and v.verdict == "native"}
    for index, s in enumerate(network.synapses):
        source, target = network.populations[s.source], network.populations[s.target]
        op = next((op for op in program.phases[main].ops if op.name == s.op), None)
        if s.form != "conv" or source.op not in lif or op is None or s.transposed:
            continue
        spikes = values[op.inputs[0]].astype(np.int64)
        levels = np.stack([spikes > k for k in range(4)], axis=2).reshape(1, -1, *spikes.shape[2:]).astype(np.int64)
        weight = np.repeat(program.op_arrays(op)["weight"], 4, axis=2)
        weight = np.repeat(weight, target.channels // weight.shape[1], axis=1)
        found = conv_counts(op, {"weight": weight}, [levels], np.zeros(1))
        assert form.activity.synops[index] == pytest.approx(found.synops), s.name
        assert form.activity.rate[index] == pytest.approx(levels.mean()), s.name
        done += 1
    assert done > 5


def test_lava_takes_the_same_neurons_for_lif() -> None:
    """One rule: the Processes of a phase and the price of the form, which has no connection to a coarser unit."""
    program = nano_program()
    kinds = set()
    for name, phase in program.phases.items():
        ranges = {entry.op: entry for entry in prove_ranges(program)[name]}
        for op in phase.ops:
            if op.kind == "ni_lif":
                arrays = program.op_arrays(op)
                answer = levels_of(op, arrays, program, phase, ranges, False)
                assert isinstance(answer, Answer)
                direct = not any(part.fronts or part.before for part in answer.parts)
                defect = levels_defect(op, arrays, phase, ranges.get(op.inputs[0]))
                assert (defect is None) == direct
                kinds.add(defect is None)
    assert True in kinds
    program = pencil()
    plan = stock_plan(program, "look")
    neurons = sum(int(np.prod(node.shape)) for node in plan.nodes.values() if node.process == "LIF")
    form = by_name(map_network(program, resolve_target("loihi2"), sharing="turns"))[LIF]
    assert neurons == form.mapping.network.slots["neurons"] == 840


def test_streams_beyond_a_lif_keep_their_program(tmp_path: Path) -> None:
    """Weights so large that the last neurons' stream leaves 2^17: those stay, with the reason, and so do membranes."""
    program = pencil()
    arrays = dict(program.arrays)
    arrays["back.weight"] = np.full_like(arrays["back.weight"], 127)
    key = next(op.arrays["shift"] for op in program.phases["look"].ops if op.name == "back")
    arrays[key] = np.full_like(arrays[key], 6)
    wide = Program(program.phases, arrays, program.states)
    lif = by_name(map_network(wide, toy(tmp_path, cores_per_chip=16, tiles_x=16), sharing="turns"))[LIF]
    reasons = {v.op: v.reason for v in lif.needs}
    assert reasons["s3"].startswith("no LIF alone: a stream up to ") and "s1" not in reasons and lif.programmed == 150
    assert not map_network(pencil(2), toy(tmp_path, cores_per_chip=16, tiles_x=16), sharing="turns").forms


def test_binary_chips_save_their_sub_steps(tmp_path: Path) -> None:
    """Four sub-steps a step for graded spikes; none where every spike is binary."""
    target = toy(tmp_path, SLOTS, "loihi1", cores_per_chip=16, tiles_x=16, substeps=4)
    own, lif, *_ = map_network(pencil(), target, sharing="host").forms
    # Five levels. The slots of the fullest core alone set the time; the other phase is on the host.
    assert own.cost.on_chip.nominal == pytest.approx(4 * 5 * (1000 + 160 * 5) * 1e-9)
    assert lif.cost.on_chip.nominal == pytest.approx(5 * (1000 + 160 * 5) * 1e-9)
