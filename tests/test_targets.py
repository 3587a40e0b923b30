"""Targets: one resolver for every command. A chip of a known family is one TOML file that every command accepts; what
nobody has said how to map is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _evaluation import dataset
from _mapping import loihi2, small_program
from _models import tiny_config

from spiketrack_deploy.cli.commands import group
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.errors import InputError, ProfileError, UsageError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.targets import ALIASES, Target, resolve_target
from spiketrack_deploy.hardware.vocabulary import FAMILIES as FAMILY_NAMES
from spiketrack_deploy.inputs.resources import profile_names
from spiketrack_deploy.mapping import check
from spiketrack_deploy.mapping.families import FAMILIES, family_of
from spiketrack_deploy.mapping.fit import map_program
from spiketrack_deploy.mapping.limits import core_limits
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.verdicts import verdicts
from spiketrack_deploy.program.types import Op, Program

# 7 x 5 routers of 2 cores, odd everywhere; a synop costs 7 pJ, a hop 2 pJ, a chip 0.25 W.
CHIP = """
schema = 1
name = "minichip"
title = "A chip of one's own"
kind = "chip"
family = "FAMILY"
unknown = ["everything else"]
assumptions = ["The minichip does not exist."]

[limits]
cores_per_chip = { value = 70, unit = "cores", tag = "assumed", source = "the test" }
cores_per_tile = { value = 2, unit = "cores", tag = "assumed", source = "the test" }
tiles_x = { value = 7, unit = "tiles", tag = "assumed", source = "the test" }
tiles_y = { value = 5, unit = "tiles", tag = "assumed", source = "the test" }
neurons_per_core = { value = 777, unit = "neurons", tag = "assumed", source = "the test" }
synaptic_words_per_core = { value = 9001, unit = "words", tag = "assumed", source = "the test" }

[prices]
synop = { value = 7.0, low = 5.0, high = 11.0, unit = "pJ", tag = "assumed", source = "the test" }
hop_ew = { value = 2.0, low = 1.0, high = 3.0, unit = "pJ", tag = "assumed", source = "the test" }
static_power = { value = 0.25, low = 0.2, high = 0.3, unit = "W", tag = "assumed", source = "the test" }
"""


@pytest.fixture
def chip(tmp_path: Path) -> Path:
    path = tmp_path / "minichip.toml"
    path.write_text(CHIP.replace("FAMILY", "loihi2"), encoding="utf-8")
    return path


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = run(group, "spiketrack", [str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def answer(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    code, out, err = call(capsys, *args, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_chip_of_a_known_family_is_one_file_for_every_command(
    chip: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    exported = answer(capsys, "export", tiny_checkpoint, "--target", chip, "--max-frames", 2, "-o", bundle)
    assert (exported["target"], exported["profile"]) == ("minichip", "minichip")
    assert any(sentence.startswith("It fits minichip") for sentence in exported["verdict"])
    assert "minichip" in (bundle / "report.html").read_text(encoding="utf-8")

    mapped = answer(capsys, "map", bundle, "--target", chip)
    detail = mapped["detail"]
    assert mapped["target"] == "minichip" and mapped["fits"] and detail["limits"]["neurons"] == 777
    assert detail["chips"] == -(-detail["cores"] // 70)
    hops = next(line for line in detail["run"]["lines"] if line["price"] == "hop_ew")
    assert hops["count"] > 0 and hops["energy_nj"]["nominal"] == pytest.approx(0.002 * hops["count"])
    assert mapped["cost"]["static_nj"]["nominal"] == pytest.approx(mapped["chips"] * 0.25 / 30 * 1e9)
    assert mapped["cost"]["input_nj"] is mapped["cost"]["image_s"] is None, "a path without a time is not free"
    lacking = {item["name"] for item in detail["run"]["unpriced"]}
    assert {"image_way", "chip_steps", "slot_steps_microcode"} <= lacking, "what the file leaves out is listed"

    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny_config(1).to_dict()), encoding="utf-8")
    (row,) = answer(capsys, "budget", config, "--target", chip)["rows"]
    assert row["fits"] == mapped["fits"] and row["cores"] == detail["cores"]

    priced = answer(capsys, "energy", bundle, "--profile", chip)
    (phase,) = [report["phases"]["search"] for report in priced["profiles"]]
    synops, hopped = phase["charged"]["synops"], phase["of_no_layer_nj"]["hop_ew"]
    assert phase["unamortised_nj"]["nominal"] == pytest.approx(0.007 * synops + hopped["nominal"])
    assert phase["unamortised_nj"]["high"] == pytest.approx(0.011 * synops + hopped["high"])

    shown = answer(capsys, "targets", "show", chip)
    assert shown["name"] == "minichip" and shown["family"] == "loihi2"

    data = dataset(tmp_path / "data", ["a"], frames=3)
    scored = answer(capsys, "evaluate", bundle, data, "--profile", chip, "-o", tmp_path / "scored")
    (tracker,) = scored["trackers"].values()
    assert tracker["energy"]["profile"] == "minichip" and tracker["energy"]["per_frame_nj"]["nominal"] > 0

    chip.unlink()  # the bundle holds the profile it was priced with
    tracked = answer(capsys, "track", bundle, data / "a" / "img", "--init", "40,40,30,30", "-o", tmp_path / "tracked")
    assert tracked["frames"] == 3


def test_a_board_is_a_target_of_every_command(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = answer(
        capsys, "export", tiny_checkpoint, "--target", "kapoho_point", "--max-frames", 2, "-o", tmp_path / "bundle"
    )
    assert exported["profile"] == "kapoho_point"
    assert "chips_of_board" in exported["energy"]["static"] and "of 8 chip" in " ".join(exported["verdict"])
    found = answer(capsys, "budget", "spiketrack-nano", "--target", "kapoho_point")
    assert found["chips"] == 8 and found["cores"] == 8 * 120


@pytest.mark.parametrize("command", ["export", "map", "budget", "energy", "targets", "evaluate"])
def test_an_unknown_name_is_refused_by_every_command(
    command: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = {
        "export": ("spiketrack-untrained", "--target", "loihi9"),
        "map": ("spiketrack-untrained", "--target", "loihi9"),
        "budget": ("spiketrack-nano", "--target", "loihi9"),
        "energy": (exported, "--profile", "loihi9"),
        "targets": ("show", "loihi9"),
        "evaluate": ("static", dataset(tmp_path / "data", ["a"]), "--profile", "loihi9"),
    }[command]
    code, out, err = call(capsys, command, *args)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "no target 'loihi9'" in err and "loihi2" in err and "kapoho_point" in err and "cpu" in err
    assert not (tmp_path / "export").exists()


def test_every_bundled_name_and_alias_resolves() -> None:
    for name in profile_names():
        assert resolve_target(name).profile == load_profile(name) and resolve_target(name).name == name
    assert resolve_target("cpu") == Target("cpu", load_profile(ALIASES["cpu"]))
    with pytest.raises(UsageError, match="TOML"):
        resolve_target("nothing")
    with pytest.raises(ProfileError, match="cannot be read"):
        resolve_target("nothing.toml")


def test_a_chip_without_a_family_is_refused_with_a_sentence_that_lists_them(
    chip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = chip.read_text(encoding="utf-8")
    chip.write_text(text.replace('family = "loihi2"\n', ""), encoding="utf-8")
    for command in (("map", "spiketrack-untrained"), ("budget", "spiketrack-nano")):
        code, out, err = call(capsys, *command, "--target", chip)
        assert code == 3 and out == "" and err.count("\n") == 1, err
        assert "minichip names no family" in err and "loihi1, loihi2" in err
    chip.write_text(text.replace('family = "loihi2"', 'family = "loihi7"'), encoding="utf-8")
    code, out, err = call(capsys, "map", "spiketrack-untrained", "--target", chip)
    assert code == 3 and "unknown family 'loihi7'; known are loihi1, loihi2" in err


def test_boards_and_other_coefficients_are_of_their_chips_family() -> None:
    for name in profile_names():
        profile = load_profile(name)
        if profile.chip is not None:
            assert profile.family == load_profile(profile.chip).family is not None, name
    assert family_of(load_profile("kapoho_bay")) == "loihi1"


def test_the_family_decides_memory_and_verdicts_not_the_payload(chip: Path) -> None:
    """The same numbers in another family are another chip: here no payload is stated at all."""
    program = small_program(0, 1)
    found = {}
    for family in FAMILIES:
        chip.write_text(CHIP.replace("FAMILY", family), encoding="utf-8")
        mapping = map_program(program, "search", resolve_target(str(chip)), rounds=1)
        assert check.defects(mapping, program) == []
        found[family] = mapping
    one, two = found["loihi1"], found["loihi2"]
    assert one.loads.words.sum() > two.loads.words.sum(), "an index beside every weight takes memory"
    kinds = [{v.kind: v.verdict for v in mapping.verdicts} for mapping in (one, two)]
    assert kinds[0]["add"] == "host" and kinds[1]["add"] == "microcode"


def test_every_family_is_complete() -> None:
    assert set(FAMILIES) == set(FAMILY_NAMES) == set(check._ROWS)
    assert all(family.assumptions and family.split for family in FAMILIES.values())


def test_an_unknown_operation_is_refused_by_name() -> None:
    program = small_program(0, 1)
    phase = program.phases["search"]
    strange = tuple(replace(op, kind="convolve3d") if op.kind == "add" else op for op in phase.ops)
    phase = replace(phase, ops=strange)
    changed = Program({"search": phase}, program.arrays, program.meta)
    first: Op = next(op for op in strange if op.kind == "convolve3d")
    with pytest.raises(InputError, match=f"{first.name} of kind convolve3d"):
        populations(changed, "search")
    with pytest.raises(InputError, match=f"{first.name} of kind convolve3d.*loihi2"):
        verdicts(phase, core_limits(loihi2()))
