"""Reading training data in every layout, and what a drawn sample shows."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from _training import noise, small_config, write_clip, write_data, write_pictures

from spiketrack_deploy.datasets.catalogue import Catalogue, FrameStore, Picture, Target
from spiketrack_deploy.datasets.files import FrameRef
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.resources import models_dir
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.tracking.boxes import overlaps, success_curve, visible
from spiketrack_deploy.tracking.crop import sample_target
from spiketrack_deploy.training.losses import focal, gaussian_map, overlap, tracking_loss
from spiketrack_deploy.training.pairs import Sampler
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.views import View, cut, cut_mask, jittered, view_around, view_onto

PLAIN = Recipe(
    video=0.0,
    paste=0.0,
    distractor=0.0,
    occlusion=0.0,
    flip=0.0,
    gain=0.0,
    channel_gain=0.0,
    grey=0.0,
    blur=0.0,
    motion_blur=0.0,
)


def test_otb_layout(tmp_path: Path) -> None:
    write_clip(tmp_path / "one", sep="\t")
    (clip,) = read_folders([tmp_path]).clips
    assert clip.name == "one" and len(clip.frames) == 6 and clip.boxes[1].tolist() == [17, 20, 20, 20]


def test_lasot_layout_and_absent_frames(tmp_path: Path) -> None:
    home = tmp_path / "cat" / "cat-1"
    write_clip(home, truth="groundtruth.txt")
    (home / "out_of_view.txt").write_text("0,0,1,0,0,0")
    (clip,) = read_folders([tmp_path]).clips
    assert clip.name == "cat-1" and clip.usable().tolist() == [0, 1, 3, 4, 5]


def test_got10k_layout(tmp_path: Path) -> None:
    home = tmp_path / "GOT-10k_Train_000001"
    write_clip(home, truth="groundtruth.txt", inside=".")
    (home / "absence.label").write_text("0\n0\n1\n0\n0\n0\n")
    (home / "cover.label").write_text("8\n8\n8\n0\n8\n8\n")
    (clip,) = read_folders([tmp_path]).clips
    assert len(clip.frames) == 6 and clip.usable().tolist() == [0, 1, 4, 5]


def test_coco_layout_keeps_outlines_and_drops_crowds(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    file = tmp_path / "annotations.json"
    data = json.loads(file.read_text())
    data["annotations"][0] |= {"iscrowd": 1}
    (tmp_path / "annotations").mkdir()
    file.unlink()
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(data))
    pictures = read_folders([tmp_path]).pictures
    assert [len(p.targets) for p in pictures] == [1, 2, 2, 2]
    assert pictures[1].targets[0].outline[0].shape == (4, 2)


def test_zip_of_sequences_with_weights(tmp_path: Path) -> None:
    write_clip(tmp_path / "loose" / "one")
    with zipfile.ZipFile(tmp_path / "videos.zip", "w") as archive:
        for file in (tmp_path / "loose").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path / "loose"))
    (tmp_path / "videos.json").write_text(json.dumps([{"name": "one", "sampling_weight": 0.7}]))
    loose, zipped = sorted(read_folders([tmp_path]).clips, key=lambda c: c.weight, reverse=True)
    assert (loose.weight, zipped.weight) == (1.0, 0.7) and np.array_equal(loose.boxes, zipped.boxes)
    store = FrameStore()
    assert np.array_equal(store.read(loose.frame(2)), store.read(zipped.frame(2)))
    store.close()


@pytest.mark.parametrize("fault", ["empty", "missing", "text"])
def test_folders_without_anything_to_train_on_are_refused(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "data"
    if fault != "missing":
        folder.mkdir()
    if fault == "text":
        write_clip(folder / "one")
        (folder / "one" / "groundtruth_rect.txt").write_text("here,is,no,box")
    with pytest.raises(InputError, match=r"no picture with boxes|does not exist"):
        read_folders([folder])


def test_which_box_belongs_to_which_frame_is_never_guessed(tmp_path: Path) -> None:
    write_clip(tmp_path / "one")
    write_clip(tmp_path / "two")
    truth = tmp_path / "one" / "groundtruth_rect.txt"
    truth.write_text("\n".join(truth.read_text().split()[:4]))
    found = read_folders([tmp_path])
    assert [clip.name for clip in found.clips] == ["two"]
    assert found.skipped == (
        "sequence one: groundtruth_rect.txt has 4 lines for 6 frames; which box belongs to which frame is unknown",
    )


@pytest.mark.parametrize("box", [(30.0, 20.0, 21.0, 17.0), (2.0, 40.0, 30.0, 18.0)])
def test_a_view_without_jitter_is_the_trackers_crop(box: tuple[float, ...]) -> None:
    frame = noise(5)
    expected, _ = sample_target(frame, box, 3.0, 48)
    found = cut(frame, view_around(box, 3.0), 48)
    # The tracker pads one pixel more on the right and bottom (a published quirk); elsewhere only fixed-point rounding.
    inside = np.abs(found.astype(int) - expected.astype(int))
    assert np.percentile(inside, 95) <= 3 and inside.mean() < 3.0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_target_lies_where_its_label_says(mirrored: bool) -> None:
    frame = np.zeros((80, 120, 3), dtype=np.uint8)
    frame[30:50, 60:90] = 255
    view = jittered(view_around((60, 30, 30, 20), 3.0, mirrored), (7.0, -4.0), 0.2, 0.1)
    crop = cut(frame, view, 96)[:, :, 0] > 127
    rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
    cx, cy, w, h = (96 * v for v in view.place((60, 30, 30, 20)))
    edges = (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1)
    assert np.allclose(edges, (cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2), atol=1.0)


def test_a_mask_covers_the_outline_and_a_view_can_be_asked_for() -> None:
    view = view_onto((10, 20, 30, 40), (0.6, 0.4, 0.3, 0.5))
    assert np.allclose(view.place((10, 20, 30, 40)), (0.6, 0.4, 0.3, 0.5))
    ring = np.array([[10, 20], [40, 20], [40, 60], [10, 60]], dtype=np.float64)
    mask = cut_mask([ring], view, 60)
    assert mask.sum() == pytest.approx(0.3 * 0.5 * 3600, rel=0.1) and mask[24, 36] == 1.0 and mask[50, 50] == 0.0


def test_samples_are_a_function_of_seed_step_and_index(tmp_path: Path) -> None:
    catalogue, config = read_folders([write_data(tmp_path)]), small_config()
    first, again = (Sampler(catalogue, config, Recipe(seed=7), FrameStore()) for _ in range(2))
    other = Sampler(catalogue, config, Recipe(seed=8), FrameStore())
    for step, index in ((0, 0), (3, 1), (900, 5)):
        a, b, c = (s.draw(step, index) for s in (first, again, other))
        assert np.array_equal(a.searches, b.searches) and np.array_equal(a.boxes, b.boxes)
        assert not np.array_equal(a.boxes, c.boxes)


@pytest.mark.parametrize(
    ("recipe", "boxes", "means"),
    [
        (Recipe(seed=7), [0.2861, 0.4104, 0.5898, 0.6142, 0.8907, 0.106, 0.2409, 0.2539], (74.87, 127.38)),
        (
            Recipe(seed=8, video=0.7, paste=0.3, distractor=0.6, occlusion=0.5),
            [0.5275, 0.3101, 0.5175, 0.5155, 0.6157, 0.5096, 0.3369, 0.3349],
            (121.92, 130.55),
        ),
    ],
)
def test_recorded_samples_are_drawn_again(
    tmp_path: Path, recipe: Recipe, boxes: list[float], means: tuple[float, float]
) -> None:
    """What recipes drew before there was a teacher: entries that are off take no random number."""
    drawn = Sampler(read_folders([write_data(tmp_path)]), small_config(), recipe, FrameStore()).draw(3, 1)
    assert drawn.boxes.flatten().tolist() == pytest.approx(boxes, abs=1e-4)
    assert (drawn.templates.mean(), drawn.searches.mean()) == pytest.approx(means, abs=0.5)


def test_every_kind_of_sample_is_sane(tmp_path: Path) -> None:
    catalogue, store = read_folders([write_data(tmp_path)]), FrameStore()
    for recipe in (
        Recipe(video=1.0, paste=0.0),
        Recipe(video=0.0, paste=1.0),
        Recipe(video=0.0, paste=0.0, distractor=1.0, occlusion=1.0),
    ):
        sampler = Sampler(catalogue, small_config(), recipe, store)
        for i in range(20):
            drawn = sampler.draw(1, i)
            assert drawn.templates.shape == (1, 32, 32, 3) and drawn.searches.shape == (2, 32, 32, 3)
            assert (drawn.boxes[:, :2] > 0).all() and (drawn.boxes[:, :2] < 1).all() and (drawn.boxes[:, 2:] > 0).all()


def test_three_templates_come_in_time_order(tmp_path: Path) -> None:
    write_clip(tmp_path / "one")
    sampler = Sampler(read_folders([tmp_path]), small_config(templates=3), replace(PLAIN, video=1.0), FrameStore())
    assert sampler.draw(0, 0).templates.shape == (3, 32, 32, 3)


def test_too_small_targets_are_refused() -> None:
    picture = Picture(FrameRef(Path("nowhere"), "a.png"), (Target((0, 0, 5, 5)),))
    with pytest.raises(InputError, match="16 pixels large"):
        Sampler(Catalogue((picture,)), small_config(), Recipe(), FrameStore())


def test_padding_stays_black_under_augmentation(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "white.png"), np.full((40, 40, 3), 255, dtype=np.uint8))
    picture = Picture(FrameRef(tmp_path, "white.png"), (Target((8, 8, 18, 18)),))
    sampler = Sampler(Catalogue((picture,)), small_config(), replace(PLAIN, gain=0.5, channel_gain=0.2), FrameStore())
    corners = np.concatenate([sampler.draw(0, i).searches[:, 0, 0] for i in range(30)])
    assert (corners == 0).any() and set(np.unique((corners == 0).all(1))) <= {True, False}
    black = corners[(corners == 0).any(1)]
    assert (black == 0).all(), "colour jitter lifted the padding of some channel"


def test_recipe_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="speed is no known entry; known are stage, seed"):
        Recipe.from_dict({"speed": 3})
    with pytest.raises(InputError, match="must not exceed 1"):
        Recipe(video=0.8, paste=0.5)
    with pytest.raises(InputError, match="shared by 5 workers"):
        Recipe(templates_per_step=24, workers=5)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"synop_penalty": 0.06}, "synop_penalty became energy_penalty, the loss per millijoule"),
        ({"energy_target": ""}, "energy_target"),
        ({"stage": "penalty"}, "stage should be 'float' or 'integer', not 'penalty'"),
        ({"stage": ["float"]}, "stage should be .*, not a list"),
        ({"steps": 0}, "steps should be greater than or equal to 1, not 0"),
        ({"steps": 2.5}, "steps should be a valid integer, not 2.5"),
        ({"steps": True}, "steps should be a valid integer, not True"),
        ({"seed": -1}, "seed should be"),
        ({"seed": 10**5000}, "seed should be .*, not an integer of 16,610 bits"),
        ({"learning_rate": 0}, "learning_rate should be greater than 0"),
        ({"learning_rate": 10**400}, "learning_rate should be a valid number, not an integer of 1,329 bits"),
        ({"clip": float("inf")}, "clip should be a finite number"),
        ({"flip": 1.5}, "flip should be less than or equal to 1"),
        ({"half_precision": 1}, "half_precision should be a valid boolean, not 1"),
        ({"templates_per_step": 10**9}, "templates_per_step should be less than or equal to 65536, not 1000000000"),
        ({"searches": 10**9}, "searches should be less than"),
        ({"workers": 10**9}, "workers should be less than"),
        ({"template_scale": 1e6}, "template_scale should be less than or equal to 2"),
    ],
)
def test_illegal_recipes_say_why(entries: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=f"^recipe: {says}"):
        Recipe.from_dict(entries)


def test_recorded_recipes_load() -> None:
    files = sorted(models_dir().glob("*/recipe-*.json"))
    assert {file.parent.name for file in files} >= {"spiketrack-nano", "spiketrack-tiny"}
    for file in files:
        found = json.loads(file.read_text())
        recipe = Recipe.from_dict(found)
        assert recipe.to_dict() == {**Recipe().to_dict(), **found}, file
        former = {"phase" if key == "stage" else key: value for key, value in found.items()}
        assert Recipe.from_dict(former) == recipe, "the name of earlier versions"
    with pytest.raises(InputError, match="phase is no known entry"):
        Recipe.from_dict({"stage": "float", "phase": "integer"})


def test_overlap_by_hand() -> None:
    a, b = torch.tensor([0.5, 0.5, 0.4, 0.4]), torch.tensor([0.6, 0.5, 0.4, 0.4])
    iou, giou = overlap(a, b)
    assert iou.item() == pytest.approx(0.12 / 0.20) and giou.item() == pytest.approx(0.6)
    far = overlap(a, torch.tensor([2.5, 0.5, 0.4, 0.4]))
    assert far[0].item() == 0.0 and far[1].item() == pytest.approx(-(2.4 * 0.4 - 0.32) / (2.4 * 0.4))


def test_a_perfect_answer_costs_little_and_a_wrong_cell_costs_more() -> None:
    boxes = torch.tensor([[0.45, 0.7, 0.3, 0.2]])
    side = 6
    target = gaussian_map(boxes, side)
    assert target[0, 4, 2] == 1.0 and target.argmax() == 4 * side + 2

    def answer(cell: tuple[int, int]) -> Maps:
        score = torch.full((1, 1, side, side), -8.0)
        score[0, 0, cell[0], cell[1]] = 8.0
        size = boxes[:, 2:, None, None].expand(1, 2, side, side)
        at = torch.arange(side) + 0.0
        offset = torch.stack(
            [(0.45 * side - at)[None].expand(side, side), (0.7 * side - at)[:, None].expand(side, side)]
        )[None]
        return Maps(torch.sigmoid(score), size, offset, score, torch.logit(size))

    right, wrong = (tracking_loss(answer(cell), boxes, Recipe()) for cell in ((4, 2), (1, 2)))
    assert right.l1.item() < 1e-6 and right.giou.item() < 1e-5 and right.log_size.item() < 1e-5
    assert right.score.item() < 0.02 < 1.0 < wrong.score.item()


def test_focal_loss_by_hand() -> None:
    logits, target = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.5]])
    p = torch.sigmoid(torch.tensor(1.0)).item()
    expected = -(0.25 * np.log(0.5) + 0.5**4 * p**2 * np.log(1 - p))
    assert focal(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_view_geometry_is_invertible() -> None:
    view = View(3.0, 4.0, 20.0, 10.0)
    assert np.allclose(view.matrix(40), [[2.0, 0.0, 0.5 + 2 * -3.0], [0.0, 4.0, 1.5 + 4 * -4.0]])


def test_success_auc_by_hand() -> None:
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [np.nan] * 4, [0, 0, 10, 10]], dtype=np.float64)
    found = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 1, 1], [50, 50, 10, 10]], dtype=np.float64)
    # IoU 1 exceeds 20 of the 21 thresholds, 1/3 exceeds 7 (0 ... 0.30), 0 exceeds none; the third frame has no target.
    shares = overlaps(found, truth)[visible(truth)]
    assert success_curve(shares).mean() == pytest.approx((20 + 7 + 0) / 21 / 3)
