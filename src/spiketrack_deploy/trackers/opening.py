"""A checkpoint of any tracker as a network behind a loop of ``tracking/``: which tracker it is, and what it costs.

This module decides which room opens a file, by the names of the tensors in it. It must not know a network's arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiketrack_deploy.errors import EngineError, InputError, UsageError
from spiketrack_deploy.inputs.sources import find_frames, model_files
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.dense import DenseLayer
from spiketrack_deploy.program.store import array_digest, canonical_json
from spiketrack_deploy.trackers.kinds import DINOV2, SPMTRACK, kind_of

if TYPE_CHECKING:
    from spiketrack_deploy.trackers.spmtrack.model import SpmTrack

FLOAT, BF16, INT8 = "float", "bf16", "int8"
FLOATS = (FLOAT, BF16, INT8)
"""How a checkpoint's network is computed: in its float precision; a dense tracker's products in bfloat16; its linear
layers in int8."""
CPU, CUDA, AUTO = "cpu", "cuda", "auto"
DEVICES = (CPU, CUDA, AUTO)
STEP = ".onnx"
"""An exported step of a dense tracker."""
CALIBRATION_FRAMES = 12
_DENSE = (SPMTRACK, DINOV2)


@dataclass(frozen=True, slots=True)
class Opened:
    """``network`` is what a loop runs over; ``counts``: those of every frame by layer, None where they are a program's
    to tell."""

    network: Any
    config: Any
    counts: Mapping[str, OpCounts] | None


def is_dense(path: Path) -> bool:
    """Whether a checkpoint is a dense tracker (or a file that only belongs to one): it has no integer program."""
    files = model_files(path)
    file = files[0]
    if len(files) > 1:
        return True
    from spiketrack_deploy.trackers.archive import open_tensors

    try:
        opened = open_tensors(file)
    except InputError:  # no file of tensors: whoever else opens it says what is wrong with it
        return False
    try:
        return kind_of(opened.tensors, str(file)) in _DENSE
    finally:
        opened.close()


def demand_program(path: Path, engine: str) -> None:
    """UsageError where a program of ``path`` is asked for and it is a dense tracker."""
    if is_dense(path):
        demand_float(path, engine)


def demand_engine(path: Path, engine: str) -> None:
    """UsageError where the tracker of ``path`` and an engine do not go together."""
    if engine not in FLOATS:
        demand_program(path, f"the {engine} engine")
    elif engine != FLOAT and not is_dense(path):
        raise UsageError(f"{path}: is a spiking tracker; its integers are an engine's: choose sim instead of {engine}")


def demand_float(path: Path, engine: str) -> None:
    """UsageError where a dense tracker is asked to run on anything else."""
    if engine not in FLOATS:
        raise UsageError(
            f"{path}: is a dense tracker without an integer program, so there is nothing for {engine}; "
            f"track, evaluate (@{FLOAT}, @{BF16}, @{INT8}), map, inspect, audit and an export to cpu take it"
        )


def find_device(asked: str, engine: str = FLOAT) -> str:
    """``cpu`` or ``cuda``: what was asked for, or with ``auto`` a GPU where there is one that computes ``engine``.
    EngineError where there is no GPU, UsageError where it does not compute ``engine``."""
    if asked == CPU or (asked == AUTO and engine == INT8):
        return CPU
    if engine == INT8:
        raise UsageError(f"--device {asked}: int8 layers run on a processor; leave it out, or say {AUTO}")
    import torch

    if torch.cuda.is_available():
        return CUDA
    if asked == AUTO:
        return CPU
    raise EngineError(
        f"--device {asked}: PyTorch finds no GPU here; leave it out, or say {AUTO} to take one if there is"
    )


def open_float(path: Path, engine: str = FLOAT, exact: bool = False, device: str = CPU) -> Opened:
    """The tracker of a checkpoint in floating point, or with int8 linear layers; ``exact``: in float64 where it is
    SpikeTrack's, whose integers are compared with it; ``device``: of :func:`find_device`. InputError says what is wrong
    with the files."""
    if path.suffix == STEP:
        network = onnx_network(path)
        counts = {layer.name: layer.counts for layer in dense_layers(network.config)}
        return Opened(network, network.config, counts)
    if is_dense(path):
        return _open_dense(path, engine, device)
    import torch

    from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
    from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork

    demand_engine(path, engine)
    model, config = load_checkpoint(path)
    dtype = torch.float64 if exact else next(model.parameters()).dtype
    return Opened(TorchNetwork(model, config, dtype, device), config, None)


def check(path: Path, engine: str) -> None:
    """What :func:`open_float` would raise, without preparing anything to run."""
    if is_dense(path):
        demand_float(path, engine)
        load_dense(path)
    else:
        open_float(path, engine)


def load_dense(path: Path) -> SpmTrack:
    """The network of a dense tracker's checkpoint, float32."""
    from spiketrack_deploy.trackers.spmtrack.checkpoint import load_spmtrack, with_backbone

    return load_spmtrack(with_backbone(model_files(path)))


def _open_dense(path: Path, engine: str, device: str) -> Opened:
    demand_float(path, engine)
    model = open_dense(path)
    counts = {layer.name: layer.counts for layer in model.layers}
    return Opened(model.network(engine, device=device), model.model.config, counts)


class DenseModel:
    """A dense tracker's network and what can be made of it; no caller needs to know which one it is."""

    def __init__(self, model: SpmTrack) -> None:
        from spiketrack_deploy.trackers.spmtrack.onnx_export import OPSET

        self.model, self.opset = model, OPSET
        self.layers = dense_layers(model.config)
        self.config: dict[str, Any] = model.config.to_dict()
        self.parameters = {
            "all": sum(value.numel() for value in model.parameters()),
            "trained": sum(value.numel() for value in model.trained().values()),
            "tensors": len(model.state_dict()),
        }

    @property
    def digest(self) -> str:
        """SHA-256 over the configuration and every tensor: which network it is."""
        sha = hashlib.sha256(canonical_json(self.config))
        for name, value in self.model.state_dict().items():
            sha.update(f"{name} {array_digest(value.numpy())} ".encode())
        return sha.hexdigest()

    def network(self, engine: str = FLOAT, literal: bool = False, device: str = CPU) -> Any:
        """Behind a loop: float32 for speed, with products in bfloat16, with int8 linear layers, or ``literal`` as
        published."""
        from spiketrack_deploy.trackers.spmtrack.fast import FastNetwork, bf16_product, float_product
        from spiketrack_deploy.trackers.spmtrack.int8 import Ranges
        from spiketrack_deploy.trackers.spmtrack.torch_network import SpmNetwork

        if literal:
            import torch

            return SpmNetwork(self.model, torch.float32)
        if engine != INT8:
            return FastNetwork(self.model, bf16_product if engine == BF16 else float_product, device)
        ranges = Ranges()
        calibrate(FastNetwork(self.model, ranges.observe))
        return FastNetwork(self.model, ranges.product)

    def export_onnx(self, path: Path) -> None:
        """The whole step as an ONNX model."""
        from spiketrack_deploy.trackers.spmtrack.onnx_export import export_onnx

        export_onnx(self.model, path)

    @contextmanager
    def watching_experts(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Gives a function that says, of the literal network's frames in the block, how each layer's experts were used:
        mean weight ``share``, mean ``entropy`` in nats (ln of their number: not selective at all), and ``first``, the
        share of tokens that weigh each most."""
        from spiketrack_deploy.trackers.spmtrack.counts import usage, watch_experts

        with watch_experts(self.model) as kept:
            yield lambda: [asdict(one) for one in usage(kept)]


def open_dense(path: Path) -> DenseModel:
    """The dense tracker of a checkpoint; InputError says what is wrong with its files."""
    return DenseModel(load_dense(path))


def onnx_network(path: Path, threads: int = 1) -> Any:
    """An exported dense tracker in ONNX Runtime, behind a loop."""
    from spiketrack_deploy.trackers.spmtrack.onnx_network import OnnxNetwork

    return OnnxNetwork(path, threads)


def calibrate(network: Any) -> None:
    """Follow the bundled clip, as an export calibrates by default: never what is evaluated."""
    from spiketrack_deploy.tracking.loop import tracker_over
    from spiketrack_deploy.tracking.video import open_frames

    clip, tracker = find_frames(None, None, None), tracker_over(network)
    for index, frame in enumerate(open_frames(clip.path, CALIBRATION_FRAMES)):
        if index:
            tracker.track(frame)
        else:
            tracker.init(frame, clip.init)


def frame_layers(path: Path, checked: bool = True) -> tuple[DenseLayer, ...]:
    """Layers of one frame of a dense tracker; none for a spiking one, whose program tells them. ``checked``: every
    tensor of its files is looked at, too."""
    if path.suffix == STEP:
        return dense_layers(onnx_network(path).config)
    if not is_dense(path):
        return ()
    if checked:
        return dense_layers(load_dense(path).config)
    from spiketrack_deploy.trackers.spmtrack.checkpoint import stated_config

    return dense_layers(stated_config(model_files(path)[0]))


def dense_layers(config: Any) -> tuple[DenseLayer, ...]:
    """Layers of one frame, counted on the module of a dense tracker's configuration."""
    from spiketrack_deploy.trackers.spmtrack import counts

    return counts.frame_layers(config)


def set_threads(threads: int) -> None:
    """Threads of PyTorch in this process, which is a worker's own."""
    import torch

    torch.set_num_threads(threads)
