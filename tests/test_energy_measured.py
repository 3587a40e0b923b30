"""One table across chips, and a measurement beside the prediction: by hand, and every unusable file by its sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _cli import refuse, spiketrack, succeed
from _hostile import one_sentence

from spiketrack_deploy import api
from spiketrack_deploy.energy.measured import Measured, Rail, read_measured, residuals
from spiketrack_deploy.inputs.resources import profile_names
from spiketrack_deploy.units import Interval

GOOD = """
schema = "spiketrack-measured/1"
network = "HASH"
target = "oheo_gulch"
chips = 1
frames = 200
seconds = 2.0
boundary = "chip rails"

[rails.VDD]
unit = "mW"
static = 100.0
running = 150.0

[rails.VDDM]
unit = "W"
static = 0.15
running = 0.25

[rails.VDDIO]
unit = "uW"
static = 5000
running = 6000
"""


def write(bundle: Path, folder: Path, old: str = "", new: str = "", name: str = "rails.toml") -> Path:
    assert old in GOOD
    text = GOOD.replace(old, new) if old else GOOD
    path = folder / name
    path.write_text(text.replace("HASH", json.loads((bundle / "MANIFEST.json").read_text())["program_hash"]))
    return path


def test_residuals_by_hand() -> None:
    rails = (Rail("VDD", 0.1, 0.15), Rail("VDDM", 0.15, 0.25))
    found = Measured("n", "t", 2, 200, 2.0, "chip rails", rails)
    predicted = {
        "latency_s": Interval(0.005, 0.008, 0.02),
        "on_chip_s": Interval.exact(0.004),
        "dynamic_nj": Interval(1e5, 1e6, 1.2e6),
    }
    static, time, alone, dynamic, total = residuals(found, Interval(0.1, 0.125, 0.2), predicted)
    assert static.measured == pytest.approx(0.25) and static.off == pytest.approx(0.0)
    assert time.measured == pytest.approx(0.01) and time.off == pytest.approx(0.25)
    assert alone.off == pytest.approx(1.5) and not alone.to_dict()["inside"]
    assert dynamic.measured == pytest.approx(0.15 * 0.01) and dynamic.off == pytest.approx(0.5)
    assert not dynamic.to_dict()["inside"] and time.to_dict()["inside"]
    assert total.measured == pytest.approx(0.4 * 0.01) and total.predicted is not None
    assert total.predicted.nominal == pytest.approx(1e6 * 1e-9 + 2 * 0.125 * 0.01), "over the measured time"
    nothing = residuals(found, None, {})
    assert [row.off for row in nothing] == [None] * 5 and nothing[3].to_dict()["inside"] is None


def test_a_measurement_stands_beside_the_prediction(exported: Path, tmp_path: Path) -> None:
    path = write(exported, tmp_path)
    found = succeed(tmp_path, "energy", exported, "--measured", path)
    measured = found["measured"]
    rows = {row["name"]: row for row in measured["rows"]}
    assert rows["static power, all chips"]["measured"] == pytest.approx(0.255), "mW, W and uW"
    assert rows["dynamic energy of a frame"]["measured"] == pytest.approx(0.151 * 0.01)
    mapped = api.map(exported, target="oheo_gulch")
    assert rows["dynamic energy of a frame"]["predicted"]["nominal"] == pytest.approx(
        mapped["cost"]["dynamic_nj"]["nominal"] * 1e-9
    )
    assert rows["time of a frame, image's way in it"]["predicted"] == mapped["cost"]["latency_s"]
    assert rows["time of a frame, on the chips alone"]["predicted"] == mapped["cost"]["on_chip_s"]
    assert [profile["profile"]["name"] for profile in found["profiles"]] == ["oheo_gulch"]
    same = json.loads(json.dumps({"schema": "spiketrack-measured/1", **_plain(path)}))
    as_json = tmp_path / "rails.json"
    as_json.write_text(json.dumps(same))
    assert read_measured(as_json) == read_measured(path)
    done = spiketrack(tmp_path, "energy", exported, "--measured", path)
    assert done.returncode == 0 and "measured is" in done.stdout and "VDDIO 5 mW still" in done.stdout


def _plain(path: Path) -> dict:
    from spiketrack_deploy.inputs.untrusted import read_toml

    return read_toml(path)


HOSTILE = {
    "a unit of voltage": ('unit = "mW"', 'unit = "mV"', "rails.VDD.unit 'mV' is no unit of power"),
    "a unit of energy": ('unit = "W"', 'unit = "uJ"', "must be one of uW, mW, W"),
    "no unit": ('unit = "mW"\n', "", "unit is missing in rails.VDD"),
    "a missing rail": ("[rails.VDDIO]", "[rails.VCC]", "VDDIO"),
    "another network": ('"HASH"', f'"{"0" * 64}"', "it measured network 0000000000000000"),
    "an unknown target": ('"oheo_gulch"', '"loihi9"', "no target 'loihi9'"),
    "no frames": ("frames = 200", "frames = 0", "frames must be an integer of 1"),
    "no time": ("seconds = 2.0", "seconds = 0.0", "seconds must be a time in seconds above 0"),
    "negative power": ("static = 100.0", "static = -1.0", "rails.VDD.static must be a power of at least 0"),
    "power that is text": ("static = 100.0", 'static = "100"', "rails.VDD.static must be a number"),
    "not a number": ("static = 100.0", "static = nan", "rails.VDD.static"),
    "another schema": ("measured/1", "measured/9", "schema"),
    "an unknown entry": ("chips = 1", "chips = 1\nvolts = 3", "volts is no entry"),
    "no rails": ("[rails.VDD]", "[other.VDD]", "other"),
    "no TOML": ("chips = 1", "chips = = 1", "not valid TOML"),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_an_unusable_measurement_is_refused_by_its_sentence(case: str, exported: Path, tmp_path: Path) -> None:
    old, new, words = HOSTILE[case]
    path = write(exported, tmp_path, old, new)
    one_sentence(lambda: api.energy(exported, measured=path), words, str(path))


def test_a_refusal_is_one_sentence_on_the_command_line(exported: Path, tmp_path: Path) -> None:
    path = write(exported, tmp_path, 'unit = "mW"', 'unit = "mV"')
    refuse(tmp_path, 3, ("mV", "docs/energy.md"), "energy", exported, "--measured", path)
    refuse(tmp_path, 3, ("nowhere.toml",), "energy", exported, "--measured", tmp_path / "nowhere.toml")


def test_one_table_across_chips(exported: Path, tmp_path: Path) -> None:
    found = succeed(tmp_path, "targets", "compare", exported)
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows) == set(profile_names()), "every profile has a row"
    assert all(row["total_nj"] or row["dynamic_nj"] or row["note"] for row in rows.values()), "the unknown says so"
    for name in ("loihi2", "oheo_gulch", "loihi1"):
        mapped = api.map(exported, target=name)
        assert rows[name]["fits"] == mapped["fits"] and rows[name]["chips"] == mapped["chips"]
        assert rows[name]["latency_s"] == mapped["cost"]["latency_s"]
        assert rows[name]["dynamic_nj"] == mapped["cost"]["dynamic_nj"]
    assert rows["akida"]["fits"] is None and rows["akida"]["dynamic_nj"] is None
    priced = api.energy(exported, ["darwin3"])
    assert rows["darwin3"]["dynamic_nj"] == priced["profiles"][0]["phases"][priced["main"]]["unamortised_nj"]
    twin = next(line for line in priced["comparison"]["dense"] if "twin" in line["name"])
    assert rows["eyeriss"]["dynamic_nj"] == pytest.approx(twin["energy_nj"]["eyeriss"])
    done = spiketrack(tmp_path, "targets", "compare", exported)
    assert done.returncode == 0 and "not known" in done.stdout


def test_targets_says_how_it_is_used(tmp_path: Path) -> None:
    refuse(tmp_path, 2, ("targets compare BUNDLE",), "targets", "compare")
    refuse(tmp_path, 3, ("no such checkpoint",), "targets", "compare", "nowhere.pth")
