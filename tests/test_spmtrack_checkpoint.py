"""SPMTrack's files: what loads, and that everything else is one sentence through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _evaluation import dataset
from safetensors.torch import load_file, save_file
from torch import Tensor

from spiketrack_deploy.cli.commands import group
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.trackers.spmtrack.checkpoint import (
    draw_backbone,
    infer,
    load_spmtrack,
    resized_positions,
    save_spmtrack,
    with_backbone,
)
from spiketrack_deploy.trackers.spmtrack.config import OFFICIAL_CONFIGS, SpmConfig
from spiketrack_deploy.trackers.spmtrack.model import SpmTrack, is_trained

CONFIG = SpmConfig("small", 64, 2, 1, hidden=256, rank=8, alpha=16, template=28, search=56)
Tensors = dict[str, Tensor]


def released(model: SpmTrack) -> tuple[Tensors, Tensors]:
    """The two files of a network, as they are published."""
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    tracker = {key: value for key, value in state.items() if is_trained(key)}
    tracker |= {"expert_alpha": torch.tensor(model.config.alpha), "use_rsexpert": torch.tensor(False)}
    backbone = {
        "cls_token": torch.zeros(1, 1, 64),
        "mask_token": torch.zeros(1, 64),
        "pos_embed": torch.zeros(1, 1370, 64),
    }
    for key, value in state.items():
        if is_trained(key) or key == "pos_embed":
            continue
        head, middle, tail = key.partition(".attn.qkv.")
        if middle and tail.startswith("q."):
            leaf = tail.split(".")[-1]
            backbone[f"{head}.attn.qkv.{leaf}"] = torch.cat(
                [state[f"{head}.attn.qkv.{n}.linear.{leaf}"] for n in "qkv"]
            )
        elif not middle:
            backbone[key.replace(".linear.", ".")] = value
    return tracker, {key: value.clone() for key, value in backbone.items()}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """tracker.safetensors with its config.json, and the backbone in another folder."""
    tracker, backbone = released(draw_backbone(CONFIG, 3))
    files = (tmp_path / "tracker.safetensors", tmp_path / "apart" / "dinov2_tiny.safetensors")
    files[1].parent.mkdir()
    save_file(tracker, files[0])
    save_file(backbone, files[1])
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    return files


def test_two_files_and_one_full_file_are_the_same_network(pair: tuple[Path, Path], tmp_path: Path) -> None:
    two = load_spmtrack(pair)
    save_spmtrack(two, tmp_path / "full.safetensors")
    one = load_spmtrack((tmp_path / "full.safetensors",))
    assert one.config == two.config == CONFIG
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    pth = tmp_path / "apart" / "tracker.bin"
    torch.save(load_file(pair[0]), pth)
    (pth.parent / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    assert with_backbone((pth,)) == (pth, pair[1])
    assert not [
        name
        for name, p in load_spmtrack(with_backbone((pth,))).named_parameters()
        if p.requires_grad != is_trained(name)
    ]


def test_positions_are_resized_in_the_asked_precision(pair: tuple[Path, Path]) -> None:
    table = torch.randn(1, 1370, 64, dtype=torch.float64)
    assert resized_positions(table, 37).sub(table[:, 1:]).abs().max() < 1e-12
    assert load_spmtrack(pair, dtype=torch.float64).pos_embed.dtype == torch.float64


@pytest.mark.parametrize("name", OFFICIAL_CONFIGS)
def test_published_layouts_are_inferred(name: str) -> None:
    from spiketrack_deploy.trackers.archive import TensorSource
    from spiketrack_deploy.trackers.spmtrack.checkpoint import on_meta

    model = on_meta(OFFICIAL_CONFIGS[name])
    shapes = {k: TensorSource(tuple(v.shape), v.dtype, lambda: torch.tensor(64)) for k, v in model.trained().items()}
    shapes["expert_alpha"] = TensorSource((), torch.int64, lambda: torch.tensor(64))
    assert infer(Path(name), shapes) == OFFICIAL_CONFIGS[name]


def change(key: str, value: Tensor | None) -> Callable[[Tensors], None]:
    def apply(tensors: Tensors) -> None:
        tensors.pop(key, None)
        if value is not None:
            tensors[key] = value

    return apply


def poison(tensors: Tensors) -> None:
    tensors["blocks.1.attn.proj.tmoe.routed_experts.2"][3, 1] = float("nan")


FAULTS: dict[str, tuple[int, Callable[[Tensors], None], str]] = {
    "alpha 0": (0, change("expert_alpha", torch.tensor(0)), "expert_alpha is 0; the experts' scale must be above 0"),
    "another alpha": (0, change("expert_alpha", torch.tensor(64)), "expert_alpha is 64, its configuration says 16"),
    "alpha no number": (0, change("expert_alpha", torch.tensor([16, 16])), "expert_alpha has the shape [2]"),
    "alpha missing": (0, change("expert_alpha", None), "1 missing (expert_alpha)"),
    "flag": (0, change("use_rsexpert", torch.tensor(True)), "use_rsexpert is set"),
    "NaN": (0, poison, "not finite or with negative variance (blocks.1.attn.proj.tmoe.routed_experts.2)"),
    "missing": (0, change("head.cls_mlp.layers.0.bias", None), "1 missing (head.cls_mlp.layers.0.bias)"),
    "extra": (0, change("head.more", torch.zeros(2)), "1 unexpected (head.more)"),
    "misshaped": (0, change("token_type_embed", torch.zeros(2, 64)), "token_type_embed [2, 64] instead of [3, 64]"),
    "mixed": (0, change("encoder.x.weight", torch.zeros(2)), "mixes tensors of a SpikeTrack and of an SPMTrack"),
    "registers": (1, change("register_tokens", torch.zeros(1, 4, 64)), "is a DINOv2 with registers"),
    "another size": (
        1,
        change("pos_embed", torch.zeros(1, 1370, 96)),
        "is a DINOv2 of width [96], the tracker's is 64",
    ),
    "another depth": (1, change("blocks.2.norm1.weight", torch.zeros(64)), "1 unexpected (blocks.2.norm1.weight)"),
    "no backbone": (1, change("pos_embed", None), "is no DINOv2 backbone"),
}
"""What is changed in which of the two files, and what is said of it."""


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs a command line that must end with exit code 3 and one sentence."""

    def check(words: str, *arguments: str) -> None:
        capsys.readouterr()
        assert run(group, "spiketrack", arguments) == 3
        said = capsys.readouterr().err
        assert words in said, said
        assert said.startswith("error: ")
        assert said.count("\n") == 1, said

    return check


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_one_sentence(fault: str, pair: tuple[Path, Path], refused: Any) -> None:
    which, apply, words = FAULTS[fault]
    tensors = load_file(pair[which])
    apply(tensors)
    save_file(tensors, pair[which])
    refused(words, "inspect", f"{pair[0]}+{pair[1]}")
    out = pair[0].parent / "out"
    refused(words, "evaluate", f"{pair[0]}+{pair[1]}", str(dataset(out.with_name("data"), ("a",))), "-o", str(out))
    assert not out.exists(), "something was begun"


def test_files_in_the_wrong_place_are_one_sentence(pair: tuple[Path, Path], tmp_path: Path, refused: Any) -> None:
    tracker, backbone = pair
    refused("holds SPMTrack's trained tensors only", "inspect", str(tracker))
    refused("the two are swapped", "inspect", f"{backbone}+{tracker}")
    refused("is a DINOv2 backbone and no tracker", "inspect", str(backbone))
    refused("there is no file", "inspect", f"{tracker}+{tmp_path / 'none.pth'}")
    nano = Path(__file__).parents[1] / "models" / "spiketrack-nano" / "model.safetensors"
    refused("is a SpikeTrack, which takes no backbone file", "inspect", f"{nano}+{backbone}")
    refused("is no DINOv2 backbone but a spiketrack file", "inspect", f"{tracker}+{nano}")
    full = tmp_path / "full.safetensors"
    save_spmtrack(load_spmtrack(pair), full)
    refused("is a full SPMTrack, backbone included", "inspect", f"{full}+{backbone}")


def test_one_trackers_file_as_anothers_is_one_sentence(tmp_path: Path, refused: Any) -> None:
    """A SpikeTrack's configuration beside an SPMTrack's tensors, and the reverse."""
    tracker, _ = released(draw_backbone(CONFIG, 3))
    nano = Path(__file__).parents[1] / "models" / "spiketrack-nano"
    save_file(tracker, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((nano / "config.json").read_text())
    refused("trained tensors only", "inspect", str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    words = "config.json: it is that of network 'spmtrack', not of 'spiketrack'"
    refused(words, "budget", str(tmp_path / "config.json"))
    save_file(load_file(nano / "model.safetensors"), tmp_path / "model.safetensors")  # its own configuration left out
    refused(words, "inspect", str(tmp_path / "model.safetensors"))
    with pytest.raises(Exception, match="is a SpikeTrack"):
        load_spmtrack((nano / "model.safetensors",))


def test_a_pickle_with_code_is_not_executed(tmp_path: Path, refused: Any) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (Path(str(tmp_path / "ran")).touch, ())

    (tmp_path / "evil.bin").write_bytes(pickle.dumps({"track_query": Evil()}))
    refused("neither a PyTorch zip archive nor", "inspect", str(tmp_path / "evil.bin"))
    assert not (tmp_path / "ran").exists()


def test_absurd_sizes_are_refused_before_anything_is_made() -> None:
    with pytest.raises(Exception, match="million weights"):
        SpmConfig("huge", 60000, 100, 10)
    with pytest.raises(Exception, match="heads do not divide"):
        SpmConfig("odd", 64, 1, 5)
    with pytest.raises(Exception, match="larger than its search crop"):
        SpmConfig("odd", 64, 1, 4, template=392)
    assert np.isclose(SpmConfig("ok", 64, 1, 4, rank=8, alpha=16).scale, 2)
