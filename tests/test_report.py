"""The report and the overlay: nothing is drawn that no file holds, and foreign text cannot become markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import verdict_check
from _cli import succeed

from spiketrack_deploy import api
from spiketrack_deploy.bundle import layout as bundles
from spiketrack_deploy.bundle.answers import Checked
from spiketrack_deploy.bundle.chips import on_chips
from spiketrack_deploy.bundle.faithful import parity
from spiketrack_deploy.bundle.recorded import recorded_counts, reprice
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.inputs.sources import find_source
from spiketrack_deploy.program.describe import describe_program
from spiketrack_deploy.program.store import load_program
from spiketrack_deploy.report import html, pictures
from spiketrack_deploy.report.data import ClipFacts, FrameFacts, ReportData, joules, micro
from spiketrack_deploy.report.guide import GUIDE
from spiketrack_deploy.report.overlay import FrameLabel, draw
from spiketrack_deploy.report.page import build
from spiketrack_deploy.report.verdict import remarks, sentences
from spiketrack_deploy.units import Interval, si_interval


@pytest.fixture(scope="module")
def data(exported: Path) -> ReportData:
    """What the tiny bundle's report is made from, read back from its files."""
    recorded = recorded_counts(exported / bundles.ENERGY)
    program = load_program(exported / "program")
    target = Target(recorded.profile.name, recorded.profile)
    energy = reprice(recorded, program, target)
    whole = on_chips(program, recorded.counts, target)
    assert whole is not None
    frame = FrameFacts(1, 0.5, False, energy.main.dynamic, 10, 0.3)
    return ReportData(
        model="<b>tiny</b>",
        weights="trained",
        remark=None,
        clip=ClipFacts("clip & co", 3, 320, 240, (1, 2, 3, 4), False),
        target="loihi2",
        engine="sim",
        command="spiketrack export '<script>'",
        program=describe_program(load_program(exported / "program")),
        energy=energy,
        parity=json.loads((exported / bundles.PARITY).read_text()),
        frames=[frame, replace(frame, frame=2, updated=True)],
        program_hash="p" * 64,
        content_hash="c" * 64,
        chips=(whole, "<figure>the chips</figure>"),
    )


class Tags(HTMLParser):
    """Collects tags and complains about ones that are not closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def test_page_is_well_formed_and_escapes(data: ReportData) -> None:
    page = build(data)
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and tags.seen.count("script") == 1 and tags.seen.count("svg") >= 5
    assert "&lt;b&gt;tiny" in page and "clip &amp; co" in page and "&lt;script&gt;" in page


def test_every_phase_layer_and_price_is_in_the_page(data: ReportData) -> None:
    page = build(data)
    assert [phase.name for phase in data.energy.phases] == ["search", "template"]
    for phase in data.energy.phases:
        assert f"Phase {phase.name}, mean of {phase.runs} runs" in page
        for row in phase.counts:
            assert row.name in page
    for name, price in data.energy.prices.items():
        assert name in page and html.text(price.source) in page
    for item in data.energy.unpriced:
        assert html.text(item.reason) in page


def test_verdict_never_gives_a_bare_number(data: ReportData) -> None:
    said = sentences(data)
    fit, cost, alone, way, dominance, exact = said[:6]
    assert fit.startswith("It fits loihi2: ") and "in turns on the same chips" in fit
    total, dynamic = joules(data.energy.total), joules(data.energy.dynamic)
    assert cost.startswith(f"A frame costs {total} in all") and f"{dynamic} dynamic" in cost and "estimate" in cost
    assert (
        "the chips alone: " in alone
        and "by the only published path" in way
        and "The largest part of the total" in dominance
    )
    assert f"0 of {data.parity['engines']['integers']:,} integers" in exact
    unplaced = sentences(replace(data, chips=None, energy=replace(data.energy, placed=None)))
    assert unplaced[0].startswith("A frame costs ") and "dynamic" in unplaced[0]


def test_page_map_and_energy_say_the_same(data: ReportData, exported: Path) -> None:
    """One number each for the total of a frame, its latency and the chips: they come from one function."""
    mapped, priced = api.map(exported), api.energy(exported, ["loihi2"])["profiles"][0]
    cost = priced["placed"]["cost"]
    assert mapped["cost"] == cost and priced["per_result"]["total_nj"] == cost["total_nj"]
    assert mapped["chips"] == cost["chips"] == priced["placed"]["chips"]
    page = build(data)
    total, latency = (Interval.from_dict(cost[key]) for key in ("total_nj", "latency_s"))
    assert joules(total) in page and micro(si_interval(latency, "s")) in page and html.text(mapped["sentence"]) in page
    recorded = json.loads((exported / bundles.ENERGY).read_text())["placed"]["cost"]
    assert recorded == cost
    assert verdict_check.check(exported) == [], "an independent sum over levels and prices finds other numbers"


@pytest.mark.parametrize("streams", ["summed", "merged"])
def test_an_independent_sum_agrees_on_a_network_of_several_chips(tmp_path: Path, streams: str) -> None:
    made = succeed(tmp_path, "export", "spiketrack-tiny", "--max-frames", 2, "--streams", streams, "-o", "b")
    assert made["energy"]["placed"]["chips"] > 1
    assert verdict_check.check(tmp_path / "b") == []


@pytest.mark.parametrize(
    ("share", "words"),
    [(1, "in every frame"), (3, "3 times a frame"), (1 / 25, "every 25 frames"), (0, "at the start alone")],
)
def test_how_often_a_phase_runs_is_said_in_words(data: ReportData, share: float, words: str) -> None:
    search, template = data.energy.phases
    assert (search.name, template.name) == ("search", "template"), "what runs most often comes first"
    energy = replace(data.energy, phases=(search, replace(template, per_result=share)))
    assert f"template {words}" in sentences(replace(data, energy=energy))[1]


def test_untrained_boxes_are_not_judged(data: ReportData) -> None:
    drawn = replace(data, remark="untrained weights")
    assert "overlap" in " ".join(sentences(data)) and "overlap" not in " ".join(sentences(drawn))
    assert any("untrained" in remark for remark in remarks(drawn))


def test_silent_neurons_are_named(data: ReportData) -> None:
    for place, phase in enumerate(data.energy.phases):
        row = next(row for row in phase.counts if row.kind == "ni_lif")
        silent = replace(row, counts={**row.counts, "neuron_spiking": 0})
        counts = tuple(silent if one is row else one for one in phase.counts)
        phases = list(data.energy.phases)
        phases[place] = replace(phase, counts=counts)
        said = remarks(replace(data, energy=replace(data.energy, phases=tuple(phases))))
        assert any(row.name in remark and f"phase {phase.name}" in remark for remark in said)


def test_pictures_are_the_same_twice_and_need_no_window() -> None:
    def once() -> str:
        parts = {"synops": [1.0, 2.0], "neuron": [0.5, 0.0]}
        return pictures.stacked_bands(["a", "b"], parts, [1.0, 1.0], [2.0, 4.0], "nJ", "t")

    assert once() == once() and "http" not in re.sub(
        r'xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>', "", once(), flags=re.S
    )


def test_overlay_draws_the_box_where_it_is() -> None:
    frame = np.zeros((240, 320, 3), np.uint8)
    plain = draw(frame, FrameLabel((50.0, 60.0, 40.0, 30.0), "text"))
    scale, bar = 1.5, plain.shape[0] - 360
    assert plain.shape[1] == 480 and bar > 0 and plain.shape[0] % 2 == 0
    green = np.argwhere((plain[bar:, :, 1] > 150) & (plain[bar:, :, 0] < 120))
    low, high = green.min(axis=0) / scale, green.max(axis=0) / scale
    assert np.abs(low - [60, 50]).max() <= 2 and np.abs(high - [90, 90]).max() <= 2
    warned = draw(frame, FrameLabel((50.0, 60.0, 40.0, 30.0), "text"), "untrained weights")
    assert warned.shape[0] > plain.shape[0]


def test_what_the_report_says_about_weights_and_chips(exported: Path) -> None:
    assert "nothing is stated about its weights" in (exported / bundles.REPORT).read_text(encoding="utf-8")
    trained, drawn = find_source("spiketrack-nano").weights, find_source("spiketrack-untrained").weights
    assert trained.startswith("trained weights") and drawn.startswith("untrained weights")
    assert "not answered" not in dict(GUIDE)["static"], "the page has a section that answers it"


def test_parity_states_what_was_counted() -> None:
    step = SimpleNamespace(box=(0, 0, 1, 1), argmax=0, confidence=1.0)
    run: Any = SimpleNamespace(calibration=[], held_out=[], steps=[step])
    lowered: Any = SimpleNamespace(convolutions=[], requantised=[], ranges={})
    found = parity(lowered, run, [], [step], "sim", Checked(1, 2, 300, 40))  # type: ignore[list-item]
    assert found["engines"]["differing"] == 40 and found["engines"]["integers"] == 300


def test_an_interval_in_a_table_is_not_broken_over_lines_and_text_is_escaped() -> None:
    page = html.table(["total"], [("22.2 mJ [7.5 mJ .. 59.3 mJ]",), ("mean [1] <b>",)])
    assert '<td>22.2 mJ <span class="band">[7.5 mJ .. 59.3 mJ]</span></td>' in page
    assert "<td>mean [1] &lt;b&gt;</td>" in page
