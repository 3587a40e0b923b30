"""Rules of the loop beyond the published one: each setting by hand, and the way from a configuration to a box."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _cli import contents, spiketrack
from _evaluation import command, dataset

from spiketrack_deploy import api
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint, save_model
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.crop import hann_window, sample_target
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import HeadMaps, Tracker
from spiketrack_deploy.tracking.rule import PUBLISHED, LoopRule

CONFIG = TrackerConfig("scripted", (8, 16, 16, 16), 64, 1, 8)
FRAME = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
BOX = (80.0, 60.0, 20.0, 20.0)
SIDE = 80
"""Of a crop around BOX, in frame pixels; a cell is 20 of them."""


class Scripted:
    """A network that answers with the given maps in turn and keeps the crops."""

    def __init__(self, answers: Sequence[HeadMaps], rule: LoopRule) -> None:
        self.config, self._answers = replace(CONFIG, loop=rule), list(answers)
        self.crops: list[Image] = []

    def set_templates(self, crops: Sequence[Image]) -> None:
        """Nothing depends on them."""

    def search(self, crop: Image) -> HeadMaps:
        """The next answer."""
        self.crops.append(crop)
        return self._answers[len(self.crops) - 1]


def peak(row: int, column: int, score: float = 0.9, w: float = 0.25, h: float = 0.25) -> HeadMaps:
    """One peak in the middle of a cell."""
    scores = np.full((4, 4), 0.01)
    scores[row, column] = score
    size = np.stack([np.full((4, 4), w), np.full((4, 4), h)])
    return HeadMaps(scores, size, np.full((2, 4, 4), 0.5))


def followed(answers: Sequence[HeadMaps], **settings: float) -> tuple[Tracker, list[tuple[float, ...]], list[Image]]:
    """The tracker, its boxes and its crops."""
    network = Scripted(answers, LoopRule(**settings))  # type: ignore[arg-type]
    tracker = Tracker(network)
    tracker.init(FRAME, BOX)
    return tracker, [tracker.track(FRAME).box for _ in answers], network.crops


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_the_window_has_an_exponent(power: float) -> None:
    maps = peak(0, 0, 0.6)
    maps.score[1, 1] = 0.5
    tracker = Tracker(Scripted([maps], LoopRule(window=power)))
    tracker.init(FRAME, BOX)
    step, hann = tracker.track(FRAME), hann_window(4)
    wanted = {0: 0.6 * hann[0, 0] ** power, 5: 0.5 * hann[1, 1] ** power}
    assert step.argmax == max(wanted, key=wanted.__getitem__) == (0 if power == 0 else 5)
    assert step.confidence == pytest.approx(wanted[step.argmax], abs=1e-15)


def test_a_change_of_size_and_shape_costs() -> None:
    """By hand: 20x20 became 32x8 in a crop of 80: the sides' ratio is 4, the size 16 against 20."""
    hann, odd = hann_window(4), 4 * (20 / 16) - 1
    size = np.full((2, 4, 4), 0.25)
    size[:, 1, 1] = (0.4, 0.1)
    found = LoopRule(change=0.3).weights(hann, size, (0.25, 0.25))
    assert found[1, 1] == pytest.approx(hann[1, 1] * math.exp(-0.3 * odd), abs=1e-12)
    size[:, 1, 1] = 0.25
    assert np.allclose(LoopRule(change=0.3).weights(hann, size, (0.25, 0.25)), hann)


def test_the_size_follows_at_its_rate_around_the_found_centre() -> None:
    _, (box,), _ = followed([peak(1, 2, w=0.5, h=0.3)], size_rate=0.25)
    # Cell (1, 2): its middle is 50 and 30 of 80 pixels into the crop, whose corner is at 50, 30; found 40 x 24.
    assert box == pytest.approx((100 - 12.5, 60 - 10.5, 20 + 0.25 * 20, 20 + 0.25 * 4), abs=1e-9)


def test_the_crop_leads_by_a_share_of_the_velocity() -> None:
    _, boxes, crops = followed([peak(1, 2), peak(1, 1)], lead=0.5, inertia=0.25)
    assert boxes[0] == pytest.approx((90, 50, 20, 20), abs=1e-9)  # moved by (10, -10)
    ahead = (90 + 0.5 * 0.75 * 10, 50 - 0.5 * 0.75 * 10, 20, 20)
    assert np.array_equal(crops[1], sample_target(FRAME, ahead, 4.0, 64)[0])
    # Cell (1, 1) is 10 pixels left of and above the middle of that crop.
    assert boxes[1] == pytest.approx((ahead[0] - 10, ahead[1] - 10, 20, 20), abs=1e-9)


def test_in_doubt_the_size_is_kept_and_the_crop_widens() -> None:
    tracker, boxes, crops = followed([peak(1, 1, 0.15, w=0.5), peak(1, 1)], doubt=0.2, widen=1.5)
    assert boxes[0] == pytest.approx((70, 50, 20, 20), abs=1e-9)
    assert np.array_equal(crops[1], sample_target(FRAME, boxes[0], 6.0, 64)[0])
    assert tracker.resize_factor == 64 / 120
    assert boxes[1][2:] == pytest.approx((30, 30), abs=1e-9)  # a quarter of 120


def test_a_lost_target_is_looked_for_around_and_found_again() -> None:
    lost = peak(1, 1, 0.05)
    _, boxes, crops = followed([lost, lost, lost, peak(1, 2), peak(1, 1)], doubt=0.2, refind=1)
    # One doubtful frame moves the box; behind it the box waits while crops are around it, then to its right, below it.
    assert boxes[0] == boxes[1] == boxes[2] == pytest.approx((70, 50, 20, 20), abs=1e-9)
    for crop, (x, y) in zip(crops[1:4], ((70, 50), (110, 50), (70, 90))):
        assert np.array_equal(crop, sample_target(FRAME, (x, y, 20, 20), 4.0, 64)[0])
    assert boxes[3] == pytest.approx((80, 80, 20, 20), abs=1e-9)
    assert np.array_equal(crops[4], sample_target(FRAME, boxes[3], 4.0, 64)[0])


def test_a_crop_never_leaves_the_frame() -> None:
    """Sixty frames of doubt and of velocity at the corner of the frame: every crop holds pixels."""
    for settings in ({"doubt": 1.0, "refind": 1, "widen": 4.0}, {"lead": 1.0, "window": 0.0}):
        _, boxes, _ = followed([peak(0, 3)] * 60, **settings)
        assert np.isfinite(boxes).all() and min(min(box[2:]) for box in boxes) >= 10


def test_a_configuration_states_only_what_is_not_published() -> None:
    assert "loop" not in CONFIG.to_dict() and TrackerConfig.from_dict(CONFIG.to_dict()).loop == PUBLISHED
    rule = LoopRule(window=0.5, refind=3)
    data = json.loads(json.dumps(replace(CONFIG, loop=rule).to_dict()))
    assert data["loop"] == {"window": 0.5, "refind": 3}
    assert TrackerConfig.from_dict(data).loop == rule


BAD = {
    "5": "loop settings must be an object of few entries, not 5",
    '{"windw": 1}': "loop settings: windw is no known entry; known are window, change, .*refind",
    '{"window": NaN}': "NaN is not a JSON number",
    '{"size_rate": 0}': "loop settings: size_rate should be greater than 0",
    '{"refind": 2.5}': "loop settings: refind should be a valid integer",
    '{"widen": 1e400}': "beyond all numbers",
}


@pytest.mark.parametrize("text", BAD)
def test_illegal_settings_are_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict())[:-1] + f', "loop": {text}}}')
    from spiketrack_deploy.trackers.spiketrack.checkpoint import read_config

    with pytest.raises(InputError, match=BAD[text]):
        read_config(tmp_path / "config.json")


def test_every_verb_honours_a_rule(tiny_checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    """The same weights with another rule: other boxes, in every verb that follows one; and it is shown."""
    model, config = load_checkpoint(tiny_checkpoint)
    weights, other = tmp_path / "m.safetensors", tmp_path / "other"
    save_model(model, replace(config, loop=LoopRule(window=0.0, size_rate=0.3, lead=0.9)), weights)
    api.export(api.ExportRequest(model=str(weights), max_frames=3, out=other))
    assert api.inspect(other)["config"]["loop"] == {"window": 0.0, "size_rate": 0.3, "lead": 0.9}
    assert "window 0, size_rate 0.3, lead 0.9" in spiketrack(tmp_path, "inspect", weights).stdout
    boxes = [contents(bundle)["boxes.csv"] for bundle in (exported, other)]
    assert boxes[0] != boxes[1]
    assert api.verify(other)["files"]
    api.track(other, max_frames=3, out=tmp_path / "again")
    again = contents(tmp_path / "again")["boxes.csv"]
    assert [line.split(b",")[:5] for line in again.splitlines()] == [
        line.split(b",")[:5] for line in boxes[1].splitlines()
    ]


def test_results_of_another_rule_are_never_mixed(bundle: Path, tmp_path: Path, capsys) -> None:
    """A program's hash covers integers alone, so the rule must be part of what results belong to."""
    dataset(tmp_path / "data", ("a1",))
    scored = [str(bundle), str(tmp_path / "data"), "-o", str(tmp_path / "scored")]
    assert command(capsys, *scored)[0] == 0
    file = bundle / "program" / "program.json"
    program = json.loads(file.read_text("utf-8"))
    program["meta"]["workload"]["tracker"]["loop"] = {"size_rate": 0.3}
    file.write_text(json.dumps(program), "utf-8")
    code, _, stderr = command(capsys, *scored)
    assert code == 2 and "another bundle@sim (its loop differs)" in stderr
    program["meta"]["workload"]["tracker"]["loop"] = {"size_rate": 3}
    file.write_text(json.dumps(program), "utf-8")
    code, _, stderr = command(capsys, *scored)
    assert code == 3 and "size_rate should be less than or equal to 1" in stderr
