"""Networks of NIR and lava-dl: exported, run again, described, and the suite that others can check themselves against.

This module decides defaults and what a verb returns. It must not print; heavy parts are imported when a verb runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spiketrack_deploy.api.asked import Place, as_path, export_target, in_stock, require_engine
from spiketrack_deploy.api.bundles import simulated
from spiketrack_deploy.api.lava import SUFFIX, netx
from spiketrack_deploy.api.results import SimulateResult
from spiketrack_deploy.api.results_networks import (
    ConformanceResult,
    InspectNetworkResult,
    InspectNetxResult,
    NetworkResult,
    NetxExportResult,
)
from spiketrack_deploy.bundle import layout
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.inputs.progress import Tell

if TYPE_CHECKING:
    from spiketrack_deploy.hardware.targets import Target
    from spiketrack_deploy.mapping.ways import Way

HDF5 = b"\x89HDF\r\n\x1a\n"
SUITE = "SUITE.json"


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """What ``spiketrack-export net.nir`` is asked, or of ``FILE.net`` what concerns integers. ``None`` means the
    default, or that nothing was said: then what was assumed is among the diagnostics. docs/nir.md explains every word
    of a convention. ``granularity`` ``stock``, of the engine ``lava``: the checked steps run in Processes that Lava
    ships, and ``sim`` counts, which no Lava run does. ``first_layer`` and ``streams``: how the chips run it, see
    :func:`map`."""

    path: Place
    target: str = "loihi2"
    profile: str | None = None
    first_layer: str | None = None
    streams: str | None = None
    convention: str | None = None
    dt: float | None = None
    integrate: str | None = None
    reset: str | None = None
    compare: str | None = None
    initial: str | None = None
    several: bool | None = None
    if_unit: str | None = None
    gain: str | None = None
    synapse: str | None = None
    late: str | None = None
    input: Place | None = None
    steps: int | None = None
    rate: float | None = None
    seed: int | None = None
    strict: bool = False
    trace: tuple[str, ...] = ()
    max_spike_error: float | None = None
    weight_bits: int | None = None
    input_bits: int | None = None
    engine: str = "sim"
    granularity: str | None = None
    threads: int | None = None
    out: Place | None = None
    force: bool = False
    command: tuple[str, ...] = ()


_FIELDS = ("dt", "integrate", "reset", "compare", "initial", "several", "if_unit", "gain", "synapse", "late")


def is_netx(subject: Place) -> bool:
    """Whether a ``.net`` file of lava-dl is meant, or the bundle of one."""
    path = Path(subject)
    if (path / layout.MANIFEST).is_file():
        return (path / layout.NETX).is_file()
    return path.suffix.lower() == SUFFIX


def is_network(subject: Place) -> bool:
    """Whether a NIR file is meant, by its name or because it is HDF5, or the bundle of a network."""
    path = Path(subject)
    if (path / layout.MANIFEST).is_file():
        return (path / layout.NIR).is_file() and not (path / layout.CUTS).is_file()
    if path.suffix.lower() == ".nir":
        return True
    if path.suffix.lower() not in (".h5", ".hdf5", "") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5


def export_network(request: NetworkRequest, tell: Tell | None = None) -> NetworkResult | NetxExportResult:
    """NIR file, or ``.net`` file of lava-dl, and input to a bundle.

    UsageError (2), InputError (3), FitError (4), VerificationError (5: engines differ, or more spikes than
    ``max_spike_error`` do from float64), EngineError (6): then nothing is written.
    """
    from spiketrack_deploy.bundle.provenance import command_line
    from spiketrack_deploy.frontends.nir.prepare import Words
    from spiketrack_deploy.hardware.targets import resolve_target
    from spiketrack_deploy.mapping.ways import way_on

    path, given = Path(request.path), is_netx(request.path)
    what = f"{SUFFIX} file" if given else "NIR file"
    if path.is_dir():
        raise UsageError(f"{path}: is a bundle, a {what} is needed here; it holds the one it was made from")
    if request.steps is not None and request.steps < 1:
        raise UsageError(f"--steps {request.steps}: at least one step is needed")
    target = export_target(request.target)
    priced = resolve_target(request.profile) if request.profile else target
    way = way_on(priced.profile, request.first_layer, request.streams)
    out = as_path(request.out) or Path("export") / f"{path.stem}-{target.name}"
    layout.check_output(out, request.force)
    if not path.is_file():
        raise InputError(f"{path}: there is no such {what}")
    require_engine(request.engine)
    stock = in_stock(request.engine, request.granularity)
    if given:
        return _export_netx(request, out, target, priced, way, tell)
    words = Words(
        request.convention,
        {key: value for key in _FIELDS if (value := getattr(request, key)) is not None},
        as_path(request.input),
        request.steps,
        request.rate,
        request.seed,
        request.strict,
        request.trace,
    )

    from spiketrack_deploy.bundle.network import NetworkPlan, export_network_bundle

    plan = NetworkPlan(
        path,
        words,
        target,
        priced,
        way,
        request.profile,
        "sim" if stock else request.engine,
        request.threads,
        request.weight_bits or 8,
        request.input_bits or 16,
        request.max_spike_error,
        command_line(request.command),
        stock,
    )
    with layout.staging(out, request.force) as folder:
        outcome = export_network_bundle(plan, folder, tell)
    return cast(NetworkResult, {"bundle": str(out), **outcome})


_FLOATS = (*_FIELDS, "convention", "strict", "trace", "max_spike_error", "weight_bits", "input_bits")


def _export_netx(
    request: NetworkRequest, out: Path, target: Target, priced: Target, way: Way, tell: Tell | None
) -> NetxExportResult:
    said = [name for name in _FLOATS if getattr(request, name) not in (None, False, ())]
    if said:
        raise UsageError(f"--{said[0].replace('_', '-')}: is for NIR files; {request.path} holds integers already")
    if request.input is not None and (request.rate is not None or request.seed is not None):
        raise UsageError("--rate and --seed are for drawn input; drop them, or --input")

    from spiketrack_deploy.bundle.netx import NetxPlan, export_netx_bundle
    from spiketrack_deploy.bundle.provenance import command_line

    stock = request.granularity == "stock"
    plan = NetxPlan(
        Path(request.path), as_path(request.input), request.steps, request.rate, request.seed, target, priced, way,
        request.profile, "sim" if stock else request.engine, request.threads, command_line(request.command), stock,
    )  # fmt: skip
    with layout.staging(out, request.force) as folder:
        outcome = export_netx_bundle(plan, folder, tell)
    return cast(NetxExportResult, {"bundle": str(out), **outcome})


def simulate_network(
    folder: Place, engine: str | None = None, threads: int | None = None, tell: Tell | None = None
) -> SimulateResult:
    """Run what entered a network's bundle once more, all steps in one session: counts, time. ``engine``: sim where none
    is named, the reference where sums take more than 24 bits."""
    import time

    from spiketrack_deploy.bundle.contents import read_alone
    from spiketrack_deploy.bundle.steps import PHASE, load_input
    from spiketrack_deploy.energy.layers import add_runs, layer_counts
    from spiketrack_deploy.engines.factory import make_engine

    folder = Path(folder)
    layout.check_bundle(folder)
    program = read_alone(folder)
    name = engine or ("sim" if program.width <= 24 else "reference")
    require_engine(name)
    steps = load_input(folder, program)
    with make_engine(name, program, **({"threads": threads} if name == "sim" else {})) as runner:
        start, session, runs = time.perf_counter(), runner.session(), []
        for index, inputs in enumerate(steps):
            if tell and index % 8 == 0:
                tell("steps", index, len(steps))
            runs.append(layer_counts(program.phases[PHASE].ops, session.step(PHASE, inputs).counts))
        seconds = time.perf_counter() - start
    return simulated(folder, name, {PHASE: add_runs(runs, PHASE)}, {PHASE: len(runs)}, seconds, [])


def inspect_netx(subject: Place) -> InspectNetxResult:
    """Layers of a ``.net`` file, or of the bundle of one with its program and margins."""
    path = Path(subject)
    packed = path.is_dir()
    found: dict[str, Any] = dict(netx(path / layout.NETX if packed else path))
    found.pop("written")
    kind = "netx bundle" if packed else "netx network"
    said = {"kind": kind, **found, "network": path.resolve().name, **(_packed(path) if packed else {})}
    return cast(InspectNetxResult, said)


def inspect_network(subject: Place, svg: Place | None = None) -> InspectNetworkResult:
    """The graph of a NIR file as JSON data; ``svg``: a file to draw it into."""
    from spiketrack_deploy.frontends.nir.build import read_network
    from spiketrack_deploy.frontends.nir.outline import outline
    from spiketrack_deploy.inputs.whole_file import write_whole
    from spiketrack_deploy.report.graph_drawing import draw

    path = Path(subject)
    packed = path.is_dir()
    found = outline(read_network(path / layout.NIR if packed else path))
    if svg is not None:
        if not Path(svg).parent.is_dir():
            raise UsageError(f"--svg {svg}: there is no such folder")
        write_whole(Path(svg), draw(found, path.name))
    kind = "bundle" if packed else "network"
    said = {"kind": kind, "name": path.resolve().name, **found, "svg": None if svg is None else str(svg)}
    return cast(InspectNetworkResult, {**said, **(_packed(path) if packed else {})})


def _packed(folder: Path) -> dict[str, Any]:
    from spiketrack_deploy.bundle.contents import read_alone
    from spiketrack_deploy.program.describe import describe_program, range_margins

    manifest = layout.read_manifest(folder)
    program = read_alone(folder)
    return {
        "content_hash": manifest.content_hash,
        "changed_files": layout.changed_files(folder, manifest),
        "program": describe_program(program),
        "ranges": range_margins(program),
    }


def conformance(folder: Place, force: bool = False) -> ConformanceResult:
    """Small graphs, inputs and expected values of every convention, as NIR and NIRData, with a page on each."""
    from spiketrack_deploy.frontends.nir.conformance import write_suite

    out = Path(folder)
    with layout.staging(out, force, SUITE) as place:
        found = write_suite(place, SUITE)
    return cast(ConformanceResult, {"output": str(out), **found})
