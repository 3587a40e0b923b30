"""The page's first view: four answers with their proof, and the network as a picture that can be explored; by hand, and
in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_report import Tags
from test_report import data as data  # the fixture

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.pricing import LayerEnergy, Part
from spiketrack_deploy.program.describe import links
from spiketrack_deploy.program.types import Op, Phase, TensorSpec
from spiketrack_deploy.report.cards import BAD, GOOD, UNKNOWN, cards, draw
from spiketrack_deploy.report.data import ReportData, joules, micro
from spiketrack_deploy.report.network import Network, network
from spiketrack_deploy.report.network_picture import picture
from spiketrack_deploy.report.page import build
from spiketrack_deploy.units import Interval, si_interval

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def op(name: str, block: str, *inputs: str) -> Op:
    return Op(name, "conv", inputs, block)


def layer(name: str, block: str, **counts: int) -> tuple[LayerCounts, LayerEnergy]:
    energy = Interval.exact(float(counts.get("synops", 0)))
    return LayerCounts(name, "conv", block, counts), LayerEnergy(
        name, "conv", block, (Part("synop", "synops", 1, energy),)
    )


def diamond(first: str = "stem") -> Network:
    """image -> stem -> (left, right) -> end; stem -> end as well, past both; a state enters right."""
    spikes, stream = TensorSpec("spikes", (1, 2, 3, 5), top=4), TensorSpec("stream", (1, 2, 3, 5))
    ops = (
        op("stem.a", first, "image"),
        op("left.a", "left", "stem.a"),
        op("right.a", "right", "stem.a", "kept"),
        op("end.a", "end", "left.a", "right.a"),
        op("end.b", "end", "stem.a"),
    )
    values = {"stem.a": spikes, "left.a": stream, "right.a": spikes, "end.a": spikes, "end.b": spikes}
    inputs = {"image": TensorSpec("image", (3, 3, 5), top=255), "kept": TensorSpec("memory", (1, 1, 2, 2))}
    phase = Phase("step", inputs, ops, values, {"out": "end.b"})
    pairs = [
        layer("stem.a", first, synops=10, events=15),
        layer("left.a", "left", synops=20, events=7),
        layer("right.a", "right", synops=40, events=8, memory_reads=32),
        layer("end.a", "end", synops=80, events=9, relays=3),
        layer("end.b", "end", synops=5, events=6),
    ]
    energy = SimpleNamespace(name="step", counts=tuple(p[0] for p in pairs), layers=tuple(p[1] for p in pairs))
    described = {"blocks": list(dict.fromkeys(o.block for o in ops)), "links": links(phase)}
    parity = [
        {"phase": "step", "name": "end.a", "block": "end", "spikes": 100, "forced_mismatches": 5},
        {"phase": "step", "name": "end.b", "block": "end", "spikes": 300, "forced_mismatches": 7},
        {"phase": "other", "name": "left.a", "block": "left", "spikes": 100, "forced_mismatches": 99},
    ]
    return network(energy, described, parity, None)  # type: ignore[arg-type]


def test_the_graph_by_hand() -> None:
    net = diamond()
    boxes = {box.name: box for box in net.boxes}
    assert {name: box.rank for name, box in boxes.items()} == {
        "image": 0, "stem": 1, "kept": 1, "left": 2, "right": 2, "end": 3,
    }  # fmt: skip
    assert boxes["stem"].column == 0 and boxes["kept"].column == 1, "what comes from outside stands beside the way"
    assert boxes["right"].column == 0, "most messages reach it"
    assert net.size == (2, 4)
    names = [box.name for box in net.boxes]
    assert {(names[x.source], names[x.target]): x.messages for x in net.links} == {
        ("image", "stem"): 15,
        ("stem", "left"): 7,
        ("stem", "right"): 8,
        ("kept", "right"): 32,
        ("left", "end"): 3,
        ("right", "end"): 9,
        ("stem", "end"): 6,
    }
    assert boxes["end"].energy == 85 and boxes["end"].synops == 85 and boxes["kept"].rows == ()
    assert boxes["end"].differing == pytest.approx(12 / 400) and boxes["left"].differing is None
    assert boxes["end"].cores is None, "nothing was mapped"


def test_the_picture_shows_every_box_and_escapes_foreign_names() -> None:
    hostile = '<script>alert("x")</script>'
    page = picture([diamond(hostile)])
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and "script" not in tags.seen
    assert tags.seen.count("rect") == 6 and tags.seen.count("path") == 7
    assert re.findall(r'<a href="#([^"]+)"', page) == re.findall(r'class="block-rows" id="([^"]+)"', page)
    assert 'data-by="cores"' not in page, "without chips there is no colour by cores"
    assert "alert" in unescape(page)


def test_every_answer_has_a_colour_and_a_proof_on_the_page(data: ReportData) -> None:
    page = build(data)
    found = cards(data)
    assert [card.question for card in found] == ["Does it fit?", "Fast enough?", "How much energy?", "Why believe it?"]
    for card in found:
        assert f'id="{card.proof}"' in page, f"{card.question} links to nothing"
        assert ". " not in card.sentence.replace(" .. ", " to ") and card.sentence.endswith("."), "one sentence"
    assert page.index('class="answers"') < page.index('class="verdict"'), "the answers come first"
    assert draw(found) in page
    assert found[0].colour == GOOD and "in turns on the same chips" in found[0].sentence
    assert data.chips is not None and micro(si_interval(data.chips[0].cost.latency, "s")) in found[1].sentence
    assert joules(data.energy.total) in found[2].sentence, "the total, as map and energy say it"
    bare = cards(replace(data, chips=None, energy=replace(data.energy, placed=None)))
    assert bare[0].colour == UNKNOWN and "no chip" in bare[0].sentence, "without a mapping nothing is claimed"
    assert bare[1].colour == UNKNOWN and "without static power" in bare[2].sentence
    assert all(f'id="{card.proof}"' in page for card in bare)
    broken = replace(data, parity={**data.parity, "engines": {**data.parity["engines"], "differing": 3}})
    assert cards(broken)[3].colour == BAD and "3 integers" in cards(broken)[3].sentence


def test_the_page_fetches_nothing(data: ReportData) -> None:
    page = build(data)
    assert not re.search(r"""(?:src|href)=["'](?:https?:|//)|url\((?!#)|@import|fetch\(|XMLHttpRequest|<link""", page)


PROBE = """
const errors = []; window.onerror = (message) => { errors.push(String(message)); };
"""
ASK = """
const boxes = [...document.querySelectorAll('.net a.block')], shown = () =>
  [...document.querySelectorAll('.block-rows')].filter(rows => getComputedStyle(rows).display !== 'none');
const before = shown().length, clicks = boxes.map(box => {
  box.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
  const open = shown();
  return open.length === 1 && '#' + open[0].id === box.getAttribute('href') && open[0].querySelectorAll('td').length;
});
const colours = [...document.querySelectorAll('.net .modes button')].map(button => {
  button.click();
  const key = button.dataset.by;
  return boxes.every(box => box.querySelector('rect').getAttribute('fill') === box.getAttribute('data-f-' + key)
    && box.querySelector('.value').textContent === box.getAttribute('data-t-' + key))
    && button.getAttribute('aria-pressed');
});
const letters = document.querySelector('.net .name').getBoundingClientRect().height;
const widest = document.documentElement.scrollWidth, found = {errors, before, clicks, colours, letters, widest,
  inner: innerWidth, modes: !document.querySelector('.modes').hidden, hash: location.hash,
  fetched: performance.getEntriesByType('resource').length};
document.body.setAttribute('data-found', JSON.stringify(found));
"""


def browse(tmp_path: Path, page: str, *options: str) -> str:
    """The page's tree once it is loaded."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}")
    done = subprocess.run(
        [str(BROWSER), *quiet, *options, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_real_browser(width: int, data: ReportData, tmp_path: Path) -> None:
    page = build(data).replace("<body>", f"<body><script>{PROBE}</script>", 1)
    page = page.replace("</body>", f"<script>{ASK}</script></body>")
    # A window of Chromium is at least 500 pixels wide, a frame in it as wide as we want.
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{escape(page, quote=True)}"></iframe>'
    tell = "onload = () => document.body.dataset.found = frames[0].document.body.dataset.found"
    dom = browse(tmp_path, f"<!doctype html><body>{frame}<script>{tell}</script></body>")
    match = re.search(r'data-found="([^"]*)"', dom)
    assert match, "the page's own script stopped before the probe"
    found: dict[str, Any] = json.loads(unescape(match[1]))
    assert found["errors"] == [] and found["fetched"] == 0
    assert found["inner"] == width and found["widest"] <= width, "the page is wider than the window"
    assert found["letters"] >= 9, "names of blocks are too small to read"
    blocks = sum(len(phase["blocks"]) for phase in data.program["phases"].values())
    assert found["before"] == 0 and len(found["clicks"]) == blocks and all(found["clicks"])
    assert found["modes"] and found["colours"] == ["true"] * 4, "energy, synaptic operations, disagreement, cores"
    assert found["hash"] == "", "a click stays where the reader is"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")
def test_without_scripts_it_is_a_still_picture(data: ReportData, tmp_path: Path) -> None:
    page = build(data)
    still = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    rows = re.findall(r'class="block-rows" id="([^"]+)"', page)
    ask = (
        "document.body.setAttribute('data-found',[...document.querySelectorAll('.block-rows')].filter(r =>"
        "getComputedStyle(r).display!=='none').map(r=>r.id)+'|'+document.querySelector('.modes').hidden)"
    )
    probe = f"<script>location.hash='{rows[1]}';{ask}</script></body>"
    dom = browse(tmp_path, still.replace("</body>", probe))
    match = re.search(r'data-found="([^"]*)"', dom)
    assert match and match[1] == f"{rows[1]}|true", "a link within the page opens the rows; no dead buttons"
