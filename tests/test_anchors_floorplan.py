"""The floorplan: every core is one cell, sums are those of the mapping, and the pictures need nothing from outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from _mapping import map_search, nano_program

from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.mapping.closed_loop import closed_loop
from spiketrack_deploy.mapping.types import ChipMapping
from spiketrack_deploy.report.floorplan import core_energy, draw, figure_html, floorplan, utilisation, write_pictures


@pytest.fixture(scope="module")
def mapping() -> ChipMapping:
    return map_search(nano_program(), load_profile("loihi2"))


def test_every_core_is_one_cell_and_nothing_is_lost(mapping: ChipMapping) -> None:
    plan = floorplan(mapping, load_profile("loihi2"))
    per_chip = plan.chip[0] * plan.chip[1]
    assert per_chip == mapping.limits.built, "a chip's cells are not its cores"
    for title, values in plan.values.items():
        assert int((~np.isnan(values)).sum()) == mapping.cores, f"{title}: cores share a cell or are missing"
        assert np.array_equal(np.isnan(values), plan.block < 0), f"{title} and the blocks colour different cells"
    synops, energy = (np.nansum(plan.values[title]) for title in list(plan.values)[1:])
    assert synops == pytest.approx(mapping.synapses.synops.sum())
    assert energy == pytest.approx(core_energy(mapping, load_profile("loihi2")).sum())
    held = {block for population in mapping.network.populations if population.on_chip for block in [population.block]}
    assert all(any(block.startswith(name) for block in held) for name in plan.blocks)


def test_a_core_over_a_limit_shows_above_a_hundred_per_cent(mapping: ChipMapping) -> None:
    assert utilisation(mapping).max() <= 1.0, "the nano model fits, so no core may show above 100 %"
    tighter = replace(mapping, limits=replace(mapping.limits, neurons=mapping.limits.neurons // 2))
    assert utilisation(tighter).max() > 1.0


def test_energy_follows_prices_and_substeps(mapping: ChipMapping) -> None:
    loihi2, loihi1, nothing = (load_profile(name) for name in ("loihi2", "loihi1", "akida"))
    flow = mapping.traffic
    arriving = sum(flow.messages)
    synop, slot, message = (loihi2.price(name).nominal for name in ("synop", "slot_microcode", "message"))
    steps = closed_loop(mapping, loihi2).steps
    by_hand = synop * mapping.synapses.synops.sum() + slot * mapping.loads.neurons.sum() * steps + message * arriving
    assert core_energy(mapping, loihi2).sum() == pytest.approx(by_hand)
    assert core_energy(mapping, loihi1).sum() > 4 * 0.052 * mapping.loads.neurons.sum(), "four sub-steps, four updates"
    assert not core_energy(mapping, nothing).any(), "without prices there is no energy"


def test_pictures_stand_alone_and_are_the_same_every_time(mapping: ChipMapping) -> None:
    plan = floorplan(mapping, load_profile("loihi2"))
    svg, png = draw(plan), draw(plan, "png")
    root = ElementTree.fromstring(svg)
    outside = [
        value
        for element in root.iter()
        for key, value in element.attrib.items()
        if key.endswith("href") and not value.startswith(("data:", "#"))
    ]
    assert not outside, f"the picture fetches {outside}"
    text = "".join(root.itertext())
    assert all(name in text for name in plan.blocks if int((plan.block == plan.blocks.index(name)).sum())), "unnamed"
    assert png.startswith(b"\x89PNG") and draw(plan) == svg and draw(plan, "png") == png
    page = figure_html(plan)
    assert page.startswith("<figure>") and plan.title in page


def test_pictures_are_written_as_files(mapping: ChipMapping, tmp_path: Path) -> None:
    plan = floorplan(mapping, load_profile("loihi2"))
    svg, png = write_pictures(plan, tmp_path / "new" / "folder")
    assert svg.read_text(encoding="utf-8") == draw(plan) and png.read_bytes() == draw(plan, "png")
