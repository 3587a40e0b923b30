"""The counter of one chip: exact on the published layout, and never more generous than its own rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.resources import models_dir
from spiketrack_deploy.trackers.spiketrack.checkpoint import read_config
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.training import budget as counting
from spiketrack_deploy.training.budget import Limits, Operation, budget, chip_limits, pack

LIMITS = Limits(cores=128, neurons=4095, words=16000, groups=8)


def test_the_limits_are_the_profiles() -> None:
    assert chip_limits("loihi2") == LIMITS
    with pytest.raises(InputError, match="has no limit"):
        chip_limits("cmos45_int8")


def test_official_small_layout_is_counted_exactly() -> None:
    """17,070,080 neuron slots and 3,524.8 MMAC: counted on the published network."""
    found = budget(TrackerConfig.official("s256_t1"), LIMITS)
    assert found.slots == 17_070_080 and found.macs == pytest.approx(3524.8e6, rel=1e-5)
    assert not found.fits(LIMITS)


def test_three_templates_need_the_slots_of_the_published_network() -> None:
    assert budget(TrackerConfig.official("s256_t3"), LIMITS).slots == pytest.approx(24.61e6, rel=1e-3)


def test_the_bundled_nano_model_fits_one_chip_relays_included() -> None:
    found = budget(read_config(models_dir() / "spiketrack-nano" / "config.json"), LIMITS)
    assert found.fits(LIMITS) and found.free(LIMITS) > 0
    assert found.words_with_copies < LIMITS.cores * LIMITS.words


def test_words_follow_the_published_rows() -> None:
    """The rule of docs/loihi.md on the row 28 x 28 x 256 from 128 channels, 1,152 rows of 37 words at 9 bits."""
    dense = Operation("conv", channels=256, positions=784, rows=9 * 128, fan=256)
    assert dense.words(256) == 1152 * 37 and dense.words(64) == 1152 * 10
    depthwise = Operation("dw", channels=96, positions=144, rows=49 * 96, fan=1)
    assert depthwise.words(96) == 49 * 96 and depthwise.words(48) == 49 * 48


def test_packing_respects_every_limit() -> None:
    small = Limits(cores=9, neurons=100, words=50, groups=2)
    one = Operation("a", channels=10, positions=20, rows=5, fan=10)  # 200 neurons, 5 rows of 2 words
    assert one.words(10) == 10 and pack([one], small) == (2, 20)
    assert pack([one, replace(one, positions=1), replace(one, positions=1)], small)[0] == 3
    tiny = replace(one, positions=1)
    assert pack([tiny] * 5, small)[0] == 3, "two groups a core"
    heavy = replace(one, positions=1, rows=20)
    assert pack([heavy, heavy], small)[0] == 2, "40 words each, 50 a core"
    with pytest.raises(InputError, match="one output channel alone"):
        pack([replace(one, rows=60)], small)


def test_the_search_returns_only_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    base = read_config(models_dir() / "spiketrack-nano" / "config.json")
    monkeypatch.setattr(counting, "SIDES", (96,))
    monkeypatch.setattr(counting, "WIDTHS", ((24, 48, 96), (64, 128, 256)))
    monkeypatch.setattr(counting, "CONV_SETS", (("ConvBlock2_1.0",),))
    monkeypatch.setattr(counting, "OPTIONAL_SETS", (("mrm.2",), ("mrm.2", "mrm.3")))
    rows = counting.search(base, LIMITS)
    assert len(rows) == 2 and all(row.fits(LIMITS) for row in rows) and rows[0].macs >= rows[1].macs
