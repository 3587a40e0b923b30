"""What surrounds a command: pipes, devices, names that no text can hold, closed and full streams, hostile profiles."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _cli import command, environment, refuse, spiketrack
from _hostile import ended, refused

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.resources import find_profile
from spiketrack_deploy.tracking.video import open_frames, write_video

BOX = ("--init", "9,9,20,20")


@pytest.mark.parametrize("args", [("track", "bundle", "{}", *BOX), ("map", "bundle", "--target", "./{}"),
                                  ("targets", "show", "./{}"), ("verify", "{}"),
                                  ("track", "bundle", "--max-frames", 2, "-o", "{}")])  # fmt: skip
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_not_waited_for(bundle: Path, kind: str, args: tuple[Any, ...]) -> None:
    name = "odd.toml"
    if kind == "pipe":
        os.mkfifo(bundle.parent / name)
    else:
        (bundle.parent / name).symlink_to("/dev/zero")
    code, sentence = ended(bundle.parent, *(str(a).format(name) for a in args))
    assert code in (2, 3) and "\n" not in sentence and name in sentence, (code, sentence)


def test_a_pipe_in_place_of_a_bundles_file(bundle: Path) -> None:
    (bundle / "energy.json").unlink()
    os.mkfifo(bundle / "energy.json")
    refused(bundle.parent, ("energy.json",), "energy", "bundle")


@pytest.mark.parametrize("args", [("track", "bundle", b"bad\xff.mp4", *BOX), ("track", "bundle", "-o", b"o\xff"),
                                  ("verify", b"b\xff"), ("export", "--profile", b"p\xff.toml")])  # fmt: skip
def test_arguments_that_are_no_text(bundle: Path, args: tuple[Any, ...]) -> None:
    (bundle.parent / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no video")
    refuse(bundle.parent, 2, ("udcff", "no UTF-8"), *(os.fsdecode(a) for a in args))


def test_a_folder_whose_name_is_no_text(bundle: Path) -> None:
    odd = bundle.parent / os.fsdecode(b"o\xff")
    bundle.parent.joinpath("bundle").rename(bundle.parent / "moved")
    odd.mkdir()
    (bundle.parent / "moved").rename(odd / "bundle")
    done = spiketrack(odd, "track", "bundle", "--max-frames", 2, "-o", "out")
    assert done.returncode == 2 and "no UTF-8" in done.stderr and done.stderr.count("\n") == 1
    assert [p.name for p in odd.iterdir()] == ["bundle"]


def test_opencv_never_sees_text_that_it_dies_of(tmp_path: Path) -> None:
    code = (
        "import numpy as np\nfrom spiketrack_deploy.report.overlay import FrameLabel, draw\n"
        "print(draw(np.zeros((40, 60, 3), np.uint8), FrameLabel((1, 2, 3, 4), 'a\\ud800 '), '\\udcff').shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "(372, 480, 3)\n"), done.stderr
    for use in (open_frames, lambda path: write_video(path, [np.zeros((4, 4, 3), np.uint8)], 10.0)):
        path = tmp_path / os.fsdecode(b"\xff.mp4")
        path.write_bytes(b"")
        with pytest.raises(InputError, match="no UTF-8"):
            use(path)


@pytest.mark.parametrize("threads", [0, 257, 100_000, 2**40])
@pytest.mark.parametrize("args", [("simulate", "bundle", "--threads"), ("evaluate", "x", "--jobs"),
                                  ("evaluate", "x", "--threads"), ("train", "x", "--workers")])  # fmt: skip
def test_threads_that_no_machine_has(tmp_path: Path, args: tuple[str, ...], threads: int) -> None:
    refused(tmp_path, (args[-1], "1<=x<=256"), *args, threads, code=2)


def circle(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")


@pytest.mark.parametrize("args", [("track", "bundle", "-o", "a"), ("track", "bundle", "-o", "a/x", "--force"),
                                  ("export", "-o", "a")])  # fmt: skip
def test_outputs_in_a_circle_of_links(bundle: Path, args: tuple[str, ...]) -> None:
    circle(bundle.parent)
    code, sentence = ended(bundle.parent, *args)
    assert code in (2, 3) and sentence.startswith("error: a") and "\n" not in sentence, (code, sentence)


@pytest.mark.parametrize("name", ["a", "n" * 300])
def test_inputs_that_cannot_be_looked_at(bundle: Path, name: str) -> None:
    circle(bundle.parent)
    for args in (("verify", name), ("track", "bundle", name, *BOX), ("map", "bundle", "--target", f"{name}.toml")):
        refused(bundle.parent, (name,), *args)


def test_muted_is_only_what_hdf5_says(tmp_path: Path) -> None:
    before = sys.excepthook
    assert ended(tmp_path, "targets", "--quiet") == (0, "")
    assert sys.excepthook is before
    code = (
        "from spiketrack_deploy.cli.main import run\nfrom spiketrack_deploy.cli.commands import group\n"
        "run(group, 'spiketrack', ['targets', '--quiet'])\n"
        "class Loud:\n    def __init__(self, text): self.text = text\n"
        "    def __del__(self): raise RuntimeError(self.text)\n"
        "Loud(\"Can't decrement id ref count\")\nLoud('lost')\nraise ValueError('seen')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert "RuntimeError: lost" in done.stderr and "ValueError: seen" in done.stderr and "ref count" not in done.stderr


WHERE = {
    "finaliser": "type('Dying', (), {'__del__': hit})()",
    "weak reference": "one = type('Dying', (), {})(); watch = weakref.ref(one, hit); del one",
    "decoder": "b'zip'.decode('hit')",
    "class in the making": "type('Made', (), {'member': type('Member', (), {'__set_name__': hit})()})",
    "reader that names its error": "read()",
}


@pytest.mark.usefixtures("heeds_sigint")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_where_its_exception_is_ignored_or_changed(number: int, code: int, said: str, where: str) -> None:
    """Python and libraries forget, wrap or rename what a signal raises; the command must end all the same."""
    script = f"""
import codecs, os, sys, time, weakref
import click
from spiketrack_deploy.cli.main import run
from spiketrack_deploy.errors import InputError

def hit(*_):
    os.kill(os.getpid(), {number:d})
    time.sleep(0)  # an instant at which the handler runs, inside of this call

def read():
    try:
        hit()
    except BaseException:
        raise InputError("model.pt: cannot be read") from None

codecs.register(lambda name: codecs.CodecInfo(hit, hit, name="hit") if name == "hit" else None)

@click.command()
def work():
    {WHERE[where]}
    time.sleep(30)

sys.exit(run(work, "work", []))
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, f"{said}; nothing half-written is left\n")
    assert time.monotonic() - began < 25


def test_a_library_that_leaves_by_itself_is_not_taken_for_a_signal() -> None:
    script = """
import sys
import click
from spiketrack_deploy.cli.main import run

@click.command()
def work():
    sys.exit("no licence found")

sys.exit(run(work, "work", []))
"""
    args = [sys.executable, "-c", script]
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: unexpected SystemExit: no licence found; this is a bug")


FULL = Path("/dev/full")


def shell(place: Path, script: str) -> subprocess.CompletedProcess[str]:
    args = ["bash", "-c", script]
    return subprocess.run(args, cwd=place, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("args", [("targets",), ("targets", "--json"), ("--help",), ("map", "bundle")])
def test_full_standard_output(bundle: Path, args: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        streams: dict[str, Any] = {"stdout": full, "stderr": subprocess.PIPE}
        done = subprocess.run(command(*args), cwd=bundle.parent, env=environment(), text=True, check=False, **streams)
    assert done.returncode == 3 and done.stderr.startswith("error: a write failed (No space left"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("closing", "args", "code"), [
    (">&-", "targets", 3), (">&-", "targets --quiet", 0), ("2>&-", "verify nowhere", 3),
    (">&- 2>&-", "targets --json", 3), ("2>/dev/full", "verify nowhere", 3),
    (">&- 2>&- <&-", "verify nowhere --json", 3),
])  # fmt: skip
def test_closed_streams(tmp_path: Path, closing: str, args: str, code: int) -> None:
    script = f"'{sys.executable}' -m spiketrack_deploy {args} {closing}"
    done = shell(tmp_path, script)
    assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr


def test_one_object_on_standard_output_where_the_error_stream_is_full(tmp_path: Path) -> None:
    done = shell(tmp_path, f"'{sys.executable}' -m spiketrack_deploy verify nowhere --json 2>/dev/full")
    assert done.returncode == 3 and json.loads(done.stdout)["exit_code"] == 3


@pytest.mark.parametrize("args", ["targets show loihi2", "targets", "--help"])
def test_readers_that_leave(tmp_path: Path, args: str) -> None:
    script = f"'{sys.executable}' -m spiketrack_deploy {args} | true; echo ${{PIPESTATUS[0]}}"
    done = shell(tmp_path, script)
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_letters_that_a_terminal_cannot_show(tmp_path: Path) -> None:
    text = find_profile("loihi2").read_text(encoding="utf-8").replace('title = "', 'title = "\N{SNOWMAN} ', 1)
    (tmp_path / "snow.toml").write_text(text, encoding="utf-8")
    done = spiketrack(tmp_path, "targets", "show", "./snow.toml", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "\\u2603" in done.stdout and done.stderr == ""
    refused(tmp_path, ("x\\x1b[2J",), "verify", "x\x1b[2J")


def test_a_deleted_current_folder(bundle: Path) -> None:
    for args in (("verify", "bundle"), ("track", bundle, "-o", "out")):
        place = bundle.parent / "gone"
        place.mkdir()
        script = f"rmdir '{place}'; exec '{sys.executable}' -m spiketrack_deploy {' '.join(map(str, args))}"
        done = shell(place, script)
        assert done.returncode == 3 and done.stderr == "error: the current folder was deleted; change to another one\n"


TOML = {
    "key of 100,000 parts": (".".join("a" * 100_000) + " = 1", "more than 32 parts"),
    "quoted key of many parts": ('"a".' * 40_000 + "a = 1", "more than 32 parts"),
    "table of many parts": ("[" + "a." * 40 + "a]", "more than 32 parts"),
    "lists in lists": ("a = " + "[" * 100_000, "nested too deeply"),
    "forty lists": ("a = " + "[" * 40 + "]" * 40, "nested too deeply"),
    "5,000 digits": ("schema = " + "9" * 5000, "TOML"),
    "400 digits": ('schema = 1\n[limits]\nchips = { value = 1' + "0" * 400 + " }", "limits.chips.value"),
    "latin": (b"title = '\xff'", "UTF-8"),
    "commands to a terminal": ('"\x1b[2J" = 1', "TOML"),
    "2 MB": ("#" * 2**21, "larger than"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOML)
def test_profiles_made_to_exhaust(bundle: Path, case: str) -> None:
    content, word = TOML[case]
    (bundle.parent / "x.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.perf_counter()
    for args in (("targets", "show", "./x.toml"), ("map", "bundle", "--target", "x.toml")):
        refused(bundle.parent, ("x.toml", word), *args)
    assert time.perf_counter() - start < 10


def test_a_chip_that_reaches_nobody_is_a_chip_that_does_not_fit(bundle: Path) -> None:
    """Crops of 48 pixels, scaled by the fixes that are tried, give targets of more rows than their source has."""
    text = find_profile("loihi2").read_text(encoding="utf-8")
    changed = re.sub(r"(?m)^(axon_map_per_core *= *\{ *value *= *)\d+", r"\g<1>1", text)
    assert changed != text
    (bundle.parent / "lonely.toml").write_text(changed, encoding="utf-8")
    refused(bundle.parent, ("does not fit", "axons_out"), "map", "bundle", "--target", "lonely.toml", "--quiet", code=4)
