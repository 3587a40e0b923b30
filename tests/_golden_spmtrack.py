"""Comparison with a folder of golden SPMTrack expectations: what :mod:`golden_check` does with such a set.

DIR holds ``configs.json``, ``keys/``, ``inputs/``, ``expect/``, ``fingerprints.json``, ``geometry.json``; the clip lies
in ``clip/``, or is that of a SpikeTrack set beside it. Tolerances are those of the sets: error / max(1, |expected|), of
gradients error / largest entry.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from spiketrack_deploy.trackers.spiketrack.draw import fingerprint, uniform
from spiketrack_deploy.trackers.spmtrack.checkpoint import load_spmtrack
from spiketrack_deploy.trackers.spmtrack.config import SpmConfig
from spiketrack_deploy.trackers.spmtrack.loss import loss_terms
from spiketrack_deploy.trackers.spmtrack.model import Maps, SpmTrack
from spiketrack_deploy.trackers.spmtrack.tmoe import Experts
from spiketrack_deploy.trackers.spmtrack.torch_network import SpmNetwork, foreground_mask, normalised
from spiketrack_deploy.tracking import aligned_crop as crops
from spiketrack_deploy.tracking.reference_loop import (
    LEAST,
    ReferenceTracker,
    foreground,
    rasterised_cells,
    references_of,
)  # fmt: skip
from spiketrack_deploy.tracking.video import open_frames

if TYPE_CHECKING:
    from golden_check import Report

VALUE, BOX, GRADIENT = 1e-9, 1e-7, 1e-8


def is_such_a_set(root: Path) -> bool:
    """Whether ``root`` is a set of SPMTrack: its weights come as a backbone and a tracker."""
    return (root / "configs.json").is_file()


class Checker:
    """One folder; ``relative`` compares as the sets state their tolerances."""

    def __init__(self, root: Path, report: Report) -> None:
        from golden_check import guarded, read_image, read_json

        self.root, self.report = root, report
        self.json, self.image, self.guarded = read_json, read_image, guarded
        clips = [root / "clip", root.parent / "golden" / "clip", Path(__file__).parent / "golden" / "clip"]
        self.clip = next((folder for folder in clips if folder.is_dir()), clips[0])

    def relative(
        self, config: str, what: str, at: str, want: Any, got: Any, allowed: float, floor: float = 1.0
    ) -> None:
        a, b = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (want, got))
        if a.size == b.size:
            scale = np.maximum(floor, np.abs(a))
            a, b = a / scale, b / scale
        self.report.close(config, what, at, a, b, allowed)

    def check(self, only: str | None) -> None:
        """Every set of the folder, and the geometry."""
        stated = self.json(self.root / "configs.json")
        names = [name for name in sorted(stated) if only in (None, name)]
        if not names:
            self.report.fault(only or "-", "expectations", f"{self.root / 'configs.json'} states none")
        for name in names:
            with self.guarded(self.report, name, "configuration"):
                self.check_config(name, stated[name])
        with self.guarded(self.report, "-", "geometry"):
            self.check_geometry(self.json(self.root / "geometry.json"))

    def check_config(self, name: str, stated: Mapping[str, Any]) -> None:
        """Both weight files, loaded through the product's loader; then calls, gradients and the track."""
        known = {field.name for field in fields(SpmConfig)}
        config = SpmConfig(name=name, **{key: value for key, value in stated.items() if key in known})
        keys, prints = self.json(self.root / "keys" / f"{name}.json"), self.json(self.root / "fingerprints.json")
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for part in ("tracker", "dinov2"):
                state = draw(name, part, keys[part], config.alpha)
                self.report.equal(name, "fingerprint", part, _stated_print(prints, name, part), fingerprint(state))
                files.append(Path(folder) / f"{part}.safetensors")
                save_file(dict(state), files[-1])
            model = load_spmtrack((files[0], files[1]), config, torch.float64)
        trained = {key: list(shape) for key, shape in keys["tracker"] if key not in ("expert_alpha", "use_rsexpert")}
        mine = {key: list(value.shape) for key, value in model.trained().items()}
        self.report.equal(name, "trained tensors", "names and shapes", sorted(trained.items()), sorted(mine.items()))
        inputs = self.json(self.root / "inputs" / f"{stated['inputs']}.json")
        with self.guarded(self.report, name, "case"):
            self.check_case(name, model, inputs)
        with self.guarded(self.report, name, "gradients"):
            self.check_grad(name, model, inputs)
        with self.guarded(self.report, name, "track"):
            self.check_track(name, model)

    def picture(self, name: str) -> Tensor:
        return normalised(self.image(self.root / "inputs" / name).astype(np.float64))

    def run(self, model: SpmTrack, inputs: Any, refs: list[int], search: int, state: Tensor) -> Maps:
        """One call; patches are embedded in the order of the expectations: z_0, x, z_1, z_2."""
        side = model.config.template_grid
        templates = [inputs["templates"][index] for index in refs]
        made: list[Tensor] = []
        tokens = torch.zeros(0)
        for index, template in enumerate(templates):
            mask = foreground_mask(template["mask_cells_xyxy"], side)
            made.append(model.embed_template(self.picture(template["file"]), mask))
            if index == 0:
                tokens = model.embed_search(self.picture(inputs["searches"][search]["file"]))
        return model((made[0], made[1], made[2]), tokens, state)

    def check_case(self, name: str, model: SpmTrack, inputs: Any) -> None:
        """Two consecutive calls: every layer, the routing, the maps."""
        want = self.json(self.root / "expect" / name / "case.json")
        maps = np.load(self.root / "expect" / name / "case_maps.npz")
        state = torch.zeros(1, model.config.dim, dtype=torch.float64)
        for step in want["steps"]:
            with torch.inference_mode(), taps(model) as (layers, routing):
                got = self.run(model, inputs, step["refs"], step["search"], state)
            at, state = f"step{step['step']}", got.state
            self.report.equal(name, "layer names", at, sorted(e["name"] for e in step["layers"]), sorted(layers))
            for entry in step["layers"]:
                self.check_layer(name, at, entry, layers[entry["name"]])
            self.check_routing(name, at, step, routing, maps)
            fields = {"score": got.score, "reg": got.reg, "boxes": got.boxes, "gate": got.gate, "state": got.state}
            for key, value in fields.items():
                self.relative(name, f"{key} map", at, maps[f"{at}_{key}"], value[0].numpy(), VALUE)
            flat = got.score[0].reshape(-1)
            best, second = flat.topk(2).values
            self.report.equal(name, "argmax", at, step["argmax"], int(flat.argmax()))
            self.relative(name, "argmax margin", at, step["argmax_margin"], float(best - second), VALUE)
            self.report.equal(name, "tokens", at, step["tokens"], model.config.tokens)

    def check_layer(self, name: str, at: str, want: Any, tensor: Tensor) -> None:
        x = tensor[0].numpy()
        self.report.equal(name, "layer shapes", f"{at} {want['name']}", want["shape"], list(x.shape))
        for key, value in statistics(want["name"], x).items():
            self.relative(name, "layers", f"{at} {want['name']} {key}", want[key], value, VALUE)

    def check_routing(self, name: str, at: str, step: Any, routing: Mapping[str, Tensor], maps: Any) -> None:
        gates = {key: value[0].numpy() for key, value in routing.items()}
        self.report.equal(name, "routed layers", at, [e["layer"] for e in step["routing"]], list(gates))
        for entry in step["routing"]:
            g = gates[entry["layer"]]
            ordered = np.sort(g, axis=1)
            found = {
                "mean": g.mean(0),
                "entropy": -(g * np.log(g)).sum(1).mean(),
                "min_margin": (ordered[:, -1] - ordered[:, -2]).min(),
                "query": g[0],
            }
            for key, value in found.items():
                self.relative(name, "routing", f"{at} {entry['layer']} {key}", entry[key], value, VALUE)
            counts = np.bincount(g.argmax(1), minlength=g.shape[1]).tolist()
            self.report.equal(name, "top expert counts", f"{at} {entry['layer']}", entry["top_counts"], counts)
        every = np.stack(list(gates.values()))
        self.report.close(name, "top experts", at, maps[f"{at}_top_expert"], every.argmax(2))
        self.relative(name, "routing", at, maps[f"{at}_router"], every[:, step["router_tokens"]], VALUE)

    def check_grad(self, name: str, model: SpmTrack, inputs: Any) -> None:
        """One training pass over two searches, the state detached between them."""
        want = self.json(self.root / "expect" / name / "grad.json")
        model.zero_grad()
        state, total = torch.zeros(1, model.config.dim, dtype=torch.float64), torch.zeros(())
        for index, search in enumerate(want["searches"]):
            maps = self.run(model, inputs, [0, 1, 2], index, state)
            score, giou, mask = loss_terms(maps, torch.tensor([search["target_box"]], dtype=torch.float64))
            cells = mask.reshape(-1).nonzero()[:, 0]
            state, total = maps.state.detach(), total + score.sum() + giou.sum()
            ends = [int(cells[0]), int(cells[-1]), len(cells)]
            keys = ("positive_first", "positive_last", "positives")
            self.report.equal(name, "positive cells", f"search {index}", [search[key] for key in keys], ends)
            self.relative(name, "loss", f"search {index} cls", search["cls"], score.item(), VALUE)
            self.relative(name, "loss", f"search {index} giou", search["giou"], giou.item(), VALUE)
        self.relative(name, "loss", "all", want["loss"], total.item(), VALUE)
        total.backward()
        trained = model.trained()
        stated = sorted(e["name"] for e in want["gradients"])
        self.report.equal(name, "gradient names", "trained tensors", stated, sorted(trained))
        for entry in want["gradients"]:
            g = trained[entry["name"]].grad
            assert g is not None, entry["name"]
            x = g.numpy().reshape(-1)
            probe = uniform("probe|grad|" + entry["name"], x.size)
            found = {"rms": _rms(x), "max": np.abs(x).max(), "dot": float(x @ probe) / math.sqrt(x.size)}
            for key, value in found.items():
                self.relative(name, "gradients", f"{entry['name']} {key}", entry[key], value, GRADIENT, entry["max"])

    def check_track(self, name: str, model: SpmTrack) -> None:
        """The loop on the clip."""
        want = self.json(self.root / "expect" / name / "track.json")
        scores = np.load(self.root / "expect" / name / "track_maps.npz")["score"]
        tracker, frames = ReferenceTracker(SpmNetwork(model, torch.float64)), iter(open_frames(self.clip))
        tracker.init(next(frames), want["init_box"])
        for index, (entry, frame) in enumerate(zip(want["frames"], frames)):
            at, before = f"frame {entry['frame']}", tracker.box
            with taps(model) as (_, routing):
                step = tracker.track(frame)
            x, y, w, h = step.box
            search, maps, where = tracker.search_crop, tracker.maps, tracker.alignment
            assert search is not None and maps is not None and where is not None
            crop, placed, cells = tracker.last
            planar, state = search.transpose(2, 0, 1), maps.state.numpy()
            self.report.equal(name, "track references", at, entry["refs"], list(tracker.references))
            boxes = {
                "crop_box": before,
                "search_adjusted": (*where.scale, *where.shift),
                "search_mean": search.mean(),
                "search_dot": _dot("search", planar),
                "box": (x, y, x + w, y + h),
                "template_adjusted": (*placed.scale, *placed.shift),
                "template_mean": crop.mean(),
            }
            for key, value in boxes.items():
                self.relative(name, f"track {key}", at, entry[key], value, BOX)
            self.report.equal(name, "track argmax", at, entry["argmax"], step.argmax)
            self.report.equal(name, "track masks", at, entry["mask_cells_xyxy"], list(cells))
            gates = np.stack([value[0].numpy() for value in routing.values()])
            values = {
                "margin": step.margin,
                "conf": step.confidence,
                "state_rms": _rms(state),
                "state_dot": _dot("state", state),
                "expert_mean": gates.mean((0, 1)),
            }
            for key, value in values.items():
                self.relative(name, f"track {key}", at, entry[key], value, VALUE)
            self.relative(name, "track score maps", at, scores[index], maps.score, VALUE)
        self.report.equal(name, "track length", "frames", [f["frame"] for f in want["frames"]], [*range(1, index + 2)])

    def check_geometry(self, want: Any) -> None:
        """Crops, cells, boxes, references: no network."""
        frame = self.image(self.clip / want["frame"])
        fill = crops.mean_colour(frame)
        self.relative("-", "fill colour", "frame 0", want["mean0"], fill, VALUE)
        for case in want["crops"]:
            self.check_crop(f"{case['name']} {case['factor']} {case['side']}", case, frame, fill)
        for rule, name in (("general", "halves"), *((key, "thirds") for key in want["select"] if key != "general")):
            for number, *entries in want["select"][rule]:
                self.report.equal("-", "references", f"{rule} {number}", entries, list(references_of(number, name)))
        start = want["crops"][0]["box"]
        for index, case in enumerate(want["crop_box_update"]):
            box = crops.clipped(case["output"], frame.shape[1], frame.shape[0])
            self.relative("-", "crop box update", str(index), case["crop_box"], start if crops.empty(box) else box, BOX)

    def check_crop(self, at: str, case: Any, frame: Any, fill: Any) -> None:
        height, width = frame.shape[:2]
        search = "mask_cells_xyxy" not in case
        box = crops.enlarged(case["box"], LEAST) if search else tuple(case["box"])
        self.relative("-", "box used", at, case["box_used"], box, BOX)
        placed = crops.align(box, case["factor"], case["side"], width, height)
        self.relative("-", "crop scale", at, [case["scale"], *case["translation"]],
                      [placed.asked, *placed.asked_shift], BOX)  # fmt: skip
        sizes = [[area[2] - area[0], area[3] - area[1]] for area in (placed.source, placed.target)]
        self.report.equal("-", "crop sizes", at, [case["in_size"], case["out_size"]], sizes)
        adjusted = [*case["adjusted_scale"], *case["adjusted_translation"]]
        self.relative("-", "crop alignment", at, adjusted, [*placed.scale, *placed.shift], BOX)
        crop = crops.cut(frame, placed, fill)
        self.relative("-", "crop sums", at, [case["sum"], case["dot"]],
                      [crop.sum(), _dot("crop", crop.transpose(2, 0, 1))], BOX)  # fmt: skip
        for row, column, *colour in case["pixels"]:
            self.relative("-", "crop pixels", f"{at} {row},{column}", colour, crop[row, column], BOX)
        if search:
            back = placed.back(case["box_in_crop"])
            self.relative("-", "boxes back", at, case["box_in_image"], back, BOX)
            self.relative("-", "boxes clipped", at, case["box_clipped"], crops.clipped(back, width, height), BOX)
            return
        cell = 14
        grid = case["side"] // cell
        raw, cut = rasterised_cells(placed.into(box), cell), foreground(placed.into(box), cell, grid)
        self.report.equal("-", "mask cells", at, case["mask_cells_xyxy"], list(raw))
        if min(raw) >= 0:  # where indices turn negative the original marks others; docs/spmtrack.md
            marked = int(foreground_mask(cut, grid).sum())
            self.report.equal("-", "mask cells marked", at, case["mask_cells_marked"], marked)


def _stated_print(prints: Any, name: str, part: str) -> Any:
    """Fingerprints come as nested objects or as flat ones."""
    entry = prints.get(name, {})
    return entry.get(part) if isinstance(entry, dict) else prints.get(f"{name} {part}")


def statistics(name: str, x: Any) -> dict[str, Any]:
    """What an expectation states of a tensor."""
    flat = x.reshape(-1)
    n = flat.size
    return {
        "mean": flat.mean(),
        "rms": _rms(flat),
        "min": flat.min(),
        "max": flat.max(),
        "dot": _dot(name, x),
        "values": flat[[0, n // 3, n // 2, n - 1]],
    }


def _rms(x: Any) -> float:
    return float(np.sqrt((x.astype(np.float64) ** 2).mean()))


def _dot(name: str, x: Any) -> float:
    flat = np.ascontiguousarray(x).reshape(-1)
    return float(flat @ uniform("probe|" + name, flat.size)) / math.sqrt(flat.size)


@contextmanager
def taps(model: SpmTrack) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Outputs by the expectations' names, and the routers' weights by layer, of the calls in the block."""
    layers: dict[str, Tensor] = {}
    routing: dict[str, Tensor] = {}
    patches = 0

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any, made: Tensor) -> None:
            nonlocal patches
            if name == "patch_embed":
                layers[f"patch_embed.{patches}"] = made
                patches += 1
            else:
                layers[name] = made
            if isinstance(module, Experts):
                routing[name.removesuffix(".tmoe")] = module.expert_route(given[0]).softmax(-1).detach()

        return hook

    def keep_input(name: str) -> Any:
        return lambda module, given: layers.__setitem__(name, given[0])

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name.startswith("head") or not name:
                continue
            leaf = name.rsplit(".", 1)[-1]
            if leaf in ("patch_embed", "norm", "norm1", "norm2", "ls1", "ls2", "linear", "tmoe"):
                stack.callback(module.register_forward_hook(keep(name)).remove)
            if leaf in ("proj", "fc2", "w3") and name.startswith("blocks."):
                stack.callback(module.register_forward_pre_hook(keep_input(f"{name}.input")).remove)
            if name.count(".") == 1 and name.startswith("blocks."):
                stack.callback(module.register_forward_hook(keep(f"{name}.out")).remove)
        yield layers, routing


def law(key: str, shape: list[int]) -> tuple[float, float]:
    """(centre, half width) of the uniform law of one tensor; the sets' README states it."""
    last = key.rsplit(".", 1)[-1]
    fixed = {"cls_token": 0.02, "mask_token": 0.02, "pos_embed": 0.6, "track_query": 1.0, "query_embed": 0.6,
             "token_type_embed": 0.6}  # fmt: skip
    if key in fixed:
        return 0.0, fixed[key]
    if last == "gamma":
        return 0.5, 0.2
    if ".norm" in key or key.startswith("norm."):
        return (1.0, 0.3) if last == "weight" else (0.0, 0.2)
    if last == "bias":
        return {"head.cls_mlp.layers.2.bias": (-1.0, 0.1), "head.reg_mlp.layers.2.bias": (-2.2, 0.1)}.get(key, (0, 0.2))
    gains = ((".qkv.weight", 1.6), (".routed_experts.", 0.6), (".expert_route.", 2.5), ("mlp.layers.0.", 0.125),
             ("mlp.layers.1.", 1.5), ("cls_mlp.layers.2.", 1.2), ("reg_mlp.layers.2.", 0.25))  # fmt: skip
    gain = next((gain for part, gain in reversed(gains) if part in key), 1.0)
    return 0.0, gain * math.sqrt(3.0 / math.prod(shape[1:]))


def draw(name: str, part: str, keys: list[Any], alpha: int) -> dict[str, Any]:
    """Tensors of one weight file, drawn as the SpikeTrack sets draw theirs."""
    state: dict[str, Any] = {}
    for key, shape in keys:
        if key in ("expert_alpha", "use_rsexpert"):
            state[key] = np.array(alpha, dtype=np.int64) if key == "expert_alpha" else np.array(False)
        else:
            centre, half = law(key, shape)
            values = centre + half * uniform(f"{name}|{part}|{key}", math.prod(shape))
            state[key] = values.astype(np.float32).reshape(shape)
    return state


__all__ = ["Checker", "is_such_a_set"]
