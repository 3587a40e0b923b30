"""The choices of how a program is mapped that change what the chips run: its first layer, its shared streams.

This module decides which choices exist and which are legal. It must not map anything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.mapping.entry import CHIP, FIRST_LAYER, HOST
from spiketrack_deploy.mapping.populations import RELAYED, SHARED_STREAMS, SUMMED


@dataclass(frozen=True, slots=True)
class Way:
    """Who runs the ``first_layer``, the one that reads pictures: the ``chip``, or the ``host``, which then sends its
    spikes in place of pixels (``mapping.entry``); and what becomes of a convolution's output that several neurons or
    sums read: shared ``streams`` are ``relayed`` or ``summed`` by every reader (``mapping.populations``).

    UsageError: another choice.
    """

    first_layer: str = CHIP
    streams: str = RELAYED

    def __post_init__(self) -> None:
        if self.first_layer not in FIRST_LAYER:
            raise UsageError(f"the first layer runs on the {' or the '.join(FIRST_LAYER)}, not on {self.first_layer!r}")
        if self.streams not in SHARED_STREAMS:
            raise UsageError(f"streams are {' or '.join(SHARED_STREAMS)}, not {self.streams!r}")

    @property
    def by_host(self) -> bool:
        """Whether a host runs what reads pictures."""
        return self.first_layer == HOST

    @property
    def words(self) -> tuple[str, ...]:
        """What is not as by default, to follow ``with``."""
        host = ("the first layer on the host",) if self.by_host else ()
        return (*host, "streams summed by every reader") if self.streams == SUMMED else host

    def to_dict(self) -> dict[str, str]:
        """JSON data."""
        return asdict(self)


DEFAULT_WAY = Way()
WAYS = tuple(Way(reader, streams) for reader in FIRST_LAYER for streams in SHARED_STREAMS)
