"""The golden sets of the repository through the real command, and proof that the command can fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, str(HERE / "golden_check.py"), str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", ["n128_t1", "n128_t3"])
def test_golden_set_agrees(name: str) -> None:
    done = check(GOLDEN, "--config", name, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    compared = {q["quantity"]: q["compared"] for q in found["quantities"] if q["config"] == name}
    neurons = {"n128_t1": 586, "n128_t3": 610}[name]
    assert compared["spike hashes"] == neurons
    assert compared["track boxes"] == 23
    assert compared["memory hashes"] == 12
    assert all(q["worst"] <= q["tolerance"] for q in found["quantities"])


def edit(path: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """A change to one JSON file of a copied set."""

    def apply(root: Path) -> None:
        data = json.loads((root / path).read_text())
        change(data)
        (root / path).write_text(json.dumps(data))

    return apply


def remove(path: str) -> Callable[[Path], None]:
    """Removal of one file or folder of a copied set."""

    def apply(root: Path) -> None:
        target = root / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return apply


def truncate(path: str) -> Callable[[Path], None]:
    """Half of one file of a copied set."""

    def apply(root: Path) -> None:
        data = (root / path).read_bytes()
        (root / path).write_bytes(data[: len(data) // 2])

    return apply


CASE = "expect/n128_t1/case_A.json"
TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a spike hash": (edit(CASE, lambda d: d["search"]["neurons"][40].update(sha256="0")), "spike hashes"),
    "a spike sum": (edit(CASE, lambda d: d["template"]["neurons"][3]["sums"].__setitem__(0, 1)), "spike sums"),
    "a missing neuron": (edit(CASE, lambda d: d["search"]["neurons"].pop()), "neuron order"),
    "a memory": (edit(CASE, lambda d: d["template"]["memories"][2].update(sha256="0")), "memory hashes"),
    "a box": (edit("expect/n128_t1/track.json", lambda d: d["frames"][9]["box"].__setitem__(0, 1.0)), "track boxes"),
    "a frame count": (edit("expect/n128_t1/track.json", lambda d: d["frames"].append(d["frames"][0])), "track length"),
    "a fingerprint": (edit("fingerprints.json", lambda d: d.update(n128_t1="0")), "fingerprint"),
    "a key": (edit("keys/n128_t1.json", lambda d: d["keys"].pop(0)), "configuration"),
    "a crop": (edit("geometry.json", lambda d: d["crops"][5].update(sha256="0")), "crop hashes"),
    "no maps": (remove("expect/n128_t1/case_B_maps.npz"), "cases"),
    "cut maps": (truncate("expect/n128_t1/case_B_maps.npz"), "cases"),
    "no norms": (remove("bn/n128_t1.npz"), "configuration"),
    "no inputs": (remove("inputs"), "cases"),
    "no clip": (remove("clip"), "track"),
    "no track": (remove("expect/n128_t1/track.json"), "track"),
    "no settings": (remove("track_settings.json"), "track"),
    "no geometry": (remove("geometry.json"), "geometry"),
    "no fingerprints": (remove("fingerprints.json"), "configuration"),
    "no expectations": (remove("expect"), "expectations"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TAMPERED)
def test_every_tampering_is_found(tmp_path: Path, name: str) -> None:
    root = tmp_path / "set"
    shutil.copytree(GOLDEN, root, ignore=shutil.ignore_patterns("n128_t3*"))
    tamper, quantity = TAMPERED[name]
    tamper(root)
    done = check(root, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert quantity in {q["quantity"] for q in found["quantities"] if q["differences"]}


def test_an_empty_folder_and_an_unknown_configuration_fail(tmp_path: Path) -> None:
    for done in (check(tmp_path), check(GOLDEN, "--config", "nothing")):
        assert done.returncode == 1
        assert "DIFFERENT" in done.stdout
