"""Chips, and networks on them: listed, mapped to cores, and counted before anything is trained.

This module decides which program and which counts are mapped. It must not print; heavy parts are imported when a verb
runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from spiketrack_deploy.api.asked import Place
from spiketrack_deploy.api.results import DenseFitResult, MapResult, TargetsComparison, TargetsResult
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.inputs.progress import Tell

if TYPE_CHECKING:
    from spiketrack_deploy.energy.layers import LayerCounts
    from spiketrack_deploy.hardware.schema import Profile
    from spiketrack_deploy.hardware.targets import Target
    from spiketrack_deploy.mapping.ways import Way
    from spiketrack_deploy.mapping.whole import WholeNetwork
    from spiketrack_deploy.program.dense import DenseLayer
    from spiketrack_deploy.program.types import Program
    from spiketrack_deploy.units import Interval


def targets() -> TargetsResult:
    """Every bundled target, and the names that stand for one of them."""
    from spiketrack_deploy.hardware.profiles import list_profiles
    from spiketrack_deploy.hardware.targets import ALIASES

    listed = [
        {
            "name": p.name,
            "title": p.title,
            "kind": p.kind,
            "family": p.family,
            "chips": p.chips,
            "prices": len(p.prices),
            "limits": len(p.limits),
        }
        for p in list_profiles()
    ]
    return {"aliases": dict(ALIASES), "targets": listed}


def target(name: str) -> dict[str, Any]:
    """One target (by name, or a TOML file) with every value, unit, tag and source."""
    from spiketrack_deploy.hardware.targets import resolve_target

    found: dict[str, Any] = resolve_target(name).profile.model_dump(by_alias=True)
    return found


def map(
    subject: Place,
    *,
    target: str = "loihi2",
    phase: str | None = None,
    density: float | None = None,
    rule: str | None = None,
    balance: float | None = None,
    sharing: str | None = None,
    first_layer: str | None = None,
    streams: str | None = None,
    pictures: Place | None = None,
) -> MapResult | DenseFitResult:
    """Map a bundle's program (or a model, lowered without calibration) to the cores and chips of ``target``; of a dense
    tracker, which has no program, say layer by layer what could be held.

    ``target``: a chip or a board by profile name, or a TOML file. ``phase``: whose cores are described, by default the
    one that runs most often; costs are always those of results of all phases. ``sharing``: where the other phases run:
    ``own`` chips, in ``turns`` on the same ones, on the ``host``. ``first_layer``: who runs what reads the picture: the
    ``chip``, or the ``host``, which sends spikes in place of pixels. ``streams``: a convolution's output that several
    neurons or sums read is ``relayed`` by accumulators of its own, or ``summed`` anew in each reader. None: as a bundle
    was exported, else chip and relayed.
    ``density``: assumed share of neurons that spike, in place of a bundle's own counts. ``rule``: how layers are split,
    by default as the chip's family does. ``balance``: no core does more than so many times the mean work.
    ``pictures``: a folder for the drawn chips. Where it does not fit, ``holds`` is False and nothing is raised;
    ``fits`` is also False where operations stay on a host.
    """
    from spiketrack_deploy.energy.layers import main_phase, runs_per_result
    from spiketrack_deploy.hardware.targets import resolve_target
    from spiketrack_deploy.mapping.limits import core_limits
    from spiketrack_deploy.mapping.ways import way_on
    from spiketrack_deploy.mapping.whole import map_network

    goal = resolve_target(target)
    core_limits(goal.profile)  # a target that nothing can be mapped to is refused before any work
    if (layers := dense_layers(str(subject))) is not None:
        from spiketrack_deploy.mapping.dense import dense_verdict

        return cast(DenseFitResult, {"subject": str(subject), **dense_verdict(layers, goal)})
    program, counts, way = program_of(str(subject))
    if phase is not None and phase not in program.phases:
        raise UsageError(f"the program has no phase {phase!r}; it has {', '.join(program.phases)}")
    chosen = phase or main_phase(runs_per_result(program))
    way = way_on(goal.profile, first_layer, streams, way)
    options: dict[str, Any] = {"rule": rule, "balance": balance, "sharing": sharing, "way": way}
    whole = map_network(program, goal, counts=counts, density=density, **options)
    if pictures is not None:
        from spiketrack_deploy.report.floorplan import floorplan, write_pictures

        write_pictures(floorplan(whole.phases[chosen].mapping, goal.profile), Path(pictures))
    detail = whole.phases[chosen].to_dict()
    return cast(MapResult, {"subject": str(subject), **whole.to_dict(), "detail": detail})


def compare_targets(subject: Place, tell: Tell | None = None) -> TargetsComparison:
    """One result of ``subject`` (a bundle with its counts; a model is mapped with assumed activity) on every bundled
    target: those that can be mapped with fit, chips, latency and energy, those that only price, and those of which
    nothing is known, which say so."""
    from spiketrack_deploy.energy.layers import main_phase, runs_per_result
    from spiketrack_deploy.hardware.profiles import list_profiles
    from spiketrack_deploy.hardware.targets import Target

    program, counts, way = program_of(str(subject))
    profiles = sorted(list_profiles(), key=lambda p: (p.family is None, _KINDS.index(p.kind), "dense_mac" in p.prices))
    rows = []
    for done, profile in enumerate(profiles):
        if tell:
            tell(f"mapping to {profile.name}", done, len(profiles))
        about = {"name": profile.name, "kind": profile.kind, "title": profile.title}
        rows.append({**about, **placed(program, counts, Target(profile.name, profile), way=way)})
    return {"subject": str(subject), "phase": main_phase(runs_per_result(program)), "rows": rows}


_KINDS = ("chip", "board", "convention")


def placed(
    program: Program,
    counts: Mapping[str, Sequence[LayerCounts]],
    goal: Target,
    whole: WholeNetwork | None = None,
    way: Way | None = None,
) -> dict[str, Any]:
    """A result of the main phase on a target, in the keys that every table across chips has; ``None``: not known.

    A target with a family is mapped with all phases: ``fits``, ``cores`` of the main phase, ``chips`` of all,
    ``latency_s`` of a mean result with the image's way and ``on_chip_s`` without, its energies. One that only prices
    events has ``dynamic_nj``; ``note`` says what is missing. ``whole``: the network there, where it was
    mapped; else it is mapped the ``way`` given.
    """
    from spiketrack_deploy.energy.layers import main_phase, runs_per_result
    from spiketrack_deploy.mapping.ways import DEFAULT_WAY
    from spiketrack_deploy.mapping.whole import map_network

    phase = main_phase(runs_per_result(program))
    found: dict[str, Any] = dict.fromkeys(PLACED)
    if goal.profile.family is None:
        energy, found["note"] = _counts_alone(program, phase, counts.get(phase) or None, goal.profile)
        found["dynamic_nj"] = energy.to_dict() if energy else None
        return found
    whole = whole or map_network(program, goal, counts=counts, way=way or DEFAULT_WAY)
    cost, host, report = whole.cost, whole.chosen.host_operations, whole.report
    known = {"static_nj": cost.static, "input_nj": cost.input, "total_nj": cost.total if cost.static else None}
    known |= {"latency_s": cost.latency if cost.on_chip.high else None, "on_chip_s": cost.on_chip}
    notes = [words for words in (whole.chosen.words, *whole.way.words) if words]
    return {
        "fits": whole.chosen.fits,
        "holds": whole.chosen.holds,
        "cores": report.mapping.cores,
        "chips": whole.chosen.chips,
        "chips_available": report.mapping.chips_available,
        "host_operations": host,
        "dynamic_nj": cost.dynamic.to_dict() if report.bill()["lines"] else None,
        **{name: value.to_dict() if value else None for name, value in known.items()},
        "activity": report.activity.origin,
        "note": "; ".join([*notes, f"{host} operations stay on the host"] if host else notes),
    }


def _counts_alone(
    program: Program, phase: str, layers: Sequence[LayerCounts] | None, profile: Profile
) -> tuple[Interval | None, str]:
    """What a run costs where nobody knows how the chip holds a network, and what that figure is of."""
    from spiketrack_deploy.energy.conventions import dense_twin
    from spiketrack_deploy.energy.layers import shape_counts
    from spiketrack_deploy.energy.pricing import dynamic_energy, event_prices

    if "dense_mac" in profile.prices:
        return dense_twin(shape_counts(program, phase), profile).energy, "the dense twin, no spikes"
    if not event_prices(profile):
        return (
            None,
            "only a total over events was published" if "event_total" in profile.prices else "nothing is priced",
        )
    if not layers:
        return None, "needs counts: give a bundle"
    what = "no chip: arithmetic of a convention" if profile.kind == "convention" else "events alone, no placement"
    return dynamic_energy(layers, profile), what


PLACED = (
    "fits", "holds", "cores", "chips", "chips_available", "host_operations", "latency_s", "on_chip_s", "dynamic_nj",
    "static_nj", "input_nj", "total_nj", "activity", "note",
)  # fmt: skip
"""Keys of :func:`placed`."""


def dense_layers(subject: str) -> Sequence[DenseLayer] | None:
    """Layers of a dense tracker's bundle or model; None for a spiking one."""
    from spiketrack_deploy.inputs.sources import find_source, is_bundle

    path = Path(subject)
    if is_bundle(path):
        from spiketrack_deploy.bundle import layout

        if not layout.is_dense_bundle(path):
            return None
        from spiketrack_deploy.bundle.dense import read_layers

        layout.check_bundle(path)
        return read_layers(path)
    from spiketrack_deploy.trackers.opening import frame_layers

    return frame_layers(find_source(subject).path) or None


class Subject(NamedTuple):
    """A program to be placed; of a bundle the counts that it recorded for each phase and how its chips ran it."""

    program: Program
    counts: Mapping[str, Sequence[LayerCounts]]
    way: Way


def program_of(subject: str) -> Subject:
    """The program of a bundle or a model."""
    from spiketrack_deploy.inputs.sources import demand_spiking, find_source, is_bundle

    path = Path(subject)
    if is_bundle(path):
        demand_spiking(path)

        from spiketrack_deploy.bundle import layout
        from spiketrack_deploy.bundle.contents import read_alone
        from spiketrack_deploy.bundle.recorded import recorded_counts

        layout.check_bundle(path)
        recorded = recorded_counts(path / layout.ENERGY)
        return Subject(read_alone(path), recorded.counts, recorded.way)
    from spiketrack_deploy.frontends.compile import compile
    from spiketrack_deploy.mapping.ways import DEFAULT_WAY
    from spiketrack_deploy.trackers.opening import demand_program

    source = find_source(subject)
    demand_program(source.path, "placing a program")
    return Subject(compile(source.path).program, {}, DEFAULT_WAY)
