"""What recipes may add to the samples: turned, dark, small, absent targets, and those that the network has spoilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from _training import lively_model, noise, small_config, write_clip, write_data
from test_training_data import PLAIN

from spiketrack_deploy.datasets.catalogue import Catalogue, FrameStore, Picture, Target
from spiketrack_deploy.datasets.files import FrameRef
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.training.augment import coarsened, covered, darkened
from spiketrack_deploy.training.drift import failures, get_failures, put_failures, rolled
from spiketrack_deploy.training.losses import tracking_loss
from spiketrack_deploy.training.pairs import Failure, Sample, Sampler
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.session import Request
from spiketrack_deploy.training.session import train as run
from spiketrack_deploy.training.views import cut, cut_mask, turned_box, view_around

RING = np.array([[30.0, 20.0], [60.0, 20.0], [60.0, 32.0], [30.0, 32.0]])
BOX = (30.0, 20.0, 30.0, 12.0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_target_lies_in_its_box(mirrored: bool) -> None:
    frame = np.zeros((80, 100, 3), dtype=np.uint8)
    cv2.rectangle(frame, (30, 20), (59, 31), (255, 255, 255), -1)
    angle = 0.5
    box = turned_box(BOX, (RING,), angle)
    view = replace(view_around(box, 3.0, mirrored), turn=(angle, 45.0, 26.0))
    crop = cut(frame, view, 128)[:, :, 0] > 127
    mask = cut_mask([RING], view, 128) > 0.5
    assert (crop != mask).mean() < 0.01 and mask.mean() > 0.02
    rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
    cx, cy, w, h = (128 * v for v in view.place(box))
    edges = (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1)
    assert np.allclose(edges, (cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2), atol=2.0)


def test_boxes_turned_by_hand() -> None:
    assert turned_box(BOX, (), np.pi / 2) == pytest.approx((39.0, 11.0, 12.0, 30.0)), "about its centre, 45, 26"
    assert turned_box(BOX, (RING,), np.pi / 2) == pytest.approx((39.0, 11.0, 12.0, 30.0))
    ellipse, corners = (turned_box(BOX, ring, np.pi / 4) for ring in ((), (RING,)))
    assert ellipse[2] == pytest.approx(np.sqrt((30**2 + 12**2) / 2)) and corners[2] == pytest.approx(42 / np.sqrt(2))


def test_darkness_keeps_padding_black_and_adds_noise() -> None:
    crop = noise(3, 40, 40) // 2 + 100
    crop[:, :10] = 0
    dark = darkened(crop, 0.2, np.random.default_rng(1))
    assert not dark[:, :10].any() and dark[:, 10:].mean() == pytest.approx(0.2 * crop[:, 10:].mean(), rel=0.05)
    assert np.std(dark[:, 10:] - 0.2 * crop[:, 10:]) > 0.8 and darkened(crop, 1.0, np.random.default_rng(1)) is crop


def test_a_small_target_loses_its_detail_and_stays_in_place() -> None:
    fine = np.kron(np.indices((32, 32)).sum(0) % 2, np.ones((2, 2))).astype(np.uint8)[:, :, None].repeat(3, 2) * 255
    small = coarsened(fine, 8.0, (0.5, 0.5, 0.5, 0.5))  # 8 pixels for half of the crop: 16 for all of it
    assert small.std() < 2 < 127 < fine.std() and coarsened(fine, 32.0, (0.5, 0.5, 0.5, 0.5)) is fine
    block = np.zeros((64, 64, 3), dtype=np.uint8)
    block[16:48, 8:40] = 255
    rows, columns = np.nonzero(coarsened(block, 8.0, (0.5, 0.5, 0.5, 0.5))[:, :, 0] > 127)
    assert (rows.mean(), columns.mean()) == (pytest.approx(31.5), pytest.approx(23.5))


def samples(folder: Path, **entries: object) -> list[Sample]:
    """Ten of two searches each, half of them of clips."""
    recipe = Recipe(**{"seed": 5, "video": 0.5, "paste": 0.25, "motion_blur": 0.0, "blur": 0.0, **entries})  # type: ignore[arg-type]
    sampler = Sampler(read_folders([folder]), small_config(), recipe, FrameStore())
    return [sampler.draw(1, i) for i in range(10)]


def test_levers_change_what_they_say(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    plain = samples(data)
    turned, dark, small = (samples(data, **{name: 1.0}) for name in ("rotate", "dark", "small"))
    for i, before in enumerate(plain):
        assert np.array_equal(turned[i].templates, before.templates)
        assert not np.array_equal(turned[i].searches, before.searches)
        assert np.array_equal(dark[i].boxes, before.boxes) and np.array_equal(small[i].boxes, before.boxes)
        assert dark[i].searches.mean() < 0.6 * before.searches.mean()
    rough, fine = ([np.abs(np.diff(s.searches.astype(int), axis=2)).mean() for s in kind] for kind in (small, plain))
    assert sum(a < b for a, b in zip(rough, fine)) >= 5, "targets of about 11 pixels are below some of the drawn sides"
    both = [np.allclose(d.templates.mean() / p.templates.mean(), 1, atol=0.01) for d, p in zip(dark, plain)]
    assert 0 < sum(both) < 10, "templates in full light half of the time"
    some = samples(data, rotate=0.5)
    changed = [not np.array_equal(a, b) for s, p in zip(some, plain) for a, b in zip(s.searches, p.searches)]
    assert 4 <= sum(changed) <= 16


def test_an_absent_target_is_not_in_its_crop(tmp_path: Path) -> None:
    """A white target on black: no crop shows it, wherever the crop was taken."""
    frame = np.zeros((120, 160, 3), dtype=np.uint8)
    frame[40:60, 50:80] = 255
    cv2.imwrite(str(tmp_path / "a.png"), frame)
    target = Target((50, 40, 30, 20), (np.array([[50.0, 40.0], [80.0, 40.0], [80.0, 60.0], [50.0, 60.0]]),))
    dim = noise(3, 120, 160) // 3
    cv2.imwrite(str(tmp_path / "b.png"), dim)
    pictures = (Picture(FrameRef(tmp_path, "a.png"), (target,)), Picture(FrameRef(tmp_path, "b.png"), (), 0.0))
    for paste in (0.0, 1.0):
        recipe = replace(PLAIN, absent=0.5, paste=paste)
        sampler = Sampler(Catalogue(pictures), small_config(), recipe, FrameStore())
        sampler._any_frame = lambda rng: dim  # type: ignore[method-assign]
        drawn = [sampler.draw(0, i) for i in range(20)]
        white = np.array([(crop > 200).mean() for s in drawn for crop in s.searches])
        there = np.array([box[2] > 0 for s in drawn for box in s.boxes])
        assert 10 < there.sum() < 30 and (white[there] > 0.005).all()
        assert (white[~there] < 0.004).all(), "covered by an ellipse beyond its box, elsewhere, or left out"


def test_a_covered_target_is_covered_whole() -> None:
    crop, other = np.full((64, 64, 3), 255, dtype=np.uint8), np.zeros((64, 64, 3), dtype=np.uint8)
    hidden = covered(crop, other, (0.5, 0.4, 0.3, 0.2))
    x1, x2, y1, y2 = (int(64 * v) for v in (0.36, 0.64, 0.31, 0.49))
    assert not hidden[y1:y2, x1:x2].any() and hidden[:8].all() and hidden[-8:].all()


def test_absent_targets_want_silence_and_no_box() -> None:
    here, gone = torch.tensor([[0.5, 0.5, 0.3, 0.3]]), torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    size, offset = torch.full((2, 2, 4, 4), 0.3), torch.full((2, 2, 4, 4), 0.5, requires_grad=True)

    def loss(boxes: torch.Tensor, count: int):
        score = torch.sigmoid(logits[:count])
        maps = Maps(score, size[:count], offset[:count], logits[:count], torch.logit(size[:count]))
        return tracking_loss(maps, boxes, Recipe())

    both, one = loss(torch.cat([here, gone]), 2), loss(here, 1)
    assert both.l1.item() == pytest.approx(one.l1.item()) and both.giou.item() == pytest.approx(one.giou.item())
    assert both.score.item() == pytest.approx(one.score.item() - 16 * 0.25 * np.log(0.5), rel=1e-5)
    both.total.backward()
    assert logits.grad is not None and (logits.grad[1] > 0).all() and offset.grad is not None
    assert not offset.grad[1].any() and offset.grad[0].any()
    alone = loss(gone, 1)
    assert alone.score.item() == pytest.approx(-16 * 0.25 * np.log(0.5), rel=1e-5) and alone.l1.item() == 0.0


def shift_answer(templates: torch.Tensor, searches: torch.Tensor) -> torch.Tensor:
    """A network that always answers a box right of the middle."""
    return torch.tensor([[0.6, 0.5, 1 / 3, 1 / 3]]).expand(len(searches), -1)


def test_a_looped_sample_lies_where_the_network_led(tmp_path: Path) -> None:
    sampler = Sampler(
        read_folders([write_data(tmp_path)]), small_config(), replace(PLAIN, video=0.0, loop_share=0.5, searches=3),
        FrameStore(),
    )  # fmt: skip
    drawn, plain = rolled(sampler, 4, range(12), shift_answer, small_config()), []
    loops = [i for i in range(12) if sampler.looped(4, i)]
    assert 2 <= len(loops) <= 10
    for i, sample in enumerate(drawn):
        plain.append(sampler.draw(4, i))
        if i not in loops:
            assert np.array_equal(sample.searches, plain[i].searches) and sample.around == ()
            continue
        assert np.array_equal(sample.searches[0], plain[i].searches[0]), "the first crop is a drawn one"
        first, second = sample.views[:2]
        centre = first.frame_box((0.6, 0.5, 1 / 3, 1 / 3))
        wanted = (centre[0] + 0.5 * centre[2], centre[1] + 0.5 * centre[3])
        found = (second.x + 0.5 * second.width, second.y + 0.5 * second.height)
        followed = np.allclose(found, wanted, atol=1.0)
        # 0.1 of a crop to the right each time: only a target that would leave the crop makes it begin anew.
        assert followed or not 0.04 < sample.boxes[0][0] - 0.1 < 0.96 or plain[i].views[1] == second
        again = sampler.draw(4, i, sample.around)
        assert np.array_equal(again.searches, sample.searches) and np.array_equal(again.boxes, sample.boxes)
    kept = [np.array_equal(drawn[i].searches[1], plain[i].searches[1]) for i in loops]
    assert sum(kept) < len(loops) / 2, "most second crops follow"


def test_frames_of_a_looped_sample_are_in_a_row(tmp_path: Path) -> None:
    """The bundled square moves 2 pixels a frame, so labels in frame pixels tell which frame is shown."""
    write_clip(tmp_path / "one", frames=12)
    recipe = replace(PLAIN, video=1.0, loop_share=1.0, searches=3)
    sampler = Sampler(read_folders([tmp_path]), small_config(), recipe, FrameStore())
    for i in range(10):
        drawn = sampler.draw(0, i)
        at = [view.frame_box(box.tolist())[0] for view, box in zip(drawn.views, drawn.boxes)]
        assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=0.01) and round(at[1] - at[0]) in (2, 4, 6)


def test_a_crop_is_no_longer_followed_once_the_target_has_left_it(tmp_path: Path) -> None:
    sampler = Sampler(read_folders([write_data(tmp_path)]), small_config(), Recipe(), FrameStore())
    box = (30.0, 20.0, 20.0, 20.0)
    view = sampler._view_led((33.0, 20.0, 20.0, 20.0), box, False)
    assert view is not None and (view.width, view.x) == (60, 13)
    assert sampler._view_led((70.0, 20.0, 20.0, 20.0), box, False) is None
    assert sampler._view_led((0.0, 0.0, 100.0, 100.0), box, False) is None


def test_lost_frames_are_found_and_drawn(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    sampler = Sampler(read_folders([data]), small_config(), replace(PLAIN, video=0.0, hard=1.0), FrameStore())
    assert not any(sampler.draw(0, i).around for i in range(3)), "nothing is known to be lost yet"
    found = failures(lively_model(), sampler.clips.items(), FrameStore(), 1)
    assert found and {one.clip for one in found} <= {"left", "right"}
    for one in found:
        clip = sampler.clips[one.clip]
        truth = clip.boxes[one.first]
        assert one.first < one.at and (one.at > one.first + 1 or one.box == tuple(truth))
    put_failures(tmp_path, 6, 0, found[::2])
    put_failures(tmp_path, 6, 1, found[1::2])
    sampler.failures = get_failures(tmp_path, 6)
    assert sorted(sampler.failures, key=repr) == sorted(found, key=repr) and get_failures(tmp_path, 0) == ()
    near = Failure("left", 0, 3, (25.0, 22.0, 20.0, 20.0))  # the square is at x 21 on frame 3
    sampler.failures = [near]
    drawn = sampler.draw(0, 1)
    for box, view in zip(drawn.boxes, drawn.views):
        assert view.frame_box(box.tolist()) == pytest.approx((21.0, 20.0, 20.0, 20.0), abs=0.01)
        assert (view.x + 0.5 * view.width, view.width) == (pytest.approx(35.0, abs=4), pytest.approx(60, abs=10))


class _Stop(Exception):
    """Stands in for a crash."""


@pytest.mark.parametrize("stage", ["float", pytest.param("integer", marks=pytest.mark.slow)])
def test_a_run_that_follows_itself_resumes_to_the_same_network(tmp_path: Path, stage: str) -> None:
    data, said = write_data(tmp_path / "data"), []
    recipe = Recipe(
        steps=6, templates_per_step=4, stage=stage, loop_share=0.4, hard=0.4, hard_every=2, half_precision=False
    )
    base = Request(small_config(), recipe, (data,), tmp_path / "whole", report_every=1, save_every=-1.0)
    whole = load_checkpoint(run(base, lambda what, done, total: said.append(what)))[0].state_dict()
    assert sum(text.startswith("lost on ") for text in said) == 2, "before steps 2 and 4; fresh weights know nothing"

    def failing(what: str, done: int, total: int) -> None:
        if done == 4:
            raise _Stop

    parts = replace(base, folder=tmp_path / "parts")
    with pytest.raises(_Stop):
        run(parts, failing)
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 3
    again = load_checkpoint(run(parts))[0].state_dict()
    assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_clips_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """A frame that only the longer of two clips called ``one`` has."""
    for folder, frames in (("a", 12), ("b", 4)):
        write_clip(tmp_path / folder / "one", frames=frames)
    catalogue = read_folders([tmp_path / "a", tmp_path / "b"])
    sampler = Sampler(catalogue, small_config(), replace(PLAIN, video=1.0, hard=1.0), FrameStore())
    assert [(name, len(clip.frames)) for name, clip in sampler.clips.items()] == [("one", 12), ("one#2", 4)]
    sampler.failures = [Failure("one", 0, 11, (37.0, 20.0, 20.0, 20.0))]
    drawn = sampler.draw(0, 0)
    assert drawn.views[0].frame_box(drawn.boxes[0].tolist())[0] == pytest.approx(37.0, abs=0.01)


def test_a_loop_needs_two_crops() -> None:
    with pytest.raises(InputError, match="loop_share needs searches of 2 or more"):
        Recipe(loop_share=0.1, searches=1)
