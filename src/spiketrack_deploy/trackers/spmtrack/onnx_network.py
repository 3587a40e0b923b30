"""An exported SPMTrack behind the loop's interface, in stock ONNX Runtime.

This module decides how crops become the model's inputs. It must not know boxes in frames, and it needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.inputs.untrusted import parse_json
from spiketrack_deploy.trackers.spmtrack.config import SpmConfig
from spiketrack_deploy.tracking.aligned_crop import Floats, Pixels
from spiketrack_deploy.tracking.reference_loop import BoxMaps, ReferenceTracker

CONFIG_TEXT = "spiketrack.config"


class OnnxNetwork:
    """``path``: a ``model.onnx`` of an export; its configuration is in it. EngineError: no ONNX Runtime here."""

    loop: ClassVar = ReferenceTracker

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError("the onnx engine needs onnxruntime: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised, and said once
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has a dozen kinds of its own
            raise InputError(f"{path}: ONNX Runtime cannot read it ({str(error)[:200]}); export again") from error
        text = self._session.get_modelmeta().custom_metadata_map.get(CONFIG_TEXT)
        if text is None:
            raise InputError(f"{path}: holds no configuration of a tracker; export again")
        self.config = SpmConfig.from_dict(parse_json(text, str(path)).table())
        self.shapes = {one.name: tuple(one.shape) for one in self._session.get_inputs()}
        self.given: dict[str, Any] = {}
        """Inputs of the last step."""

    def start(self) -> Any:
        """A state of zeros."""
        return np.zeros((1, self.config.dim), dtype=np.float32)

    def reference(self, crop: Floats, cells: Pixels) -> Any:
        """A template's crop ``[3,S,S]`` and mask ``[cells,1]``."""
        grid = self.config.template_grid
        mask = np.zeros((grid, grid), dtype=np.float32)
        mask[cells[1] : cells[3], cells[0] : cells[2]] = 1
        return planar(crop), mask.reshape(-1, 1)

    def search(self, crop: Floats, references: Sequence[Any], state: Any) -> BoxMaps:
        """One tracked frame."""
        return self.step({
            "templates": np.stack([one[0] for one in references]),
            "foreground": np.stack([one[1] for one in references]),
            "search": planar(crop)[None],
            "state": state,
        })  # fmt: skip

    def step(self, given: dict[str, Any]) -> BoxMaps:
        """Maps of the model's inputs, float32 of the :attr:`shapes`."""
        self.given = given
        score, boxes, after = self._session.run(["score", "boxes", "state_out"], given)
        return BoxMaps(score.astype(np.float64), boxes.astype(np.float64), after)


def planar(crop: Floats) -> Any:
    """float32 ``[3,S,S]``."""
    return np.ascontiguousarray(crop.transpose(2, 0, 1), dtype=np.float32)
