"""The choices of how a program is mapped that change what the chips run: its first layer, its shared streams.

This module decides which choices exist, which are legal, and which populations they leave to the chips. It must not
know cores or prices.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.entry import CHIP, FIRST_LAYER, HOST, spikes_enter
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.populations import MERGED, RELAYED, SHARED_STREAMS, SUMMED, populations
from spiketrack_deploy.mapping.types import PopulationGraph
from spiketrack_deploy.program.types import Program

STREAMS_WORDS = {SUMMED: "streams summed by every reader", MERGED: "streams merged with a neuron that reads them"}
"""What is not as by default, in words."""


@dataclass(frozen=True, slots=True)
class Way:
    """Who runs the ``first_layer``, the one that reads pictures: the ``chip``, or the ``host``, which then sends its
    spikes in place of pixels (``mapping.entry``); and what becomes of shared ``streams``: ``relayed``, ``summed`` by
    every reader, or ``merged`` with a neuron that reads them (``mapping.populations``).

    UsageError: another choice.
    """

    first_layer: str = CHIP
    streams: str = RELAYED

    def __post_init__(self) -> None:
        if self.first_layer not in FIRST_LAYER:
            raise UsageError(f"the first layer runs on the {' or the '.join(FIRST_LAYER)}, not on {self.first_layer!r}")
        if self.streams not in SHARED_STREAMS:
            raise UsageError(f"streams are {', '.join(SHARED_STREAMS)}, not {self.streams!r}")

    @property
    def by_host(self) -> bool:
        """Whether a host runs what reads pictures."""
        return self.first_layer == HOST

    @property
    def words(self) -> tuple[str, ...]:
        """What is not as by default, to follow ``with``."""
        host = ("the first layer on the host",) if self.by_host else ()
        return (*host, STREAMS_WORDS[self.streams]) if self.streams in STREAMS_WORDS else host

    def on(self, profile: Profile) -> Way:
        """What is left of it on other chips: fixed neurons cannot sum a stream as well."""
        if self.streams != MERGED or (profile.family is not None and FAMILIES[profile.family].programmable):
            return self
        return replace(self, streams=RELAYED)

    def to_dict(self) -> dict[str, str]:
        """JSON data."""
        return asdict(self)


DEFAULT_WAY = Way()


def way_on(profile: Profile, first_layer: str | None, streams: str | None, before: Way = DEFAULT_WAY) -> Way:
    """What was asked for of ``before``, ``None`` leaving it as it is; UsageError where ``profile`` has no chips that
    could run anything this way."""
    if profile.family is None and (first_layer or streams):
        raise UsageError(
            f"--first-layer and --streams say what chips run; target {profile.name} has none that can be mapped to"
        )
    asked = Way(first_layer or before.first_layer, streams or before.streams)
    if streams and asked.on(profile) != asked:
        raise UsageError(
            f"--streams {streams} needs neurons that run a program; those of family {profile.family} are fixed"
        )
    return asked.on(profile)


def populations_of(program: Program, phase: str, way: Way) -> PopulationGraph:
    """What the chips hold of a phase. UsageError: no layer reads a picture that could be left to a host."""
    network = populations(program, phase, way.streams)
    return spikes_enter(network)[0] if way.by_host else network


WAYS = tuple(Way(reader, streams) for reader in FIRST_LAYER for streams in SHARED_STREAMS)
