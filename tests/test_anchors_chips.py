"""Chips in the report of an export: what the mapping found stands on the page, and a convention has no chips."""

from __future__ import annotations

import re

import pytest
from _mapping import nano_program

from spiketrack_deploy.bundle.chips import chip_figures, on_chips
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.whole import WholeNetwork
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.report import html
from spiketrack_deploy.report.chip_section import section


@pytest.fixture(scope="module")
def program() -> Program:
    return nano_program()


def chips(program: Program, name: str) -> WholeNetwork | None:
    """What the report of an export shows, where every weighted operation has some work, every neuron layer some
    spikes."""
    some = {"events": 80, "synops": 8000, "unit_ops": 12000, "input_sum": 120, "input_size": 1800}
    kinds = {"conv": some, "query": some, "ni_lif": {"neuron_updates": 1000, "neuron_spiking": 100, "output_sum": 140}}
    ops = program.phases["search"].ops
    layers = [LayerCounts(op.name, op.kind, op.block, kinds.get(op.kind, {}), 2) for op in ops]
    return on_chips(program, {"search": layers}, resolve_target(name))


def test_what_the_mapping_found_is_on_the_page(program: Program) -> None:
    whole = chips(program, "loihi2")
    assert whole is not None
    page = section(whole, chip_figures(whole))
    words = re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
    said = whole.sentence
    assert whole.chosen.fits and said.startswith("It fits loihi2: ") and f"{whole.report.mapping.cores:,} cores" in said
    assert "with template in turns on the same chips" in said and html.text(said) in page
    for needed in ("One frame in flight", "interleaved", "elapsed steps", "native", "half as many levels"):
        assert needed in words, f"the page does not speak of {needed}"
    for line in whole.report.bill()["lines"]:
        assert html.text(line["name"]) in words, f"the page leaves out {line['name']}"
    for item in whole.report.unpriced:
        assert item.name in words, f"the page hides that {item.name} has no price"
    assert "<svg" in page and "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"|"http://[^"]*DTD[^"]*"', "", words)


def test_a_board_that_is_too_small_is_named_with_its_limit(program: Program) -> None:
    whole = chips(program, "kapoho_bay")
    assert whole is not None
    assert not whole.chosen.holds and whole.report.mapping.chips_available == 2
    assert whole.sentence.startswith("It does not fit kapoho_bay")
    assert "Limits exceeded" in section(whole, chip_figures(whole))


def test_loihi1_needs_a_host_and_never_fits(program: Program) -> None:
    """Streams and the image's convolution are graded, its spikes binary: these operations stay on a host."""
    whole = chips(program, "loihi1")
    assert whole is not None
    host = sum(r.mapping.host_operations for r in whole.phases.values())
    graded = [v for r in whole.phases.values() for v in r.mapping.verdicts if v.kind == "image_conv"]
    assert host > len(graded) == 2 and all(v.verdict == "host" for v in graded)
    assert whole.chosen.host_operations == host
    assert whole.chosen.holds and not whole.chosen.fits
    assert whole.sentence.startswith(f"It needs a host for {host} operations beside loihi1: ")


@pytest.mark.parametrize("name", ["cmos45_int8", "spinnaker2", "akida", "darwin3", "odin", "truenorth", "cpu"])
def test_without_a_family_there_is_nothing_to_map_to(name: str, program: Program) -> None:
    assert chips(program, name) is None
