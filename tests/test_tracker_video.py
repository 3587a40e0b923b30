"""Frames in and out: folders, videos, natural order, and inputs that cannot be used."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.video import open_frames, write_video

CLIP = Path(__file__).parent / "golden" / "clip"


def grey(level: int, height: int = 32, width: int = 48) -> Image:
    """A flat frame, reddest in red."""
    frame = np.full((height, width, 3), level, dtype=np.uint8)
    frame[:, :, 0] = 200
    return frame


def save_image(path: Path, frame: Image) -> None:
    """Write an RGB frame."""
    assert cv2.imwrite(str(path), frame[:, :, ::-1])


def test_a_folder_is_read_as_rgb_in_natural_order(tmp_path: Path) -> None:
    for n in (10, 9, 2, 1):
        save_image(tmp_path / f"frame_{n}.png", grey(n))
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame_3.png").write_bytes(b"a file manager's droppings")
    source = open_frames(tmp_path)
    assert [int(f[0, 0, 1]) for f in source] == [1, 2, 9, 10]
    assert [int(f[0, 0, 0]) for f in source] == [200] * 4  # red first, and a second pass starts again
    assert (source.frame_count, source.fps, source.width, source.height) == (4, 25.0, 48, 32)
    assert source.name == tmp_path.name


def test_max_frames_limits_both_kinds(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [grey(50)] * 5, 10.0)
    for path in (CLIP, tmp_path / "a.mp4"):
        source = open_frames(path, 3)
        assert (len(list(source)), source.frame_count) == (3, 3)
        assert len(list(open_frames(path, 1))) == 1
        assert len(list(open_frames(path, 99))) == open_frames(path).frame_count
    with pytest.raises(InputError, match="at least one frame"):
        open_frames(CLIP, 0)


def test_a_written_video_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, (grey(20 * k, 35, 51) for k in range(6)), 12.5)
    source = open_frames(path)
    frames = list(source)
    assert (len(frames), source.frame_count, source.width, source.height) == (6, 6, 50, 34)
    assert source.fps == pytest.approx(12.5, rel=0.01)
    for k, frame in enumerate(frames):
        assert abs(float(frame[:, :, 1].mean()) - 20 * k) < 12
        assert abs(float(frame[:, :, 0].mean()) - 200) < 12
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_slow_video_keeps_its_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [grey(9)] * 3, 0.5)
    assert open_frames(tmp_path / "a.mp4").fps == pytest.approx(0.5)


def test_unusable_inputs_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("this is no video " * 100)
    (tmp_path / "zero.mp4").write_bytes(b"")
    write_video(tmp_path / "good.mp4", [grey(9)] * 5, 10.0)
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    for name, says in (
        ("missing.mp4", "does not exist"),
        ("empty", "holds no images"),
        ("text.mp4", "cannot be opened"),
        ("zero.mp4", "cannot be opened"),
        ("half.mp4", r"cannot be opened|no frame"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            open_frames(tmp_path / name)
        assert name in str(caught.value)


def test_a_bad_image_in_a_folder_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "1.png", grey(1))
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:20])
    with pytest.raises(InputError, match=r"2\.png is empty or damaged"):
        list(open_frames(tmp_path))
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2\.png is empty or damaged"):
        list(open_frames(tmp_path))
    save_image(tmp_path / "2.png", grey(1, 40, 48))
    with pytest.raises(InputError, match=r"2\.png has 48x40 pixels"):
        list(open_frames(tmp_path))


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on file size makes the kernel refuse a write in the middle, as a full disk does."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 96, 3)).astype(np.uint8) for _ in range(40)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(InputError, match=r"a\.mp4 cannot be written .*disk full"):
            write_video(tmp_path / "a.mp4", frames, 10.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [1 / 3, 23.976, 29.97, 1000.0])
def test_any_rate_can_be_written(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.mp4", [grey(50)] * 4, fps)
    source = open_frames(tmp_path / "a.mp4")
    assert (len(list(source)), source.fps) == (4, pytest.approx(fps, rel=1e-3))


def test_a_failed_video_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(InputError, match="at least one frame"):
        write_video(path, [], 10.0)
    with pytest.raises(InputError, match="the first one had"):
        write_video(path, [grey(1), grey(1, 64, 64)], 10.0)
    for rate in (float("nan"), 0.0, -1.0, 1e-9):
        with pytest.raises(InputError, match="frames per second"):
            write_video(path, [grey(1)], rate)
    for height, width in ((1, 1), (1, 8), (8, 1)):
        with pytest.raises(InputError, match="2x2"):
            write_video(path, [grey(1, height, width)], 10.0)
    with pytest.raises(InputError, match="RGB image"):
        write_video(path, [np.zeros((4, 4), np.uint8)], 10.0)
    with pytest.raises(InputError, match="does not exist"):
        write_video(tmp_path / "no" / "a.mp4", [grey(1)], 10.0)
    assert list(tmp_path.iterdir()) == []
