"""SPMTrack computed fast, in int8 and in ONNX against its literal form; its operations counted; its loop's rules."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spiketrack_deploy.bundle.dense_parity import Beside
from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.program.dense import by_part, total_macs
from spiketrack_deploy.trackers.published import spmtrack_macs
from spiketrack_deploy.trackers.spmtrack import onnx_export
from spiketrack_deploy.trackers.spmtrack.checkpoint import draw_backbone, on_meta
from spiketrack_deploy.trackers.spmtrack.config import OFFICIAL_CONFIGS, SpmConfig
from spiketrack_deploy.trackers.spmtrack.counts import frame_layers, usage, watch_experts
from spiketrack_deploy.trackers.spmtrack.fast import FastNetwork, bf16_product
from spiketrack_deploy.trackers.spmtrack.int8 import Int8Product, Ranges
from spiketrack_deploy.trackers.spmtrack.model import SpmTrack
from spiketrack_deploy.trackers.spmtrack.onnx_export import export_onnx
from spiketrack_deploy.trackers.spmtrack.onnx_network import OnnxNetwork
from spiketrack_deploy.trackers.spmtrack.torch_network import SpmNetwork
from spiketrack_deploy.tracking import aligned_crop as crops
from spiketrack_deploy.tracking.loop import tracker_over
from spiketrack_deploy.tracking.reference_loop import BoxMaps, ReferenceTracker, references_of

GELU = SpmConfig("gelu", 64, 2, 4, hidden=256, rank=8, alpha=16, template=28, search=70)
GATED = SpmConfig("gated", 48, 3, 3, ffn="swiglu", hidden=80, rank=4, alpha=4, experts=3, template=42, search=56)
ONE = SpmConfig("one", 32, 1, 2, hidden=64, rank=4, alpha=8, template=28, search=28)


def drawn(config: SpmConfig) -> SpmTrack:
    """Weights large enough that experts, attention and head matter."""
    model = draw_backbone(config, 1)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(4 if value.dim() > 1 else 1)
    return model


def frames(count: int, height: int = 90, width: int = 130) -> list[Any]:
    """A square that drifts over noise."""
    rng = np.random.default_rng(7)
    made = []
    for index in range(count):
        frame = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        frame[30 + index : 50 + index, 40 + 2 * index : 64 + 2 * index] = (200, 60, 30)
        made.append(frame)
    return made


def followed(network: Any, count: int = 8) -> list[tuple[Any, BoxMaps]]:
    """Every tracked frame with its maps."""
    tracker = tracker_over(network)
    assert isinstance(tracker, ReferenceTracker)
    clip = frames(count)
    tracker.init(clip[0], (40, 30, 24, 20))
    found = []
    for frame in clip[1:]:
        step = tracker.track(frame)
        assert tracker.maps is not None
        found.append((step, tracker.maps))
    return found


def furthest(first: list[tuple[Any, BoxMaps]], second: list[tuple[Any, BoxMaps]]) -> tuple[float, float]:
    """Largest difference of a map, and of a box in pixels."""
    maps = max(
        float(max(np.abs(a.score - b.score).max(), np.abs(a.boxes - b.boxes).max()))
        for (_, a), (_, b) in zip(first, second, strict=True)
    )
    boxes = max(float(np.abs(np.subtract(a.box, b.box)).max()) for (a, _), (b, _) in zip(first, second, strict=True))
    return maps, boxes


@pytest.mark.parametrize("config", [GELU, GATED, ONE], ids=lambda c: c.name)
def test_the_fast_form_and_onnx_give_the_literal_maps(config: SpmConfig, tmp_path: Path) -> None:
    model = drawn(config)
    export_onnx(model, tmp_path / "step.onnx")
    onnx = followed(OnnxNetwork(tmp_path / "step.onnx"), 11)
    fast = followed(FastNetwork(model), 11)
    literal = followed(SpmNetwork(model, torch.float32), 11)
    for other in (fast, onnx):
        maps, boxes = furthest(literal, other)
        assert maps < 1e-4
        assert boxes < 0.1
    assert np.ptp(literal[0][1].score) > 0.05, "the maps are flat, nothing was compared"


@pytest.mark.parametrize("config", [GELU, GATED, ONE], ids=lambda c: c.name)
def test_a_batch_of_crops_is_each_crop_by_itself(config: SpmConfig) -> None:
    """Three targets of one clip, at different frames: other crops, references and states."""
    network, clip = FastNetwork(drawn(config)), frames(9)
    trackers = [ReferenceTracker(network) for _ in range(3)]
    for index, tracker in enumerate(trackers):
        tracker.init(clip[index], (40 + 2 * index, 30, 24, 20))
        for frame in clip[index + 1 : 2 * index + 2]:
            tracker.track(frame)
    asked = [tracker.ask(clip[8]) for tracker in trackers]
    together, alone = network.search_many(asked), [network.search(*one) for one in asked]
    assert len(together) == 3
    for many, one in zip(together, alone):
        assert many.score == pytest.approx(one.score, abs=1e-5)
        assert many.boxes == pytest.approx(one.boxes, abs=1e-5)
        assert torch.allclose(many.state, one.state, atol=1e-5)
    assert np.abs(together[0].score - together[1].score).max() > 1e-3, "the crops are the same"
    steps = [tracker.take(maps) for tracker, maps in zip(trackers, together)]
    assert [step.frame for step in steps] == [2, 3, 4]
    with pytest.raises(InputError, match="call ask"):
        trackers[0].take(together[0])


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
@pytest.mark.parametrize("config", [GELU, GATED, ONE], ids=lambda c: c.name)
def test_products_in_bfloat16_follow_the_float_ones(config: SpmConfig, device: str) -> None:
    model = drawn(config)
    literal = SpmNetwork(copy.deepcopy(model), torch.float32)
    half = FastNetwork(copy.deepcopy(model), bf16_product, device)
    pair = Beside(literal, half)
    for _, maps in followed(pair, 8):
        assert maps.score.dtype == np.float64
    found = pair.found()
    assert 1e-5 < found["same_crops_score"] < 0.05, "bfloat16 has eight bits, and was used"
    assert found["same_crops_overlap"] > 0.95
    if device == "cuda":
        maps, boxes = furthest(followed(literal, 8), followed(FastNetwork(model, device=device), 8))
        assert maps < 1e-3
        assert boxes < 0.1


def test_onnx_states_its_opset_and_configuration(tmp_path: Path) -> None:
    import onnx

    export_onnx(drawn(GATED), tmp_path / "a.onnx")
    export_onnx(drawn(GATED), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 20)]
    assert OnnxNetwork(tmp_path / "a.onnx").config == GATED
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="ONNX Runtime cannot read it"):
        OnnxNetwork(tmp_path / "bad.onnx")


def test_weights_of_a_large_network_lie_beside_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    model = drawn(GATED)
    export_onnx(model, tmp_path / "whole.onnx")
    monkeypatch.setattr(onnx_export, "ONE_FILE", 1 << 12)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        export_onnx(model, tmp_path / name / "model.onnx")
    files = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert sorted(files) == ["model.data", "model.onnx"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert len(files["model.onnx"]) < len(files["model.data"]) / 4
    onnx.checker.check_model(str(tmp_path / "first" / "model.onnx"), full_check=True)
    both = (followed(OnnxNetwork(tmp_path / name), 3) for name in ("whole.onnx", "first/model.onnx"))
    assert furthest(*both) == (0.0, 0.0)


def test_int8_layers_follow_the_float_ones() -> None:
    model, ranges = drawn(GELU), Ranges()
    float32 = followed(FastNetwork(model, ranges.observe))
    int8 = followed(FastNetwork(model, ranges.product))
    spread = float(np.ptp(float32[0][1].score))
    maps, _ = furthest(float32[:1], int8[:1])
    assert 0 < maps < 0.15 * spread
    with pytest.raises(EngineError, match="was not seen in the calibration"):
        FastNetwork(drawn(ONE), Ranges().product)


def test_an_int8_product_is_its_formula() -> None:
    rng = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(5, 12, generator=rng), torch.randn(5, generator=rng)
    x = torch.randn(7, 12, generator=rng) * torch.logspace(-1, 1, 12)
    product = Int8Product(weight, bias, x.amin(0), x.amax(0))
    assert product.weights.abs().amax(1).tolist() == [127] * 5
    error = (product(x) - (x @ weight.mT + bias)).abs().max() / (x @ weight.mT).abs().max()
    assert 1e-5 < float(error) < 0.02


@pytest.mark.parametrize(
    ("name", "parameters", "trained", "entries"),
    [
        ("spmtrack_b", 115_330_565, 29_243_909, 449),
        ("spmtrack_l", 379_582_469, 75_872_261, 881),
        ("spmtrack_g", 1_339_511_813, 204_018_693, 1457),
    ],
)
def test_published_sizes_count_as_published(name: str, parameters: int, trained: int, entries: int) -> None:
    """Counted on the module, on a device without memory; the formula by layer shapes is another count."""
    config = OFFICIAL_CONFIGS[name]
    model, layers = on_meta(config), frame_layers(config)
    assert sum(value.numel() for value in model.parameters()) == parameters
    assert sum(value.numel() for value in model.trained().values()) == trained
    assert len(model.trained()) + 2 == entries
    assert total_macs(layers) == spmtrack_macs(config.dim, config.depth, config.ffn == "swiglu")
    published = {
        "spmtrack_b": (0.595, 27.986, 32.019, 9.329, 74.629, 0.437, 6.996, 27.986, 1.723),
        "spmtrack_l": (0.793, 99.506, 85.383, 33.169, 265.348, 1.166, 18.657, 74.629, 3.062),
        "spmtrack_g": (1.189, 373.146, 213.458, 124.382, 995.057, 2.483, 39.733, 214.214, 6.886),
    }[name]
    keys = ("patch embedding", "qkv frozen", "attention", "proj frozen", "MLP frozen", "router", "experts A",
            "experts B", "head")  # fmt: skip
    assert tuple(round(by_part(layers)[key] / 1e9, 3) for key in keys) == published


def test_counts_of_a_small_network_by_hand() -> None:
    layers = {layer.name: layer for layer in frame_layers(GATED)}
    tokens = GATED.tokens
    assert tokens == 1 + 3 * 9 + 16
    assert layers["patch_embed.proj"].macs == (tokens - 1) * 588 * 48
    assert layers["blocks.2.mlp.w12.linear"].macs == tokens * 48 * 160
    assert layers["blocks.2.mlp.w12.linear"].weights == 48 * 160 + 160
    assert layers["blocks.2.mlp.w3.tmoe.B"].macs == tokens * 3 * 4 * 48
    assert layers["blocks.0.attn.qk"].macs == layers["blocks.0.attn.av"].macs == tokens**2 * 48
    assert layers["blocks.0.attn.softmax"].elements == 3 * tokens**2
    assert layers["blocks.1.mlp.activation"].elements == tokens * 80
    assert layers["blocks.1.mlp.scaling"].elements == tokens * 80
    assert layers["blocks.1.attn.proj.tmoe.softmax"].elements == 3 * tokens
    assert layers["blocks.1.norm1.layer_norm"].bytes_moved(4) == 4 * 2 * tokens * 48
    assert all(name.startswith("blocks.") == layer.block.startswith("blocks.") for name, layer in layers.items())


def test_usage_of_experts_by_hand() -> None:
    model = drawn(ONE)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "expert_route" in name:
                value.zero_()
    with watch_experts(model) as kept:
        followed(SpmNetwork(model, torch.float32), 3)
    found = usage(kept)
    assert [one.layer for one in found][:2] == ["blocks.0.attn.qkv.q", "blocks.0.attn.qkv.k"]
    assert len(found) == 6
    assert all(one.share == (0.25,) * 4 and math.isclose(one.entropy, math.log(4)) for one in found)


def test_what_no_frame_can_ask_for_is_forgotten() -> None:
    for rule in ("halves", "thirds"):
        lowest = [references_of(frame, rule)[1] for frame in range(4, 200)]
        assert lowest == sorted(lowest), "an entry that was let go could be asked for again"
    tracker = ReferenceTracker(SpmNetwork(drawn(ONE), torch.float32))
    clip = frames(14)
    tracker.init(clip[0], (40, 30, 24, 20))
    for frame in clip[1:]:
        tracker.track(frame)
    assert sorted(tracker._memory) == [0, *range(3, 14)]


class _Wanders:
    """A network whose box leaves the frame at once."""

    config = ONE

    def start(self) -> Any:
        return None

    def reference(self, crop: Any, cells: Any) -> Any:
        return crop

    def search(self, crop: Any, references: Any, state: Any) -> BoxMaps:
        assert len(references) == 3
        return BoxMaps(np.zeros((2, 2)), np.full((2, 2, 4), -9.0), None)


def test_an_empty_box_is_reported_and_the_last_one_is_searched_around() -> None:
    tracker = ReferenceTracker(_Wanders())
    clip = frames(6)
    tracker.init(clip[0], (40, 30, 24, 20))
    for frame in clip[1:]:
        step = tracker.track(frame)
        assert step.box[2:] == (0.0, 0.0)
        assert tracker.box == (40, 30, 64, 50)
    assert tracker.last[1] == crops.align((40, 30, 64, 50), 2.0, 28, 130, 90)


def test_a_crop_without_image_is_the_fill_colour() -> None:
    at = crops.align((500.0, 400.0, 520.0, 420.0), 2.0, 28, 130, 90)
    assert at.source == at.target == (0, 0, 0, 0)
    fill = np.array([1.0, 2.0, 3.0])
    assert (crops.cut(frames(1)[0], at, fill) == fill).all()
    assert at.back(at.into((1.0, 2.0, 3.0, 4.0))) == pytest.approx((1.0, 2.0, 3.0, 4.0))
    with pytest.raises(InputError, match="needs finite numbers"):
        crops.align((1.0, 1.0, 1.0, 5.0), 2.0, 28, 130, 90)
