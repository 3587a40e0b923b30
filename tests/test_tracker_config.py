"""Configurations: what is legal, what is refused and with which sentence, and what sizes follow."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_CONFIGS, OFFICIAL_WALK, TrackerConfig, update_rule

SHORT_WALK = (
    "downsample1_1",
    "downsample1_2",
    "ConvBlock1_2.0",
    "downsample2",
    "ConvBlock2_1.0",
    "downsample3",
    "mrm.2",
    "block3.0",
    "mrm.3",
)


def small(**changes: Any) -> dict[str, Any]:
    """A legal configuration as a dict, with changes."""
    return {"name": "x", "dims": [16, 32, 48, 64], "resolution": 128, "templates": 3, "head_width": 64, **changes}


def test_seven_official_layouts_and_no_other() -> None:
    names = {"s256_t1", "s256_t3", "b256_t1", "b256_t3", "b384_t1", "b384_t3", "t256_t1"}
    assert set(OFFICIAL_CONFIGS) == names
    with pytest.raises(InputError, match=r"s256_t1.*t256_t1"):
        TrackerConfig.official("m256_t1")


@pytest.mark.parametrize("config", OFFICIAL_CONFIGS.values(), ids=lambda c: c.name)
def test_dict_round_trip(config: TrackerConfig) -> None:
    assert TrackerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_sizes_follow_the_stage_table() -> None:
    config = TrackerConfig.official("b384_t3")
    assert [config.side(s) for s in ("downsample1_1", "mrm.0", "mrm.1", "block3.5", "mrm.5")] == [192, 96, 48, 24, 24]
    assert [config.width(s) for s in ("ConvBlock1_1.0", "mrm.0", "ConvBlock2_2.0", "mrm.3", "block4.1")] == [
        32,
        64,
        128,
        256,
        360,
    ]
    assert (config.grid, config.final_width, config.memory_indices) == (24, 360, (0, 1, 2, 3, 4, 5))
    assert config.attention_factor(360) == pytest.approx(2 * 45**-0.5)


def test_walk_without_downsample4_ends_at_d2() -> None:
    config = TrackerConfig.from_dict(small(walk=list(SHORT_WALK), dims=[24, 48, 96, 1]))
    assert (config.final_width, config.memory_indices) == (96, (2, 3))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": 1}, "unknown keys: colour"),
        ({"resolution": 120}, "multiple of 16"),
        ({"resolution": 16}, "multiple of 16"),
        ({"resolution": 128.0}, "resolution must be an integer"),
        ({"templates": 4}, "1 to 3"),
        ({"templates": 0}, "1 to 3"),
        ({"templates": True}, "templates must be an integer"),
        ({"dims": [16, 32, 48]}, "four integers"),
        ({"dims": [16, 32, 50, 64]}, "mrm.2 has 50 channels"),
        ({"dims": [15, 32, 48, 64]}, "first one even"),
        ({"dims": "wide"}, "four integers"),
        ({"head_width": 7}, "halved three times"),
        ({"heads": 0}, "heads 0"),
        ({"value_ratio": 0}, "value_ratio 0"),
        ({"attention_gain": 0}, "attention_gain"),
        ({"attention_gain": "big"}, "attention_gain"),
        ({"search_factor": float("nan")}, "search_factor"),
        ({"update_interval": 0}, "update_interval"),
        ({"update_threshold": 1.5}, "update_threshold"),
        ({"name": ""}, "name"),
        ({"walk": ["downsample1_1", "downsample1_2", "downsample2"]}, "lacks downsample3"),
        ({"walk": [*SHORT_WALK, "mrm.4"]}, "not downsample4"),
        ({"walk": ["downsample1_2", "downsample1_1", "downsample2", "downsample3"]}, "out of order"),
        ({"walk": [*OFFICIAL_WALK, "block5.0"]}, "unknown"),
        ({"walk": [1]}, "stage names"),
    ],
)
def test_illegal_configurations_say_why(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrackerConfig.from_dict(small(**changes))


def test_missing_keys_are_named() -> None:
    with pytest.raises(InputError, match="head_width"):
        TrackerConfig.from_dict({k: v for k, v in small().items() if k != "head_width"})
    with pytest.raises(InputError, match="JSON object"):
        TrackerConfig.from_dict([])  # type: ignore[arg-type]


def test_dims_need_no_heads_where_no_attention_reads_them() -> None:
    walk = [s for s in OFFICIAL_WALK if not s.startswith(("mrm.0", "mrm.1"))]
    assert TrackerConfig.from_dict(small(dims=[18, 33, 48, 64], walk=walk)).width("downsample2") == 33


def test_update_rule_depends_on_lasot_in_the_name() -> None:
    assert update_rule("lasot_extension_subset") == (40, 0.8)
    assert update_rule("got10k") == (25, 0.7)


def test_configuration_and_loop_need_no_torch() -> None:
    code = (
        "import sys, spiketrack_deploy.trackers.spiketrack.config, spiketrack_deploy.tracking.crop,"
        "spiketrack_deploy.tracking.loop, spiketrack_deploy.tracking.video;"
        " sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
