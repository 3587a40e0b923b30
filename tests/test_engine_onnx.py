"""The exported ONNX file: standard operators, the same bytes twice, stock ONNX Runtime gives the same integers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.engines.onnx_export import IR_VERSION, OPSET, TEXT_HASH, TEXT_UNITS, export_onnx
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.store import content_hash

from _programs import random_inputs, random_program  # isort: skip

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("phase", ["search", "template"])
@pytest.mark.parametrize("steps", [1, 3])
def test_stock_runtime_executes_the_file_to_the_same_integers(tmp_path: Path, phase: str, steps: int) -> None:
    program = random_program(1, steps)
    path = tmp_path / "model.onnx"
    export_onnx(program, path, phase)
    inputs = random_inputs(program, 1)[phase]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, inputs), strict=True))
    expected = run_phase(program, phase, inputs).outputs
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.int32 and np.array_equal(found[name], value), name


def test_file_is_standard_and_says_where_it_comes_from(tmp_path: Path) -> None:
    program = random_program(1)
    path = tmp_path / "model.onnx"
    export_onnx(program, path, "search")
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    assert model.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}, "standard operators only"
    text = {item.key: item.value for item in model.metadata_props}
    assert text[TEXT_HASH] == content_hash(program)
    phase = program.phases["search"]
    units = {name: program.real_unit(phase.spec(op)).tolist() for name, op in phase.outputs.items()}
    assert json.loads(text[TEXT_UNITS]) == units


def test_weights_are_stored_as_int8(tmp_path: Path) -> None:
    program = random_program(1)
    path = tmp_path / "model.onnx"
    export_onnx(program, path, "search")
    stored = {item.name: item for item in onnx.load(str(path)).graph.initializer}
    for op in program.phases["search"].ops:
        if "weight" in op.arrays:
            weight = program.arrays[op.arrays["weight"]]
            for t in range(len(weight)):
                found = onnx.numpy_helper.to_array(stored[f"{op.arrays['weight']}.{t}"])
                assert found.dtype == np.int8 and np.array_equal(found, weight[t]), op.name


def test_same_program_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for path, seed in zip(files, (1, 1, 4), strict=True):
        export_onnx(random_program(seed), path, "search")
    first, again, other = (path.read_bytes() for path in files)
    assert first == again and first != other


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    program = random_program(1)
    with pytest.raises(InputError, match="no sideways phase; it has template, search"):
        export_onnx(program, tmp_path / "x.onnx", "sideways")
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.raises(InputError, match="cannot be written"):
        export_onnx(program, tmp_path / "file" / "x.onnx", "search")
