"""Data sets that wait, that are bombs, that are damaged: one sentence and exit code 3, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from _evaluation import boxes, command, dataset, lines, sequence, shell
from _training import write_clip, write_pictures

from spiketrack_deploy.datasets.files import MAX_TEXT, open_tree
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.datasets.sequences import open_dataset
from spiketrack_deploy.errors import InputError

SECONDS = 60
MEGABYTES = 700
"""NumPy, OpenCV and matplotlib alone are a fourth of it."""

PEAK = """
import resource, subprocess, sys

done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
"""Runs a command and prints its largest resident memory in KB. A child's figure includes its parent's memory at the
start, so the parent must be small, which a process of pytest is not."""


EACH = """
import json, sys
from pathlib import Path
from spiketrack_deploy.cli import evaluate, main
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.errors import InputError

for data in sys.argv[2:]:
    if sys.argv[1] == "train":
        try:
            print(*read_folders([Path(data)]).skipped, flush=True)
        except InputError as error:
            print(error, flush=True)
    else:
        arguments = ["--compare", "static", data, "-o", data + "-out", "--json"]
        main.run(evaluate.evaluate, "spiketrack evaluate", arguments)
        print(flush=True)
"""


def sentences(verb: str, *data: Path) -> list[str]:
    """What ``spiketrack evaluate --compare static DATA --json``, or reading for training, says of each; in one process,
    because starting it is what takes time, and within a limit, because the old answer was to wait for ever."""
    process = [sys.executable, "-c", EACH, verb, *map(str, data)]
    done = subprocess.run(process, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    if verb == "train":
        return done.stdout.splitlines()
    found = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert [entry["exit_code"] for entry in found] == [InputError.exit_code] * len(data)
    assert done.stderr.splitlines() == [f"error: {entry['error']}" for entry in found]
    return [entry["error"] for entry in found]


def pipe(path: Path) -> Path:
    """A pipe in the place of a file: who opens it waits for a writer that never comes."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def endless(path: Path) -> Path:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")
    return path


def placed(folder: Path, names: tuple[str, ...], make: Callable[[Path], object]) -> list[Path]:
    """A folder for each of ``names`` and each trap, in which that file is the trap."""
    found = []
    for trap in (pipe, endless):
        for name in names:
            found.append(folder / f"{trap.__name__}-{name.replace('/', '-')}")
            make(found[-1])
            trap(found[-1] / name)
    return found


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    names = ("a/groundtruth_rect.txt", "a/img/1.png", "a/out_of_view.txt", "sequences.json")
    folders = placed(tmp_path, names, lambda folder: dataset(folder, ["a"]))
    zips = [pipe(tmp_path / "pipe.zip"), endless(tmp_path / "zero.zip")]
    said = sentences("evaluate", *zips, *(folder for folder in folders if "img" not in folder.name))
    assert all("it is a pipe, device or socket" in sentence for sentence in said[:2])
    assert all("it is a pipe, device or socket" in sentence for sentence in said[2:])
    for folder in folders:
        if "img" in folder.name:
            with open_tree(folder) as tree, pytest.raises(InputError, match=r"1\.png: cannot be read, it is a pipe"):
                tree.image("a/img/1.png")


def test_training_data_is_not_waited_for_either(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write_pictures(folder)
        write_clip(folder / "one")

    names = ("annotations.json", "images.zip", "videos.zip", "one/groundtruth_rect.txt")
    said = sentences("train", *placed(tmp_path, names, make))
    assert len(said) == 8 and all("a pipe, device or socket" in sentence for sentence in said)


@pytest.mark.parametrize("size", [MAX_TEXT - 1, 40_000_000])
def test_megabytes_of_boxes_take_no_gigabytes(tmp_path: Path, size: int) -> None:
    """Too many lines for the frames, and too many for any video: neither is read as numbers (33 bytes each)."""
    sequence(tmp_path / "data" / "a")
    row = b"10,20,30,40\n"
    many = size // len(row)
    (tmp_path / "data" / "a" / "groundtruth_rect.txt").write_bytes(row * many)
    arguments = ("--compare", "static", tmp_path / "data", "-o", tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", PEAK, *shell(*arguments)], capture_output=True, text=True, check=False)
    said, peak = done.stderr, int(done.stdout.splitlines()[-1])
    assert done.returncode == InputError.exit_code
    assert (f"has {many} lines for 6 frames" if size < MAX_TEXT else f"larger than {MAX_TEXT:,} bytes") in said
    assert peak < MEGABYTES * 1024, f"{peak / 1024:.0f} MB"


def test_many_broken_sequences_are_counted(tmp_path: Path, capsys) -> None:
    data = dataset(tmp_path / "data", ["good"], frames=3)
    for number in range(50):
        (data / f"b{number}").mkdir()
        (data / f"b{number}" / "groundtruth.txt").write_text("1,2,3,4\n")
    code, _, err = command(capsys, "--compare", "static", data, "-o", tmp_path / "out", "--quiet")
    said = err.splitlines()
    assert (code, len(said)) == (3, 21)
    assert said[0].startswith("error: b0: ") and "and 30 more" in said[-1]
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["dataset"]["problems"]) == 50


def packed(folder: Path, file: Path, method: int) -> bytes:
    with zipfile.ZipFile(file, "w", method) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
    return file.read_bytes()


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    """``value`` at ``offset`` of every entry of the central directory and (4 bytes less) of every local header."""
    out = bytearray(data)
    for mark, shift in ((b"PK\x01\x02", 0), (b"PK\x03\x04", -2)):
        at = out.find(mark)
        while at >= 0:
            out[at + offset + shift : at + offset + shift + len(value)] = value
            at = out.find(mark, at + 4)
    return bytes(out)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "method 99": lambda data: patched(data, 10, struct.pack("<H", 99)),
    "encrypted": lambda data: patched(data, 8, struct.pack("<H", 1)),
    "another stream": lambda data: patched(data, 10, struct.pack("<H", zipfile.ZIP_DEFLATED)),
    "no bzip2 stream": lambda data: patched(data, 10, struct.pack("<H", zipfile.ZIP_BZIP2)),
    "no LZMA stream": lambda data: patched(data, 10, struct.pack("<H", zipfile.ZIP_LZMA)),
    "a version to come": lambda data: patched(data, 6, struct.pack("<H", 99)),
    "cut": lambda data: data[: len(data) // 2],
    "other bytes": lambda data: data.replace(b"groundtruth_rect.txt", b"groundtruth_rect\xfftxt"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_zips_are_one_sentence(tmp_path: Path, damage: str, capsys) -> None:
    whole = packed(dataset(tmp_path / "data", ["a"], frames=3), tmp_path / "data.zip", zipfile.ZIP_STORED)
    (tmp_path / "data.zip").write_bytes(DAMAGES[damage](whole))
    code, _, err = command(capsys, "--compare", "static", tmp_path / "data.zip", "-o", tmp_path / "out")
    assert code == InputError.exit_code, err
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    (tmp_path / "train").mkdir()
    (tmp_path / "data.zip").rename(tmp_path / "train" / "videos.zip")
    with pytest.raises(InputError):
        read_folders([tmp_path / "train"])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_no_flipped_bit_escapes(tmp_path: Path, method: int) -> None:
    """Whatever 300 flips do, reading everything gives a data set or an InputError."""
    folder, file = dataset(tmp_path / "data", ["a"], frames=3), tmp_path / "data.zip"
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:200])  # damaged pictures are not what is tried here
    whole, draw = packed(folder, file, method), random.Random(7)
    directory = whole.find(b"PK\x01\x02")
    outcomes = set()
    for trial in range(300):
        data = bytearray(whole)
        at = draw.randrange(directory, len(data)) if trial % 2 else draw.randrange(len(data))
        data[at] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        try:
            found = open_dataset(file)
            with open_tree(file) as tree:
                for name in found.sequences[0].frames:
                    tree.read(name)
        except InputError as error:
            outcomes.add(str(error))
    assert len(outcomes) > 10


def test_other_lists_are_bounded_too(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", ["a", "b"])
    (data / "a" / "groundtruth_rect.txt").write_bytes(b"1 " * (MAX_TEXT // 2))
    (data / "b" / "out_of_view.txt").write_bytes(b"0," * 1000)
    with pytest.raises(InputError, match="line 1: '1 1"):
        open_dataset(data)
    (data / "a" / "groundtruth_rect.txt").write_text(lines(boxes(6)))
    assert [p.reason for p in open_dataset(data).problems] == [
        "sequence b: out_of_view.txt has 1001 entries for 6 boxes"
    ]


WRONG = [
    '{"images": [{"id": [1], "file_name": "0.png"}], "annotations": []}',
    '{"images": [], "annotations": [{"image_id": 0, "bbox": [1, 2, 3, 1e999]}, {"image_id": 0, "bbox": [1, 2, 3]}]}',
    '{"images": [], "annotations": [{"image_id": 0, "bbox": [1, 2, 3, %s]}]}' % ("9" * 400),
    '{"images": [{"id": 0, "file_name": "0.png", "weight": NaN}], "annotations": []}',
    '{"images": [1], "annotations": ["text"]}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_annotations_that_are_none(tmp_path: Path, text: str) -> None:
    write_pictures(tmp_path)
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(InputError, match=r"annotations\.json"):
        read_folders([tmp_path])


@pytest.mark.parametrize("share", ["NaN", "-1", '"much"', "1e999", "[1]", "9" * 400])
def test_weights_that_are_none(tmp_path: Path, share: str) -> None:
    data = dataset(tmp_path / "data", ["a"], frames=3)
    (data / "sequences.json").write_text('[{"name": "a", "sampling_weight": SHARE}]'.replace("SHARE", share))
    with pytest.raises(InputError, match=r"sequences\.json: is no"):
        open_dataset(data)


def test_annotations_name_nothing_outside_their_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    file = tmp_path / "data" / "annotations.json"
    data = json.loads(file.read_text())
    (tmp_path / "data" / "images" / "0.png").rename(tmp_path / "0.png")
    data["images"][0]["file_name"], data["images"][1]["file_name"] = "../../0.png", str(tmp_path / "0.png")
    file.write_text(json.dumps(data))
    found = read_folders([tmp_path / "data"])
    assert (len(found.pictures), found.skipped) == (2, (f"2 of 4 pictures of {file} are not on disk",))
