"""Layouts, orders, spellings, and what is said of sequences that cannot be used."""

from __future__ import annotations

import json
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.datasets.files import MAX_FRAME, open_tree
from spiketrack_deploy.datasets.groundtruth import box_lines, read_boxes
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.datasets.sequences import open_dataset
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.video import open_frames

sys.path.append(str(Path(__file__).parent))
from _evaluation import boxes, dataset, lines, picture, sequence
from _training import write_pictures


def parse(text: bytes) -> np.ndarray:
    return read_boxes(box_lines(text, "x"), "x")


def pack(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return file


@pytest.mark.parametrize("layout", ["OTB", "GOT-10k", "LaSOT"])
def test_layouts(tmp_path: Path, layout: str) -> None:
    dataset(tmp_path / "data", layout=layout, frames=11)
    found = open_dataset(tmp_path / "data")
    assert (found.layout, [s.name for s in found.sequences], found.problems) == (layout, ["a1", "a2", "a10"], ())
    first = found.sequences[0]
    assert [Path(f).name for f in first.frames] == [f"{i}.png" for i in range(1, 12)], "frames are not in natural order"
    np.testing.assert_array_equal(first.boxes, boxes(11, 0))


def test_a_zip_is_the_folder(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    plain, packed = open_dataset(folder), open_dataset(pack(folder, tmp_path / "data.zip"))
    assert plain.digest == packed.digest
    with open_tree(folder, listed=False) as one, open_tree(tmp_path / "data.zip", listed=False) as other:
        name = plain.sequences[0].frames[3]
        np.testing.assert_array_equal(one.image(name), other.image(name))
        np.testing.assert_array_equal(one.image(name), picture(boxes(6)[3], 4)[:, :, ::-1])


def test_nested_classes_links_and_a_single_sequence(tmp_path: Path) -> None:
    sequence(tmp_path / "data" / "cat" / "cat-1", "LaSOT")
    sequence(tmp_path / "elsewhere" / "dog-1", "LaSOT")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data", target_is_directory=True)
    assert [s.name for s in open_dataset(tmp_path / "data").sequences] == ["cat-1", "dog-1"]
    assert [s.name for s in open_dataset(tmp_path / "data" / "cat" / "cat-1").sequences] == ["cat-1"]


def test_two_targets_of_one_video(tmp_path: Path) -> None:
    folder = sequence(tmp_path / "data" / "Jogging")
    for number in (1, 2):
        (folder / f"groundtruth_rect.{number}.txt").write_text(lines(boxes(6, number)))
    (folder / "groundtruth_rect.txt").unlink()
    found = open_dataset(tmp_path / "data")
    assert [s.name for s in found.sequences] == ["Jogging.1", "Jogging.2"]
    np.testing.assert_array_equal(found.sequences[1].boxes, boxes(6, 2))


def test_the_same_name_twice_stays_two_sequences(tmp_path: Path) -> None:
    sequence(tmp_path / "data" / "x" / "car")
    sequence(tmp_path / "data" / "y" / "car", seed=1)
    assert [s.name for s in open_dataset(tmp_path / "data").sequences] == ["car", "car~2"]


def test_published_range_of_an_otb_sequence(tmp_path: Path) -> None:
    folder = sequence(tmp_path / "data" / "Football1", frames=76)
    (folder / "groundtruth_rect.txt").write_text(lines(boxes(74)))
    found = open_dataset(tmp_path / "data").sequences[0]
    assert (len(found.frames), found.frames[-1]) == (74, "Football1/img/74.png")


@pytest.mark.parametrize("between", [",", "\t", " ", ", ", ";", "  \t"])
def test_separators(between: str) -> None:
    np.testing.assert_array_equal(parse(lines(boxes(4), between).encode()), boxes(4))


def test_absent_targets() -> None:
    text = "1,2,3,4\r\nNaN,nan,NaN,NaN\r\n5,6,0,0\n7,8,9,10\n\n\n"
    found = parse(b"\xef\xbb\xbf" + text.encode())
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "x is empty"),
        (b"\n\n", "x is empty"),
        (b"1,2,3,4\n1,2,3\n", "x, line 2: '1,2,3' is not a box"),
        (b"1,2,3,4\n\n1,2,3,4\n", "x, line 2: '' is not a box"),
        (b"1,2,3,4,5\n", "line 1"),
        (b"x,y,w,h\n", "line 1"),
        (b"1,2,inf,4\n", "cannot be infinite"),
        (b"\xff\xfe\x00\x01", "x is no text"),
    ],
)
def test_unreadable_boxes(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)


def test_labels_hide_targets(tmp_path: Path) -> None:
    got = sequence(tmp_path / "got" / "g", "GOT-10k")
    (got / "absence.label").write_text("0\n0\n1\n0\n0\n0\n")
    (got / "cover.label").write_text("8\n8\n8\n0\n8\n8\n")
    lasot = sequence(tmp_path / "lasot" / "l", "LaSOT")
    (lasot / "full_occlusion.txt").write_text("0,0,0,0,1,0")
    (lasot / "out_of_view.txt").write_text("0,1,0,0,0,0")
    hidden = [
        np.isnan(open_dataset(tmp_path / n).sequences[0].boxes[:, 0]).nonzero()[0].tolist() for n in ("got", "lasot")
    ]
    assert hidden == [[2, 3], [1, 4]]
    (lasot / "out_of_view.txt").write_text("0,1")
    with pytest.raises(InputError, match=r"out_of_view.txt has 2 entries for 6 boxes"):
        open_dataset(tmp_path / "lasot")


def test_a_server_keeps_the_truth(tmp_path: Path) -> None:
    folder = sequence(tmp_path / "data" / "GOT-10k_Test_000001", "GOT-10k")
    (folder / "groundtruth.txt").write_text("1,2,3,4\n")
    found = open_dataset(tmp_path / "data").sequences[0]
    assert (len(found.frames), found.scorable) == (6, False)


def test_attributes(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    (folder / "sequences.json").write_text(json.dumps([{"name": "a2", "attributes": ["occlusion"]}, {"name": "a1"}]))
    assert [s.attributes for s in open_dataset(folder).sequences] == [(), ("occlusion",), ()]
    beside = pack(dataset(tmp_path / "other"), tmp_path / "data.zip")
    (tmp_path / "attributes.json").write_text('{"a1": ["blur", "fast"]}')
    assert open_dataset(beside).sequences[0].attributes == ("blur", "fast")
    (folder / "sequences.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"sequences.json: is no list of sequences"):
        open_dataset(folder)


BROKEN = {
    "fewer lines": (lambda f: (f / "groundtruth_rect.txt").write_text(lines(boxes(4))), "4 lines for 6 frames"),
    "more lines": (lambda f: (f / "groundtruth_rect.txt").write_text(lines(boxes(9))), "9 lines for 6 frames"),
    "no truth": (lambda f: (f / "groundtruth_rect.txt").unlink(), "6 frame(s) but no groundtruth_rect.txt"),
    "no frames": (lambda f: shutil.rmtree(f / "img"), "but no frames"),
    "absent at first": (
        lambda f: (f / "groundtruth_rect.txt").write_text("nan,nan,nan,nan\n" + lines(boxes(5))),
        "no target in the first frame",
    ),
    "letters": (lambda f: (f / "groundtruth_rect.txt").write_text("a box\n"), "is not a box"),
    "one frame": (
        lambda f: (
            [(f / "img" / f"{i}.png").unlink() for i in range(2, 7)],
            (f / "groundtruth_rect.txt").write_text("1,2,3,4"),
        ),
        "one frame",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_one_broken_sequence_hides_nothing(tmp_path: Path, what: str) -> None:
    damage, message = BROKEN[what]
    folder = dataset(tmp_path / "data")
    damage(folder / "a2")
    found = open_dataset(folder)
    assert [s.name for s in found.sequences] == ["a1", "a10"]
    assert [p.name for p in found.problems] == ["a2"]
    assert message in found.problems[0].reason
    assert "a2" in found.problems[0].reason


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match=r"empty: holds no usable sequence"):
        open_dataset(tmp_path / "empty")
    with pytest.raises(InputError, match="there is no such dataset"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match="no readable zip"):
        open_dataset(tmp_path / "text.zip")


def test_mixed_layouts_and_stray_files(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", ["one"])
    sequence(folder / "two", "GOT-10k", seed=1)
    (folder / "README.txt").write_text("hello")
    (folder / ".cache").mkdir()
    (folder / "notes").mkdir()
    found = open_dataset(folder)
    assert (found.layout, len(found.sequences), found.problems) == ("mixed", 2, ())


def test_zips_are_not_trusted(tmp_path: Path) -> None:
    for name in ("/etc/img/1.png", "a//1.png", "a\\1.png", "C:/1.png", "../up/img/1.png"):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(InputError, match=r"holds a file with an unusable name|holds no usable sequence"):
            open_dataset(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/img/1.png", bytes(MAX_FRAME + 1))
    with open_tree(tmp_path / "bomb.zip") as tree, pytest.raises(InputError, match="larger than 268,435,456 bytes"):
        tree.read("a/img/1.png")


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", ["a"])
    (folder / "a" / "img" / "2.png").write_bytes(b"no picture")
    (folder / "a" / "img" / "3.png").write_bytes(b"")
    with open_tree(folder) as tree:
        for name in ("a/img/2.png", "a/img/3.png"):
            with pytest.raises(InputError, match=f"{name} is empty or damaged"):
                tree.image(name)
        with pytest.raises(InputError, match=r"9\.png: cannot be read"):
            tree.image("a/img/9.png")


def test_choosing_sequences(tmp_path: Path) -> None:
    found = open_dataset(dataset(tmp_path / "data"))
    assert [s.name for s in found.chosen(["a10", "a1"]).sequences] == ["a1", "a10"]
    with pytest.raises(InputError, match="no sequence 'a3'; it has a1, a2, a10"):
        found.chosen(["a3"])
    short = found.sequences[0].first(3)
    assert (len(short.frames), len(short.boxes)) == (3, 3)


def test_names_never_collide(tmp_path: Path) -> None:
    for place in ("x/car", "y/car", "z/car~2"):
        sequence(tmp_path / "data" / place)
    assert sorted(s.name for s in open_dataset(tmp_path / "data").sequences) == ["car", "car~2", "car~3"]


def test_evaluation_training_and_video_agree_on_the_order(tmp_path: Path) -> None:
    """Names that differ in zeros and capitals alone: one order, whoever reads."""
    folder = sequence(tmp_path / "data" / "a", frames=5)
    for old, new in enumerate(("1", "01", "B2", "b10", "a3"), 1):
        (folder / "img" / f"{old}.png").rename(folder / "img" / f"{new}.png")
    expected = ["01.png", "1.png", "a3.png", "B2.png", "b10.png"]
    (clip,) = read_folders([tmp_path / "data"]).clips
    (read,) = open_dataset(tmp_path / "data").sequences
    assert [Path(name).name for name in clip.frames] == expected
    assert [Path(name).name for name in read.frames] == expected
    assert [path.name for path in open_frames(folder / "img").images] == expected


def test_training_reads_what_evaluation_reads(tmp_path: Path) -> None:
    """The same sequences, frames and boxes; the same sentences of what cannot be used."""
    sequence(tmp_path / "data" / "otb", between=";")
    got = sequence(tmp_path / "data" / "got", "GOT-10k", seed=1)
    (got / "cover.label").write_text("8\n8\n0\n8\n8\n8\n")
    two = sequence(tmp_path / "data" / "two", seed=2)
    for number in (1, 2):
        (two / f"groundtruth_rect.{number}.txt").write_text(lines(boxes(6, number)))
    (two / "groundtruth_rect.txt").unlink()
    for name, (damage, _) in BROKEN.items():
        damage(sequence(tmp_path / "data" / name.replace(" ", "-"), seed=3))
    sequence(tmp_path / "inside" / "packed", "LaSOT", seed=4)
    pack(tmp_path / "inside", tmp_path / "data" / "more.zip")
    (tmp_path / "data" / "._more.zip").write_bytes(b"a file manager's droppings")
    loose, packed = open_dataset(tmp_path / "data"), open_dataset(tmp_path / "data" / "more.zip")
    found = read_folders([tmp_path / "data"])
    assert [c.name for c in found.clips] == ["got", "otb", "two.1", "two.2", "packed"]
    for one, other in zip((*loose.sequences, *packed.sequences), found.clips):
        assert (one.name, one.frames, one.root) == (other.name, other.frames, other.root)
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert found.skipped == tuple(p.reason for p in loose.problems)
    assert len(found.skipped) == len(BROKEN)


def test_pictures_with_annotations_are_no_broken_sequence(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    (tmp_path / "data" / "strays").mkdir()
    (tmp_path / "data" / "images" / "0.png").rename(tmp_path / "data" / "strays" / "9.png")
    found = read_folders([tmp_path / "data"])
    assert len(found.pictures) == 3
    assert found.skipped == (
        f"1 of 4 pictures of {tmp_path}/data/annotations.json are not on disk",
        "sequence strays: has 1 frame(s) but no groundtruth_rect.txt or groundtruth.txt",
    )


def test_many_sequences_of_one_name_are_told_apart_at_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number}/car/groundtruth.txt", "")
        archive.writestr("last/car/groundtruth.txt", "1,2,3,4\n1,2,3,4")
        archive.writestr("last/car/1.png", "")
        archive.writestr("last/car/2.png", "")
    begin = time.process_time()
    found = open_dataset(tmp_path / "data.zip")
    assert time.process_time() - begin < 10
    assert found.sequences[0].name == "car~20001" and len({p.name for p in found.problems}) == 20_000
