"""What all test files share: time limits, a tiny checkpoint, and one whole bundle made by the real command."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

SLOW_SECONDS = 1800
# As the command line does: OpenMP threads that wait in a loop make the suite six times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests get a time limit of their own."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture
def heeds_sigint() -> Iterator[None]:
    """For tests that send SIGINT: a suite in the background of a script ignores it, and its children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracker of 48-pixel crops with drawn weights, as a .safetensors file."""
    from _models import tiny_config, tiny_model

    from spiketrack_deploy.trackers.spiketrack.checkpoint import save_model

    config = tiny_config(1)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_model(tiny_model(config), config, path)
    return path


@pytest.fixture(scope="session")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny checkpoint on three frames of the bundled clip; not to be changed."""
    from _cli import succeed

    folder = tmp_path_factory.mktemp("export")
    succeed(folder, "export", tiny_checkpoint, "--max-frames", 3, "-o", "bundle")
    return folder / "bundle"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of that bundle, alone in its folder, free to damage."""
    shutil.copytree(exported, tmp_path / "bundle")
    return tmp_path / "bundle"
