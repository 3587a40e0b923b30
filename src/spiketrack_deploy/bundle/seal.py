"""The end of every export: content hash, page, provenance, manifest; and what a command says of all of them.

This module decides their order: the content hash leaves out page and provenance, so it is known before them and stands
in the page. It must not know what was exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from spiketrack_deploy.bundle import layout, provenance
from spiketrack_deploy.bundle.clock import Clock
from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.inputs.whole_file import file_digest, write_whole


class Ordered(Protocol):
    """What the plan of every export states. ``priced``: whose prices and cores count; ``command``: as it was typed."""

    @property
    def target(self) -> Target: ...
    @property
    def priced(self) -> Target: ...
    @property
    def profile_path(self) -> str | None: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def command(self) -> str: ...


def seal(
    folder: Path,
    page: Callable[[str], str],
    plan: Ordered,
    inputs: Mapping[str, Path],
    settings: Mapping[str, Any],
    program_hash: str,
    clock: Clock,
) -> layout.Manifest:
    """Write the last three files of ``folder``. ``page``: content hash -> HTML; ``inputs``: role -> file or folder;
    ``settings``: what this kind of export was asked beside target, prices and threads."""
    files = {p.relative_to(folder).as_posix(): file_digest(p) for p in folder.rglob("*") if p.is_file()}
    with clock.stage("report"):
        write_whole(folder / layout.REPORT, page(layout.content_hash(files)))
    priced = plan.priced.profile
    asked = {
        **settings,
        "target": plan.target.name,
        "profile": plan.profile_path or priced.name,
        "profile_sha256": priced.digest,
        "threads": plan.threads,
    }
    layout.write_json(folder / layout.PROVENANCE, provenance.describe(plan.command, inputs, asked, clock.seconds))
    return layout.write_manifest(folder, program_hash)


def sealed(
    plan: Ordered,
    energy: EnergyReport,
    manifest: layout.Manifest,
    seconds: Mapping[str, float],
    parts: Sequence[str] = ("per_result", "phases", "static"),
) -> dict[str, Any]:
    """What every export says: target and prices, ``parts`` of the energy report, hashes, files, seconds by stage."""
    said = energy.to_dict()
    return {
        "target": plan.target.name,
        "profile": plan.priced.profile.name,
        "content_hash": manifest.content_hash,
        "program_hash": manifest.program_hash,
        "energy": {key: said[key] for key in parts},
        "unpriced": said["unpriced"],
        "files": sorted([*manifest.files, layout.MANIFEST]),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }
