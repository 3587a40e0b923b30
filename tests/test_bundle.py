"""A bundle comes into being whole or not at all, and says so when somebody touched it."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from _cli import command, environment, processes, refuse, succeed

from spiketrack_deploy.bundle import layout as bundles
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.program.store import array_digest, canonical_json, content_hash, load_program, to_dict


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_staging_renames_when_whole(tmp_path: Path) -> None:
    with bundles.staging(tmp_path / "out", False) as folder:
        (folder / "a").write_text("a", encoding="ascii")
        assert left(tmp_path) == [folder.name], "written beside its place, under a name of its own"
    assert left(tmp_path) == ["out"] and left(tmp_path / "out") == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), ValueError("bug")])
def test_staging_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), bundles.staging(tmp_path / "out", False) as folder:
        (folder / "a").write_text("a", encoding="ascii")
        raise error
    assert left(tmp_path) == []


def test_a_failed_write_names_the_place_and_the_reason(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match=r"out: cannot be written \(No space left on device\)")
    with refused, bundles.staging(tmp_path / "out", False) as folder:
        (folder / "a").write_text("a", encoding="ascii")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert left(tmp_path) == []


def old_bundle(place: Path) -> None:
    place.mkdir()
    (place / bundles.MANIFEST).write_text("{}", encoding="ascii")
    (place / "old").write_text("old", encoding="ascii")


def test_force_replaces_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    old_bundle(tmp_path / "out")
    with pytest.raises(UsageError, match="--force"), bundles.staging(tmp_path / "out", False):
        pytest.fail("the block must not be entered")
    with pytest.raises(ValueError, match="half"), bundles.staging(tmp_path / "out", True):
        raise ValueError("half")
    assert left(tmp_path / "out") == [bundles.MANIFEST, "old"]
    with bundles.staging(tmp_path / "out", True) as folder:
        (folder / "new").write_text("new", encoding="ascii")
    assert left(tmp_path) == ["out"] and left(tmp_path / "out") == ["new"]


def test_force_never_deletes_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years", encoding="ascii")
    with pytest.raises(UsageError, match="does not delete it"):
        bundles.check_output(tmp_path / "home", True)


def test_verify_needs_neither_torch_nor_anything_else_but_numpy(bundle: Path) -> None:
    code = (
        "import sys\nfrom spiketrack_deploy.cli.main import run\nfrom spiketrack_deploy.cli.commands import group\n"
        "assert run(group, 'spiketrack', ['verify', 'bundle', '--quiet']) == 0\n"
        "heavy = {'torch', 'nir', 'h5py', 'onnx', 'cv2', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bundle.parent, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_verify_covers_every_operation(bundle: Path) -> None:
    found = succeed(bundle.parent, "verify", "bundle")
    program = load_program(bundle / "program")
    searches = sum(r["phase"] == "search" for r in json.loads((bundle / bundles.EXPECTED).read_text())["runs"])
    want = len(program.phases["template"].ops) + searches * len(program.phases["search"].ops)
    assert found["operations"] == want and found["ranges_proved"] == sum(len(b.ops) for b in program.phases.values())
    assert found["program_hash"] == content_hash(program)


@pytest.mark.parametrize(
    "name",
    ["model.nir", "program/program.json", "program/arrays.npz", "program/vectors.npz", "energy.json", "report.html"],
)
def test_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    refuse(bundle.parent, 3, (name, "missing"), "verify", "bundle")


@pytest.mark.parametrize("name", ["model.nir", "model.cuts.json", "energy.json", "boxes.csv", "program.onnx"])
def test_one_changed_byte_in_any_file(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    refuse(bundle.parent, 5, (name, "SHA-256"), "verify", "bundle")


def weight_key(bundle: Path) -> str:
    return sorted(
        k for k in json.loads((bundle / "program/program.json").read_text())["arrays"] if k.endswith(".weight")
    )[3]


def test_one_flipped_bit_of_a_weight_names_the_layer(bundle: Path) -> None:
    key = weight_key(bundle)
    path = bundle / "program" / "arrays.npz"
    with np.load(path) as archive:
        data = archive[key].tobytes()
    raw = bytearray(path.read_bytes())
    place = raw.index(data)
    raw[place] ^= 1
    path.write_bytes(raw)
    refuse(bundle.parent, 5, (key.removesuffix(".weight"), "damaged"), "verify", "bundle")


def rewrite(bundle: Path, key: str) -> None:
    """Change one weight and make every digest fit again: only running the program can tell."""
    program = load_program(bundle / "program")
    arrays = {k: np.array(v) for k, v in program.arrays.items()}
    arrays[key].reshape(-1)[0] ^= 1
    np.savez(bundle / "program" / "arrays.npz", **arrays)
    data = to_dict(program)
    data["arrays"][key] = array_digest(arrays[key])
    (bundle / "program" / "program.json").write_bytes(canonical_json(data))
    changed = content_hash(load_program(bundle / "program"))
    expected = json.loads((bundle / bundles.EXPECTED).read_text())
    (bundle / bundles.EXPECTED).write_bytes(canonical_json(expected | {"program": changed}))
    bundles.write_manifest(bundle, changed)


def test_a_consistent_forgery_is_found_by_running_it(bundle: Path) -> None:
    key = "encoder.downsample1_1.encode_conv.weight"  # every pixel meets it, so no input hides the change
    rewrite(bundle, key)
    refuse(bundle.parent, 5, (key.removesuffix(".weight"), "integers differ"), "verify", "bundle")


def test_manifest_that_names_files_elsewhere(bundle: Path) -> None:
    data = json.loads((bundle / bundles.MANIFEST).read_text())
    data["files"]["../../etc/passwd"] = {"sha256": "0" * 64, "bytes": 1}
    (bundle / bundles.MANIFEST).write_text(json.dumps(data), encoding="ascii")
    refuse(bundle.parent, 3, ("outside the bundle",), "verify", "bundle")


def test_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse(tmp_path, 3, ("empty", "not a bundle"), "verify", "empty")
    refuse(tmp_path, 3, ("nowhere",), "energy", "nowhere")


def test_tampered_graph_is_refused_on_reading(bundle: Path) -> None:
    cuts = json.loads((bundle / "model.cuts.json").read_text())
    cuts["graph_sha256"] = "0" * 64
    (bundle / "model.cuts.json").write_text(json.dumps(cuts), encoding="utf-8")
    refuse(bundle.parent, 5, ("model.cuts.json",), "inspect", "bundle")


@pytest.mark.parametrize("limit", [20_000, 400_000])
def test_full_disk(tmp_path: Path, tiny_checkpoint: Path, limit: int) -> None:
    """A limit on file size makes the kernel refuse the write in the middle, as a full disk does (EFBIG for ENOSPC)."""

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    args = ("export", tiny_checkpoint, "--max-frames", 2, "-o", "out")
    refuse(tmp_path, 3, ("out", "cannot be written", "free some space"), *args, preexec_fn=confine)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")
@pytest.mark.usefixtures("heeds_sigint")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_the_middle(tmp_path: Path, tiny_checkpoint: Path, number: int, code: int) -> None:
    args = command("export", tiny_checkpoint, "-o", "out")
    with subprocess.Popen(
        args,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not any(tmp_path.iterdir()):
            assert process.poll() is None and time.monotonic() < deadline, "no temporary folder appeared"
            time.sleep(0.05)
        time.sleep(1.0)
        assert left(tmp_path) != ["out"], "too late to interrupt"
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err, err
    assert left(tmp_path) == []
    assert processes(session=process.pid) == []
