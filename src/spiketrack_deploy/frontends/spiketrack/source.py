"""A SpikeTrack as something that can be compiled: its weights spelled in NIR, its float network observed on a clip.

This module decides how what the float tracker records is laid over the program's values. It must not know integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from spiketrack_deploy.frontends.spiketrack.export import build_graph
from spiketrack_deploy.frontends.spiketrack.names import state_name
from spiketrack_deploy.frontends.spiketrack.recognise import recognise
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.lowering.network import FloatNetwork
from spiketrack_deploy.nir_graph.cuts import read_cuts, write_cuts
from spiketrack_deploy.nir_graph.graph import Cut, Graph
from spiketrack_deploy.nir_graph.reader import read_graph
from spiketrack_deploy.nir_graph.writer import write_graph
from spiketrack_deploy.program.types import AnyArray
from spiketrack_deploy.program.workload import Workload
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.record import record_spikes
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.runs import FloatRun, follow_float
from spiketrack_deploy.tracking.video import FrameSource

MEMORY_STEPS = 16
"""A memory is a sum of products of two spikes, each a count of quarters."""


class SpikeTrackSource:
    """A float SpikeTrack in memory."""

    def __init__(self, model: SpikeTrack) -> None:
        self.model = model

    @classmethod
    def read(cls, path: Path) -> SpikeTrackSource:
        """From a checkpoint (file, or folder of a model); nothing in it is executed. InputError says what is wrong."""
        return cls(load_checkpoint(path)[0])

    @property
    def config(self) -> TrackerConfig:
        """The tracker's configuration."""
        return self.model.config

    def follow(self, frames: FrameSource, init: Box, tell: Tell | None = None) -> FloatRun:
        """The float64 tracker on a clip."""
        return follow_float(ObservedTracker(self.model), frames, init, tell)

    def graph(self) -> tuple[Graph, list[Cut]]:
        """Its weights in NIR, and what NIR cannot say."""
        state = {key: value.detach().cpu().numpy() for key, value in self.model.state_dict().items()}
        return build_graph(state, self.config)

    def network(self, files: tuple[Path, Path] | None = None) -> tuple[FloatNetwork, Workload]:
        """The network as its NIR graph says it; with ``files`` (graph, cuts) as they say it once written there."""
        graph, cuts = self.graph()
        if files is not None:
            digest = write_graph(graph, files[0])
            write_cuts(cuts, graph, files[1], digest=digest)
            graph = read_graph(files[0], isolate=False)
            cuts = read_cuts(files[1], graph)
        return recognise(graph, cuts)


class ObservedTracker(TorchNetwork):
    """The float64 tracker, telling spikes and memories in the program's axes."""

    @contextmanager
    def observing(self) -> Iterator[Mapping[str, AnyArray]]:
        """Spikes of every NI-LIF call inside the ``with`` block; the mapping is filled when the block ends."""
        told: dict[str, AnyArray] = {}
        with record_spikes(self.model) as spikes:
            yield told
        told.update((name, lay_out(value)) for name, value in spikes.items())

    def states(self) -> Mapping[str, AnyArray]:
        """The memories, int32 ``[T,heads,d,dv]``."""
        return {
            state_name(index): np.rint(memory[:, 0].double().numpy() * MEMORY_STEPS).astype(np.int32)
            for index, memory in self.memories.items()
        }


def lay_out(spikes: Tensor) -> AnyArray:
    """A recorded spike tensor in the program's axes ``[T,C,H,W]``.

    The tracker's neurons emit ``[T,1,C,H,W]``, over square features also ``[T,1,C,H*W]``, and in the gate
    ``[C,positions,T]``, which the program has as ``[T,positions,1,C]``.
    """
    value = spikes.numpy()
    if value.ndim == 3:
        return np.ascontiguousarray(value.transpose(2, 1, 0))[:, :, None, :]
    if value.ndim == 4:
        side = int(np.sqrt(value.shape[3]))
        return value.reshape(*value.shape[:3], side, side)[:, 0]
    return value[:, 0]
