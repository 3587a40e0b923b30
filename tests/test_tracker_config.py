"""Configurations: what is legal, what is refused and with which sentence, and what sizes follow."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_CONFIGS, OFFICIAL_WALK, TrackerConfig

NESTED: Any = []
for _ in range(100):
    NESTED = [NESTED, NESTED]  # whoever prints it never ends

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


def test_walk_without_downsample4_ends_at_d2() -> None:
    config = TrackerConfig.from_dict(small(walk=list(SHORT_WALK), dims=[24, 48, 96, 1]))
    assert (config.final_width, config.memory_indices) == (96, (2, 3))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": 1}, "colour is no known entry"),
        ({"resolution": 120}, "resolution should be a multiple of 16, not 120"),
        ({"resolution": 16}, "resolution should be greater than or equal to 32"),
        ({"resolution": 128.0}, "resolution should be a valid integer, not 128.0"),
        ({"templates": 4}, "templates should be less than or equal to 3, not 4"),
        ({"templates": 0}, "templates should be greater than or equal to 1"),
        ({"templates": True}, "templates should be a valid integer, not True"),
        ({"dims": [16, 32, 48]}, "dims: Tuple should have at least 4 items, not 3"),
        ({"dims": [16, 32, 48.5, 64]}, r"dims\.2 should be a valid integer, not 48\.5"),
        ({"dims": [16, 32, 50, 64]}, "mrm.2 has 50 channels"),
        ({"dims": [15, 32, 48, 64]}, "first of dims must be even, not 15"),
        ({"dims": "wide"}, "dims should be a valid tuple, not 'wide'"),
        ({"head_width": 7}, "head_width should be greater than or equal to 8, not 7"),
        ({"heads": 0}, "heads should be greater than or equal to 1"),
        ({"value_ratio": 0}, "value_ratio should be"),
        ({"value_ratio": 0, "mlp_expansion": "two"}, "mlp_expansion should be .*, not 'two'; value_ratio should be"),
        ({"attention_gain": 0}, "attention_gain should be"),
        ({"attention_gain": "big"}, "attention_gain should be a valid number, not 'big'"),
        ({"attention_gain": 10**400}, "attention_gain should be a valid number, not an integer of 1,329 bits"),
        ({"attention_gain": float("inf")}, "attention_gain should be a finite number, not inf"),
        ({"search_factor": float("nan")}, "search_factor should be a finite number"),
        ({"template_factor": 10**400}, "template_factor should be a valid number"),
        ({"update_interval": 0}, "update_interval should be"),
        ({"update_interval": 10**5000}, "update_interval should be less than .*, not an integer of 16,610 bits"),
        ({"update_threshold": 1.5}, "update_threshold should be less than or equal to 1"),
        ({"name": ""}, "name: String should have at least 1 character"),
        ({"name": NESTED}, "name should be a valid string, not a list"),
        ({"name": "a\x1b[2J"}, "printable"),
        ({"name": "a\ud800"}, r"name should be a valid string.*, not 'a\\ud800'"),
        ({"walk": ["downsample1_1", "downsample1_2", "downsample2"]}, "lacks downsample3"),
        ({"walk": ["downsample1_1", "ConvBlock1_1.0", "downsample2", "downsample3"]}, "stride 4 leaves nothing at r/2"),
        ({"walk": [*SHORT_WALK, "mrm.4"]}, "not downsample4"),
        ({"walk": ["downsample1_2", "downsample1_1", "downsample2", "downsample3"]}, "out of order"),
        ({"walk": [*SHORT_WALK, "block5.0"]}, "'block5.0' of the walk is unknown"),
        ({"walk": [1]}, r"walk\.0 should be a valid string, not 1"),
        ({"walk": ["x"] * 10**6}, "walk: Tuple should have at most 23 items"),
        ({"dims": [8192] * 4, "resolution": 4096}, "up to .* million weights .*; lower dims"),
        ({"dims": [16, 32, 48, 64], "resolution": 4096}, "million weights"),
        ({"dims": [65536] * 4}, "million weights"),
        ({"head_width": 65536}, "million weights"),
    ],
)
def test_illegal_configurations_say_why(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrackerConfig.from_dict(small(**changes))


def test_without_the_second_downsampling_the_first_makes_all_channels_at_a_quarter() -> None:
    walk = [s for s in OFFICIAL_WALK if s not in ("ConvBlock1_1.0", "downsample1_2")]
    config = TrackerConfig.from_dict(small(dims=[17, 32, 48, 64], heads=1, walk=walk))
    assert [config.width(s) for s in ("downsample1_1", "mrm.0", "downsample2")] == [17, 17, 32]
    assert [config.side(s) * 4 // config.resolution for s in ("downsample1_1", "mrm.0", "ConvBlock1_2.0")] == [1, 1, 1]


def test_missing_keys_are_named() -> None:
    with pytest.raises(InputError, match="head_width is missing"):
        TrackerConfig.from_dict({k: v for k, v in small().items() if k != "head_width"})
    with pytest.raises(InputError, match="JSON object"):
        TrackerConfig.from_dict([])  # type: ignore[arg-type]


def test_dims_need_no_heads_where_no_attention_reads_them() -> None:
    walk = [s for s in OFFICIAL_WALK if not s.startswith(("mrm.0", "mrm.1"))]
    assert TrackerConfig.from_dict(small(dims=[18, 33, 48, 64], walk=walk)).width("downsample2") == 33


def test_configuration_and_loop_need_no_torch() -> None:
    code = (
        "import sys, spiketrack_deploy.trackers.spiketrack.config, spiketrack_deploy.tracking.crop,"
        "spiketrack_deploy.tracking.loop, spiketrack_deploy.tracking.video;"
        " sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
