"""Fixtures that several test files share: a tiny checkpoint, and one whole bundle made by the real command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


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
