"""Distillation: what a teacher sees, how its answers meet the student's grid, and which teachers are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _training import lively_model, small_config, write_data
from click.testing import CliRunner

from spiketrack_deploy.cli.train import train
from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.checkpoint import save_model
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.training.joint import branch_pass, float_maps, normalised
from spiketrack_deploy.training.pairs import Sampler
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.session import Request
from spiketrack_deploy.training.session import train as run
from spiketrack_deploy.training.teacher import Teacher, cells_within, response
from spiketrack_deploy.training.trainer import new_model

TAUGHT = Recipe(templates_per_step=2, searches=2, teacher="given", teacher_weight=1.0, half_precision=False)


def spiketrack_train(*arguments: object) -> str:
    result = CliRunner().invoke(train, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(small_config().to_dict()))
    return file


def taught(tmp_path: Path, **changes: object) -> tuple[Teacher, Sampler]:
    """A teacher that differs from :func:`small_config` by ``changes``; the student's sampler."""
    student = small_config()
    catalogue, store = read_folders([write_data(tmp_path)]), FrameStore()
    own = small_config(**changes) if changes else None
    model = lively_model() if own is None else new_model(own, 4).eval()
    scenes = (student, TAUGHT, catalogue, store)
    return Teacher(model, new_model(student, 1), *scenes), Sampler(catalogue, student, TAUGHT, store)


def test_cells_of_a_finer_and_wider_grid_lie_where_the_crop_does() -> None:
    assert np.array_equal(cells_within(3, 3, 1.0), np.arange(9)[:, None])
    fine = cells_within(2, 4, 1.0)
    assert sorted(fine[1]) == [2, 3, 6, 7] and sorted(fine[2]) == [8, 9, 12, 13]
    wide = cells_within(2, 8, 2.0)  # the student's crop is the inner 4 x 4 cells
    assert sorted(wide[0]) == [18, 19, 26, 27] and sorted(wide[3]) == [36, 37, 44, 45]
    coarse = cells_within(6, 3, 1.0)
    assert coarse.shape == (36, 1) and coarse[0] == coarse[7] == 0 and coarse[35] == 8


def test_a_teacher_sees_the_same_scene_wider_and_finer(tmp_path: Path) -> None:
    """The inner part of its crop, shrunk, is the student's crop, pasted targets and distractors included."""
    catalogue, store = read_folders([write_data(tmp_path)]), FrameStore()
    student, eye = small_config(), small_config(resolution=128, search_factor=6.0)
    recipe = Recipe(seed=5, paste=0.5, distractor=1.0, occlusion=1.0, blur=0.0, motion_blur=0.0)
    mine, theirs = Sampler(catalogue, student, recipe, store), Sampler(catalogue, student, recipe, store, eye=eye)
    apart = []
    for i in range(12):
        small, wide = mine.draw(2, i), theirs.draw(2, i)
        assert np.array_equal(small.boxes, wide.boxes) and wide.searches.shape == (2, 128, 128, 3)
        inner = wide.searches[:, 32:96, 32:96].astype(float).reshape(2, 32, 2, 32, 2, 3).mean((2, 4))
        apart.append(np.abs(inner - small.searches).mean())
    assert max(apart) < 8, "measured 1.5 to 3.9; two different scenes are 54 to 84 apart"


def test_a_teacher_of_the_same_crops_hands_on_its_own_maps(tmp_path: Path) -> None:
    teacher, sampler = taught(tmp_path)
    drawn = [sampler.draw(0, i) for i in range(2)]
    truth = torch.from_numpy(np.concatenate([s.boxes for s in drawn]))
    lesson = teacher.lesson(0, range(2), drawn, truth)
    t = normalised(torch.from_numpy(np.concatenate([s.templates for s in drawn])))
    s = normalised(torch.from_numpy(np.concatenate([s.searches for s in drawn])))
    with torch.no_grad():
        maps = float_maps(branch_pass(teacher.model, t[None], s, 2))
    assert torch.equal(lesson.score, maps.score[:, 0]) and lesson.score.std() > 0
    assert lesson.trust.shape == (4,) and teacher.seconds > 0
    assert teacher.loss(maps, lesson).item() == pytest.approx(0.0, abs=1e-5)
    other = Maps(*(getattr(maps, name) + 0.3 for name in ("score", "size", "offset", "ctr_logits", "size_logits")))
    weighed = replace(lesson, trust=torch.ones(4))
    assert teacher.loss(other, weighed).item() > 0.1 > teacher.loss(other, replace(lesson, trust=torch.zeros(4))).item()


def test_a_box_of_a_wider_crop_is_the_students_box(tmp_path: Path) -> None:
    """A map with one sure cell of a 4 x 4 grid over a crop twice as wide, by hand."""
    teacher, _ = taught(tmp_path, search_factor=6.0, resolution=64)
    score, size, offset = torch.zeros(1, 1, 4, 4), torch.full((1, 2, 4, 4), 0.1), torch.full((1, 2, 4, 4), 0.5)
    score[0, 0, 1, 2] = 0.9
    lesson = teacher._on_grid(Maps(score, size, offset, score, size), torch.tensor([[0.75, 0.25, 0.2, 0.2]]))
    assert lesson.score.tolist() == [[[0.0, pytest.approx(0.9)], [0.0, 0.0]]]
    # Cell (1, 2) answers centre 2.5 / 4, 1.5 / 4 of the wide crop: 0.125 right of and above its middle.
    assert lesson.boxes[0, 0, 1].tolist() == pytest.approx([0.75, 0.25, 0.2, 0.2])
    assert lesson.trust.item() == pytest.approx(1.0)


def test_response_by_hand() -> None:
    logits, wanted = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[0.5, 0.9]]])
    p = torch.sigmoid(torch.tensor(2.0)).item()
    kl = 0.9 * np.log(0.9 / p) + 0.1 * np.log(0.1 / (1 - p))
    assert response(logits, wanted).item() == pytest.approx(kl * (p - 0.9) ** 2, rel=1e-3)


@pytest.mark.parametrize("stage", ["float", pytest.param("integer", marks=pytest.mark.slow)])
def test_a_run_with_a_teacher(tmp_path: Path, stage: str) -> None:
    teacher, said = tmp_path / "teacher.safetensors", []
    save_model(lively_model(), small_config(), teacher)
    recipe = replace(TAUGHT, stage=stage, steps=2, teacher=str(teacher), teacher_share=0.5, memory_weight=1.0)
    data = write_data(tmp_path / "data")
    wanted = Request(small_config(), recipe, (data,), tmp_path / "run", report_every=1)
    run(wanted, lambda what, done, total: said.append(what))
    rows = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(rows) == 2 and all(row["taught"] > 0 and 0 <= row["teacher_iou"] <= 1 for row in rows)
    assert ", teacher " in said[-1]
    with pytest.raises(InputError, match=r"belongs to another run: its recipe\.teacher is '.*teacher\.safetensors'"):
        run(replace(wanted, recipe=replace(recipe, teacher="", teacher_weight=0.0, memory_weight=0.0)))
    save_model(new_model(small_config(), 9).eval(), small_config(), teacher)
    with pytest.raises(InputError, match="belongs to another run: its teacher is "):
        run(wanted)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (("teacher_weight=1",), "distillation needs a teacher: name a trained tracker or its file"),
        (("teacher=spiketrack-tiny",), "teacher spiketrack-tiny teaches nothing while teacher_weight is 0"),
        (("teacher=nobody", "teacher_weight=1"), "teacher nobody: there is no such checkpoint file"),
        (("teacher=spmtrack-micro", "teacher_weight=1"), "teacher spmtrack-micro is a dense tracker"),
        (("teacher={narrow}", "teacher_weight=1"), "teacher narrow has another crop size: its search crops are 2 targ"),
        (("teacher={narrow}", "teacher_weight=1", "teacher_share=0"), "teacher_share should be greater than 0"),
        (("teacher=spiketrack-nano", "teacher_weight=1", "memory_weight=1"), "no retriever of teacher spiketrack-nano"),
    ],
)
def test_refused_teachers(tmp_path: Path, config: Path, entries: tuple[str, ...], says: str) -> None:
    narrow = small_config(name="narrow", search_factor=2.0)
    save_model(new_model(narrow, 1).eval(), narrow, tmp_path / "narrow.safetensors")
    data = write_data(tmp_path / "data")
    named = [entry.format(narrow=tmp_path / "narrow.safetensors") for entry in entries]
    with pytest.raises(InputError, match=f"^recipe: .*{says}"):
        spiketrack_train(config, "--data", data, "-o", tmp_path / "run", *(x for e in named for x in ("--set", e)))
    assert not (tmp_path / "run").exists()
