"""What a command is aimed at or priced with: one resolver of names for every command.

This module decides which names there are. It must not know what a network needs of a target (``mapping``).
"""

from __future__ import annotations

from dataclasses import dataclass

from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.hardware.profiles import list_profiles, load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.inputs.resources import profile_names

ALIASES = {"cpu": "cmos45_fp32"}
"""Target -> profile; ``cpu`` is no chip, its prices are those of 45 nm CMOS arithmetic."""


@dataclass(frozen=True, slots=True)
class Target:
    """A profile under the name by which results speak of it: an alias, or the profile's own."""

    name: str
    profile: Profile


def resolve_target(name: str) -> Target:
    """The target of a name: a bundled chip, board or list of prices, an alias, or a TOML file of one's own.

    Raises UsageError for an unknown name, ProfileError for a file that is no profile.
    """
    if name in ALIASES:
        return Target(name, load_profile(ALIASES[name]))
    if name not in profile_names() and not name.endswith(".toml") and "/" not in name:
        raise UsageError(f"there is no target {name!r}; {_known()}; or give the path of a TOML file.")
    profile = load_profile(name)
    return Target(profile.name, profile)


def _known() -> str:
    profiles = list_profiles()
    kinds = (
        ("chips", [p.name for p in profiles if p.kind == "chip" and p.family]),
        ("boards", [p.name for p in profiles if p.kind == "board" and p.family]),
        ("prices without cores", [*ALIASES, *(p.name for p in profiles if not p.family)]),
    )
    return ", ".join(f"{kind} are {', '.join(names)}" for kind, names in kinds)
