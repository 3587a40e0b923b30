"""What ships: the wheel carries models and profiles, its commands work from an empty folder, no machine leaks in."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import spiketrack_deploy
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.inputs.resources import (
    clip_names,
    find_clip,
    find_model,
    find_profile,
    model_names,
    models_dir,
    profile_names,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = (ROOT / ".git").exists()
TEXT = {".py", ".toml", ".md", ".sh", ".json", ".yml", ".cfg", ".txt", ""}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    """Files of the project: those that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_bundled_things_are_found_by_name() -> None:
    assert find_profile(profile_names()[0]).is_file()
    assert model_names(), f"no bundled model in {models_dir()}"
    for name in model_names():
        assert find_model(name).is_file()
    for name in clip_names():
        assert find_clip(name).exists()


@pytest.mark.parametrize("find", [find_model, find_profile, find_clip])
@pytest.mark.parametrize("name", ["", "nothing", "../models", "clips/..", "LICENSE"])
def test_an_unknown_name_is_a_usage_error_that_lists_the_known_ones(find, name: str) -> None:
    with pytest.raises(UsageError, match="bundled are"):
        find(name)


def test_commands_exist() -> None:
    for name, target in pyproject()["project"]["scripts"].items():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), f"{name} -> {target}"


def test_the_declared_python_versions_agree() -> None:
    project = pyproject()["project"]
    assert project["requires-python"] == ">=3.10,<3.14"
    classified = {c.rsplit(" ", 1)[1] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert classified == {"3.10", "3.11", "3.12", "3.13"}
    searched = re.search(r"usable \"\$VENV\" \"([\d. ]+)\"", (ROOT / "scripts" / "env.sh").read_text(encoding="utf-8"))
    assert searched and set(searched.group(1).split()) == classified, "scripts/env.sh accepts other versions"


@pytest.mark.skipif(not CHECKOUT, reason="needs the git checkout")
def test_no_path_of_a_machine_is_in_the_project() -> None:
    machine = re.compile(r"(?<![\w./])/(?:work|root|home/\w+|Users/\w+)/")
    guilty = []
    for path in tracked():
        if path.suffix in TEXT and path != Path(__file__).resolve():
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if machine.search(line):
                    guilty.append(f"{path.relative_to(ROOT)}:{number}")
    assert not guilty, f"paths of one machine in {guilty}"


def clean_environment() -> dict[str, str]:
    """The environment without what would lead Python back to the checkout."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SPIKETRACK", "VIRTUAL_ENV", "PYTEST"))}


def run(command: list[str | Path], cwd: Path, timeout: int = 570) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--wheel-dir", folder, ROOT], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_carries_models_profiles_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in files if name.endswith(".dist-info/METADATA"))
    data = "spiketrack_deploy/_data"
    assert {f"{data}/hardware_profiles/{name}.toml" for name in profile_names()} <= files
    weights = {find_model(name).relative_to(models_dir()) for name in model_names()}
    assert {f"{data}/models/{path.as_posix()}" for path in weights} <= files
    assert any(name.endswith("LICENSE") for name in files)
    assert f"Version: {spiketrack_deploy.__version__}\n" in metadata
    strangers = {name.split("/")[0] for name in files} - {"spiketrack_deploy"}
    assert all(name.endswith(".dist-info") for name in strangers), f"the wheel also installs {strangers}"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel; its dependencies come from the one that runs the tests (1 GB otherwise)."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).stdout.strip())
    run([sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--no-index", wheel], folder)
    # A path line comes after the environment's own packages; .pth files there (the editable install) stay unread.
    libraries = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "dependencies.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_installed_wheel_exports_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(
        [installed / "bin" / "python", "-c", "import spiketrack_deploy as s; print(s.__file__)"], tmp_path
    ).stdout
    assert Path(where.strip()).is_relative_to(installed), f"the checkout was imported instead of the wheel: {where}"
    command = [installed / "bin" / "spiketrack-export", model_names()[0], "--target", "loihi2", "--max-frames", "2"]
    done = run([*command, "-o", "bundle", "--json"], tmp_path)
    assert isinstance(json.loads(done.stdout), dict), "stdout must be one JSON object"
    energy = json.loads((tmp_path / "bundle" / "energy.json").read_text(encoding="utf-8"))
    assert energy["profile"]["name"] == "loihi2" and energy["per_result"]["dynamic_nj"]["nominal"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}, "the command left something beside the bundle"


@pytest.mark.slow
def test_the_installed_commands_answer(installed: Path, tmp_path: Path) -> None:
    for command in pyproject()["project"]["scripts"]:
        assert "Usage" in run([installed / "bin" / command, "--help"], tmp_path).stdout
