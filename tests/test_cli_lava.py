"""The Lava engine through the real command: equal where it runs, one sentence and no orphan where it does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from _cli import SECONDS, command, contents, environment, succeed
from _lava import requires_lava

pytestmark = requires_lava()


def test_lava_runs_a_bundle(bundle: Path) -> None:
    args = ("--max-frames", 3)
    lava = succeed(bundle.parent, "simulate", "bundle", "--engine", "lava", *args)
    sim = succeed(bundle.parent, "simulate", "bundle", "--engine", "sim", *args)
    assert lava["boxes"] == sim["boxes"] and lava["layers"] == sim["layers"]


@pytest.mark.parametrize(
    "fault",
    [
        "die@block3.0.attn",
        "raise@block3.0.attn",
        "die@start",
        pytest.param("hang@block3.0.attn", marks=pytest.mark.slow),
    ],
)
def test_a_fault_ends_in_one_sentence(bundle: Path, fault: str) -> None:
    before = contents(bundle.parent)
    args = command("track", "bundle", "--engine", "lava", "--max-frames", 3, "-o", "boxes")
    variables = environment({"SPIKETRACK_LAVA_FAULT": fault})
    with subprocess.Popen(
        args, cwd=bundle.parent, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 6, err
    assert err.startswith("error: ") and err.strip().count("\n") == 0 and "Lava" in err, err
    assert contents(bundle.parent) == before
    assert list(Path("/dev/shm").glob(f"psm_st{process.pid}_*")) == []
    assert workers_of(process.pid) == []


def workers_of(parent: int) -> list[str]:
    """Command lines of Lava workers that were started for a process."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any("lava_worker" in w for w in words) and str(parent) in words and line.parent.name != str(os.getpid()):
            found.append(" ".join(words))
    return found
