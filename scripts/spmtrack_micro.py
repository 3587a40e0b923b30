"""Trains ``models/spmtrack-micro`` from scratch, as its card says: every tensor, DINOv2's part included.

    python scripts/spmtrack_micro.py DATA RUN [--minutes 38]

DATA: folders as ``spiketrack train`` takes them. RUN keeps ``state.pt``, ``history.json`` and ``model.safetensors``
(the averaged weights); the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch

from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.trackers.spmtrack.checkpoint import draw_backbone, load_spmtrack, save_spmtrack
from spiketrack_deploy.trackers.spmtrack.config import PATCH, SpmConfig
from spiketrack_deploy.trackers.spmtrack.loss import loss_terms
from spiketrack_deploy.trackers.spmtrack.torch_network import foreground_mask
from spiketrack_deploy.tracking.pixels import MEAN, STD
from spiketrack_deploy.tracking.reference_loop import foreground
from spiketrack_deploy.training.pairs import Sampler
from spiketrack_deploy.training.recipe import Recipe

CONFIG = SpmConfig("spmtrack-micro", 64, 4, 4, hidden=256, rank=8, alpha=8, template=84, search=168, search_factor=4.0)
RECIPE = {
    "seed": 5,
    "video": 0.45,
    "paste": 0.15,
    "searches": 2,
    "distractor": 0.15,
    "occlusion": 0.1,
    "least_side": 16.0,
}
HELD_OUT = ("Man", "car-shadow", "kite-surf", "sam2_dog", "truck4", "Basketball")
BATCH, RATE, DECAY, AVERAGE = 16, 1.0e-3, 0.02, 0.998


class Crops(Sampler):
    """The samples of ``spiketrack train``, with the place of the target in every template."""

    def draw_with_cells(self, step: int, index: int) -> tuple[Any, list[Any]]:
        self.placed: list[Any] = []
        return self.draw(step, index), self.placed

    def _template(self, frame: Any, box: Any, rng: Any, grey: bool, mirrored: bool) -> Any:
        self.placed.append(box)
        return super()._template(frame, box, rng, grey, mirrored)


def filled(crop: Any) -> Any:
    """Padding in the mean colour of what is not padding."""
    black = (crop == 0).all(2)
    if black.any() and not black.all():
        crop = crop.copy()
        crop[black] = crop[~black].mean(0)
    return crop


def tensor(crops: list[Any]) -> torch.Tensor:
    x = (np.stack(crops).astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def batch(
    sampler: Crops, step: int
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Three templates with masks, two searches with boxes."""
    side, grid = CONFIG.template, CONFIG.template_grid
    templates: list[list[Any]] = [[], [], []]
    masks: list[list[Any]] = [[], [], []]
    searches: list[list[Any]] = [[], []]
    boxes: list[list[Any]] = [[], []]
    for index in range(BATCH):
        sample, placed = sampler.draw_with_cells(step, index)
        for k in range(3):
            crop = cv2.resize(sample.templates[k], (side, side), interpolation=cv2.INTER_AREA)
            templates[k].append(filled(crop))
            w, h = placed[k][2:]
            scale = side / (CONFIG.template_factor * math.sqrt(w * h))
            half = (w * scale / 2, h * scale / 2)
            at = (side / 2 - half[0], side / 2 - half[1], side / 2 + half[0], side / 2 + half[1])
            masks[k].append(foreground_mask(foreground(at, PATCH, grid), grid))
        for k in range(2):
            searches[k].append(filled(sample.searches[k]))
            cx, cy, w, h = sample.boxes[k]
            boxes[k].append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    return ([tensor(t) for t in templates], [torch.cat(m) for m in masks], [tensor(s) for s in searches],
            [torch.tensor(np.array(b, dtype=np.float32)) for b in boxes])  # fmt: skip


def size_terms(maps: Any, boxes: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Beside the published loss: 5 x mean distance of the corners, and mean absolute log ratio of width and height,
    over the target's cells. A tracker that never learned sizes grows its box from frame to frame."""
    found, wanted = maps.boxes[cells], boxes[:, None, None].expand_as(maps.boxes)[cells]
    sizes = [(rows[:, 2:] - rows[:, :2]).clamp(min=1e-3).log() for rows in (found, wanted)]
    return 5 * (found - wanted).abs().mean() + (sizes[0] - sizes[1]).abs().mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=38.0)
    parser.add_argument("--start", type=Path, help="weights to begin from")
    parser.add_argument("--size-terms", action="store_true", help="add what makes a short training learn sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(RECIPE["seed"])
    options.run.mkdir(parents=True, exist_ok=True)
    recipe = Recipe.from_dict(dict(RECIPE))
    catalogue, _ = read_folders(options.data).split(HELD_OUT)
    layout = SimpleNamespace(resolution=CONFIG.search, templates=3, search_factor=CONFIG.search_factor,
                             template_factor=CONFIG.template_factor)  # fmt: skip
    sampler = Crops(catalogue, layout, recipe, FrameStore())  # type: ignore[arg-type]
    model = draw_backbone(CONFIG, RECIPE["seed"]).train()
    if options.start:
        model.load_state_dict(load_spmtrack((options.start,)).state_dict())
        for parameter in model.parameters():
            parameter.requires_grad_(True)
    else:
        with torch.no_grad():
            model.head.cls_mlp.layers[2].bias.fill_(-2.0)
            model.head.reg_mlp.layers[2].bias.fill_(-2.2)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0}], RATE
    )
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    step, spent, history, sums = 0, 0.0, [], []
    saved = options.run / "state.pt"
    if saved.exists():
        kept = torch.load(saved, weights_only=True)
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average, step, spent, history = kept["average"], kept["step"], kept["spent"], kept["history"]
    begin, last = time.monotonic() - spent, time.monotonic()
    while (share := (time.monotonic() - begin) / 60 / options.minutes) < 1:
        rate = RATE * min(1.0, share / 0.04) * 0.5 * (1 + math.cos(math.pi * share)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        templates, masks, searches, boxes = batch(sampler, step)
        with torch.autocast("cpu", torch.bfloat16):
            references = [model.embed_template(t, m) for t, m in zip(templates, masks)]
            state, total = torch.zeros(BATCH, CONFIG.dim), torch.zeros(())
            for search, box in zip(searches, boxes):
                maps = model((references[0], references[1], references[2]), model.embed_search(search), state)
                maps = type(maps)(*(part.float() for part in maps))
                terms = loss_terms(maps, box)
                state, total = maps.state.detach(), total + (terms.score + terms.box).mean()
                if options.size_terms:
                    total = total + size_terms(maps, box, terms.cells)
                iou = 1 - terms.box.mean()
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        weight = max(1 - AVERAGE, 1 / (step + 1))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                average[key].lerp_(value, weight)
        best = maps.score.flatten(1).argmax(1)
        hit = terms.cells.flatten(1).gather(1, best[:, None]).float().mean()
        sums.append((total.item(), iou.item(), hit.item()))
        if time.monotonic() - last > 60 or share >= 1:
            last, spent = time.monotonic(), time.monotonic() - begin
            loss, giou, aim = (round(float(v), 4) for v in np.mean(sums, 0))
            row = {"step": step, "seconds": round(spent), "crops": step * BATCH * 2, "loss": loss, "giou": giou}
            history.append({**row, "best_cell_on_target": aim})
            sums = []
            print(json.dumps(history[-1]), flush=True)
            kept = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            torch.save({**kept, "step": step, "spent": spent, "history": history}, saved)
            keep(model, average, options.run, history)
    keep(model, average, options.run, history)


def keep(model: Any, average: Any, run: Path, history: Any) -> None:
    own = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(average)
    save_spmtrack(model, run / "model.safetensors", half=True)
    model.load_state_dict(own)
    (run / "history.json").write_text(json.dumps(history, indent=1) + "\n")


if __name__ == "__main__":
    main()
