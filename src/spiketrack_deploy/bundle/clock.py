"""How long the stages of an export take.

This module decides what is timed. It must not know what a stage does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from spiketrack_deploy.inputs.progress import Tell


@dataclass(slots=True)
class Clock:
    """Wall-clock seconds by stage; tells what is going on when a stage begins."""

    tell: Tell | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        if self.tell:
            self.tell(name, 0, 0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
