"""Entry of the worker: ``python .../lava_worker/__main__.py FD PARENT_PID FOLDER PREFIX STEP_TIMEOUT``.

This module decides how the worker lives and dies. It is run by path under an interpreter that may share no package with
the parent's, so it makes *this* copy of the package importable, and nothing beside it. It leads a process group of its
own; when the parent is gone, it kills that group and itself.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.util
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

PACKAGE = "spiketrack_deploy"
_LOOK_EVERY = 0.5


def adopt_package() -> None:
    """Import the package from where this file lies, whatever the search path says."""
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location(PACKAGE, root / "__init__.py", submodule_search_locations=[str(root)])
    if spec is None or spec.loader is None:
        raise ImportError(f"no package {PACKAGE} beside the worker")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)
    # Python puts the folder of a script first on the path, where our file names would hide others.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]


def adapt_lava() -> None:
    """Python 3.11 refuses one dataclass of lava-nc 0.10.0 unless it is hashable (docs/loihi.md)."""
    if sys.version_info < (3, 11):
        return
    import dataclasses

    plain = dataclasses.dataclass
    dataclasses.dataclass = functools.partial(plain, unsafe_hash=True)
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        dataclasses.dataclass = plain


def name_shared_memory(prefix: str) -> None:
    """Give the shared memory of this run names of its own, so that whoever ends it can tell them from others'."""
    from multiprocessing import shared_memory

    shared_memory._SHM_NAME_PREFIX = f"/{prefix}"  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 1 + 12  # type: ignore[attr-defined]


def end_group(folder: Path, prefix: str) -> None:
    """Remove shared memory and folder of this run, kill the whole process group and this process with it."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in glob.glob(f"/dev/shm/{prefix}*"):
        Path(path).unlink(missing_ok=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def guard(parent: int, folder: Path, prefix: str) -> None:
    """End everything once the parent is gone (also after SIGKILL, when nobody else can)."""
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    end_group(folder, prefix)


def serve(channel: Any, folder: Path, step_timeout: float) -> None:
    """Build the network, then answer ``run`` and ``load`` until ``stop``."""
    adapt_lava()
    from spiketrack_deploy.engines.lava_worker.network import Network
    from spiketrack_deploy.engines.lava_worker.plan import make_plan
    from spiketrack_deploy.program.store import load_program

    program = load_program(folder)
    plan = make_plan(program)
    lock = threading.Lock()

    def say(header: dict[str, Any], arrays: Any = None) -> None:
        with lock:
            channel.send(header, arrays)

    def fail(sentence: str, detail: str) -> None:
        say({"type": "error", "message": sentence, "detail": detail})

    def forward(op: str, value: Any) -> None:
        say({"type": "value", "op": op}, {"value": value})

    network = Network(program, plan, step_timeout, fail)
    network.start()
    say({"type": "ready", "python": sys.version.split()[0]})
    while True:
        header, arrays = channel.recv()
        try:
            if header["type"] == "stop":
                network.stop()
                say({"type": "bye"})
                return
            if header["type"] == "load":
                network.load(arrays)
                say({"type": "result", "counts": {}})
                continue
            outputs, counts = network.run(header["phase"], arrays, header["count"], header["watch"], forward)
            say({"type": "result", "counts": counts}, outputs)
        except RuntimeError:
            # Lava's runtime noticed a failed Process; the watching thread is about to say which one and why.
            if not network.failed.wait(2.0):
                raise


def main(arguments: list[str]) -> None:
    """Run the worker; whatever goes wrong is told to the parent in one message."""
    if os.getpgrp() != os.getpid():
        raise SystemExit("the Lava worker kills its process group when it ends: only the Lava engine starts it")
    descriptor, parent, run_folder, prefix, step_timeout = arguments
    folder = Path(run_folder)
    threading.Thread(target=guard, args=(int(parent), folder, prefix), daemon=True).start()
    adopt_package()
    from spiketrack_deploy.engines.lava_worker.frames import Channel
    from spiketrack_deploy.engines.lava_worker.segment import Fault

    channel = Channel(int(descriptor), int(descriptor))
    try:
        name_shared_memory(prefix)
        Fault.from_environment().strike("start")
        serve(channel, folder / "program", float(step_timeout))
    except ConnectionError:
        # The parent closed the connection without a word: nobody is left to tell, or to clean up.
        end_group(folder, prefix)
    except Exception as error:  # noqa: BLE001  any failure must reach the parent as one sentence
        import traceback

        message = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("lava"):
            message = f"{sys.executable} cannot import lava ({error})"
        with contextlib.suppress(OSError):
            channel.send({"type": "error", "message": message, "detail": traceback.format_exc()})
        # Time for the parent to read it and to end the group itself.
        time.sleep(_LOOK_EVERY)
        end_group(folder, prefix)
    sys.stdout.flush()
    # Lava's children are not daemons; an ordinary exit would wait for any that is left.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
