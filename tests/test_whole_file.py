"""Files that are old or new and never half: failures on the way, two writers, places that cannot be written."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.whole_file import file_digest, whole, write_whole


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_content_arrives_as_it_is(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "folder" / "a.txt", "bärs\r\nNaN\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_bytes() == "bärs\r\nNaN\n".encode()
    write_whole(tmp_path / "b", b"\x00\xff")
    assert file_digest(tmp_path / "b") == hashlib.sha256(b"\x00\xff").hexdigest()
    assert names(tmp_path / "new" / "folder") == ["a.txt"], "a temporary file was left behind"


@pytest.mark.parametrize("error", [ValueError("no number"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_failure_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def fail() -> None:
        with whole(path) as part:
            part.write_text("half of the n")
            raise error

    expected = InputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        fail()
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.json"])


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with whole(path) as slow:
        slow.write_text("slow")
        write_whole(path, "quick")
        assert path.read_text() == "quick"
    assert (path.read_text(), names(tmp_path)) == ("slow", ["a.json"])


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a", tmp_path / "folder", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match="cannot be written"):
            write_whole(path, "text")
    assert names(tmp_path) == ["file", "folder"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def fill() -> None:
        with whole(tmp_path / "a") as part, open("/dev/full", "wb", buffering=0) as full:
            part.touch()
            os.write(full.fileno(), b"x")

    with pytest.raises(InputError, match=r"a: cannot be written \(No space left on device\); free some space"):
        fill()


def test_an_input_that_fails_is_not_called_an_output(tmp_path: Path) -> None:
    def read() -> None:
        with whole(tmp_path / "a") as part:
            part.write_bytes((tmp_path / "missing").read_bytes())

    with pytest.raises(FileNotFoundError, match="missing"):
        read()
    assert not names(tmp_path)
