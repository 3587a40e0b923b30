"""Entry of stock runs: ``python .../stock_main.py FOLDER PARENT_PID PREFIX``; Lava and NumPy, nothing of the package.

FOLDER/0, FOLDER/1 ...: ``network.json``, ``network.npz``, ``request.json`` (names of inputs, wanted values),
``inputs.npz``. Runs them one after the other and writes ``INDEX.bin``, ``seconds`` and ``done`` into each; or
``error.json`` into FOLDER.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
import time
from pathlib import Path

import numpy as np


def fail(folder: Path, sentence: str) -> None:
    """Leave a sentence; the parent ends the group."""
    part = folder / "error.part"
    part.write_text(json.dumps({"error": sentence}))
    part.replace(folder / "error.json")
    time.sleep(3600)


def run(folder: Path) -> None:
    """Build, feed, record."""
    from stock_network import build  # type: ignore[import-not-found]

    request = json.loads((folder / "request.json").read_text())
    network = build("network", folder)
    with np.load(folder / "inputs.npz") as file:
        network.play({name: file[str(n)] for n, name in enumerate(request["inputs"])})
    begin = [0.0]
    network.run(*request["wanted"], place=folder, prepared=lambda runtime: begin.__setitem__(0, time.monotonic()))
    (folder / "seconds").write_text(str(time.monotonic() - begin[0]))
    (folder / "done").write_text("")
    network.stop()


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
        for index in range(int((folder / "runs").read_text())):
            run(folder / str(index))
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
