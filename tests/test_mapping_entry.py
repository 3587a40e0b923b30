"""The first layer on the host: what is left on the chips, what enters, and what `What would change it` says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import verdict_check
from _cli import refuse, succeed
from _evaluation import dataset
from _mapping import nano_program, small_program
from _nir_exact import drawn_case
from _programs import OFFICIAL_STAGES, tracker_program

from spiketrack_deploy.energy.frames import result_cost
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.check import defects
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.mapping.whole import WholeNetwork, map_network
from spiketrack_deploy.program.types import Program

pytestmark = pytest.mark.timeout(120)
DENSITY = 0.37


@pytest.fixture(
    scope="module",
    params=[lambda: without_stream(1), lambda: without_stream(3), nano_program],
    ids=["one time step", "three time steps", "nano"],
)
def program(request: pytest.FixtureRequest) -> Program:
    made: Program = request.param()
    return made


def without_stream(steps: int) -> Program:
    """No block behind the first convolution, so that neurons read it."""
    stages = [stage for stage in OFFICIAL_STAGES if not stage.startswith("ConvBlock1_1")]
    return tracker_program(5, (8, 16, 16, 24), 48, steps, 16, stages=stages)


def mapped(program: Program, first_layer: str) -> WholeNetwork:
    options: dict[str, Any] = {"density": DENSITY, "rounds": 1, "sharing": "turns", "way": Way(first_layer)}
    return map_network(program, resolve_target("loihi2"), **options)


def test_only_what_reads_the_picture_leaves_and_every_other_neuron_lies_on_a_core_once(program: Program) -> None:
    before, after = mapped(program, "chip"), mapped(program, "host")
    for name in program.phases:
        whole, rest = before.phases[name].mapping, after.phases[name].mapping
        assert defects(rest, program) == []
        entered = [p for p in rest.network.populations if p.kind == "entry"]
        assert entered and not any(p.kind == "image" for p in rest.network.populations)
        slots = sum(whole.network.slots.values()) - sum(rest.network.slots.values())
        assert slots == sum(p.slots for p in entered)
        assert rest.host_operations > whole.host_operations
        assert {op.name for op in program.phases[name].ops if op.kind == "image_conv"} <= {
            v.op for v in rest.verdicts if v.verdict == "host"
        }


def test_what_enters_are_its_spikes(program: Program) -> None:
    report = mapped(program, "host").report
    entered = [p for p in report.mapping.network.populations if p.kind == "entry"]
    assert report.run.entering == pytest.approx(DENSITY * sum(p.slots for p in entered))
    pixels = sum(s.slots for s in mapped(program, "chip").report.mapping.network.populations if s.kind == "image")
    assert mapped(program, "chip").report.run.entering == pixels


def test_counted_spikes_enter_where_a_run_was_counted() -> None:
    program = nano_program()
    network = mapped(program, "host").report.mapping.network
    entry = next(i for i, p in enumerate(network.populations) if p.kind == "entry")
    reader = next(s for s in network.synapses if s.source == entry)
    counts = {name: [_counts(op.name, 100) for op in phase.ops] for name, phase in program.phases.items()}
    at = next(i for i, layer in enumerate(counts["search"]) if layer.name == reader.op)
    counts["search"][at] = _counts(reader.op, network.populations[entry].slots, events=41)
    whole = map_network(program, resolve_target("loihi2"), counts=counts, rounds=1, way=Way("host"))
    assert whole.report.run.entering == pytest.approx(41)


def _counts(name: str, size: int, events: int = 10) -> LayerCounts:
    return LayerCounts(name, "conv", "", {"input_size": size, "events": events, "synops": events})


def test_the_change_that_is_offered_is_what_mapping_it_so_costs(program: Program) -> None:
    offered = next(c for c in mapped(program, "chip").changes if c.what.startswith("first layer on the host"))
    done = mapped(program, "host")
    like = done.chosen.results["steady"]
    steady = result_cost("steady", [done.report.run], done.profile, done.report.mapping.chips, like.period_s)
    assert (offered.cores, offered.chips) == (done.report.mapping.cores, done.report.mapping.chips)
    assert offered.cost.image == steady.image
    for name in ("on_chip", "dynamic", "total"):
        assert getattr(offered.cost, name).nominal == pytest.approx(getattr(steady, name).nominal, rel=0.02), name
    assert not any(c.what.startswith("first layer") for c in done.changes)


def test_its_work_is_named_and_has_no_price(program: Program) -> None:
    whole = mapped(program, "host")
    assert {item.per for item in whole.chosen.unpriced if item.name == "first_layer_on_host"} == set(program.phases)
    assert whole.chosen.answer.startswith("needs a host for")
    assert "with the first layer on the host" in whole.sentence


def test_the_command_says_who_runs_it(tmp_path: Path) -> None:
    result = succeed(tmp_path, "map", "spiketrack-nano", "--first-layer", "host")
    assert result["first_layer"] == "host"
    assert any("way of the first layer's spikes" in words for words in result["camera"])


def test_an_export_says_it_records_it_and_every_verb_keeps_it(tmp_path: Path) -> None:
    made = succeed(tmp_path, "export", "spiketrack-nano", "--max-frames", 2, "--first-layer", "host", "-o", "b")
    energy = json.loads((tmp_path / "b" / "energy.json").read_text())
    assert energy["placed"]["way"] == {"first_layer": "host", "streams": "relayed"}
    assert any("way of the first layer's spikes" in words for words in made["energy"]["placed"]["camera"])
    kept, other = succeed(tmp_path, "map", "b"), succeed(tmp_path, "map", "b", "--first-layer", "chip")
    assert kept["first_layer"] == "host" and other["first_layer"] == "chip"
    assert kept["cost"]["total_nj"] == made["energy"]["placed"]["cost"]["total_nj"] != other["cost"]["total_nj"]
    assert verdict_check.check(tmp_path / "b") == [], "an independent sum over levels and prices finds other numbers"
    priced = succeed(tmp_path, "energy", "b", "--profile", "loihi2")["profiles"][0]["placed"]
    assert priced["cost"]["total_nj"] == made["energy"]["placed"]["cost"]["total_nj"]
    row = next(row for row in succeed(tmp_path, "targets", "compare", "b")["rows"] if row["name"] == "loihi2")
    assert row["total_nj"] == kept["cost"]["total_nj"] and "first layer on the host" in row["note"]
    dataset(tmp_path / "data", ("one",), frames=3)
    for out, asked, way in (("host", (), "host"), ("chip", ("--first-layer", "chip"), "chip")):
        scored = succeed(tmp_path, "evaluate", "b", "data", *asked, "-o", out)["trackers"]["b@sim"]
        assert scored["energy"]["placed"]["way"]["first_layer"] == way


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("export", "--first-layer", "host", "--target", "cpu"), ("target cmos45", "none that can be mapped to")),
        (("export", "spmtrack-micro", "--streams", "summed"), ("spmtrack-micro", "nothing for --first-layer")),
        (("export", "--first-layer", "moon"), ("moon", "chip", "host")),
        (
            ("evaluate", "data", "--first-layer", "host", "--profile", "cmos45_int8"),
            ("cmos45_int8", "none that can be mapped to"),
        ),
    ],
)
def test_a_choice_that_no_chip_has_is_refused(tmp_path: Path, asked: tuple[str, ...], words: tuple[str, ...]) -> None:
    dataset(tmp_path / "data", ("one",), frames=3)
    refuse(tmp_path, 2, words, *asked)


def test_a_stream_behind_it_or_no_picture_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no neurons read a picture and nothing else"):
        map_network(small_program(3, 1), resolve_target("loihi2"), rounds=1, way=Way("host"))
    with pytest.raises(UsageError, match="no neurons read a picture and nothing else"):
        map_network(drawn_case(1, 2).lowered(8).program, resolve_target("loihi2"), rounds=1, way=Way("host"))
    with pytest.raises(UsageError, match="chip or the host, not on 'moon'"):
        map_network(small_program(3, 1), resolve_target("loihi2"), way=Way("moon"))
