"""One run in flight: the time of a step and the bill of what elapses, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.energy.pricing import BY_WORD, bill, bill_by_words, covering
from spiketrack_deploy.errors import ProfileError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.closed_loop import SIDES, CoreWork, core_times, step_time
from spiketrack_deploy.units import ZERO


def test_a_step_is_its_busiest_core_and_the_barrier() -> None:
    """Three cores: one of many operations, one of many words, one of many slots; end by end of the prices."""
    profile = load_profile("loihi2")
    synops, words, slots = np.array([9e4, 10.0, 0.0]), np.array([10.0, 2e4, 0.0]), np.array([100, 200, 3000])
    for end in ("low", "nominal", "high"):
        ns = {name: getattr(profile.price(name), end) for name in ("t_synop", "t_word", "t_slot_microcode")}
        cores = [9e4 * ns["t_synop"], 2e4 * ns["t_word"], 3000 * ns["t_slot_microcode"]]
        one = max(cores) + getattr(profile.price("t_barrier_chip"), end)
        assert getattr(step_time(profile, synops, words, 0, slots, 1), end) == pytest.approx(one)
        more = max(cores) + getattr(profile.price("t_barrier_chips"), end)
        assert getattr(step_time(profile, synops, words, 0, slots, 8), end) == pytest.approx(more)
    floor = profile.price("t_barrier_chip")
    assert step_time(profile, 0, 0, 0, 0, 1) == floor, "a step in which nothing happens still takes the floor"
    hard = step_time(profile, 0, 0, 3000, 0, 1).nominal - floor.nominal
    assert hard == pytest.approx(3000 * profile.price("t_slot_native").nominal)


def test_words_stand_instead_of_operations() -> None:
    """The two structures share every other part; the band covers both and the nominal is that of operations."""
    profile = load_profile("loihi2")
    counts = {"synops": 9e5, "macs": 2e5, "relay_synops": 1e5, BY_WORD[1]: 3e5, "slot_steps_microcode": 1e6}
    counts |= {"slot_steps_native": 2e6, "chip_ns": 59.0}
    one, other = bill(counts, profile), bill_by_words(counts, profile)
    synaptic = {"synop", "mac", "relay_synop"}
    assert {p.price for p in one} == synaptic | {"slot_native", "slot_microcode", "stepping_power"}
    assert {p.price for p in other} == {p.price for p in one} - synaptic | {"synop_word"}
    sums = [sum(p.energy.nominal for p in parts) for parts in (one, other)]
    rest = 1e6 * profile.price("slot_microcode").nominal + 2e6 * profile.price("slot_native").nominal
    rest += 59 * profile.price("stepping_power").nominal
    assert sums[1] == pytest.approx(3e5 * profile.price("synop_word").nominal + rest)
    whole = covering(counts, profile)
    assert whole.nominal == pytest.approx(sums[0])
    assert whole.high == pytest.approx(max(sum(p.energy.high for p in parts) for parts in (one, other)))
    assert bill_by_words(counts, load_profile("loihi1")) is None, "no word of Loihi 1 has a price"


def profile(folder: Path, limits: str, prices: dict[str, tuple[float, str]]) -> Profile:
    """A profile with these limits and prices, value and unit each."""
    head = 'schema = 1\nname = "toy"\ntitle = "A toy"\nkind = "chip"\nunknown = []\nassumptions = []\n[limits]\n'
    known = 'tag = "assumed"\nsource = "the test"\n'
    tables = [
        f'[prices.{n}]\nvalue = {v}\nlow = {v}\nhigh = {v}\nunit = "{u}"\n{known}' for n, (v, u) in prices.items()
    ]
    path = folder / "toy.toml"
    path.write_text(head + limits + "\n" + "\n".join(tables), encoding="utf-8")
    return load_profile(path)


def limit(name: str, value: int, unit: str, more: str = "") -> str:
    return f'{name} = {{ value = {value}, unit = "{unit}", tag = "assumed", source = "the test"{more} }}\n'


@pytest.mark.parametrize(
    ("limits", "prices", "said"),
    [
        ("", {"slot_native": (1.0, "pJ"), "neuron_idle": (1.0, "pJ")}, "slot_native and neuron_idle price the same"),
        ("", {"slot_microcode": (1.0, "pJ"), "relay_update": (1.0, "pJ")}, "price the same event twice"),
        ("", {"board_power": (0.1, "W"), "static_power": (200.0, "mW")}, "board_power is less than static_power"),
        ("", {"t_barrier_chips": (1.0, "us"), "t_barrier_chip": (2.0, "us")}, "less than t_barrier_chip"),
        (limit("cores_per_chip", 8, "cores") + limit("usable_cores_per_chip", 9, "cores"), {}, "9 are more than"),
        (
            limit("cores_per_chip", 8, "cores") + limit("usable_cores_per_chip", 7, "cores", ", high = 9"),
            {},
            "usable_cores_per_chip: 9 are more than",
        ),
        (limit("usable_cores_per_chip", 7, "cores", ", low = 8"), {}, "value 7 is outside its band"),
        (limit("cores_per_chip", 8, "cores", ", high = 9"), {}, "cores_per_chip has no band"),
        (limit("memory_per_core", 8, "bytes") + limit("neuron_state_bytes", 9, "bytes"), {}, "is more than"),
        (limit("board_power", 1, "W"), {"static_power": (2.0, "W")}, "less than the static power of its chips"),
    ],
)
def test_numbers_that_contradict_one_another_are_refused(
    tmp_path: Path, limits: str, prices: dict[str, tuple[float, str]], said: str
) -> None:
    with pytest.raises(ProfileError, match=said):
        profile(tmp_path, limits, {"synop": (1.0, "pJ"), **prices})


def test_a_profile_of_before_still_loads(tmp_path: Path) -> None:
    """Without slots, words, links and the image's way: nothing of it is taken from another chip."""
    old = profile(tmp_path, limit("cores_per_chip", 8, "cores"), {"synop": (1.0, "pJ"), "neuron_idle": (2.0, "pJ")})
    assert old.price("slot_microcode") is old.price("t_image") is old.price("board_power") is None
    assert core_times(CoreWork.of(microcode=100.0, words=5.0), old) == dict.fromkeys(SIDES, ZERO)
