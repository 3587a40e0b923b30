"""Every profile of a board, a comparison chip or a convention: whole, honest about what it does not know, and refused
when it contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiketrack_deploy.energy.pricing import CHARGES, event_prices
from spiketrack_deploy.errors import ProfileError
from spiketrack_deploy.hardware.profiles import list_profiles, load_profile
from spiketrack_deploy.inputs.resources import profile_names

BOARDS = {
    "kapoho_bay": ("loihi1", 2), "nahuku_32": ("loihi1", 32), "pohoiki_springs": ("loihi1", 768),
    "oheo_gulch": ("loihi2", 1), "kapoho_point": ("loihi2", 8), "vpx": ("loihi2", 16), "hala_point": ("loihi2", 1152),
}  # fmt: skip
ACCELERATORS = {"eyeriss", "edge_tpu", "nvidia_vsq4"}
COMPARED = {"truenorth", "odin", "spinnaker2", "speck", "akida", "xylo", "darwin3"}
CONVENTIONS = {f"cmos45_{bits}{memory}" for bits in ("fp32", "int8", "int4") for memory in ("", "_memory")}

BOARD = """
schema = 1
name = "toy"
title = "A toy board"
kind = "board"
chip = "loihi2"
unknown = ["its power"]
assumptions = ["it is a toy"]

[limits]
chips = { value = 3, unit = "chips", tag = "specified", source = "the test" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_the_project_promises_is_there() -> None:
    wanted = {"loihi1", "loihi1_davies", "loihi1_sanafe", "loihi2", *BOARDS, *COMPARED, *CONVENTIONS, *ACCELERATORS}
    assert wanted <= set(profile_names()), f"missing profiles: {sorted(wanted - set(profile_names()))}"
    kinds = {profile.name: profile.kind for profile in list_profiles()}
    assert {name for name, kind in kinds.items() if kind == "board"} == set(BOARDS)
    assert {name for name, kind in kinds.items() if kind == "convention"} == CONVENTIONS


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_board_is_its_chip_and_a_number(name: str) -> None:
    chip_name, chips = BOARDS[name]
    board, chip = load_profile(name), load_profile(chip_name)
    assert board.chips == chips
    assert board.prices == chip.prices, "a board must price events as its chip does"
    assert {k: v for k, v in board.limits.items() if k not in ("chips", "board_power")} == chip.limits
    assert set(chip.unknown) <= set(board.unknown) and set(chip.assumptions) <= set(board.assumptions)
    assert chip.boards[name].value == chips, "the chip's own list of boards says another number"
    assert chip.chips is None, "a chip family has no fixed number of chips"
    assert board.digest != chip.digest


def test_no_board_is_listed_without_a_profile() -> None:
    listed = {name for profile in list_profiles() for name in profile.boards}
    assert listed == set(BOARDS)


def test_the_sets_of_loihi_1_share_limits_and_nothing_else() -> None:
    both, davies, sanafe = (load_profile(name) for name in ("loihi1", "loihi1_davies", "loihi1_sanafe"))
    assert davies.limits == sanafe.limits == both.limits
    assert "static_power" not in davies.prices and "static_power" not in sanafe.prices
    for name in ("unit_op", "neuron_idle", "neuron_active", "unit_message"):
        merged = both.prices[name]
        for profile in (davies, sanafe):
            value = profile.prices[name].value
            assert merged.low <= value <= merged.high, f"{name} of {profile.name} is outside the band of loihi1"
    assert davies.prices["unit_op"].value == 23.6 and sanafe.prices["unit_op"].value == 24.0


def test_totals_over_events_are_never_multiplied() -> None:
    assert "event_total" not in CHARGES, "26 pJ of TrueNorth is a total, not a price of one event"
    for name in ("truenorth", "spinnaker2"):
        profile = load_profile(name)
        assert "event_total" in profile.prices
        assert not event_prices(profile), f"{name} prices events of ours"
    assert load_profile("odin").prices["unit_op"].value == 8.43, "the incremental figure, not 12.7"
    assert load_profile("darwin3").prices["unit_op"].value == 5.47


def test_structure_only_profiles_price_nothing() -> None:
    for name in ("speck", "akida", "xylo", *ACCELERATORS):
        profile = load_profile(name)
        assert profile.limits and not event_prices(profile), name


def test_memory_traffic_costs_what_its_words_cost() -> None:
    word = 5.0  # Horowitz: 32-bit word of a 32 KB SRAM
    assert load_profile("cmos45_fp32_memory").prices["synop_memory"].value == 3 * word
    assert load_profile("cmos45_int8_memory").prices["synop_memory"].value == 2.25 * word


HOSTILE = {
    "a board without a chip": ('chip = "loihi2"\n', "prices = {}\n", "names its chip"),
    "a board of nothing": ("value = 3", "value = 0", "chips.value"),
    "an unknown chip": ('chip = "loihi2"', 'chip = "loihi9"', "loihi9"),
    "a board of boards": ('chip = "loihi2"', 'chip = "kapoho_point"', "not a chip"),
    "a path as a chip": ('chip = "loihi2"', 'chip = "../loihi2"', "unknown chip"),
    "a chip of a board kind": ('kind = "board"', 'kind = "chip"\nprices = {}', "for boards"),
    "a convention with a chip": ('kind = "board"', 'kind = "convention"\nprices = {}', "convention|boards"),
    "limits that are no table": ("[limits]\nchips = ", "limits = 3\n[boards]\nx = ", "limits"),
    "too few cores for the mesh": (
        "[limits]\n",
        '[limits]\ncores_per_chip = { value = 127, unit = "cores", tag = "assumed", source = "x" }\n',
        "127 cores",
    ),
    "more words than memory": (
        "[limits]\n",
        '[limits]\nsynaptic_words_per_core = { value = 99999, unit = "words", tag = "assumed", source = "x" }\n',
        "99999 words",
    ),
    "a compiler that allows more than the core": (
        "[limits]\n",
        '[limits]\nneurons_per_core = { value = 10, unit = "neurons", tag = "assumed", source = "x" }\n',
        "neurons_per_core_compiler",
    ),
    "a negative limit": ("value = 3", "value = -3", "chips"),
}


def test_a_board_from_a_file_takes_the_bundled_chip(tmp_path: Path) -> None:
    board = load_profile(write(tmp_path, BOARD))
    assert board.chips == 3 and board.price("synop") == load_profile("loihi2").price("synop")


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_a_contradiction_is_refused(what: str, tmp_path: Path) -> None:
    old, new, word = HOSTILE[what]
    assert old in BOARD, "the test changes nothing"
    with pytest.raises(ProfileError) as caught:
        load_profile(write(tmp_path, BOARD.replace(old, new)))
    assert any(part in str(caught.value) for part in word.split("|")), str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_the_document_names_every_profile() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "energy.md").read_text(encoding="utf-8")
    missing = [name for name in profile_names() if f"`{name}`" not in text and not name.endswith("_memory")]
    assert not missing, f"docs/energy.md leaves out {missing}"
