"""Program files: the round trip, one flipped bit, hostile folders."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from spiketrack_deploy.errors import InputError, SpiketrackError, VerificationError
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.store import ARRAYS_NAME, JSON_NAME, content_hash, load_program, save_program

from _programs import random_inputs, random_program  # isort: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_program(random_program(0), tmp_path)
    return tmp_path


def edit(folder: Path, change) -> None:
    """Apply ``change`` to the JSON data."""
    path = folder / JSON_NAME
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def rewrite(folder: Path, members: dict[str, bytes]) -> None:
    """Replace members of the archive."""
    path = folder / ARRAYS_NAME
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (kept | members).items():
            archive.writestr(name, data)


def test_round_trip(tmp_path: Path) -> None:
    program = random_program(1)
    digest = save_program(program, tmp_path)
    loaded = load_program(tmp_path)
    assert digest == content_hash(program) == content_hash(loaded)
    inputs = random_inputs(program, 1)
    for name in program.phases:
        before, after = run_phase(program, name, inputs[name]), run_phase(loaded, name, inputs[name])
        assert before.counts == after.counts
        assert all(np.array_equal(before.outputs[k], after.outputs[k]) for k in before.outputs)


def test_saving_twice_gives_the_same_hash(tmp_path: Path) -> None:
    assert save_program(random_program(2), tmp_path / "a") == save_program(random_program(2), tmp_path / "b")
    assert content_hash(random_program(2)) != content_hash(random_program(3))


@pytest.mark.parametrize("layer", ["encoder.block3.0.mlp.fc1_conv", "decoder.conv1_ctr"])
def test_one_flipped_bit_names_the_layer(folder: Path, layer: str) -> None:
    key = f"{layer}.weight"
    with np.load(folder / ARRAYS_NAME) as stored:
        arrays = {name: stored[name] for name in stored.files}
    flat = arrays[key].reshape(-1)
    flat[len(flat) // 2] ^= 1
    np.savez(folder / ARRAYS_NAME, **arrays)
    with pytest.raises(VerificationError, match=layer.replace(".", r"\.")):
        load_program(folder)


@pytest.mark.parametrize("name", [JSON_NAME, ARRAYS_NAME])
@pytest.mark.parametrize(
    "content", [None, b"", b"no program", b"PK\x03\x04broken", b"[1, 2]", b"null", b'{"schema": 1}']
)
def test_missing_and_foreign_files(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(SpiketrackError, match=name.replace(".", r"\.")):
        load_program(folder)


def test_truncated_archive(folder: Path) -> None:
    path = folder / ARRAYS_NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SpiketrackError):
        load_program(folder)


class Bomb:
    """Would make a file if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_objects_are_not_executed(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    rewrite(folder, {"decoder.conv1_ctr.weight.npy": header + pickle.dumps(np.array([Bomb(mark)], dtype=object))})
    with pytest.raises(SpiketrackError, match="decoder"):
        load_program(folder)
    assert not mark.exists()


def test_header_that_claims_a_huge_array(folder: Path) -> None:
    shape = "(4000000000000,)"
    text = f"{{'descr': '|i1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"
    rewrite(folder, {"decoder.conv1_ctr.weight.npy": header + b"\x00" * 10})
    with pytest.raises(SpiketrackError, match="decoder"):
        load_program(folder)


def search(data):
    return data["phases"]["search"]


def state(data):
    return next(iter(data["states"].values()))


def first(data, kind: str):
    return next(op for op in search(data)["ops"] if op["kind"] == kind)


CHANGES = {
    "unknown operation": lambda d: first(d, "conv").update(kind="teleport"),
    "reads what comes later": lambda d: first(d, "conv").update(inputs=["decoder.spike"]),
    "reads nothing": lambda d: first(d, "conv").update(inputs=[]),
    "reads itself": lambda d: first(d, "add").update(inputs=[first(d, "add")["name"]] * 2),
    "missing array": lambda d: first(d, "conv")["arrays"].pop("weight"),
    "array of another layer": lambda d: first(d, "conv")["arrays"].update(weight="decoder.conv1_ctr.weight"),
    "array that nobody has": lambda d: first(d, "conv")["arrays"].update(weight="nobody.has.this"),
    "wrong shape": lambda d: first(d, "conv")["value"].update(shape=[1, 2, 3, 4]),
    "shape of two axes": lambda d: first(d, "conv")["value"].update(shape=[1, 2]),
    "negative shape": lambda d: first(d, "add")["value"].update(shape=[-1, 2, 3, 4]),
    "wrong value kind": lambda d: first(d, "conv")["value"].update(kind="spikes"),
    "stride of zero": lambda d: first(d, "conv")["attrs"].update(stride_h=0),
    "negative padding": lambda d: first(d, "conv")["attrs"].update(padding_h=-1),
    "no groups": lambda d: first(d, "conv")["attrs"].update(groups=0),
    "text as stride": lambda d: first(d, "conv")["attrs"].update(stride_h="two"),
    "extra attribute": lambda d: first(d, "conv")["attrs"].update(turbo=1),
    "missing attribute": lambda d: first(d, "conv")["attrs"].pop("groups"),
    "heads that do not divide": lambda d: first(d, "key_value")["attrs"].update(heads=7),
    "no heads": lambda d: first(d, "key_value")["attrs"].update(heads=0),
    "pool of nothing": lambda d: first(d, "avg_pool")["attrs"].update(kernel=0),
    "upsampling by nothing": lambda d: first(d, "upsample")["attrs"].update(factor=0),
    "steps without decay": lambda d: first(d, "ni_lif").update(attrs={"steps": 3}),
    "query of negative shift": lambda d: first(d, "query")["attrs"].update(shift=-1),
    "unit that nobody has": lambda d: first(d, "conv")["value"].update(unit="nobody.has.this"),
    "unit of another length": lambda d: first(d, "conv")["value"].update(unit="decoder.conv1_ctr.weight"),
    "output that nothing computes": lambda d: search(d)["outputs"].update(ctr="nothing"),
    "operation twice": lambda d: search(d)["ops"].append(search(d)["ops"][-1]),
    "phases as a list": lambda d: d.update(phases=[1]),
    "no phases key": lambda d: d.pop("phases"),
    "other schema": lambda d: d.update(schema="spiketrack-program/999"),
    "state that nobody writes": lambda d: d["states"].update(lost=state(d)),
    "state of another shape": lambda d: state(d)["spec"].update(shape=[1, 2, 3, 4]),
    "state that is none": lambda d: d["states"].popitem(),
    "state with content of another shape": lambda d: state(d).update(initial="decoder.conv1_ctr.weight"),
    "accumulators of no width": lambda d: d.update(width=0),
    "accumulators of any width": lambda d: d.update(width=4000),
    "spikes without a level": lambda d: first(d, "ni_lif")["value"].update(top=0),
    "more levels than thresholds": lambda d: first(d, "ni_lif")["value"].update(top=5),
    "streams with a level": lambda d: first(d, "conv")["value"].update(top=4),
    "a phase that runs every 0 results": lambda d: search(d)["cadence"].update(every=0),
    "a cadence in words": lambda d: search(d)["cadence"].update(every="often"),
    "operations as text": lambda d: search(d).update(ops="abc"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_structure_is_refused_in_one_sentence(folder: Path, name: str) -> None:
    edit(folder, CHANGES[name])
    with pytest.raises(InputError):
        load_program(folder)


def test_legal_programs_are_legal() -> None:
    for seed in range(4):
        for steps in (1, 2, 3):
            check_program(random_program(seed, steps))
