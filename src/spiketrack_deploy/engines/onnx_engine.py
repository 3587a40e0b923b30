"""The exported ONNX models run by ONNX Runtime: what a portable program computes, for the parity harness.

This module decides how a model is run and read back; it must not know how operations are written in ONNX. Counts are
made from the values that the runtime returns, by the reference rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spiketrack_deploy.engines.base import BaseEngine
from spiketrack_deploy.engines.onnx_export import build_model, output_name
from spiketrack_deploy.engines.proof import Proof
from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.run import PhaseResult, Watch
from spiketrack_deploy.program.types import AnyArray, IntArray, Phase, Program

_QUIET = 3
"""ONNX Runtime's log level for errors."""


class OnnxEngine(BaseEngine):
    """Runs a program's phases as ONNX models on ONNX Runtime's CPU provider.

    ``threads``: intra-operator threads, ``None`` leaves the runtime's choice. It can be watched; it cannot take
    replaced values. EngineError: onnx or onnxruntime is missing, or the runtime refuses a model; VerificationError: the
    range proof fails, so its float32 operators would round.
    """

    name = "onnx"
    can_replace = False

    def __init__(self, program: Program, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"onnx engine: threads must be 1 or more, is {threads}")
        self._runtime = _runtime()
        super().__init__(program)
        self.threads, self._proof = threads, Proof(program)
        self._sessions: dict[tuple[str, bool], Any] = {}

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """See :class:`~spiketrack_deploy.engines.base.Engine`. Counting or watching runs the model with all outputs."""
        spec = self.program.phases[phase]
        given = self._proof.inputs(spec, inputs)
        everything = count or watch is not None
        session = self._session(phase, everything)
        feed = {
            name: np.ascontiguousarray(a, dtype=np.uint8 if spec.inputs[name].kind == "image" else np.int32)
            for name, a in given.items()
        }
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, feed), strict=True))
        outputs = {public: found[output_name(spec, public)].astype(np.int64) for public in spec.outputs}
        if not everything:
            return PhaseResult(outputs, {})
        values: dict[str, IntArray] = {name: a.astype(np.int64) for name, a in given.items()}
        values.update({op.name: found[f"value:{op.name}"].astype(np.int64) for op in spec.ops})
        if watch is not None:
            self._show(spec, values, watch)
        return PhaseResult(outputs, self._counts(spec, values) if count else {})

    def _show(self, phase: Phase, values: Mapping[str, IntArray], watch: Watch) -> None:
        for op in phase.ops:
            if watch(op, values[op.name]) is not None:
                raise EngineError("the onnx engine cannot replace a value; force values on the reference or sim engine")

    def _counts(self, phase: Phase, values: Mapping[str, IntArray]) -> dict[str, OpCounts]:
        return {
            op.name: OP_TABLE[op.kind].count(
                op, self.program.op_arrays(op), [values[i] for i in op.inputs], values[op.name]
            )
            for op in phase.ops
        }

    def _session(self, phase: str, everything: bool) -> Any:
        key = (phase, everything)
        if key not in self._sessions:
            options = self._runtime.SessionOptions()
            options.log_severity_level = _QUIET
            if self.threads is not None:
                options.intra_op_num_threads = self.threads
            data = build_model(self.program, phase, everything).SerializeToString()
            try:
                self._sessions[key] = self._runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            except Exception as error:
                raise EngineError(f"ONNX Runtime refuses the {phase} phase ({error})") from error
        return self._sessions[key]

    def close(self) -> None:
        """Release the sessions; the next run loads them again."""
        self._sessions.clear()


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"the onnx engine needs ONNX Runtime ({error}); install onnxruntime") from None
    return onnxruntime
