"""Runs as a whole: result files, resuming, processes and workers that die, and what the command line says."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from spiketrack_deploy.datasets.sequences import VideoSequence, open_dataset
from spiketrack_deploy.errors import EngineError, InputError, UsageError
from spiketrack_deploy.evaluation import pool, strips
from spiketrack_deploy.evaluation.cost import counts_of
from spiketrack_deploy.evaluation.evaluate import EvaluationRequest, evaluate
from spiketrack_deploy.evaluation.run import Failure, Record, Task, attempt
from spiketrack_deploy.evaluation.store import SCHEMA, RunFolder
from spiketrack_deploy.evaluation.subjects import Subject
from spiketrack_deploy.evaluation.tally import Tally
from spiketrack_deploy.inputs.whole_file import file_digest
from spiketrack_deploy.inputs.whole_folder import whole_folder
from spiketrack_deploy.program.counts import OpCounts

sys.path.append(str(Path(__file__).parent))
from _evaluation import SIDE, boxes, command, dataset, lines, picture, sequence, shell, wait_for
from _lava import requires_lava

SLOW_FRAMES = 90
STATIC = Subject("static", "baseline", "static", "baseline", 1, {})


@pytest.fixture(autouse=True)
def own_signals():
    """The command line replaces signal handlers; the next test gets its own back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def static_run(data: Path, out: Path, **settings: object) -> dict:
    return evaluate(EvaluationRequest(("static",), data, out=out, **settings))  # type: ignore[arg-type]


def slowed(data: Path, name: str) -> Path:
    """Make a sequence so long, and its pictures so large, that a tracker is busy with it for seconds.

    Returns the picture that all its later frames are links to; :func:`hasten` makes it small. Boxes stay what they are.
    """
    folder = sequence(data / name, frames=SLOW_FRAMES)
    large = data.parent / f"{name}.png"
    cv2.imwrite(str(large), np.zeros((2500, 3000, 3), dtype=np.uint8))
    for frame in range(3, SLOW_FRAMES + 1):
        (folder / "img" / f"{frame}.png").unlink()
        (folder / "img" / f"{frame}.png").symlink_to(large)
    return large


def hasten(large: Path) -> None:
    """From the next frame on the sequence is a quick one."""
    small = large.with_suffix(".small.png")
    cv2.imwrite(str(small), np.zeros((48, 64, 3), dtype=np.uint8))
    small.replace(large)


# -- results ---------------------------------------------------------------------------------------------------------


def test_static_box_by_hand(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", ["a"], frames=5)
    found = static_run(data, tmp_path / "out")["trackers"]["static"]
    truth = np.array(boxes(5))
    expected = []
    for x, y, _, _ in truth[1:]:
        common = max(0, SIDE - abs(x - truth[0, 0])) * max(0, SIDE - abs(y - truth[0, 1]))
        expected.append(common / (2 * SIDE * SIDE - common))
    assert found["mean"]["ao"]["mean"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert found["sequences"]["a"]["frames"] == 4
    assert found["mean"]["precision"]["mean"] == 1.0


def test_an_identity_tracker_is_perfect(tmp_path: Path) -> None:
    """A target that never moves makes the static box the identity tracker."""
    folder = sequence(tmp_path / "data" / "a")
    (folder / "groundtruth_rect.txt").write_text(lines([boxes(1)[0]] * 6))
    mean = static_run(tmp_path / "data", tmp_path / "out")["trackers"]["static"]["mean"]
    assert [mean[k]["mean"] for k in ("ao", "precision", "norm_precision", "sr50", "sr75")] == [1.0] * 5
    assert mean["auc"]["mean"] == pytest.approx(20 / 21)


def test_files_of_both_toolkits(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", ["a"])
    (data / "a" / "groundtruth_rect.txt").write_text("3.25,4.75,12.125,11.5\n" * 6)
    static_run(data, tmp_path / "out")
    got = tmp_path / "out" / "got10k" / "static" / "a"
    assert (got / "a_001.txt").read_text() == "3.250,4.750,12.125,11.500\n" * 6
    times = np.loadtxt(got / "a_time.txt")
    assert times.shape == (6,)
    assert (times >= 0).all()
    assert (tmp_path / "out" / "pytracking" / "static" / "a.txt").read_text() == "3\t4\t12\t11\n" * 6
    assert np.loadtxt(tmp_path / "out" / "pytracking" / "static" / "a_time.txt").shape == (6,)
    record = json.loads((tmp_path / "out" / "trackers" / "static" / "sequences" / "a.json").read_text())
    assert record["boxes"] == [[3.25, 4.75, 12.125, 11.5]] * 6, "the record must keep every digit"


def test_pictures_and_table(tmp_path: Path) -> None:
    found = static_run(dataset(tmp_path / "data"), tmp_path / "out")
    assert found["pictures"] == ["success.svg", "success.png", "precision.svg", "precision.png"]
    assert (tmp_path / "out" / "success.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "out" / "precision.svg").read_text()
    head, row = (line.split(",") for line in (tmp_path / "out" / "table.csv").read_text().splitlines())
    assert float(row[head.index("auc")]) == found["trackers"]["static"]["mean"]["auc"]["mean"]


def test_a_server_keeps_the_truth(tmp_path: Path) -> None:
    folder = sequence(tmp_path / "data" / "a", "GOT-10k")
    (folder / "groundtruth.txt").write_text(lines(boxes(1)))
    found = static_run(tmp_path / "data", tmp_path / "out")
    tracker = found["trackers"]["static"]
    assert (tracker["unscored"], tracker["mean"], found["pictures"], found["exit_code"]) == (["a"], None, [], 0)
    assert len((tmp_path / "out" / "got10k" / "static" / "a" / "a_001.txt").read_text().splitlines()) == 6


def test_attributes_are_means_over_their_sequences(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    (data / "attributes.json").write_text('{"a1": ["fast"], "a2": ["fast", "dark"]}')
    found = static_run(data, tmp_path / "out")["trackers"]["static"]
    rows = found["sequences"]
    assert found["attributes"]["fast"]["sequences"] == 2
    assert found["attributes"]["fast"]["auc"]["mean"] == pytest.approx((rows["a1"]["auc"] + rows["a2"]["auc"]) / 2)
    assert found["attributes"]["dark"]["auc"]["mean"] == rows["a2"]["auc"]


def test_boxes_that_are_not_finite_survive(tmp_path: Path, monkeypatch) -> None:
    """They are misses, they are counted, and neither files nor a resumed run stumble over them."""
    data = dataset(tmp_path / "data", ["a"])
    broken = (float("nan"), 1.0, float("inf"), 2.0)
    monkeypatch.setattr("spiketrack_deploy.evaluation.baselines.StaticBox.update", lambda self, frame: broken)
    first = static_run(data, tmp_path / "out")["trackers"]["static"]
    assert (first["sequences"]["a"]["broken_boxes"], first["mean"]["auc"]["mean"]) == (5, 0.0)
    assert static_run(data, tmp_path / "out")["trackers"]["static"] == first
    assert (tmp_path / "out" / "pytracking" / "static" / "a.txt").read_text().splitlines()[1] == "nan\t1\tnan\t2"


# -- interruption ----------------------------------------------------------------------------------------------------


def undisturbed(tmp_path: Path, data: Path, large: Path) -> bytes:
    """What a run gives that nothing disturbs; the box that never moves does not see how large pictures are."""
    kept = large.read_bytes()
    hasten(large)
    static_run(data, tmp_path / "plain")
    large.write_bytes(kept)
    return (tmp_path / "plain" / "results.json").read_bytes()


def killer(out: Path, large: Path, victims) -> threading.Thread:
    """Once the other sequences are finished, kill whoever works on the slow one, and make it a quick one."""

    def strike() -> None:
        wait_for(lambda: len(list(out.glob("trackers/static/sequences/[!.]*.json"))) == 2, "two finished sequences")
        for pid in victims():
            os.kill(pid, signal.SIGKILL)
        hasten(large)

    thread = threading.Thread(target=strike)
    thread.start()
    return thread


def test_killed_processes_lose_nothing(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    large = slowed(data, "a2")
    expected = undisturbed(tmp_path, data, large)
    thread = killer(tmp_path / "out", large, lambda: [p.pid for p in multiprocessing.active_children()])
    found = static_run(data, tmp_path / "out", jobs=2)
    thread.join()
    assert found["exit_code"] == 0
    assert (tmp_path / "out" / "results.json").read_bytes() == expected
    assert not multiprocessing.active_children(), "a worker was left behind"


def test_a_task_that_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", ["a"])
    tasks = [Task(STATIC, s) for s in open_dataset(data).sequences]
    stop = threading.Event()

    def strike() -> None:
        while not stop.wait(0.05):
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    thread = threading.Thread(target=strike)
    thread.start()
    outcomes: list[Record | Failure] = []
    try:
        pool.run_processes(tasks, 2, lambda index, outcome: outcomes.append(outcome))
    finally:
        stop.set()
        thread.join()
    (failure,) = outcomes
    assert isinstance(failure, Failure)
    assert f"died {pool.ATTEMPTS} times (SIGKILL)" in failure.reason
    assert failure.exit_code == EngineError.exit_code


ENDS = [(signal.SIGKILL, -signal.SIGKILL, ""), (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.usefixtures("heeds_sigint")
@pytest.mark.parametrize(("number", "code", "word"), ENDS)
def test_a_run_that_ended_goes_on(tmp_path: Path, number: int, code: int, word: str) -> None:
    data = dataset(tmp_path / "data")
    large = slowed(data, "a10")  # the last in natural order
    expected = undisturbed(tmp_path, data, large)
    out = tmp_path / "out"
    arguments = ("--compare", "static", data, "-o", out, "--json", "--jobs", 2)
    first = subprocess.Popen(shell(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finished = out / "trackers" / "static" / "sequences"
    wait_for(lambda: first.poll() is not None or len(list(finished.glob("[!.]*.json"))) == 2, "two finished sequences")
    os.kill(first.pid, number)
    shown, said = first.communicate(timeout=60)
    assert first.returncode == code, said
    assert "Traceback" not in said
    if word:
        sentence = f"{word}; finished sequences are kept, the same command goes on from there"
        assert said.splitlines() == [sentence]
        assert json.loads(shown) == {"error": sentence, "exit_code": code}
    hasten(large)
    stamps = {p.name: p.stat().st_mtime_ns for p in finished.glob("[!.]*.json")}
    assert len(stamps) == 2, "the slow sequence was finished before the signal came"
    again = subprocess.run(shell(*arguments), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert (out / "results.json").read_bytes() == expected
    assert json.loads(again.stdout)["trackers"] == json.loads(expected)["trackers"]
    assert {n: (finished / n).stat().st_mtime_ns for n in stamps} == stamps, "a finished sequence was run again"


def test_killed_dask_worker_loses_nothing(tmp_path: Path) -> None:
    distributed = pytest.importorskip(
        "distributed", reason="Dask is not installed: pip install 'spiketrack-deploy[dask]'"
    )
    data = dataset(tmp_path / "data")
    large = slowed(data, "a2")
    expected = undisturbed(tmp_path, data, large)
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**settings, silence_logs=50, local_directory=str(tmp_path)) as cluster:
        workers = [nanny.pid for nanny in cluster.workers.values()]
        thread = killer(tmp_path / "out", large, lambda: workers)
        found = static_run(data, tmp_path / "out", dask=cluster.scheduler_address)
        thread.join()
    assert found["exit_code"] == 0, found["trackers"]["static"]["failed"]
    assert (tmp_path / "out" / "results.json").read_bytes() == expected


def test_unreachable_cluster(tmp_path: Path, capsys, monkeypatch) -> None:
    data = dataset(tmp_path / "data", ["a"])
    try:
        from spiketrack_deploy.evaluation import cluster

        monkeypatch.setattr(cluster, "CONNECT_S", 1)
        import distributed  # noqa: F401
    except ImportError:
        expected = "--dask needs Dask"
    else:
        expected = "cannot be reached"
    arguments = ("--compare", "static", data, "-o", tmp_path / "out", "--dask", "tcp://127.0.0.1:9", "--json")
    code, out, err = command(capsys, *arguments)
    assert code == EngineError.exit_code
    assert expected in err
    assert json.loads(out)["exit_code"] == EngineError.exit_code
    assert not (tmp_path / "out").exists(), "nothing may be written before everything is there"
    assert command(capsys, *arguments, "--jobs", 2)[0] == UsageError.exit_code


# -- run folders -----------------------------------------------------------------------------------------------------


def test_a_folder_belongs_to_its_sequences(tmp_path: Path) -> None:
    data, out = dataset(tmp_path / "data"), tmp_path / "out"
    static_run(data, out)
    with pytest.raises(UsageError, match="holds results of other sequences"):
        static_run(data, out, max_frames=3)
    assert static_run(data, out, max_frames=3, force=True)["dataset"]["frames"] == 9
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(UsageError, match="holds no evaluation"):
            static_run(data, other, force=force)
    assert [p.name for p in other.iterdir()] == ["thesis.tex"]


def test_a_folder_of_the_former_schema_is_told_so(tmp_path: Path) -> None:
    data, out = dataset(tmp_path / "data", ["a"]), tmp_path / "out"
    static_run(data, out)
    former = "spiketrack-evaluation/1"
    for name in ("run.json", "results.json"):
        text = (out / name).read_text(encoding="utf-8")
        assert SCHEMA in text
        (out / name).write_text(text.replace(SCHEMA, former), encoding="utf-8")
    with pytest.raises(UsageError, match=r"of another version.*--force"):
        static_run(data, out)
    with pytest.raises(InputError, match="evaluate again with this version"):
        evaluate(EvaluationRequest((str(out),), None, out=tmp_path / "compare"))
    assert static_run(data, out, force=True)["exit_code"] == 0


def test_a_label_belongs_to_its_tracker(tmp_path: Path, tiny_checkpoint: Path) -> None:
    data, out, model = dataset(tmp_path / "data", ["a"]), tmp_path / "out", tmp_path / "m.safetensors"
    model.write_bytes(tiny_checkpoint.read_bytes())
    request = EvaluationRequest((str(model),), data, out=out)
    first = evaluate(request)["trackers"]["m@float"]
    (tmp_path / "config.json").write_text("{}")  # beside it, so another configuration
    with pytest.raises(UsageError, match=r"holds results of another m@float \(its model differs\)"):
        evaluate(request)
    (tmp_path / "config.json").unlink()
    assert evaluate(request)["trackers"]["m@float"] == first


def test_damaged_records_are_made_again(tmp_path: Path) -> None:
    data, out = dataset(tmp_path / "data"), tmp_path / "out"
    static_run(data, out)
    expected = (out / "results.json").read_bytes()
    folder = out / "trackers" / "static" / "sequences"
    (folder / "a1.json").write_text('{"sequence": "a1"')
    (folder / "a2.json").write_text('{"sequence": "a2", "boxes": [[1, 2, 3]]}')
    assert static_run(data, out)["exit_code"] == 0
    assert (out / "results.json").read_bytes() == expected


def test_two_evaluations_into_one_folder(tmp_path: Path) -> None:
    """Both end well and leave what one of them would have left."""
    data, out = dataset(tmp_path / "data"), tmp_path / "out"
    both = [subprocess.Popen(shell("--compare", "static", data, "-o", out), stderr=subprocess.PIPE) for _ in range(2)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert ends == [(b"", 0)] * 2
    static_run(data, tmp_path / "alone")
    assert (out / "results.json").read_bytes() == (tmp_path / "alone" / "results.json").read_bytes()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "alone").iterdir())


def test_two_evaluations_that_lower_one_model(tmp_path: Path) -> None:
    """The one that ends last finds the program of the other, which is the same, and ends well."""
    place = RunFolder(tmp_path).program_folder("0123")
    with whole_folder(place) as slow:
        (slow / "program.json").write_text("the same")
        with whole_folder(place) as quick:
            (quick / "program.json").write_text("the same")
        assert (place / "program.json").read_text() == "the same"
    assert [p.name for p in place.parent.iterdir()] == ["0123"], "a temporary folder was left behind"
    assert [p.read_text() for p in place.iterdir()] == ["the same"]


# -- the command line ------------------------------------------------------------------------------------------------


def test_hostile_data_set(tmp_path: Path, capsys) -> None:
    """Two bad sequences are named with reasons, the good one is scored, the exit code says that something is wrong."""
    data = dataset(tmp_path / "data")
    (data / "a2" / "groundtruth_rect.txt").write_text(lines(boxes(4)))
    (data / "a10" / "img" / "4.png").write_bytes(b"damaged")
    (data / "notes").mkdir()
    code, out, err = command(capsys, "--compare", "static", data, "-o", tmp_path / "out", "--json")
    assert code == InputError.exit_code
    found = json.loads(out)
    assert list(found["trackers"]["static"]["sequences"]) == ["a1"]
    assert [p["sequence"] for p in found["dataset"]["problems"]] == ["a2"]
    assert [f["sequence"] for f in found["trackers"]["static"]["failed"]] == ["a10"]
    assert "4 lines for 6 frames" in err
    assert "a10/img/4.png is empty or damaged" in err
    assert "Traceback" not in err
    (data / "a10" / "img" / "4.png").write_bytes(b"")
    assert command(capsys, "--compare", "static", data, "-o", tmp_path / "out", "--quiet")[0] == InputError.exit_code


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--compare", "static", "{tmp}/nowhere"), 3, "there is no such dataset"),
        (("--compare", "static", "{tmp}/empty"), 3, "holds no usable sequence"),
        (("--compare", "static", "{tmp}/data", "--sequence", "b"), 3, "has no sequence 'b'"),
        (("--compare", "static", "{tmp}/data", "--profile", "loihi9"), 2, "loihi9"),
        (("--compare", "static@sim", "{tmp}/data"), 3, "there is no such checkpoint"),
        (("{tmp}/no.pth", "{tmp}/data"), 3, "there is no such checkpoint"),
        (("{tmp}/text.pth", "{tmp}/data"), 3, "text.pth"),
        (("static", "{tmp}/data", "--engine", "quantum"), 2, "quantum"),
        (("static", "{tmp}/data", "--baselines", "mosse"), 3, "mosse"),
        (("a", "b", "c"), 2, "--compare takes several"),
        (("--compare", "{tmp}/data"), 2, "DATASET last"),
        (("--compare", "static", "{tmp}/data", "--jobs", "0"), 2, "--jobs"),
        (("--compare", "static", "static", "{tmp}/data"), 2, "two trackers are called static"),
    ],
)
def test_wrong_commands(tmp_path: Path, capsys, arguments, code: int, message: str) -> None:
    dataset(tmp_path / "data", ["a"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pth").write_text("no checkpoint")
    got, _, err = command(capsys, *(a.format(tmp=tmp_path) for a in arguments), "-o", tmp_path / "out")
    assert (got, "Traceback" in err) == (code, False), err
    assert message in err
    assert not (tmp_path / "out" / "results.json").exists()


def test_comparison_of_earlier_runs(tmp_path: Path, capsys) -> None:
    data = dataset(tmp_path / "data")
    static_run(data, tmp_path / "one")
    static_run(data, tmp_path / "two")
    code, out, err = command(capsys, "--compare", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "both", "--json")
    assert code == 0, err
    found = json.loads(out)["trackers"]
    assert list(found) == ["static", "static (two)"]
    assert found["static (two)"]["against_first"]["same_boxes"] == 3
    assert found["static (two)"]["against_first"]["auc"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found["static (two)"]["against_first"]["sign"] == {"higher": 0, "lower": 0, "equal": 3, "p": 1.0}
    code, out, err = command(capsys, "--compare", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "both")
    assert (code, "earlier comparison" in err) == (2, True)
    code, out, err = command(capsys, "--compare", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "one", "--force")
    assert (code, "holds no comparison" in err) == (2, True)
    static_run(data, tmp_path / "short", max_frames=3)
    code, out, err = command(capsys, "--compare", tmp_path / "one", tmp_path / "short", "-o", tmp_path / "mix")
    assert (code, "nothing compares" in err) == (3, True)


def test_tables_for_people(tmp_path: Path, capsys) -> None:
    data = dataset(tmp_path / "data")
    code, out, err = command(capsys, "--compare", "static", data, "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    for expected in ("AUC by sequence", "a10", "SR75", "results.json"):
        assert expected in out


# -- trackers --------------------------------------------------------------------------------------------------------


def test_missing_contrib_is_one_sentence(tmp_path: Path, capsys, monkeypatch) -> None:
    import cv2

    monkeypatch.delattr(cv2, "TrackerCSRT_create", raising=False)
    data = dataset(tmp_path / "data", ["a"])
    code, _, err = command(capsys, "--compare", "csrt", data, "-o", tmp_path / "out")
    assert code == EngineError.exit_code
    assert "opencv-contrib-python-headless" in err
    assert not (tmp_path / "out").exists(), "nothing may be written before everything is there"


@pytest.mark.parametrize("name", ["kcf", "csrt"])
def test_opencv_follows_a_square(tmp_path: Path, name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, {"kcf": "TrackerKCF_create", "csrt": "TrackerCSRT_create"}[name]):
        pytest.skip("this OpenCV is not the contrib build")
    data = dataset(tmp_path / "data", ["a"], frames=8)
    found = evaluate(EvaluationRequest((name, "static"), data, out=tmp_path / "out"))["trackers"]
    assert found[name]["mean"]["ao"]["mean"] > 2 * found["static"]["mean"]["ao"]["mean"]
    assert found["static"]["against_first"]["tracker"] == name


def test_what_was_lost_is_shown_in_strips(tmp_path: Path, exported: Path, capsys) -> None:
    """Drawn weights lose their targets: one picture of the tracker, none of a baseline; --force removes it."""
    data = dataset(tmp_path / "data", ["a", "b"], frames=9)
    code, text, err = command(capsys, exported, data, "--baselines", "static", "-o", tmp_path / "out")
    assert code == 0, err
    assert "failures/bundle@sim.png" in text and "p of the sign test" in text
    drawn = cv2.imread(str(tmp_path / "out" / "failures" / "bundle@sim.png"))
    assert drawn.shape[1] > drawn.shape[0] > 300 and drawn.std() > 10
    assert [p.name for p in (tmp_path / "out" / "failures").iterdir()] == ["bundle@sim.png"]
    static_run(data, tmp_path / "out", force=True)
    assert not (tmp_path / "out" / "failures").exists()


def test_a_loss_is_what_stays_lost() -> None:
    """By hand: overlap 0 in single frames is no loss, five in a row or the end of the sequence is; absent frames and
    the first one do not count; its frames are shown in order, the first and the last among them."""
    truth = np.tile([10.0, 10, 10, 10], (30, 1))
    truth[14] = np.nan
    for away, at in (((3, 9), None), ((3, *range(12, 18)), 12), ((0, 28, 29), 28), (range(13, 17), None)):
        predicted = np.tile([10.0, 10, 10, 10], (30, 1))
        predicted[list(away), 0] = 40
        assert strips.loss(predicted, truth) == at
    frames = tuple(f"{i}.png" for i in range(30))
    clip = VideoSequence("a", Path("a"), "OTB", frames, truth, ())
    record = Record("a", truth.tolist(), None, [0.0] * 30, 0.0, 0.0, None)
    assert strips.shown(strips.Loss(clip, record, 0.1, 17)) == [0, 9, 13, 16, 17, 20, 27, 29]


def test_engines_agree_and_cost(tmp_path: Path, tiny_checkpoint: Path, capsys) -> None:
    """A model is lowered once; simulator and reference give the same boxes, counts and energy."""
    data = dataset(tmp_path / "data", ["a", "b"], frames=4)
    names = [f"{tiny_checkpoint}@{engine}" for engine in ("sim", "reference", "float")]
    out = tmp_path / "out"
    code, text, err = command(capsys, "--compare", *names, data, "-o", out, "--json")
    assert code == 0, err
    found = json.loads(text)
    sim, reference, floats = (found["trackers"][f"tiny@{e}"] for e in ("sim", "reference", "float"))
    assert reference["against_first"]["same_boxes"] == 2
    assert sim["energy"] == reference["energy"]
    assert floats["energy"] is None
    energy = sim["energy"]
    search, template = energy["phases"]["search"], energy["phases"]["template"]
    assert (energy["frames"], search["runs"], template["runs"]) == (6, 6, 2)
    assert 0 < energy["per_frame_nj"]["low"] < energy["per_frame_nj"]["nominal"] < energy["per_frame_nj"]["high"]
    total = search["unamortised_nj"]["nominal"] + template["unamortised_nj"]["nominal"] * 2 / 6
    assert energy["dynamic_nj"]["nominal"] == pytest.approx(total)
    cost = energy["placed"]["cost"]
    powered = cost["static_nj"]["nominal"] + cost["input_nj"]["nominal"]
    assert energy["per_frame_nj"]["nominal"] == pytest.approx(total + powered)
    for name, phase in energy["phases"].items():
        rows = [row for row in energy["layers"] if row["phase"] == name]
        assert sum(row["counts"].get("synops", 0) for row in rows) == pytest.approx(phase["counts"]["synops"])
    assert all(0 <= row["firing_rate"] <= 1 for row in energy["layers"] if row["firing_rate"] is not None)
    assert energy["unpriced"]
    assert len(list((out / "programs").iterdir())) == 1
    assert "accuracy_energy.svg" in found["pictures"]
    speed = found["speed"]["tiny@sim"]
    assert speed["crop_ms"] > 0 < speed["network_ms"]


@pytest.mark.parametrize("engine", ["onnx", pytest.param("lava", marks=requires_lava())])
def test_other_engines_give_the_same_boxes(tmp_path: Path, tiny_checkpoint: Path, engine: str) -> None:
    data = dataset(tmp_path / "data", ["a"], frames=3)
    names = tuple(f"{tiny_checkpoint}@{one}" for one in ("sim", engine))
    found = evaluate(EvaluationRequest(names, data, out=tmp_path / "out"))["trackers"]
    assert found[f"tiny@{engine}"]["against_first"]["same_boxes"] == 1
    assert found[f"tiny@{engine}"]["energy"] == found["tiny@sim"]["energy"]


def test_counts_are_those_of_every_frame(tmp_path: Path, exported: Path) -> None:
    """The recorded sums equal counts taken frame by frame by another loop."""
    from spiketrack_deploy.engines.base import ReferenceEngine
    from spiketrack_deploy.program.store import load_program
    from spiketrack_deploy.trackers.settings import tracker_config
    from spiketrack_deploy.tracking.loop import Tracker
    from spiketrack_deploy.tracking.program_network import ProgramNetwork

    data = dataset(tmp_path / "data", ["a"], frames=4)
    out = tmp_path / "out"
    evaluate(EvaluationRequest((str(exported),), data, out=out))
    (record,) = [json.loads(p.read_text()) for p in out.glob("trackers/*/sequences/a.json")]
    program = load_program(exported / "program")
    network = ProgramNetwork(program, ReferenceEngine(program), tracker_config(program))
    tracker = Tracker(network)
    frames = [np.ascontiguousarray(picture(box, index)[:, :, ::-1]) for index, box in enumerate(boxes(4), 1)]
    tracker.init(frames[0], boxes(4)[0])
    steps = [tracker.track(frame) for frame in frames[1:]]
    assert record["boxes"][1:] == [list(step.box) for step in steps]
    for phase, runs in network.counts.items():
        for op in program.phases[phase].ops:
            expected = {}
            for counts in runs:
                for key, value in counts[op.name].to_dict().items():
                    expected[key] = expected.get(key, 0) + value
            sums = record["tally"]["phases"][phase]["sums"]
            assert sums.get(op.name, {}) == {k: v for k, v in expected.items() if v}, op.name


@pytest.mark.parametrize(
    "change",
    [
        lambda tally: tally.update(frames=-1),
        lambda tally: tally.update(frames=True),
        lambda tally: tally.update(phases=[]),
        lambda tally: tally["phases"]["search"].update(runs=1.5),
        lambda tally: tally["phases"]["search"].pop("sums"),
        lambda tally: tally["phases"]["search"]["sums"].update(a={"synops": "many"}),
    ],
)
def test_a_record_with_a_damaged_tally_is_no_record(change) -> None:  # type: ignore[no-untyped-def]
    tally = Tally(3)
    for _ in range(3):
        tally.add_run("search", {"a": OpCounts(synops=7, events=0)})
    data = Record("a", [[0, 0, 1, 1]] * 4, None, [0.0] * 4, 0.0, 0.0, tally).to_dict()
    assert Record.from_dict(json.loads(json.dumps(data))).tally == tally and tally.phases["search"].sums["a"] == {
        "synops": 21
    }
    change(data["tally"])
    with pytest.raises(InputError, match="no record of a sequence"):
        Record.from_dict(data)


def test_counts_of_another_program_are_not_priced() -> None:
    tally = Tally(1)
    tally.add_run("search", {"a": OpCounts(synops=7)})
    layers = {"search": [("a", "conv", "block")]}
    (layer,) = counts_of(tally, layers)["search"]
    assert (layer["synops"], layer.runs) == (7, 1)
    for other in ({"search": [("b", "conv", "block")]}, {"look": [("a", "conv", "block")]}):
        with pytest.raises(InputError, match="not of this program"):
            counts_of(tally, other)


def test_a_bundle_has_no_float_engine(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(UsageError, match="a bundle holds a program"):
        evaluate(EvaluationRequest((f"{exported}@float",), dataset(tmp_path / "data"), out=tmp_path / "out"))


def test_unexpected_errors_stay_with_their_sequence(tmp_path: Path, monkeypatch) -> None:
    data = dataset(tmp_path / "data", ["a", "b"])
    monkeypatch.setattr("spiketrack_deploy.evaluation.baselines.StaticBox.update", lambda self, frame: 1 / 0)
    found = static_run(data, tmp_path / "out")
    assert found["exit_code"] == 1
    assert [f["reason"] for f in found["trackers"]["static"]["failed"]] == ["ZeroDivisionError: division by zero"] * 2


def test_attempt_reports_what_happened(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", ["a"])
    (task,) = [Task(STATIC, s) for s in open_dataset(data).sequences]
    assert isinstance(attempt(task), Record)
    (data / "a" / "img" / "2.png").unlink()
    failure = attempt(task)
    assert isinstance(failure, Failure)
    assert (failure.exit_code, "a/img/2.png: cannot be read" in failure.reason) == (3, True)


def test_a_model_may_be_a_folder(tmp_path: Path, tiny_checkpoint: Path, capsys) -> None:
    """What holds the weights is read, and a folder without weights is called that."""
    data, model = dataset(tmp_path / "data", ["a"], frames=3), tmp_path / "model"
    model.mkdir()
    code, _, err = command(capsys, model, data, "-o", tmp_path / "none")
    assert (code, str(model) in err, "written" in err) == (3, True, False), err
    (model / "model.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    code, out, err = command(capsys, model, data, "-o", tmp_path / "out", "--json")
    assert code == 0, err
    (found,) = json.loads(out)["trackers"].values()
    assert found["identity"] == {"model": file_digest(tiny_checkpoint)}


def test_a_data_set_that_is_a_loop_of_links(tmp_path: Path, capsys) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    code, _, err = command(capsys, "--compare", "static", tmp_path / "a", "-o", tmp_path / "out")
    assert (code, "there is no such dataset" in err) == (3, True), err
