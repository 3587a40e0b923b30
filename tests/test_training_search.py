"""The search over layouts: its outline is the compiled program's, its judgement the verdict's, its bounds are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _cli import succeed

from spiketrack_deploy import api
from spiketrack_deploy.api import results
from spiketrack_deploy.cli.commands import group
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.frontends.compile import compile
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.inputs.resources import models_dir
from spiketrack_deploy.mapping.activity import assumed
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.trackers.spiketrack.checkpoint import read_config
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_WALK, TrackerConfig
from spiketrack_deploy.training.budget import drawn
from spiketrack_deploy.training.outline import outline
from spiketrack_deploy.training.search import Bounds, Layout, judge, meets, rate, search, spread, verdict

LOIHI2 = resolve_target("loihi2")
WALKS = (
    ("downsample1_1", "downsample1_2", "downsample2", "ConvBlock2_1.0", "downsample3", "mrm.3"),
    ("downsample1_1", "ConvBlock1_1.0", "downsample1_2", "ConvBlock1_2.0", "downsample2", "downsample3", "mrm.2",
     "block3.0", "block3.4"),
    ("downsample1_1", "downsample1_2", "downsample2", "ConvBlock2_2.0", "downsample3", "block3.1", "mrm.2", "mrm.3",
     "block3.3"),
    ("downsample1_1", "downsample2", "downsample3", "mrm.3"),
)  # fmt: skip


def layout(number: int) -> TrackerConfig:
    """Odd layouts, every ratio another; the last has a first convolution of stride 4."""
    return TrackerConfig(
        f"odd{number}", ((6, 8, 10, 11)[number], 12, 24, 24), (48, 64, 80, 48)[number], 1, (16, 24, 33, 16)[number],
        heads=(3, 4, 8, 2)[number], walk=tuple(stage for stage in OFFICIAL_WALK if stage in WALKS[number]),
        sep_expansion=1 + number, conv_expansion=(3, 2, 1, 1)[number], mlp_expansion=2 + number % 2,
        value_ratio=(2, 1, 3, 2)[number],
    )  # fmt: skip


def bundled(name: str = "config.json") -> TrackerConfig:
    return read_config(models_dir() / "spiketrack-nano" / name)


@pytest.mark.parametrize("number", range(4))
def test_an_outline_has_the_populations_synapses_and_levels_of_the_compiled_program(number: int) -> None:
    config = layout(number)
    program, sketch = compile(drawn(config)).program, outline(config)
    for phase in ("template", "search"):
        assert populations(sketch, phase) == populations(program, phase)
        assert sketch.phases[phase].cadence == program.phases[phase].cadence


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (0, Way()),
        (0, Way("host")),
        (1, Way(streams="summed")),
        (2, Way("host", "summed")),
        (1, Way(streams="merged")),
        (3, Way("host")),
    ],
)
def test_what_the_search_judges_is_the_verdict(number: int, way: Way) -> None:
    """Counts exactly; energy and time but for drawn weights that are zero and for the best places of cores."""
    found, said = judge(layout(number), LOIHI2, way=way), verdict(layout(number), LOIHI2, way)
    assert isinstance(found, Layout)
    counts = (found.slots, found.levels, found.cores, found.chips, found.macs)
    assert counts == tuple(said[key] for key in ("slots", "levels", "cores", "chips", "macs"))
    for key in ("total_nj", "dynamic_nj", "on_chip_s", "latency_s"):
        own = found.cost.to_dict()[key]
        for end, value in said["cost"][key].items():
            assert own[end] == pytest.approx(value, rel=0.02), f"{key} {end}"


def test_the_bundled_layout_is_judged_as_its_card_says() -> None:
    found = judge(bundled(), LOIHI2)
    assert isinstance(found, Layout)
    assert (found.slots, found.levels, found.cores) == (266_609, 28, 114)
    assert judge(layout(1), LOIHI2, way=Way("host")) == float("inf"), "its first sums go on as a stream"
    assert judge(bundled(), LOIHI2, Bounds(slots_levels=3_000_000)) == pytest.approx(266_609 * 28 / 3_000_000 - 1)
    lean = judge(bundled(), LOIHI2, Bounds(chips=1, slots_levels=7_550_000, on_chip_s=1 / 30))
    assert isinstance(lean, Layout) and lean.slots_levels == 266_609 * 28


def test_the_search_keeps_its_bounds_repeats_itself_and_shows_what_nothing_beats() -> None:
    lean = bundled()
    bounds = Bounds(chips=1, latency_s=1 / 30, slots_levels=7_000_000)
    met, front = search(lean, LOIHI2, bounds, trials=60, seed=2)
    again, _ = search(lean, LOIHI2, bounds, trials=60, seed=2)
    assert met and [m.config for m in met] == [m.config for m in again]
    for one in met:
        assert one.chips == 1 and one.cost.latency.nominal <= 1 / 30 and one.slots_levels <= 7_000_000
        assert one.config.memory_indices, "without a retriever there is no template to look for"
    assert not any(a.beaten_by(b) for a in front for b in met)
    assert all(one in front or any(one.beaten_by(other) for other in front) for one in met)
    few = spread(front, 3)
    assert few[0] is front[0] and len(few) <= max(3, len(front[0].merits))
    assert meets(verdict(front[0].config, LOIHI2, front[0].way), replace(bounds, latency_s=0.034))


def test_a_share_for_each_population_is_what_one_share_is_where_they_agree() -> None:
    program = outline(layout(1))
    network = populations(program, "search")
    one, each = (assumed(network, program.arrays, d) for d in (0.25, lambda population: 0.25))
    np.testing.assert_array_equal(one.synops, each.synops)
    np.testing.assert_array_equal(one.rate, each.rate)
    assert one.spiking == each.spiking and each.origin != one.origin
    assert {rate(p) for p in network.populations if p.kind == "neurons"} == {0.33, 0.4, 0.7}


def test_the_command_writes_a_table_a_picture_and_configurations(tmp_path: Path, capsys) -> None:
    lean = models_dir() / "spiketrack-nano" / "config.json"
    bounds = ("--chips", 1, "--on-chip-ms", 8, "--trials", 25, "--first-layer", "chip", "--streams", "relayed")
    found = succeed(tmp_path, "budget", lean, "--search", *bounds, "-o", tmp_path / "out")
    assert set(found) == set(results.LayoutsResult.__annotations__)
    first, *rows = found["rows"]
    assert first["name"] == "spiketrack-nano" and not first["meets"] and rows and all(r["meets"] for r in rows)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"search.json", "search.png", *(f"config-{i}.json" for i in range(len(found["rows"])))}
    assert read_config(tmp_path / "out" / "config-1.json").name == rows[0]["name"]
    assert json.loads((tmp_path / "out" / "search.json").read_text()) == found
    assert api.budget(lean)["rows"][0]["macs"] == first["macs"]
    assert run(group, "spiketrack", ["budget", str(lean), "--search", "--trials", "2", "--slots-levels", "9"]) == 0
    text = capsys.readouterr().out
    assert "No layout keeps the bounds" in text and "| 266609" not in text and "267 k x 28 = 7.47" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("spiketrack-nano", "--chips", "1"), 2, "goes with --search alone"),
        (("spiketrack-nano", "--search", "--latency-ms", "0"), 2, "latency-ms"),
        (("s256_t3", "--search"), 3, "only layouts of one template"),
        (("s256_t1", "--search"), 3, "without the stage mrm.0"),
        (("spiketrack-nano", "--search", "--target", "cpu"), 3, "names no family of chips"),
        (("spiketrack-nano", "--search", "--trials", "1000000", "-o", "/proc/none"), 3, "cannot be written"),
    ],
)
def test_what_cannot_be_searched(arguments: tuple[str, ...], code: int, said: str, capsys) -> None:
    found = run(group, "spiketrack", ["budget", *arguments])
    err = capsys.readouterr().err
    assert found == code and said in err and "Traceback" not in err
