"""The energy and time model against everything that was measured on a Loihi 2 and published with counts.

    python benchmarks/anchors.py [--data DIR] [--json FILE] [--picture FILE]

Counts first (replays against the chip's counters and recorded outputs), then tables: the prices as they were before,
the prices derived from all anchors but the one they are held against, the prices that ship; what each figure could not
tell. Predictions are those of ``energy.pricing`` and ``mapping.closed_loop``. DIR holds what is not part of this
repository: ``pilotnet_sdnn/network.net`` (lava-nc/lava-dl@d825ac5), ``ozu_wta/points.csv`` (read off the figures of
OzU-CAST/LoihiScalingEfficiency@1c5a162) and ``two_lif_floor/res.json`` (NECOTIS/TemporalLearningInRSNNs@3e64b51), and
may hold ``pilotnet_sdnn/vectors.csv`` (columns network, input, step, operations of each layer, total); the
networks of the lava-dl wheel are fetched. Exit code 0: all counts agree and every figure lies in the band; 1: not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "src")]

import anchor_counts  # noqa: E402
import anchor_fit  # noqa: E402
import anchor_picture  # noqa: E402
import anchor_score  # noqa: E402
import anchor_sets  # noqa: E402
import anchor_tables  # noqa: E402
import pilotnet  # noqa: E402
from anchor_counts import Check  # noqa: E402
from anchor_fit import Bands  # noqa: E402
from anchor_sets import Anchors  # noqa: E402

from spiketrack_deploy.errors import EngineError, InputError, SpiketrackError, VerificationError  # noqa: E402
from spiketrack_deploy.hardware.profiles import load_profile  # noqa: E402
from spiketrack_deploy.hardware.schema import Profile  # noqa: E402

SDNN_SHA256 = "70762a22f80e9a017f769abe6349ce121534eafa55eb91c58d3c158d4d1de7b7"
FEW_DRAWS = 100
"""Draws of a band that is only looked at: without one of the anchors."""
TOLERANCE = 0.30
"""What a nominal prediction should meet."""


def gather(data: Path | None, profile: Profile) -> tuple[Anchors, list[Check]]:
    """All anchors that can be had, and the checks of their counts."""
    anchors, checks = Anchors(), []
    files: dict[str, bytes] = {}
    try:
        files = pilotnet.fetch()
    except EngineError as error:
        anchors.left_out.append(f"A1, B1, B2, B3: {error}")
    if files:
        with progress("replay of PilotNet-LIF", 2) as tell:
            network = pilotnet.read(files[pilotnet.LIF + pilotnet.NETWORK])
            found = pilotnet.sample(network)
            tell(1)
            anchor_sets.pilotnet_lif(anchors, network, found)
            checks += anchor_counts.lif(network, found, files, profile)
            synops, taps = (sum(n) / pilotnet.STEPS for n in zip(*((i.counts.synops, i.all_taps) for i in found)))
            anchors.notes.append(f"A1: {synops:,.0f} synops a step over non-zero weights, {taps:,.0f} over all taps")
            tell(2)
        checks += anchor_counts.golden(pilotnet.read(files[pilotnet.SDNN + pilotnet.NETWORK]), files)
    if data is None:
        anchors.left_out.append("B1, B2, B4, B5 and leaving one out: need --data")
    else:
        checks += _from_folder(anchors, data, files)
    anchor_sets.connectome(anchors)
    anchor_sets.autoencoder(anchors)
    anchor_sets.others(anchors)
    return anchors, checks


def _from_folder(anchors: Anchors, data: Path, files: dict[str, bytes]) -> list[Check]:
    names = ("pilotnet_sdnn/network.net", "ozu_wta/points.csv", "two_lif_floor/res.json")
    exact = data / "pilotnet_sdnn/vectors.csv"
    missing = [name for name in names if not (data / name).is_file()]
    if missing:
        raise InputError(f"{data}: has no {', '.join(missing)}; see the first lines of benchmarks/anchors.py.")
    checks = []
    if files:
        stored = (data / names[0]).read_bytes()
        if hashlib.sha256(stored).hexdigest() != SDNN_SHA256:
            raise VerificationError(f"{data / names[0]}: is not the published network (its SHA-256 differs).")
        with progress("replay of PilotNet-SDNN", 2) as tell:
            network = pilotnet.read(stored)
            checks = anchor_counts.vectors("B1", network)
            if exact.is_file():
                wheel = pilotnet.read(files[pilotnet.SDNN + pilotnet.NETWORK])
                checks.append(anchor_counts.table(exact, network, wheel, anchor_counts.image(files)))
            tell(1)
            found = anchor_counts.pan(network, files)
            checks += anchor_counts.shares(found)
            anchor_sets.pilotnet_sdnn(anchors, network, found)
            tell(2)
    anchor_sets.winner_take_all(anchors, data / names[1])
    anchor_sets.two_neurons(anchors, data / names[2])
    return checks


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal; nothing where standard error is none."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@dataclass(frozen=True, slots=True)
class Derived:
    """Prices from all anchors, their widened bands, the prices without each anchor, and those with one read
    otherwise."""

    joint: Bands
    wide: Bands
    left: dict[str, Bands]
    readings: dict[str, Bands]


def derive(anchors: Anchors, profile: Profile) -> Derived:
    """Prices by every anchor and by all but one, one after the other."""
    left: dict[str, Bands] = {}
    readings: dict[str, Bands] = {}
    with progress("prices by all anchors", 1) as tell:
        joint = anchor_score.derived(anchors, anchor_fit.DRAWS)
        tell(1)
    with progress("prices without one", len(anchors.names) + len(anchors.readings)) as tell:
        for number, name in enumerate(anchors.names, start=1):
            left[name] = anchor_score.derived(anchors, FEW_DRAWS, leave=name)
            tell(number)
        for name in anchors.readings:
            readings[name] = anchor_score.derived(anchors.read(name), 0)
    wide = anchor_score.covering_bands(anchors, joint, left | readings, profile)
    return Derived(joint, wide, left, readings)


def slack(anchors: Anchors, profile: Profile) -> dict[str, dict[str, tuple[float, float] | None]]:
    """For the largest member of every group: how wrong each price could be."""
    found = {}
    for item in anchor_score.judged(anchors):
        names = [name for name in anchor_score.prices_of(item) if name in profile.prices]
        found[anchor_tables.key(item)] = {n: anchor_score.slack(item, n, profile, TOLERANCE) for n in names}
    return found


def run(data: Path | None, name: str, picture: Path | None = None) -> dict[str, Any]:
    """Everything, printed as it comes, and as JSON data."""
    profile = load_profile(name)
    anchors, checks = gather(data, profile)
    show_checks(checks)
    for note in anchors.notes:
        print(note)
    for reason in anchors.left_out:
        print(f"left out: {reason}")
    result: dict[str, Any] = {"left_out": anchors.left_out, "counts": [check.to_dict() for check in checks]}
    items = anchor_score.judged(anchors)
    before = anchor_tables.groups(anchor_score.scores(items, anchor_score.before(profile)))
    anchor_tables.show_scores("Prices before these anchors (commit e24bbdf)", before)
    result["before"] = [group.to_dict() for group in before]
    held: list[anchor_tables.Group] = []
    if not anchors.left_out:
        found = derive(anchors, profile)
        held = anchor_tables.groups(anchor_score.left_out(anchors, found.left, profile))
        anchor_tables.show_prices(found.joint, found.wide, found.left, found.readings)
        both = {n: anchor_tables.groups(s) for n, s in anchor_score.stepping(anchors, profile).items()}
        result["stepping"] = anchor_tables.show_stepping(both)
        anchor_tables.show_scores("Each anchor under prices from all the others", held)
        result["leave_one_out"] = [group.to_dict() for group in held]
        result["leave_one_out_median"] = anchor_tables.overall(held)
        parts = {"joint": found.joint, "widened": found.wide} | {f"without {n}": b for n, b in found.left.items()}
        result["prices"] = {part: {n: b.to_dict() for n, b in bands.items()} for part, bands in parts.items()}
    ships = anchor_tables.groups(anchor_score.scores(items, profile))
    anchor_tables.show_scores(f"Prices that ship ({profile.name})", ships)
    if picture is not None:
        anchor_picture.draw(picture, before, held, ships)
    result["ships"] = [group.to_dict() for group in ships]
    loose = slack(anchors, profile)
    anchor_tables.show_slack(loose, TOLERANCE)
    # JSON has no infinity: null is no end.
    result["slack"] = {
        group: {price: ends and [end if end < float("inf") else None for end in ends] for price, ends in prices.items()}
        for group, prices in loose.items()
    }
    anchor_tables.show_old()
    outside = [group.name for group in ships if not all(score.inside for score in group.scores)]
    result["outside"] = outside
    result["ok"] = not outside and all(check.ok for check in checks)
    print("\nOUTSIDE the band: " + ", ".join(outside) if outside else "\nevery figure lies in the band that ships")
    return result


def show_checks(checks: Sequence[Check]) -> None:
    """Counts, one line each."""
    for check in checks:
        off = "" if check.off is None else f" ({check.off:+.1%})"
        print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.found:,.10g} against {check.published}{off}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the anchors' files")
    parser.add_argument("--profile", default="loihi2", help="profile whose prices are scored as those that ship")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--picture", type=Path, help="draw predicted over measured to this file (.png, .svg)")
    options = parser.parse_args()
    try:
        result = run(options.data, options.profile, options.picture)
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
