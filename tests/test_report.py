"""The report and the overlay: nothing is drawn that no file holds, and foreign text cannot become markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spiketrack_deploy.bundle import layout as bundles
from spiketrack_deploy.bundle.answers import Checked
from spiketrack_deploy.bundle.faithful import parity
from spiketrack_deploy.inputs.sources import find_source
from spiketrack_deploy.program.describe import describe_program
from spiketrack_deploy.program.store import load_program
from spiketrack_deploy.report import html, pictures
from spiketrack_deploy.report.data import ReportData, joules
from spiketrack_deploy.report.guide import GUIDE
from spiketrack_deploy.report.overlay import FrameLabel, draw
from spiketrack_deploy.report.page import build
from spiketrack_deploy.report.verdict import remarks, sentences


@pytest.fixture(scope="module")
def data(exported: Path) -> ReportData:
    """What the tiny bundle's report is made from, read back from its files."""
    energy = json.loads((exported / bundles.ENERGY).read_text())
    row = {
        "confidence": 0.5,
        "updated": False,
        "energy_nj": energy["per_frame"]["search_nj"],
        "events": 10,
        "active": 0.3,
    }
    return ReportData(
        model={"name": "<b>tiny</b>", "remark": None, "weights": "trained weights"},
        clip={"name": "clip & co", "frames": 3, "width": 320, "height": 240, "init": [1, 2, 3, 4]},
        target="loihi2",
        engine="sim",
        command="spiketrack export '<script>'",
        program=describe_program(load_program(exported / "program")),
        energy=energy,
        parity=json.loads((exported / bundles.PARITY).read_text()),
        frames=[row | {"frame": 1}, row | {"frame": 2, "updated": True}],
        hashes={"content": "c" * 64, "program": "p" * 64},
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


def test_every_layer_and_every_price_is_in_the_page(data: ReportData) -> None:
    page = build(data)
    for row in data.energy["layers"]:
        assert row["name"] in page
    for name, price in data.energy["profile"]["prices"].items():
        assert name in page and html.text(price["source"]) in page
    for item in data.energy["unpriced"]:
        assert html.text(item["reason"]) in page


def test_verdict_never_gives_a_bare_number(data: ReportData) -> None:
    said = sentences(data)
    assert joules(data.energy["per_frame"]["dynamic_nj"]) in said[0] and "[" in said[0] and "estimate" in said[0]
    assert f"0 of {data.parity['engines']['integers']:,} integers" in said[1]


def test_untrained_boxes_are_not_judged(data: ReportData) -> None:
    from dataclasses import replace

    drawn = replace(data, model={"name": "tiny", "remark": "untrained weights", "weights": "untrained weights"})
    assert "overlap" in " ".join(sentences(data)) and "overlap" not in " ".join(sentences(drawn))
    assert any("untrained" in remark for remark in remarks(drawn))


def test_silent_neurons_are_named(data: ReportData) -> None:
    import copy
    from dataclasses import replace

    energy = copy.deepcopy(dict(data.energy))
    row = next(r for r in energy["layers"] if r["phase"] == "search" and r["kind"] == "ni_lif")
    row["counts"]["neuron_spiking"] = 0
    assert any(row["name"] in remark for remark in remarks(replace(data, energy=energy)))


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
