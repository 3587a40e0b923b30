"""Full disks, kills, signals and damaged pictures: nothing half-written stays, and the sentence says what failed."""

from __future__ import annotations

import errno
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from _cli import command, contents, environment, refuse
from _hostile import refused

from spiketrack_deploy.bundle import layout
from spiketrack_deploy.cli import main as entry
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs import whole_folder as folders
from spiketrack_deploy.inputs.sources import find_source

BOX = ("--init", "9,9,20,20")


def fails(error: BaseException) -> click.Command:
    @click.command()
    def broken() -> None:
        raise error

    return broken


def test_a_failed_read_is_no_failed_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(error: OSError) -> str:
        assert entry.run(fails(error), "spiketrack", []) == 3
        return capsys.readouterr().err

    unread = said(IsADirectoryError(errno.EISDIR, "Is a directory", "models/mine"))
    assert "models/mine: cannot be used (Is a directory)" in unread and "written" not in unread
    assert "x: cannot be written (No space left" in said(OSError(errno.ENOSPC, "No space left", "x"))
    with pytest.raises(FileNotFoundError), layout.staging(tmp_path / "out", False):
        (tmp_path / "clip.mp4").read_bytes()
    with pytest.raises(InputError, match="out: cannot be written"), layout.staging(tmp_path / "out", False) as folder:
        (folder / "no" / "where").write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_inside_a_library_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """As Python below 3.12 tells one that falls into the making of a class."""
    for stop, code in ((KeyboardInterrupt(), 130), (SystemExit(143), 143)):
        error = RuntimeError("Error calling __set_name__")
        error.__cause__ = stop
        assert entry.run(fails(error), "spiketrack", []) == code
        assert capsys.readouterr().err.endswith("; nothing half-written is left\n")


def test_a_folder_of_a_model_is_a_model(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "mine.v2").mkdir()
    (tmp_path / "mine.v2" / "model.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    found = find_source(str(tmp_path / "mine.v2"))
    assert (found.name, found.path.name) == ("mine.v2", "model.safetensors")
    refused(tmp_path, (".", "folder without model.safetensors"), "track", ".", "--max-frames", 2)


def confined(limit: int) -> Callable[[], None]:
    """The kernel refuses to make files larger than ``limit``, as a full disk does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.parametrize("limit", [30_000])
def test_pictures_on_a_full_disk(bundle: Path, limit: int) -> None:
    words = ("floorplan.", "cannot be written", "free some space")
    refuse(bundle.parent, 3, words, "map", "bundle", "--pictures", "drawn", preexec_fn=confined(limit))


@pytest.mark.parametrize("limit", [5_000])
def test_a_video_on_a_full_disk_is_not_called_no_video(bundle: Path, limit: int) -> None:
    args = ("track", "bundle", "--max-frames", 3, "-o", "out")
    sentence = refuse(bundle.parent, 3, ("cannot be written",), *args, preexec_fn=confined(limit))
    assert "no video" not in sentence


def damaged_png() -> bytes:
    """A picture of which a part is not what its checksum says: libpng complains of that by itself."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    data = bytearray(cv2.imencode(".png", noise)[1].tobytes())
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("short", [False, True])
def test_libraries_do_not_speak_beside_the_sentence(bundle: Path, short: bool) -> None:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 64, 48, 8, 2, 0, 0, 0)
    cut = head + struct.pack(">I", zlib.crc32(head[12:])) + b"\0\0\0\x05IDATx\x9c"
    (bundle.parent / "clip").mkdir()
    for name in ("0.png", "1.png"):
        (bundle.parent / "clip" / name).write_bytes(cut if short else damaged_png())
    refuse(bundle.parent, 3, ("0.png",), "track", "bundle", "clip", *BOX, "-o", "out")


@pytest.mark.usefixtures("heeds_sigint")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_end_with_a_sentence(bundle: Path, number: int, code: int, word: str) -> None:
    args = command("track", "bundle", "--engine", "reference", "-o", "out")
    with subprocess.Popen(args, cwd=bundle.parent, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while not list(bundle.parent.glob(".out-*")):
            assert process.poll() is None, "it ended before it began"
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"{word}; nothing half-written is left\n")
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


WRITER = """
import sys, time
from pathlib import Path
from spiketrack_deploy.bundle import layout
with layout.staging(Path("out"), True) as folder:
    (folder / layout.MANIFEST).write_text("{}")
    (folder / "new").write_text("new")
    print(folder.name, flush=True)
    time.sleep(float(sys.argv[1]))
"""


def test_folders_of_killed_writers_are_cleared_and_others_left_alone(tmp_path: Path) -> None:
    for name in (".out-thesis.tmp", ".out-12345678.tmp.txt", ".other-12345678.tmp", ".out-1234567.tmp"):
        (tmp_path / name).mkdir()
    kept = set(contents(tmp_path))
    args = [sys.executable, "-c", WRITER, "60"]
    with (
        subprocess.Popen(args, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as dead,
        subprocess.Popen(args, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as alive,
    ):
        assert dead.stdout and alive.stdout
        first, second = dead.stdout.readline().strip(), alive.stdout.readline().strip()
        dead.kill()
        dead.wait()
        assert (tmp_path / first).is_dir() and (tmp_path / second).is_dir()
        with layout.staging(tmp_path / "out", True) as folder:
            (folder / layout.MANIFEST).write_text("{}", encoding="ascii")
            found = {p.name for p in tmp_path.iterdir()}
            assert found == kept | {second, folder.name}, "the dead writer's folder goes, the living one's stays"
        alive.kill()
    with layout.staging(tmp_path / "out", True) as folder:
        (folder / layout.MANIFEST).write_text("{}", encoding="ascii")
    assert {p.name for p in tmp_path.iterdir()} == kept | {"out"}


KILLED = """
import os, signal, sys
from pathlib import Path
from spiketrack_deploy.bundle import layout
from spiketrack_deploy.inputs import whole_folder
if sys.argv[2] == "two renames":
    whole_folder._exchanged = lambda one, other: False
left, armed = int(sys.argv[1]), False
EVENTS = ("os.rename", "os.chmod", "os.rmdir", "os.remove", "shutil.rmtree", "tempfile.mkdtemp", "os.listdir")
def hook(event, args):
    global left
    if armed and event in EVENTS:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
with layout.staging(Path("out"), True) as folder:
    (folder / layout.MANIFEST).write_text("{}")
    (folder / "new").write_text("new")
    armed = True
"""


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_at_any_instant_of_a_replacement_leaves_a_whole_folder(tmp_path: Path, way: str) -> None:
    if way == "exchange" and not exchanges(tmp_path):
        pytest.skip("this file system cannot exchange two folders in one step")
    out, missing = tmp_path / "out", 0
    for instant in range(40):
        for path in tmp_path.iterdir():
            subprocess.run(["rm", "-r", path], check=True)
        out.mkdir()
        (out / layout.MANIFEST).write_text("{}", encoding="ascii")
        (out / "old").write_text("old", encoding="ascii")
        args = [sys.executable, "-c", KILLED, str(instant), way]
        done = subprocess.run(args, cwd=tmp_path, env=environment(), check=False)
        if not out.exists():
            missing += 1
            folders._clear_abandoned(out)  # what the next command does first
        assert sorted(p.name for p in out.iterdir()) in ([layout.MANIFEST, "old"], [layout.MANIFEST, "new"])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert 4 < instant < 39 and missing == (0 if way == "exchange" else 1)
    assert [p.name for p in out.iterdir() if p.name != layout.MANIFEST] == ["new"]
    folders._clear_abandoned(out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def exchanges(folder: Path) -> bool:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    return folders._exchanged(folder / "a", folder / "b")
