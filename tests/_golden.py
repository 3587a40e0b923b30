"""Reading one configuration of a folder in the layout of the golden sets: weights, crops, expectations.

A missing or malformed file is an InputError. No code is imported from the folder, which may be anybody's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from golden_check import stated_config

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.draw import draw_state, fingerprint


class GoldenSet:
    """``folder``'s configuration ``name``; the layout is stated in keys/<name>.json, the weights are drawn."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        entry = self.json(f"keys/{name}.json")
        try:
            self.keys = {key: tuple(shape) for key, shape in entry["keys"]}
            self.config = stated_config(name, entry["config"], self.keys)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder}/keys/{name}.json: is no table of keys and shapes ({error!r})") from error

    def json(self, relative: str) -> Any:
        try:
            return json.loads((self.folder / relative).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / relative}: cannot be read ({error})") from error

    def arrays(self, relative: str) -> dict[str, np.ndarray]:
        try:
            with np.load(self.folder / relative) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / relative}: cannot be read ({error})") from error

    def cases(self) -> list[str]:
        found = sorted(p.stem.removeprefix("case_") for p in (self.folder / "expect" / self.name).glob("case_?.json"))
        if not found:
            raise InputError(f"{self.folder}/expect/{self.name}: there is no case_*.json")
        return found

    def crop(self, case: str, part: str) -> np.ndarray:
        """uint8 RGB [3,r,r] of ``part`` t0, t1, t2 or s."""
        path = self.folder / "inputs" / f"crop{self.config.resolution}_{case}_{part}.png"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{path}: cannot be read as an image")
        return np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))

    def templates(self, case: str) -> np.ndarray:
        """uint8 RGB [T,3,r,r]."""
        return np.stack([self.crop(case, f"t{t}") for t in range(self.config.templates)])

    def state_dict(self) -> dict[str, np.ndarray]:
        """The drawn weights; InputError where they do not have the fingerprint that the folder states."""
        state = draw_state(self.name, self.keys, self.arrays(f"bn/{self.name}.npz")["bn"])
        if self.json("fingerprints.json").get(self.name) != fingerprint(state):
            raise InputError(f"{self.folder}: the weights of {self.name} do not have the fingerprint stated there")
        return state


def set_names(folder: Path) -> list[str]:
    """Every configuration that the folder has expectations for; InputError where there is none."""
    names = sorted(path.name for path in (folder / "expect").glob("*") if path.is_dir())
    if not names:
        raise InputError(f"{folder}: has no expect/<config> folder, so it is no golden folder")
    return names
