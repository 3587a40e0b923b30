"""An operation is one row and one entry per table: nothing lacks one, and adding one touches nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spiketrack_deploy.engines import onnx_export, sim_counts, sim_kernels
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping import populations
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.fit import map_program
from spiketrack_deploy.program.bounds import prove_ranges
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.row import OpKind
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.store import content_hash, load_program, save_program
from spiketrack_deploy.program.types import Op, Phase, Program, TensorSpec

from _programs import conv_attrs, round_thresholds  # isort: skip

NEW = "negate"


def tables() -> Iterator[tuple[str, tuple[MutableMapping[str, Any], ...]]]:
    """Everything that is keyed by the kind of an operation; of two tables in one entry either may hold a kind."""
    yield "sim kernels", (sim_kernels.KERNELS,)
    yield "sim counts", (sim_counts.COUNTERS,)
    yield "ONNX", (onnx_export.WRITERS,)
    yield "mapping", (populations.VALUES, populations.STREAMS)
    for name, family in FAMILIES.items():
        assert isinstance(family.verdicts, MutableMapping)
        yield f"verdicts of {name}", (family.verdicts,)


def lacking(rows: Mapping[str, OpKind]) -> list[str]:
    """What lacks which operation, or knows one that does not exist."""
    found = []
    for where, parts in tables():
        kinds = [kind for part in parts for kind in part]
        assert len(kinds) == len(set(kinds)), f"{where} has a kind twice"
        found += [f"{where} lacks {kind}" for kind in rows if kind not in kinds]
        found += [f"{where} has {kind}, which is no operation" for kind in kinds if kind not in rows]
    return found


def test_no_table_lacks_an_operation() -> None:
    assert not lacking(OP_TABLE)
    for row in OP_TABLE.values():
        assert row.equation and row.text and row.inputs and row.output


ENTRIES: dict[str, Any] = {
    "sim kernels": lambda op, arrays, inputs, out, int8: torch.neg,
    "sim counts": sim_counts.COUNTERS["requantise"],
    "ONNX": lambda g, op, arrays, out: g.node("Neg", *op.inputs, out=out),
    "mapping": populations.STREAMS["requantise"],
    **{f"verdicts of {name}": lambda op, phase, bits: ("native", "a sign") for name in FAMILIES},
}
ROW = OpKind(
    NEW,
    ("stream",),
    "stream",
    "y = -x",
    "a sign",
    shape=lambda op, arrays, specs: specs[0].shape,
    run=lambda op, arrays, x: -x[0],
    bound=lambda op, arrays, inputs, specs: (-inputs[0][1], -inputs[0][0]),
)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The row and one entry per table: all that an operation needs."""
    monkeypatch.setitem(OP_TABLE, NEW, ROW)
    for where, parts in tables():
        monkeypatch.setitem(parts[-1], NEW, ENTRIES[where])
    return monkeypatch


def network() -> Program:
    """Spikes, a convolution, the new operation, a neuron, and a head on odd sizes."""
    rng = np.random.default_rng(1)
    bits = np.full(3, 4, np.int8)
    arrays = {
        "unit": bits,
        "w": rng.integers(-9, 9, (1, 3, 2, 3, 3)).astype(np.int8),
        "head": rng.integers(-9, 9, (1, 3, 3, 1, 1)).astype(np.int8),
        "bias": rng.integers(-40, 9, (1, 3)).astype(np.int32),
        "shift": np.zeros((1, 3), np.int8),
        "thresholds": round_thresholds(bits),
    }

    def spikes(channels: int) -> TensorSpec:
        return TensorSpec("spikes", (1, channels, 5, 7), scale=0.25, top=4)

    stream = TensorSpec("stream", (1, 3, 5, 7), "unit")
    weights = {"bias": "bias", "shift": "shift"}
    ops = (
        Op("conv", "conv", ("x",), "block", conv_attrs(padding=1), {"weight": "w", **weights}),
        Op("turned", NEW, ("conv",), "block"),
        Op("fired", "ni_lif", ("turned",), "block", {"steps": 1}, {"thresholds": "thresholds"}),
        Op("out", "head_out", ("fired",), "block", conv_attrs(), {"weight": "head", **weights}),
    )
    logits = TensorSpec("logits", (1, 3, 5, 7), "unit")
    values = {"conv": stream, "turned": stream, "fired": spikes(3), "out": logits}
    return Program({"run": Phase("run", {"x": spikes(2)}, ops, values, {"y": "out"})}, arrays)


def test_an_added_operation_runs_everywhere(added: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Legality, file, proof, reference, sim and ONNX with equal integers and counts, mapping with a verdict."""
    assert not lacking(OP_TABLE)
    program = network()
    check_program(program)
    save_program(program, tmp_path)
    assert content_hash(load_program(tmp_path)) == content_hash(program)
    conv, turned = prove_ranges(program)["run"][:2]
    assert (turned.low, turned.high) == (-conv.high, -conv.low)
    x = np.random.default_rng(2).integers(0, 5, (1, 2, 5, 7)).astype(np.uint8)
    assert run_phase(program, "run", {"x": x}).outputs["y"].any()
    for name in ("sim", "onnx"):
        with make_engine(name, program) as engine:
            result = compare(ReferenceEngine(program), engine, program, [("run", {"x": x})])
        result.demand()
        assert result.differing_counts == 0
    mapping = map_program(program, "run", resolve_target("loihi2"), rounds=1)
    assert [v.verdict for v in mapping.verdicts if v.op == "turned"] == ["native"]


@pytest.mark.parametrize("where", [where for where, _ in tables()])
def test_an_operation_that_one_table_lacks_is_named(added: pytest.MonkeyPatch, where: str) -> None:
    parts = dict(tables())[where]
    added.delitem(parts[-1], NEW)
    assert lacking(OP_TABLE) == [f"{where} lacks {NEW}"]
