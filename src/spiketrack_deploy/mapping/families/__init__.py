"""Families of chips: what the numbers of a profile cannot say, one module each.

A family decides how synapses lie in a core's memory and what the chip can do of each operation. A profile names its
family, so a new chip of a known one is a TOML file; a new family is a module here and its name in
``hardware.vocabulary.FAMILIES``.
"""

from __future__ import annotations

from spiketrack_deploy.errors import ProfileError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.families.family import Family
from spiketrack_deploy.mapping.families.loihi1 import LOIHI1
from spiketrack_deploy.mapping.families.loihi2 import LOIHI2

FAMILIES: dict[str, Family] = {"loihi1": LOIHI1, "loihi2": LOIHI2}


def family_of(profile: Profile) -> str:
    """Name of the profile's family; ProfileError where it names none."""
    if profile.family is None:
        raise ProfileError(
            f"profile {profile.name} names no family of chips, so nothing can be mapped to it; families are "
            f"{', '.join(FAMILIES)} (family = ... in the profile), targets with one are listed by spiketrack targets."
        )
    return profile.family


__all__ = ["FAMILIES", "Family", "family_of"]
