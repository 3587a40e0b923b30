"""What recipes may add to the samples: turned and dark and small and absent targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from _training import noise, small_config, write_data
from test_training_data import PLAIN

from spiketrack_deploy.datasets.catalogue import Catalogue, FrameStore, Picture, Target
from spiketrack_deploy.datasets.files import FrameRef
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.training.augment import coarsened, covered, darkened
from spiketrack_deploy.training.losses import tracking_loss
from spiketrack_deploy.training.pairs import Sample, Sampler
from spiketrack_deploy.training.recipe import Recipe
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
