"""Entry of a stock run: ``python .../stock_main.py FOLDER PARENT_PID PREFIX``; Lava and NumPy, nothing of the package.

FOLDER: ``network.json``, ``arrays.npz`` (the network), ``request.json`` (steps, inputs, wanted values), ``inputs.npz``.
Writes ``values/INDEX.bin`` and, as the last thing, ``done`` or ``error.json``. Lava says nothing when a Process fails:
a thread looks at the actors.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np


def fail(folder: Path, sentence: str) -> None:
    """Leave a sentence; the parent ends the group."""
    part = folder / "error.part"
    part.write_text(json.dumps({"error": sentence}))
    part.replace(folder / "error.json")
    time.sleep(3600)


def watch(folder: Path, runtime: Any) -> None:
    """What failed, and how."""
    names = [*(p.name for p in runtime._executable.proc_builders), "runtime service"]
    while not (folder / "done").exists():
        time.sleep(0.1)
        for name, actor in zip(names, runtime._messaging_infrastructure.actors):
            left = actor.exception
            if left:
                fail(folder, f"Lava Process {name} failed: {left[0]}")
            if not actor.is_alive() and not (folder / "done").exists():
                fail(folder, f"Lava Process {name} died (exit code {actor.exitcode})")


def run(folder: Path) -> None:
    """Build, feed, record."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from stock_network import (  # type: ignore[import-not-found]
        Feed,
        FeedModel,
        Record,
        RecordModel,
        build,
        sized,
        whc,
    )  # fmt: skip

    request = json.loads((folder / "request.json").read_text())
    network = build(folder)
    with np.load(folder / "inputs.npz") as file:
        data = [whc(file[str(n)]) for n in range(len(request["inputs"]))]
    feed = sized(Feed, FeedModel, 0, len(data))(name="feed", data=data)
    for index, name in enumerate(request["inputs"]):
        network.feed(name, getattr(feed, f"out_{index}"))
    wanted = [(shape[::-1], first, last) for _, shape, first, last in request["wanted"]]
    record = sized(Record, RecordModel, len(wanted), 0)(name="record", folder=str(folder / "values"), wanted=wanted)
    for index, (name, *_) in enumerate(request["wanted"]):
        network.read(name, getattr(record, f"in_{index}"))
    feed.create_runtime(run_cfg=Loihi2SimCfg(select_tag="fixed_pt"), compile_config={"pypy_channel_size": 2})
    threading.Thread(target=watch, args=(folder, feed.runtime), daemon=True).start()
    begin = time.monotonic()
    feed.run(condition=RunSteps(num_steps=request["steps"], blocking=False))
    feed.wait()
    (folder / "seconds").write_text(str(time.monotonic() - begin))
    (folder / "done").write_text("")
    feed.stop()


def main(arguments: list[str]) -> None:
    """Whatever goes wrong is one sentence in ``error.json``."""
    place, parent, prefix = arguments
    folder, here = Path(place), Path(__file__).resolve().parent
    worker = runpy.run_path(str(here / "__main__.py"))
    threading.Thread(target=worker["guard"], args=(int(parent), folder, prefix), daemon=True).start()
    sys.path[:] = [str(here / "stock"), *(p for p in sys.path if Path(p or ".").resolve() != here)]
    try:
        worker["name_shared_memory"](prefix)
        worker["adapt_lava"]()
        run(folder)
    except ModuleNotFoundError as error:
        fail(folder, f"{sys.executable} cannot import {error.name}")
    except Exception as error:  # noqa: BLE001  any failure must reach the parent as one sentence
        import traceback

        traceback.print_exc()
        fail(folder, f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
