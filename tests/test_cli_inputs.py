"""Bad inputs through the real command: the right exit code, one sentence that says what and which, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from _cli import contents, environment, refuse, spiketrack

from spiketrack_deploy.inputs.resources import find_model, find_profile

OUT = ("-o", "out")


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (os.system, (f"touch {self.place}",))


def test_missing_checkpoint_names_the_bundled_models(tmp_path: Path) -> None:
    refuse(tmp_path, 3, ("nothing.pth", "spiketrack-untrained"), "export", "nothing.pth", *OUT)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.pth", b""),
        ("text.pth", b"these are not weights\n" * 40),
        ("noise.safetensors", bytes(range(256)) * 16),
    ],
)
def test_file_that_is_no_checkpoint(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    refuse(tmp_path, 3, (name,), "export", name, *OUT)


def test_truncated_checkpoint(tmp_path: Path) -> None:
    whole = find_model("spiketrack-untrained").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    refuse(tmp_path, 3, ("half.safetensors",), "export", "half.safetensors", *OUT)


def test_pickle_bomb_does_not_go_off(tmp_path: Path) -> None:
    place = tmp_path / "went_off"
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps({"net": Bomb(place)}, protocol=2))
        archive.writestr("bomb/version", "3")
    refuse(tmp_path, 3, ("bomb.pth",), "export", "bomb.pth", *OUT)
    assert not place.exists(), "the checkpoint was executed"


def test_checkpoint_of_another_model_lists_what_does_not_fit(tmp_path: Path) -> None:
    other = {"layer1.0.conv1.weight": torch.zeros(8, 3, 3, 3), "fc.weight": torch.zeros(10, 8)}
    torch.save({"net": other}, tmp_path / "resnet.pth")
    refuse(tmp_path, 3, ("resnet.pth",), "export", "resnet.pth", *OUT)


@pytest.mark.parametrize("fault", ["missing", "extra", "misshaped", "not finite"])
def test_checkpoint_with_one_bad_tensor_names_it(tmp_path: Path, tiny_checkpoint: Path, fault: str) -> None:
    import torch
    from safetensors.torch import load_file

    state = load_file(tiny_checkpoint)
    name = "encoder.downsample1_2.encode_conv.bias"
    if fault == "missing":
        del state[name]
    elif fault == "extra":
        state[name := "encoder.stranger.weight"] = torch.zeros(3)
    elif fault == "misshaped":
        state[name] = torch.zeros(5)
    else:
        state[name][0] = float("nan")
    torch.save({"net": state}, tmp_path / "bad.pth")
    refuse(tmp_path, 3, (name,), "export", "bad.pth", *OUT)


def test_a_bundle_is_no_model(bundle: Path) -> None:
    refuse(bundle.parent, 3, ("bundle", "checkpoint"), "export", "bundle", *OUT)


@pytest.mark.parametrize("data", [b"", b"no video\n" * 100])
def test_unreadable_video(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(data)
    refuse(tmp_path, 3, ("clip.mp4",), "export", "--video", "clip.mp4", "--init", "1,1,20,20", *OUT)


def test_missing_video(tmp_path: Path) -> None:
    refuse(tmp_path, 3, ("clip.mp4", "no such"), "export", "--video", "clip.mp4", "--init", "1,1,20,20", *OUT)


def frames(folder: Path, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir()
    for index, (width, height) in enumerate(sizes):
        cv2.imwrite(str(folder / f"{index:03d}.png"), np.full((height, width, 3), 40 * index, np.uint8))


def test_folder_with_mixed_sizes(tmp_path: Path, tiny_checkpoint: Path) -> None:
    frames(tmp_path / "mixed", [(64, 48), (64, 48), (32, 48)])
    refuse(
        tmp_path, 3, ("002.png", "32x48"), "export", tiny_checkpoint, "--frames", "mixed", "--init", "9,9,20,20", *OUT
    )


def test_folder_with_a_corrupt_frame(tmp_path: Path, tiny_checkpoint: Path) -> None:
    frames(tmp_path / "corrupt", [(64, 48), (64, 48), (64, 48)])
    (tmp_path / "corrupt" / "001.png").write_bytes(b"\x89PNG broken")
    refuse(tmp_path, 3, ("001.png",), "export", tiny_checkpoint, "--frames", "corrupt", "--init", "9,9,20,20", *OUT)


@pytest.mark.parametrize("sizes", [[], [(64, 48)]])
def test_folder_with_too_few_frames(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    frames(tmp_path / "few", sizes)
    refuse(tmp_path, 3, ("few",), "export", "--frames", "few", "--init", "9,9,20,20", *OUT)


def test_video_without_a_box(tmp_path: Path) -> None:
    frames(tmp_path / "clip", [(64, 48), (64, 48)])
    refuse(tmp_path, 2, ("--init x,y,w,h",), "export", "--frames", "clip", *OUT)


@pytest.mark.parametrize(
    ("box", "code", "word"),
    [
        ("400,300,20,20", 3, "overlap"),
        ("10,10,0.5,0.5", 3, "at least 1 pixel"),
        ("10,10,-5,20", 3, "at least 1 pixel"),
        ("10,10,20", 2, "four numbers"),
        ("10,10,20,wide", 2, "four numbers"),
        ("10,10,nan,20", 2, "four numbers"),
    ],
)
def test_impossible_first_box(tmp_path: Path, tiny_checkpoint: Path, box: str, code: int, word: str) -> None:
    refuse(tmp_path, code, (word,), "export", tiny_checkpoint, f"--init={box}", "--max-frames", 2, *OUT)


def test_unknown_target_lists_the_targets(tmp_path: Path) -> None:
    refuse(tmp_path, 2, ("'loihi9'", "loihi2", "kapoho_point", "cpu"), "export", "--target", "loihi9", *OUT)
    refuse(tmp_path, 2, ("truenorth", "no family", "no price"), "export", "--target", "truenorth", *OUT)


def test_unknown_option_and_choice(tmp_path: Path) -> None:
    refuse(tmp_path, 2, ("--fast",), "export", "--fast")
    refuse(tmp_path, 2, ("gpu", "sim"), "export", "--engine", "gpu")
    refuse(tmp_path, 2, ("--max-frames",), "export", "--max-frames", 1)


def test_output_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("dear diary", encoding="utf-8")
    refuse(tmp_path, 2, ("out", "--force"), "export", *OUT)
    refuse(tmp_path, 2, ("out", "does not delete it"), "export", *OUT, "--force")
    refuse(tmp_path / "out", 2, ("current",), "export", "-o", ".", "--force")
    refuse(tmp_path, 2, ("is a file",), "export", "-o", "out/diary.txt", "--force")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('unit = "pJ"\n', "", ("unit",)),
        ("[prices.synop]\n", '[prices.synop]\ncolour = "red"\n', ("synop", "colour")),
        ("[prices.synop]\n", "[prices.lunch]\nvalue = 1.0\n\n[prices.synop]\n", ("lunch",)),
        ("schema = 1", "schema = 1\n[[", ("TOML",)),
    ],
)
def test_bad_profile(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    text = find_profile("loihi2").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    refuse(tmp_path, 3, ("mine.toml", *words), "export", "--profile", "mine.toml", *OUT)


def test_missing_profile(tmp_path: Path) -> None:
    refuse(tmp_path, 3, ("none.toml",), "export", "--profile", "none.toml", *OUT)
    refuse(tmp_path, 2, ("abacus", "loihi2"), "export", "--profile", "abacus", *OUT)


def test_lava_engine_without_lava(tmp_path: Path) -> None:
    variables = {"SPIKETRACK_LAVA_PYTHON": str(tmp_path / "python")}
    refuse(tmp_path, 6, ("SPIKETRACK_LAVA_PYTHON",), "export", "--engine", "lava", *OUT, env=variables)


def test_errors_as_json_keep_stdout_to_one_object(tmp_path: Path) -> None:
    for args, code in ((("export", "--target", "abacus"), 2), (("verify", "nowhere"), 3), (("simulate",), 2)):
        done = spiketrack(tmp_path, *args, "--json")
        assert json.loads(done.stdout) == {"error": done.stderr.strip().removeprefix("error: "), "exit_code": code}
        assert done.returncode == code
    assert contents(tmp_path) == {}


def test_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    script = f"'{sys.executable}' -m spiketrack_deploy targets show loihi2 | head -1"
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("loihi2: ") and done.stderr == ""
