"""Bundles that somebody made by hand and signed: commands end with one sentence, soon, and none certifies them."""

from __future__ import annotations

import copy
import json
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _hostile import ARRAYS, EXPECTED, PROGRAM, VECTORS, change, ended, npy, overwrite, refused, repack, sign

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.cuts import read_cuts
from spiketrack_deploy.nir_graph.graph import Graph

MANIFEST, ENERGY, CUTS = "MANIFEST.json", "energy.json", "model.cuts.json"
COMMANDS = {
    MANIFEST: ("verify", "bundle"),
    PROGRAM: ("verify", "bundle"),
    EXPECTED: ("verify", "bundle"),
    ENERGY: ("energy", "bundle", "--profile", "loihi2"),
}
HUGE = 10**400
NO_JSON = {
    "depth": ("[" * 100_000, "nested too deeply"),
    "depth 40": ('{"a":' * 40 + "1" + "}" * 40, "nested too deeply"),
    "digits": (f'{{"schema": {"9" * 6000}}}', "6000 digits"),
    "overflow": ('{"schema": 1e999}', "1e999"),
    "nan": ('{"schema": NaN}', "NaN"),
    "surrogate": ('{"schema": "\\ud800"}', "surrogates not allowed"),
    "empty": ("", "JSON"),
    "list": ("[]", "must be an object, is a list"),
}


def put(bundle: Path, name: str, content: str) -> None:
    if name == MANIFEST:
        (bundle / name).write_text(content, encoding="utf-8")
    else:
        overwrite(bundle, name, content)


@pytest.mark.parametrize("name", sorted(COMMANDS))
@pytest.mark.parametrize("case", NO_JSON)
def test_files_that_are_no_sane_json(bundle: Path, name: str, case: str) -> None:
    content, word = NO_JSON[case]
    put(bundle, name, content)
    refused(bundle.parent, (name, word), *COMMANDS[name])


@pytest.mark.parametrize("case", NO_JSON)
def test_cuts_that_are_no_sane_json(tmp_path: Path, case: str) -> None:
    content, word = NO_JSON[case]
    (tmp_path / CUTS).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=word):
        read_cuts(tmp_path / CUTS, Graph({}, [], {}))


def search(data: Any) -> Any:
    return data["phases"]["search"]


def tracker(data: Any) -> Any:
    return data["meta"]["workload"]["tracker"]


def op(data: Any, kind: str) -> Any:
    return next(o for o in search(data)["ops"] if o["kind"] == kind)


PROGRAMS: dict[str, tuple[Callable[[Any], object], tuple[str, ...]]] = {
    "block that is a list": (lambda d: op(d, "conv").update(block=["x"]), ("block must be printable text",)),
    "key that is an object": (lambda d: op(d, "conv")["arrays"].update(weight={}), ("weight must be", "is an object")),
    "name that is a list": (lambda d: op(d, "conv").update(name=[]), ("name must be printable text",)),
    "name that moves the cursor": (lambda d: op(d, "conv").update(name="\x1b[2J"), ("name must be printable",)),
    "attribute 1.5": (lambda d: op(d, "conv")["attrs"].update(stride_h=1.5), ("stride_h must be an integer", "1.5")),
    "attribute true": (lambda d: op(d, "conv")["attrs"].update(stride_h=True), ("stride_h", "is true or false")),
    "padding of 30,000": (lambda d: op(d, "conv")["attrs"].update(padding_h=30_000, padding_w=30_000), ("padding_h",)),
    "value of 2^40 elements": (lambda d: op(d, "add")["value"].update(shape=[1, 2**20, 2**10, 2**10]), ("elements",)),
    "scale of 1e300": (lambda d: op(d, "add")["value"].update(scale=1e300), ("scale",)),
    "shape of 10^400": (lambda d: op(d, "add")["value"].update(shape=[HUGE, 1, 1, 1]), ("digits",)),
    "digest that is null": (lambda d: d["arrays"].update({next(iter(d["arrays"])): None}), ("null",)),
    "20,000 operations": (lambda d: search(d).update(ops=[{}] * 20_000), ("20,000 entries",)),
    "meta as a list": (lambda d: d.update(meta=[]), ("meta must be an object",)),
    "empty meta": (lambda d: d.update(meta={}), ("workload is missing in meta",)),
    "remark as a list": (lambda d: d["meta"].update(remark=["x"]), ("remark must be printable text",)),
    "half a surrogate pair": (lambda d: d["meta"].update(remark="\ud800"), ("surrogates",)),
    "name without letters": (lambda d: tracker(d).update(name="\u200b"), ("name must be printable",)),
    "gain of 10^400": (lambda d: tracker(d).update(attention_gain=HUGE), ("401 digits",)),
    "no workload": (lambda d: d["meta"].pop("workload"), ("workload is missing in meta",)),
    "workload as text": (lambda d: d["meta"].update(workload="x"), ("workload must be an object",)),
    "another front end": (lambda d: d["meta"]["workload"].update(front_end="x"), ("'x'", "for no tracker")),
    "shown as smells": (lambda d: d["meta"]["workload"].update(shown="smells"), ("boxes or rasters",)),
    "an input that is a list": (lambda d: d["meta"]["workload"]["inputs"].update(image=[]), ("must be printable",)),
    "no outputs": (lambda d: search(d).update(outputs={}), ("no outputs",)),
    "no ctr": (lambda d: search(d)["outputs"].pop("ctr"), ("its ctr is None",)),
    "ctr that is the image": (lambda d: search(d)["outputs"].update(ctr="image"), ("nothing computes",)),
    "ctr that is a stream": (lambda d: search(d)["outputs"].update(ctr=op(d, "conv")["name"]), ("its ctr is",)),
    "ctr twice": (lambda d: search(d)["outputs"].update(size=search(d)["outputs"]["offset"]), ("one of two names",)),
    "no search": (lambda d: d["phases"].pop("search"), ("memory.0",)),
    "no template": (lambda d: d["phases"].pop("template"), ("memory.0",)),
    "no phases": (lambda d: d.update(phases={}), ("memory.0",)),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_signed_programs_that_no_tracker_can_run(bundle: Path, case: str) -> None:
    edit, words = PROGRAMS[case]
    change(bundle, PROGRAM, edit)
    start = time.perf_counter()
    for command in (("verify", "bundle"), ("inspect", "bundle"), ("track", "bundle", "-o", "out")):
        code, sentence = ended(bundle.parent, *command)
        assert (code, sentence.count("\n")) == (3, 0), f"{command[0]} ended with {code}: {sentence}"
        assert all(word in sentence for word in words), sentence
    assert time.perf_counter() - start < 10
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


EXPECTATIONS: dict[str, tuple[Callable[[Any], object], int, str]] = {
    "no runs": (lambda d: d.update(runs=[]), 3, "no recorded run"),
    "search alone unanswered": (lambda d: d.update(runs=d["runs"][:1]), 5, "no known answers of phase search"),
    "a thousand runs": (lambda d: d.update(runs=d["runs"][:1] * 1000), 3, "1,000 entries"),
    "another phase": (lambda d: d["runs"][0].update(phase="update"), 3, "must be a phase of the program"),
    "input that is not recorded": (lambda d: d["runs"][0]["inputs"].pop("image"), 3, "image is missing"),
    "digest that is a number": (lambda d: d["runs"][0]["ops"].update({next(iter(d["runs"][0]["ops"])): 1}), 3, "text"),
    "counts that are a list": (lambda d: d["runs"][0].update(counts=[]), 3, "counts must be an object"),
    "runs that are text": (lambda d: d.update(runs="abc"), 3, "runs must be a list"),
}


@pytest.mark.parametrize("case", EXPECTATIONS)
def test_signed_answers(bundle: Path, case: str) -> None:
    edit, code, word = EXPECTATIONS[case]
    change(bundle, EXPECTED, edit)
    refused(bundle.parent, (EXPECTED, word), "verify", "bundle", code=code)


def test_a_difference_says_how_many_integers(bundle: Path) -> None:
    first = json.loads((bundle / PROGRAM).read_text())["phases"]["template"]["ops"][0]
    change(bundle, EXPECTED, lambda d: d["runs"][0]["ops"].update({first["name"]: "0" * 64}))
    words = (first["name"], f"so far {np.prod(first['value']['shape']):,} of ")
    refused(bundle.parent, words, "verify", "bundle", code=5)


ENERGIES: dict[str, tuple[Callable[[Any], object], str]] = {
    "no runs": (lambda d: d["phases"]["search"].update(runs=0), "phases.search.runs must be an integer of 1"),
    "runs of 10^400": (lambda d: d["phases"]["search"].update(runs=HUGE), "401 digits"),
    "half a run": (lambda d: d["phases"]["search"].update(runs=1.5), "phases.search.runs must be an integer"),
    "runs true": (lambda d: d["phases"]["template"].update(runs=True), "phases.template.runs must be an integer"),
    "less than never": (lambda d: d["phases"]["template"].update(per_result=-1), "-1.0 times per result"),
    "often is text": (lambda d: d["phases"]["template"].update(per_result="x"), "per_result must be a number"),
    "how often is missing": (lambda d: d["phases"]["search"].pop("per_result"), "per_result is missing"),
    "nothing for a result": (lambda d: d["phases"]["search"].update(per_result=0), "no phase that a result needs"),
    "layer without name": (lambda d: d["layers"][0].update(name=["x"]), "layers[0].name must be printable text"),
    "block that is an object": (lambda d: d["layers"][0].update(block={}), "layers[0].block must be"),
    "count of 10^400": (lambda d: d["layers"][0]["counts_total"].update(synops=HUGE), "401 digits"),
    "count below 0": (lambda d: d["layers"][0]["counts_total"].update(synops=-1), "synops must be an integer of 0"),
    "count of nothing known": (lambda d: d["layers"][0]["counts_total"].update(lunch=1), "lunch"),
    "layers that are text": (lambda d: d.update(layers="abc"), "layers must be a list"),
    "no layers": (lambda d: d.update(layers=[]), "its layers are not those"),
    "a phase without layers": (
        lambda d: d.update(layers=[x for x in d["layers"] if x["phase"] == "search"]),
        "its layers are not those",
    ),
    "profile without title": (lambda d: d["profile"].pop("title"), "title"),
    "profile that is a list": (lambda d: d.update(profile=[]), "profile must be an object"),
    "earlier schema": (lambda d: d.update(schema="spiketrack-energy/1"), "schema 'spiketrack-energy/1' is not"),
}


@pytest.mark.parametrize("case", ENERGIES)
def test_signed_energies(bundle: Path, case: str) -> None:
    edit, word = ENERGIES[case]
    change(bundle, ENERGY, edit)
    refused(bundle.parent, (word,), "energy", "bundle")


def test_every_command_that_reads_counts_says_so_of_an_earlier_schema(bundle: Path) -> None:
    change(bundle, ENERGY, lambda d: d.update(schema="spiketrack-energy/1"))
    for command in (("energy", "bundle"), ("map", "bundle"), ("track", "bundle", "-o", "out")):
        refused(bundle.parent, ("schema 'spiketrack-energy/1' is not", "export"), *command)


def test_a_thousand_million_runs_are_priced_at_once(bundle: Path) -> None:
    def many(data: Any) -> None:
        for phase in data["phases"].values():
            phase.update(runs=10**9)

    change(bundle, ENERGY, many)
    start = time.perf_counter()
    assert ended(bundle.parent, "energy", "bundle", "--profile", "loihi2") == (0, "")
    assert ended(bundle.parent, "map", "bundle", "--quiet") == (0, "")
    assert time.perf_counter() - start < 10


def test_a_bundle_does_not_choose_files_to_read(bundle: Path) -> None:
    """Prices are those in the bundle; its profile's name names no file."""
    change(bundle, ENERGY, lambda d: d["profile"].update(name="/dev/zero"))
    refused(bundle.parent, ("name", "pattern"), "track", "bundle", "--max-frames", 2, "-o", "out", "--quiet")


HEADERS = {
    "brackets": "(" * 200,
    "signs": "-" * 6000 + "1",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "text of no length": "{'descr': '|S0', 'fortran_order': False, 'shape': (1,), }",
    "10^30 elements": f"{{'descr': '|i1', 'fortran_order': False, 'shape': ({10**30},), }}",
    "four terabytes": "{'descr': '|i1', 'fortran_order': False, 'shape': (4000000000000,), }",
    "no shape": "{'descr': '|i1'}",
    "code": "__import__('os').abort()",
}


@pytest.mark.parametrize("case", HEADERS)
def test_array_headers(bundle: Path, case: str) -> None:
    key = next(iter(json.loads((bundle / PROGRAM).read_text())["arrays"]))
    repack(bundle, ARRAYS, lambda m: m.update({f"{key}.npy": npy(HEADERS[case], b"\0" * 8)}))
    refused(bundle.parent, ("arrays.npz", "damaged"), "verify", "bundle", code=5)


@pytest.mark.parametrize("case", HEADERS)
def test_headers_of_recorded_inputs(bundle: Path, case: str) -> None:
    repack(bundle, VECTORS, lambda m: m.update({"0.image.npy": npy(HEADERS[case], b"\0" * 8)}))
    refused(bundle.parent, ("vectors.npz", "0.image", "damaged"), "verify", "bundle")


def bomb(bundle: Path, name: str, member: str) -> None:
    """64 MB in 60 kB."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**26},), }}"
    repack(bundle, name, lambda m: m.update({f"{member}.npy": npy(header, bytes(2**26))}), zipfile.ZIP_DEFLATED)


def test_arrays_that_unpack(bundle: Path) -> None:
    bomb(bundle, ARRAYS, next(iter(json.loads((bundle / PROGRAM).read_text())["arrays"])))
    refused(bundle.parent, ("arrays.npz", "packed in another way"), "verify", "bundle")


def test_inputs_that_unpack_to_more_than_the_program_reads(bundle: Path) -> None:
    bomb(bundle, VECTORS, "0.image")
    refused(bundle.parent, ("vectors.npz", "not what belongs there"), "verify", "bundle")


def directory(data: bytearray, field: int, value: int) -> None:
    """Change a 16-bit field of the first entry of the archive's list of members."""
    place = data.index(b"PK\x01\x02")
    data[place + field : place + field + 2] = value.to_bytes(2, "little")


DAMAGES: dict[str, Callable[[bytearray], object]] = {
    "method 99": lambda d: directory(d, 10, 99),
    "encrypted": lambda d: directory(d, 8, 1),
    "needs version 99": lambda d: directory(d, 6, 99),
    "no end": lambda d: d.__delitem__(slice(len(d) - 22, None)),
    "half": lambda d: d.__delitem__(slice(len(d) // 2, None)),
    "endless list": lambda d: d.__setitem__(slice(len(d) - 10, len(d) - 6), b"\xfe\xff\xff\xff"),
    "nothing": lambda d: d.clear(),
    "body flipped": lambda d: d.__setitem__(slice(200, 260), bytes(b ^ 0xFF for b in d[200:260])),
}


@pytest.mark.parametrize("name", [ARRAYS, VECTORS])
@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_archives(bundle: Path, name: str, case: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    DAMAGES[case](data)
    overwrite(bundle, name, bytes(data))
    code, sentence = ended(bundle.parent, "verify", "bundle")
    assert code in (3, 5) and sentence.count("\n") == 0 and name in sentence, (code, sentence)


MANIFESTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "files as a list": (lambda d: d.update(files=[]), "files must be an object"),
    "name with a zero byte": (lambda d: d["files"].update({"a\0b": d["files"]["energy.json"]}), "printable text"),
    "name of 100,000 letters": (lambda d: d["files"].update({"a" * 10**5: {}}), "printable text"),
    "name above": (lambda d: d["files"].update({"../x": d["files"]["energy.json"]}), "outside the bundle"),
    "hidden name": (lambda d: d["files"].update({".x": d["files"]["energy.json"]}), "outside the bundle"),
    "digest as a number": (lambda d: d["files"]["energy.json"].update(sha256=1), "must be a SHA-256"),
    "hash as a list": (lambda d: d.update(content_hash=[]), "must be a SHA-256"),
    "earlier schema": (lambda d: d.update(schema="spiketrack-bundle/0"), "export the bundle again with this version"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(bundle: Path, case: str) -> None:
    edit, word = MANIFESTS[case]
    data = json.loads((bundle / MANIFEST).read_text())
    edit(data)
    (bundle / MANIFEST).write_text(json.dumps(data), encoding="utf-8")
    refused(bundle.parent, (MANIFEST, word), "verify", "bundle")


NASTY = (
    None, True, 1.5, -1, 0, 2**62, HUGE, 1e308, "x", "\ud800", "\x1b[2J", "", [], {}, [[]], {"a": 1}, "a" * 10**5,
    "../../etc/passwd",
)  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if way:
        yield way
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*way, key))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_drawn_changes_never_end_as_a_bug(bundle: Path, name: str) -> None:
    """Twelve of some 4,000 places of every file, with a value that does not belong there, or without any."""
    rng = random.Random(name)
    whole = json.loads((bundle / name).read_text())
    for way in rng.sample(list(places(whole)), 12):
        data = copy.deepcopy(whole)
        holder = data
        for key in way[:-1]:
            holder = holder[key]
        value = rng.choice(NASTY)
        if isinstance(holder, dict) and rng.random() < 0.2:
            del holder[way[-1]]
        else:
            holder[way[-1]] = value
        (bundle / name).write_text(json.dumps(data), encoding="utf-8")
        if name != MANIFEST:
            sign(bundle)
        code, sentence = ended(bundle.parent, *COMMANDS[name])
        assert code in (0, 3, 5) and "\n" not in sentence, f"{way} = {value!r:.40} ended with {code}: {sentence}"
