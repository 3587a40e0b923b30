"""``spiketrack adapt``: experts that are merged, labels that the tracker finds itself, runs that go on."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from _cli import contents
from _training import lively_model, noise, sample, small_config, write_clip
from click.testing import CliRunner

from spiketrack_deploy import api
from spiketrack_deploy.api.results import AdaptResult
from spiketrack_deploy.cli.adapt import adapt
from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.files import FrameRef
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.program.store import content_hash
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint, save_model
from spiketrack_deploy.tracking.boxes import overlaps
from spiketrack_deploy.tracking.loop import TrackedFrame
from spiketrack_deploy.tracking.video import write_video
from spiketrack_deploy.training import scenes, trainer
from spiketrack_deploy.training.experts import Adapter, AdapterStage, Plan, count_trained, pointwise
from spiketrack_deploy.training.joint import normalised
from spiketrack_deploy.training.scenes import Checks, own_labels
from spiketrack_deploy.training.stages import IntegerStage
from spiketrack_deploy.training.units import lowered

SAMPLES = [sample(10 * i) for i in range(3)]
STEPS = ("--steps", 2, "--set", "templates_per_step=2", "--set", "searches=2")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "small" / "model.safetensors"
    file.parent.mkdir()
    save_model(lively_model(), small_config(), file)
    return file


@pytest.fixture(scope="module")
def stage() -> AdapterStage:
    """Experts that do something: B is not 0."""
    made = AdapterStage(lively_model(), SAMPLES, Plan(rank=2))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for adapter in made.module.adapters().values():
            adapter.experts.normal_(0, 0.3, generator=generator)
    return made


def test_a_layer_is_the_published_mixture() -> None:
    """Against the sum written out token by token (arXiv 2503.18338, section 3.2); H != W."""
    generator = torch.Generator().manual_seed(2)
    adapter = Adapter(5, 7, 3, 2, generator)
    adapter.usage = torch.tensor([0.2, 0.5, 0.3])
    with torch.no_grad():
        adapter.experts.normal_(generator=generator)
        x = torch.randint(0, 5, (2, 5, 3, 4), generator=generator).flatten(2) / 4
        found = adapter.live(x) + adapter.merged() @ x
        for b, token in ((0, 0), (1, 11)):
            one = x[b, :, token]
            gate = torch.softmax(adapter.route @ (4 * one), 0)
            expected = sum(gate[i] * adapter.experts[i] @ (adapter.compress @ one) for i in range(3))
            assert torch.allclose(found[b, :, token], expected, atol=1e-6)
    adapter.settle(1.0)
    assert torch.allclose(adapter.usage, torch.softmax(adapter.route @ (4 * x), 1).mean((0, 2)))


def test_an_adapter_begins_as_the_program_that_is_deployed() -> None:
    plain, fresh = IntegerStage(lively_model(), SAMPLES), AdapterStage(lively_model(), SAMPLES, Plan())
    one, two = (s.deployed(s.module.state_dict()).state_dict() for s in (plain, fresh))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    names = {name for name, p in fresh.module.named_parameters() if p.requires_grad}
    assert names and all(".adapter." in name for name in names), "the deployed weights stand still"
    assert count_trained(fresh.module) < count_trained(plain.module)


def test_the_merged_program_has_no_operation_more(stage: AdapterStage) -> None:
    merged = stage.settled(stage.module.state_dict(), SAMPLES)
    before, after = lowered(lively_model(), SAMPLES), lowered(merged.deployed().double(), SAMPLES)
    for name, phase in before.phases.items():
        kinds = [(op.name, op.kind, op.inputs) for op in phase.ops]
        assert kinds == [(op.name, op.kind, op.inputs) for op in after.phases[name].ops]
        assert {k: v.shape for k, v in phase.values.items()} == {
            k: v.shape for k, v in after.phases[name].values.items()
        }
    assert content_hash(before) != content_hash(after)
    usage = torch.tensor(next(iter(merged.usage().values())))
    assert usage.sum() == pytest.approx(1) and float(usage.std()) > 0


def test_routing_merge_and_rounding_are_told_apart(stage: AdapterStage) -> None:
    """Each step on the way to the program changes what reaches the head."""
    merged = stage.settled(stage.module.state_dict(), SAMPLES)
    crops = normalised(torch.from_numpy(np.concatenate([s.searches for s in SAMPLES])))[:, None]
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for net in (merged.routed(), merged.deployed(integers=False), merged.deployed()):
            net.decoder.register_forward_pre_hook(lambda _, given: found.append(given[0]))
            net.search_branch(crops[1:2], net.template_branch(crops[:1]))
    assert all(torch.isfinite(stream).all() for stream in found) and len(found) == 3
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
    lora = AdapterStage(lively_model(), SAMPLES, Plan("lora", rank=2))
    trained = [count_trained(one.module) for one in (stage, lora)]
    assert trained[1] == pytest.approx(trained[0], rel=0.1), "as many numbers"


def test_layers_are_chosen_by_block() -> None:
    net = lively_model()
    assert {path.split(".")[1] for path in pointwise(net, ("block3.0",))} == {"block3"}
    assert all("dwconv" not in path and "decoder" not in path for path in pointwise(net))
    with pytest.raises(InputError, match=r"no 1x1 convolution in 'downsample2'.*blocks with some: ConvBlock1_2.0, "):
        pointwise(net, ("downsample2",))
    for path in pointwise(net):
        net.get_submodule(path).groups = 2
    with pytest.raises(InputError, match=r"no 1x1 convolution that could be adapted; blocks with some: none"):
        pointwise(net)


class _Path:
    """A tracker that walks from 10 to the right and, from frame ``lost`` on, stands on a neighbour."""

    def __init__(self, lost: int) -> None:
        self.lost = lost

    def followed(self, network: object, frames: Sequence[np.ndarray], first: np.ndarray) -> list[TrackedFrame]:
        on_neighbour = overlaps(first, (200, 200, 20, 20))[0] > 0.5
        found = []
        for index, frame in enumerate(frames[1:]):
            at, forward = int(frame[0, 0, 0]), int(frames[0][0, 0, 0]) == 0
            on_neighbour |= forward and at >= self.lost
            box = (200.0, 200.0, 20.0, 20.0) if on_neighbour else (10.0 + 4 * at, 30.0, 20.0, 20.0)
            found.append(TrackedFrame(index + 1, box, 0.1 if at == 3 else 0.9))
        return found


@pytest.mark.parametrize(("lost", "reached"), [(99, 20), (14, 10), (2, 1)])
def test_own_boxes_are_checked_there_and_back(monkeypatch: pytest.MonkeyPatch, lost: int, reached: int) -> None:
    store, refs = FrameStore(), [FrameRef(Path("v"), str(i)) for i in range(20)]
    for i, ref in enumerate(refs):
        store.keep(ref, np.full((4, 6, 3), i, dtype=np.uint8))
    monkeypatch.setattr(scenes, "_followed", _Path(lost).followed)
    boxes, found = own_labels(None, refs, np.array([10.0, 30, 20, 20]), store, Checks())
    kept = np.flatnonzero(np.isfinite(boxes[:, 0])).tolist()
    assert found == reached
    assert kept == [0, *(i for i in range(1, reached - 1) if i != 3)], "not the doubtful frame, nothing behind the loss"
    assert boxes[kept, 0].tolist() == [10.0 + 4 * i for i in kept]


def run(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(adapt, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_tracker_adapts_to_videos_with_boxes_and_without(tmp_path: Path, model: Path) -> None:
    write_clip(tmp_path / "boxes", frames=10)
    write_clip(tmp_path / "first" / "img", frames=6, inside=".")
    (tmp_path / "first" / "img" / "groundtruth_rect.txt").unlink()
    write_video(tmp_path / "film.mp4", [noise(1) for _ in range(5)], 10)
    (tmp_path / "film_groundtruth_rect.txt").write_text("15,20,20,20\n")
    videos = (tmp_path / "boxes", f"{tmp_path / 'first'}:15,20,20,20", tmp_path / "film.mp4")
    found = run(model, *videos, "-o", tmp_path / "out", *STEPS, "--agree", 0.2, "--confident", 0, "--rank", 2)
    assert set(found) == set(AdaptResult.__annotations__)
    assert [(s["name"], s["frames"], s["given"]) for s in found["scenes"]] == [
        ("boxes", 10, True), ("first", 6, False), ("film", 5, False)
    ]  # fmt: skip
    assert found["scenes"][0]["kept"] == 10 and found["scenes"][0]["held_out"] == 3
    assert set(found["scores"]) == {"deployed", "routed", "merged", "quantised"}
    weights, config = load_checkpoint(tmp_path / "out")
    assert config == small_config() and json.loads((tmp_path / "out" / "config.json").read_text()) == config.to_dict()
    assert not api.is_evaluation(tmp_path / "out"), "every command takes the folder as a model"
    base = lively_model().state_dict()
    assert weights.state_dict().keys() == base.keys()
    text = CliRunner().invoke(
        adapt, [str(a) for a in (model, videos[0], "-o", tmp_path / "full", *STEPS, "--method", "full")]
    )
    assert "| after quantisation (written) | 0." in text.output and "| boxes | 10 | given | 10 | 3 |" in text.output


def test_an_interrupted_adaptation_goes_on_to_the_same_bits(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "REFRESH_STEPS", 2)
    write_clip(tmp_path / "boxes", frames=6)
    settings = {"entries": {"steps": 3, "templates_per_step": 2, "searches": 2}, "rank": 1, "hold_out": 0.0}
    api.adapt(model, [tmp_path / "boxes"], tmp_path / "whole", **settings)
    step = trainer.Trainer._step

    def failing(self: trainer.Trainer, progress: float) -> None:
        if self.state.step == 2:
            self.save()
            raise KeyboardInterrupt
        step(self, progress)

    monkeypatch.setattr(trainer.Trainer, "_step", failing)
    with pytest.raises(KeyboardInterrupt, match="what was trained is saved"):
        api.adapt(model, [tmp_path / "boxes"], tmp_path / "parts", **settings)
    monkeypatch.setattr(trainer.Trainer, "_step", step)
    api.adapt(model, [tmp_path / "boxes"], tmp_path / "parts", **settings)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    with pytest.raises(InputError, match=r"belongs to another run: its adaptation\.rank is 1, not 2"):
        api.adapt(model, [tmp_path / "boxes"], tmp_path / "parts", **settings | {"rank": 2})


def test_bad_requests_end_with_one_sentence(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip", frames=6)
    write_clip(tmp_path / "bare", frames=4)
    (tmp_path / "bare" / "groundtruth_rect.txt").unlink()
    write_video(tmp_path / "film.mp4", [noise(1) for _ in range(4)], 10)
    write_video(tmp_path / "odd.mp4", [noise(1) for _ in range(4)], 10)
    (tmp_path / "odd_groundtruth_rect.txt").write_text("15,20,20,20\n" * 3)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "clip" / "img" / "0001.jpg", "clip/img/0001.jpg")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    before = contents(tmp_path)
    cases: dict[tuple[object, ...], str] = {
        (model, "nowhere"): "nowhere: there is no such video",
        (model, "bare"): "bare:x,y,w,h",
        (model, "film.mp4"): "film.mp4:x,y,w,h",
        (model, "odd.mp4"): "4 frames and 3 boxes",
        (model, "film.mp4:15,20,20,20", "--max-frames", 10**9, "--agree", 1, "--confident", 1): "can be trusted",
        (model, "all.zip"): "all.zip",
        (model, "all.zip:1,2,3,4"): "a box belongs to one video",
        (model, "bare:500,20,20,20"): r"bare.*does not overlap the frame of 80x60",
        (model, "film.mp4:0,0,0,5"): "width and height above 0",
        ("nobody", "clip"): "no such checkpoint",
        (model, "clip", "--layers", "stem"): "no 1x1 convolution in 'stem'",
        (model, "clip", "--set", "stage=float"): "integer stage",
        (model, "clip", "--set", "workers=2"): "one worker",
        (model, "clip", "--set", "teacher=spiketrack-nano", "--set", "teacher_weight=1"): "without a teacher",
        (model, "clip", "--set", "least_side=100"): "no target",
    }
    for arguments, says in cases.items():
        with pytest.raises(InputError, match=says):
            run(*arguments, "-o", "out")
    with pytest.raises(InputError, match="holds no training run"):
        run(model, "clip", "-o", "other")
    with pytest.raises(UsageError, match="dense tracker"):
        run("spmtrack-micro", "clip", "-o", "out")
    for usage in ((model,), (model, "clip:1,2,3"), (model, "film.mp4:nan,0,5,5"), (model, "clip", "--rank", "0")):
        assert CliRunner().invoke(adapt, [*map(str, usage), "-o", "out"]).exit_code == 2
    assert contents(tmp_path) == before
