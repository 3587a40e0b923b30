"""Who may know what: the direction of imports, and a start-up that touches nothing heavy.

Walks the syntax of every module, so an import inside a function counts as well.
"""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "spiketrack_deploy"
ROOT = Path(__file__).resolve().parents[1] / "src" / PACKAGE
HEAVY = (
    "torch", "nir", "h5py", "onnx", "onnxruntime", "matplotlib", "cv2", "lava", "safetensors", "pydantic", "numba",
    "av", "norse",
)  # fmt: skip

# Library -> modules (dotted prefixes below the package) that may import it, wherever in the file.
MAY_IMPORT = {
    "torch": ("norse", "trackers", "frontends.spiketrack.source", "nir_graph", "engines.sim", "training"),
    "nir": ("norse",),  # and the tests, which compare with it
    "norse": ("norse",),
    "h5py": ("nir_graph", "frontends.netx.write"),
    "onnx": ("engines.sim", "engines.onnx", "report.onnx", "trackers.spmtrack.onnx"),
    "onnxruntime": ("engines.sim", "engines.onnx", "trackers.spmtrack.onnx"),
    "numba": ("engines.sim_jit",),
    "lava": ("engines.lava_worker",),
    "matplotlib": ("report", "evaluation"),
    "cv2": ("tracking", "trackers.spiketrack.make_untrained", "report", "training", "evaluation", "datasets"),
    "av": ("tracking.video",),
    "threadpoolctl": ("lowering.lower",),
    "safetensors": ("trackers", "program"),
    "pydantic": ("hardware", "inputs", "trackers", "tracking.pixels", "tracking.rule", "training"),
    "click": ("cli",),
    "rich": ("cli", "report"),
    "tomli": ("inputs.untrusted",),
}

# Room -> the rooms that it may know. Down only, and every room is named.
MAY_KNOW = {
    "errors": (),
    "units": (),
    "program": (),
    "nir_graph": (),
    "inputs": (),
    "lowering": ("program",),
    "engines": ("program",),
    "hardware": ("inputs",),
    "energy": ("hardware", "program"),
    "mapping": ("energy", "hardware", "program"),
    "tracking": ("engines", "inputs", "program"),
    "trackers": ("inputs", "program", "tracking"),
    "frontends": ("inputs", "lowering", "nir_graph", "program", "trackers", "tracking"),
    "datasets": ("inputs", "tracking"),
    "report": ("energy", "hardware", "mapping", "program"),
    "bundle": (
        "energy", "engines", "frontends", "hardware", "inputs", "lowering", "mapping", "nir_graph", "program", "report",
        "trackers", "tracking",
    ),
    "evaluation": (
        "datasets", "energy", "engines", "frontends", "hardware", "inputs", "lowering", "mapping", "program",
        "trackers", "tracking",
    ),
    "training": (
        "datasets", "energy", "engines", "frontends", "hardware", "inputs", "lowering", "mapping", "program",
        "trackers", "tracking",
    ),
    "api": (
        "bundle", "energy", "engines", "evaluation", "frontends", "hardware", "inputs", "lowering", "mapping",
        "nir_graph", "program", "report", "trackers", "tracking", "training",
    ),
    "cli": ("api",),
    "norse": (),  # for those who have norse; nothing here imports it
}  # fmt: skip
EVERYONE = ("errors", "units", "__version__")
NEUTRAL = ("inputs.progress", "inputs.untrusted", "inputs.whole_file", "inputs.whole_folder")
"""Modules that any room may import: how progress is told, files are read in bounds and written whole. They know no room
themselves."""

# Single modules that join two rooms, and why.
MAY_ALSO_KNOW = {
    "report.doctor": ("engines", "inputs"),  # what is installed
    "cli.printing": ("hardware",),  # which prices a cause has
}


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> set[str]:
    """Absolute dotted names that a module imports, at any depth; ``from a import b`` gives ``a`` and ``a.b``."""
    package = [PACKAGE, *name.split(".")] if path.name == "__init__.py" else [PACKAGE, *name.split(".")[:-1]]
    package = [part for part in package if part]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], node.module or ""] if node.level else [node.module or ""]
            stem = ".".join(part for part in base if part)
            found |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    return found


MODULES = modules()


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith((f"{prefix}.", f"{prefix}_")) for prefix in prefixes)


def test_the_walk_finds_the_package() -> None:
    assert {"errors", "units", "inputs.resources", "program.types", "hardware.schema", "energy.pricing"} <= set(MODULES)
    assert "numpy" in imports("program.types", MODULES["program.types"]), "the walk does not see imports"


@pytest.mark.parametrize("library", sorted(MAY_IMPORT))
def test_each_library_is_imported_in_one_place(library: str) -> None:
    allowed = MAY_IMPORT[library]
    guilty = [
        name
        for name, path in MODULES.items()
        if not within(name, allowed) and any(found.split(".")[0] == library for found in imports(name, path))
    ]
    assert not guilty, f"{library} may be imported in {allowed} only, but also is in {guilty}"


def test_every_room_has_its_rule() -> None:
    rooms = {name.split(".")[0] for name in MODULES} - {"", "__main__"}
    assert rooms == set(MAY_KNOW)


@pytest.mark.parametrize("part", sorted(MAY_KNOW))
def test_dependencies_point_down(part: str) -> None:
    guilty = {}
    for name, path in MODULES.items():
        if name.split(".")[0] != part:
            continue
        known = {found.split(".")[1] for found in own(name, path) if not within(found[len(PACKAGE) + 1 :], NEUTRAL)}
        parts = {other for other in known if other in {module.split(".")[0] for module in MODULES}}
        beyond = parts - {part, *EVERYONE, *MAY_KNOW[part], *MAY_ALSO_KNOW.get(name, ())}
        if beyond:
            guilty[name] = sorted(beyond)
    assert not guilty, f"{part} may know {MAY_KNOW[part]} only: {guilty}"


def own(name: str, path: Path) -> set[str]:
    """What a module imports of this package."""
    return {found for found in imports(name, path) if found.startswith(f"{PACKAGE}.")}


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_everyone_may_import_knows_no_room(name: str) -> None:
    known = (*NEUTRAL, "errors")
    beyond = {found for found in own(name, MODULES[name]) if not within(found[len(PACKAGE) + 1 :], known)}
    assert not beyond


# What is decided once -> the module that decides it.
ONE_PLACE = {
    "cv2.imdecode(": "tracking.images",
    r're.split(r"(\d+)"': "tracking.images",
    "Tell = Callable[": "inputs.progress",
    "np.linspace(0, 1, 21)": "tracking.boxes",
    "os.fsync(": "inputs.whole_file",
    "Box = tuple[": "tracking.boxes",
}


@pytest.mark.parametrize("words", sorted(ONE_PLACE))
def test_each_of_these_is_decided_in_one_place(words: str) -> None:
    places = [name for name, path in MODULES.items() if words in path.read_text(encoding="utf-8")]
    assert places == [ONE_PLACE[words]]


TRACKER_NAMES = re.compile(
    r"template|search|ctr|offset|size|(encoder|decoder|mrm|memory|block\d|ConvBlock\w*|downsample\w*)\..*|.*@t"
    r"|.*seg_responder.*|.*\.gate\..*|.*_spike|.*_conv"
)
"""What SpikeTrack's phases, inputs, outputs, states, blocks and layers are called."""
IS_A_KIND = ("image", "image_conv", "graded_conv", "memory", "offset")
"""Kinds of values and operations, and a role of an array, that have such a name."""


@pytest.mark.parametrize("room", ["lowering", "program", "engines"])
def test_names_of_a_tracker_stay_above(room: str) -> None:
    """Below the front ends a phase, a state, a block or a layer of a tracker is data: no code spells its name."""
    guilty = []
    for name, path in MODULES.items():
        if name.split(".")[0] != room:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        guilty += [
            f"{name}:{word.lineno} {word.value!r}"
            for word in words
            if word.value not in IS_A_KIND and TRACKER_NAMES.fullmatch(word.value)
        ]
    assert not guilty


@pytest.mark.parametrize("network", ["spmtrack", "tmoe"])
def test_one_room_knows_a_dense_tracker_by_name(network: str) -> None:
    """The loop, scores, bundles, reports and the command line take any dense tracker."""
    spelled = [
        f"{name}:{number}"
        for name, path in MODULES.items()
        if not within(name, ("trackers",))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if network in line.replace("docs/spmtrack.md", "")
    ]
    assert not spelled, spelled


def test_nothing_imports_the_command_line() -> None:
    command_line = f"{PACKAGE}.cli"
    guilty = [
        name
        for name, path in MODULES.items()
        if not within(name, ("cli", "__main__"))
        and any(f"{i}.".startswith(f"{command_line}.") for i in imports(name, path))
    ]
    assert not guilty, f"only the entry points may import {command_line}, but {guilty} do"


def test_the_program_needs_numpy_alone() -> None:
    allowed = {"numpy", PACKAGE, "__future__", "tomli", *sys.stdlib_module_names}  # tomli: tomllib before 3.11
    guilty = {}
    for name, path in MODULES.items():
        if name.split(".")[0] in ("program", "errors", "units") or name in NEUTRAL:
            beyond = {found.split(".")[0] for found in imports(name, path)} - allowed
            if beyond:
                guilty[name] = sorted(beyond)
    assert not guilty, f"the Lava worker runs these with NumPy only, but they import more: {guilty}"


def run_python(code: str) -> str:
    """Run ``code`` in a fresh interpreter that finds this checkout; returns its standard output."""
    prelude = f"import sys; sys.path.insert(0, {str(ROOT.parent)!r})\n"
    done = subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = f"print(sorted(m for m in {HEAVY!r} if m in sys.modules))\n"


@pytest.mark.parametrize("module", ["", ".program", ".api", ".cli.commands", ".inputs.resources"])
def test_import_touches_nothing_heavy(module: str) -> None:
    if module.strip(".") and not any(within(name, (module.strip("."),)) for name in MODULES):
        pytest.skip(f"{PACKAGE}{module} is not part of this checkout")
    assert run_python(f"import {PACKAGE}{module}\n" + LOADED).strip() == "[]", f"import {PACKAGE}{module} loads these"


HELP = f"""
from {PACKAGE}.cli.main import main
sys.argv = ["spiketrack", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def test_help_touches_nothing_heavy_and_is_quick() -> None:
    assert run_python(HELP + LOADED).strip().endswith("[]"), "spiketrack --help loads a heavy library"
    used: dict[str, list[float]] = {"pass": [], HELP: []}
    for _ in range(3):
        for code, seconds in used.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run_python(code)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Processor time of the best of three: start-up waits for nothing, and wall time says how busy the machine is.
    took = min(used[HELP])
    assert took < 0.5, f"spiketrack --help takes {took:.2f} s, the bare interpreter {min(used['pass']):.2f} s"


TRACKING_WORDS = re.compile(r"(?<!-)\b(search|templates?|update_interval|mrm|retriever|ctr)\b")
PHASE_BLIND = ("energy", "hardware", "mapping", "report", "evaluation.cost", "evaluation.tally", "bundle.recorded",
               "bundle.chips", "cli.map")  # fmt: skip


def test_rooms_that_iterate_phases_spell_none() -> None:
    """Names of phases, of blocks and of outputs are data of a program; these rooms must work for any network."""
    spelled = []
    for name, path in MODULES.items():
        if within(name, PHASE_BLIND):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                spelled += [f"{name}:{number}: {word}" for word in TRACKING_WORDS.findall(line)]
    assert not spelled, spelled
