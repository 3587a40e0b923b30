"""Chips in the report of an export: what the mapping found stands on the page, and a convention has no chips."""

from __future__ import annotations

import re

import pytest
from _mapping import nano_program

from spiketrack_deploy.bundle.chips import chip_figures
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.report import assess
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.report import MappingReport
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.report.chip_section import section, sentence


@pytest.fixture(scope="module")
def program() -> Program:
    return nano_program()


def chips(program: Program, name: str) -> tuple[MappingReport, str] | None:
    """What the report of an export shows, where every weighted operation has some work, every neuron layer some
    spikes."""
    some = {"events": 80, "synops": 8000, "unit_ops": 12000, "input_sum": 120, "input_size": 1800}
    kinds = {"conv": some, "query": some, "ni_lif": {"neuron_updates": 1000, "neuron_spiking": 100, "output_sum": 140}}
    ops = program.phases["search"].ops
    layers = [LayerCounts(op.name, op.kind, op.block, kinds.get(op.kind, {}), 2) for op in ops]
    target = resolve_target(name)
    return chip_figures(program, assess({"search": layers}, target.profile, {"search": 1}), target)


def test_what_the_mapping_found_is_on_the_page(program: Program) -> None:
    found = chips(program, "loihi2")
    assert found is not None
    report, picture = found
    page = section(report, picture)
    words = re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
    said = sentence(report)
    assert report.mapping.fits and said.startswith("It fits loihi2") and f"{report.mapping.cores:,} cores" in said
    for needed in ("static power", "a step", "native", "host"):
        assert needed in words, f"the page does not speak of {needed}"
    for line in report.energy.lines:
        assert line.name in words, f"the page leaves out {line.name}"
    for item in report.energy.unpriced:
        assert item.name in words, f"the page hides that {item.name} has no price"
    assert "<svg" in page and "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"|"http://[^"]*DTD[^"]*"', "", words)


def test_a_board_that_is_too_small_is_named_with_its_limit(program: Program) -> None:
    found = chips(program, "kapoho_bay")
    assert found is not None
    report, picture = found
    assert not report.mapping.fits and report.mapping.chips_available == 2
    assert sentence(report).startswith("It does not fit kapoho_bay")
    assert "Limits exceeded" in section(report, picture)


@pytest.mark.parametrize("name", ["cmos45_int8", "spinnaker2", "akida", "darwin3", "odin", "truenorth", "cpu"])
def test_without_a_family_there_is_nothing_to_map_to(name: str, program: Program) -> None:
    assert chips(program, name) is None
