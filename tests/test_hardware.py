"""Hardware profiles: every bundled one is whole, every hostile one is refused by the name of its field."""

from __future__ import annotations

from pathlib import Path

import pytest
from _hostile import one_sentence

from spiketrack_deploy.energy.layers import COUNTS
from spiketrack_deploy.energy.pricing import BY_WORD, CAUSES, CHARGES
from spiketrack_deploy.errors import ProfileError, UsageError
from spiketrack_deploy.hardware.profiles import MAX_BYTES, list_profiles, load_profile
from spiketrack_deploy.hardware.vocabulary import LIMITS, PRICES, TAGS, UNITS
from spiketrack_deploy.inputs.resources import find_profile, profile_names, profiles_dir
from spiketrack_deploy.program.counts import COUNT_FIELDS

GOOD = """
schema = 1
name = "toy"
title = "A toy"
kind = "chip"
unknown = ["nothing else is known"]
assumptions = []

[limits]
cores_per_chip = { value = 2, unit = "cores", tag = "specified", source = "the test" }

[prices.synop]
value = 2.0
unit = "pJ"
low = 1.0
high = 3.0
tag = "assumed"
source = "the test"
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "toy.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_bundled_profiles_are_found() -> None:
    assert {"loihi1", "loihi2", "cmos45_fp32", "cmos45_int8"} <= set(profile_names())
    assert len(list_profiles()) == len(list(profiles_dir().glob("*.toml")))


@pytest.mark.parametrize("name", profile_names())
def test_bundled_profile_is_whole(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name, "a profile's name and its file's name must agree"
    assert (profile.prices or profile.limits) and profile.unknown and profile.assumptions
    for item in profile.prices.values():
        assert item.tag in TAGS and item.source.strip() and item.low <= item.value <= item.high
        # A coefficient without a band must say why: nobody published one, or the note explains it.
        assert item.low < item.high or item.note, f"{name}: a price without band needs a note"


def test_the_same_profile_loads_by_name_and_by_path(tmp_path: Path) -> None:
    path = find_profile("loihi2")
    assert load_profile("loihi2") == load_profile(path) == load_profile(str(path))
    assert load_profile("loihi2").digest == load_profile(path).digest != load_profile("loihi1").digest
    assert load_profile(write(tmp_path, GOOD)).price("synop") is not None


def test_the_vocabulary_is_closed_and_consistent() -> None:
    for name, (dimension, meaning) in PRICES.items():
        assert dimension in {known for known, _ in UNITS.values()} and meaning, name
        times_ns = name in CHARGES and CHARGES[name].count == "chip_ns"
        assert dimension == ("power" if times_ns else "energy") or name not in CHARGES, f"{name}: no energy comes of it"
    energies = {n for n, (d, _) in PRICES.items() if d == "energy"}
    assert set(CHARGES) - {"stepping_power"} | {"event_total", "state_reset", "dense_mac", BY_WORD[0]} == energies
    assert {charge.cause for charge in CHARGES.values()} == set(CAUSES)
    assert all(unit and meaning for unit, meaning in LIMITS.values())
    assert COUNTS is COUNT_FIELDS, "the program's counts are the only list of counts"


def test_units_are_converted_to_nanojoules_seconds_and_watts(tmp_path: Path) -> None:
    nanojoules = load_profile(write(tmp_path, GOOD)).price("synop")
    assert nanojoules is not None and (nanojoules.low, nanojoules.nominal, nanojoules.high) == (0.001, 0.002, 0.003)
    power = load_profile("loihi1").price("static_power")
    assert power is not None and power.nominal == pytest.approx(0.104)
    barrier = load_profile("loihi1").price("t_barrier_chips")
    assert barrier is not None and barrier.nominal == pytest.approx(14.3e-6)


HOSTILE = {
    "missing unit": ('unit = "pJ"\n', "", "prices.synop.unit"),
    "missing tag": ('tag = "assumed"\n', "", "prices.synop.tag"),
    "missing source": ('tag = "assumed"\nsource = "the test"', 'tag = "assumed"', "prices.synop.source"),
    "empty source": ('tag = "assumed"\nsource = "the test"', 'tag = "assumed"\nsource = "  "', "prices.synop.source"),
    "missing low": ("low = 1.0\n", "", "prices.synop.low"),
    "missing high": ("high = 3.0\n", "", "prices.synop.high"),
    "missing value": ("value = 2.0\n", "", "prices.synop.value"),
    "unknown unit": ('unit = "pJ"', 'unit = "erg"', "unknown unit 'erg'"),
    "unit of time": ('unit = "pJ"', 'unit = "ns"', "synop.unit 'ns'"),
    "unknown tag": ('tag = "assumed"', 'tag = "guessed"', "unknown tag 'guessed'"),
    "limit's tag on a price": ('tag = "assumed"', 'tag = "specified"', "unknown tag 'specified'"),
    "value above band": ("value = 2.0", "value = 3.5", "prices.synop: value 3.5 is outside its band"),
    "value below band": ("value = 2.0", "value = 0.5", "prices.synop: value 0.5 is outside its band"),
    "band upside down": ("low = 1.0\nhigh = 3.0", "low = 3.0\nhigh = 1.0", "prices.synop"),
    "not a number": ("value = 2.0", "value = nan", "prices.synop.value"),
    "infinite": ("high = 3.0", "high = inf", "prices.synop.high"),
    "absurd": ("high = 3.0", "high = 1e300", "prices.synop.high"),
    "absurd integer": ("high = 3.0", f"high = 1{'0' * 400}", "prices.synop.high"),
    "negative": ("low = 1.0", "low = -1.0", "prices.synop.low"),
    "text for a number": ("value = 2.0", 'value = "2.0"', "prices.synop.value"),
    "truth for a number": ("value = 2.0", "value = true", "prices.synop.value"),
    "unknown price key": ("value = 2.0", "value = 2.0\nvlaue = 2.0", "prices.synop.vlaue"),
    "unknown price": ("[prices.synop]", "[prices.synapse]", "unknown price 'synapse'"),
    "unknown key": ("schema = 1", "schema = 1\nclock_mhz = 100", "clock_mhz"),
    "unknown limit": ("cores_per_chip", "cores_per_dozen", "unknown limit 'cores_per_dozen'"),
    "limit without source": (', source = "the test" }', " }", "limits.cores_per_chip.source"),
    "limit in another unit": ('unit = "cores"', 'unit = "bytes"', "cores_per_chip.unit"),
    "negative limit": ("{ value = 2,", "{ value = -2,", "limits.cores_per_chip.value"),
    "limit of 10^30": ("{ value = 2,", f"{{ value = {10**30},", "limits.cores_per_chip.value"),
    "more cores than a mesh can be": ("{ value = 2,", "{ value = 1000000000,", "cores_per_chip.value must be at most"),
    "more tiles than a mesh can be": (
        "[limits]\n",
        "[limits]\n"
        'tiles_x = { value = 100000, unit = "tiles", tag = "specified", source = "the test" }\n'
        'tiles_y = { value = 100000, unit = "tiles", tag = "specified", source = "the test" }\n',
        "100000 x 100000 tiles are more than",
    ),
    "weights of no bit": (
        "[limits]\n",
        '[limits]\nweight_bits = { value = 0, unit = "bits", tag = "specified", source = "the test" }\n',
        "weight_bits.value must be at least 1",
    ),
    "fractional limit": ("{ value = 2,", "{ value = 2.5,", "limits.cores_per_chip.value"),
    "another schema": ("schema = 1", "schema = 2", "schema"),
    "no name": ('name = "toy"\n', "", "name"),
    "path for a name": ('name = "toy"', 'name = "../toy"', "name"),
    "unknown family": (
        'kind = "chip"',
        'kind = "chip"\nfamily = "loihi3"',
        "unknown family 'loihi3'; known are loihi1, loihi2",
    ),
    "family of a convention": ('kind = "chip"', 'kind = "convention"\nfamily = "loihi2"', "no family"),
    "unknown kind": ('kind = "chip"', 'kind = "brain"', "kind"),
    "no list of unknowns": ('unknown = ["nothing else is known"]\n', "", "unknown"),
    "no prices": (GOOD[GOOD.index("[prices.synop]") :], "", "prices"),
    "same key twice": ("value = 2.0", "value = 2.0\nvalue = 3.0", "not valid TOML"),
    "cut off": ('source = "the test"\n', 'source = "the te', "not valid TOML"),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile_profile_is_refused_by_the_name_of_its_field(case: str, tmp_path: Path) -> None:
    old, new, named = HOSTILE[case]
    position = GOOD.rindex(old)
    path = write(tmp_path, GOOD[:position] + new + GOOD[position + len(old) :])
    one_sentence(lambda: load_profile(path), named, str(path))


def test_two_prices_for_one_event_are_refused(tmp_path: Path) -> None:
    second = GOOD[GOOD.index("[prices.synop]") :].replace("synop", "unit_op")
    with pytest.raises(ProfileError, match="synop and unit_op price the same event twice"):
        load_profile(write(tmp_path, GOOD + second))


def test_every_defect_is_reported_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace('kind = "chip"', 'kind = "brain"').replace('unit = "pJ"\n', "").replace("low = 1.0", "low = -1.0")
    )
    path = write(tmp_path, text)
    one_sentence(lambda: load_profile(path), "kind", "prices.synop.unit", "prices.synop.low")


def test_files_that_are_no_profile_are_refused(tmp_path: Path) -> None:
    for text in (b"\xff\xfe\x00", b"\x00" * 64, b"[" * 5000, b"x" * (MAX_BYTES + 1)):
        with pytest.raises(ProfileError, match=r"toy\.toml"):
            load_profile(write(tmp_path, text))
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "absent.toml")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="loihi2") as caught:
        load_profile("loihi3")
    assert caught.value.exit_code == 2


def test_anchor_static_power_of_loihi1() -> None:
    """A3: Frady 2020, 3.34 W over a 32-chip board."""
    power = load_profile("loihi1").price("static_power")
    assert power is not None and power.nominal == pytest.approx(3.34 / 32, rel=0.01)


def test_anchor_lowest_synop_of_loihi2() -> None:
    """A8: Hala Point, 2,600 W over 3.8e14 synaptic operations per second: no synop can cost less."""
    cost = load_profile("loihi2").price("synop")
    assert cost is not None and cost.low == pytest.approx(2600 / 3.8e14 * 1e9, rel=0.01)
