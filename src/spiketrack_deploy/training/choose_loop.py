"""The rule of a trained tracker's loop, chosen on held-out clips: nothing is trained, nothing on a chip changes.

This module decides which rules are drawn, how one is scored and which is kept. It must not know what a rule does
(tracking/rule.py). The integer program that an export would make follows every clip; test sequences are not for this.

    loop.json            every rule drawn so far with its score on each clip; the same command goes on from there
    model.safetensors, config.json     the weights that were given, with the rule that was kept
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.layouts import read_folders
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.frontends.compile import Options, compile
from spiketrack_deploy.inputs.documents import shown
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import find_frames
from spiketrack_deploy.inputs.untrusted import read_json
from spiketrack_deploy.inputs.whole_file import file_digest
from spiketrack_deploy.trackers.spiketrack.checkpoint import CONFIG_FILE, MODEL_FILE, load_checkpoint, save_model
from spiketrack_deploy.tracking.program_network import ProgramNetwork
from spiketrack_deploy.tracking.rule import PUBLISHED, LoopRule
from spiketrack_deploy.training.runs import write_json
from spiketrack_deploy.training.validate import loop_auc

SCHEMA = "spiketrack-loop/1"
RUN_FILE = "loop.json"
LEVELS: Mapping[str, tuple[float, ...]] = {
    "window": (0.3, 0.5, 0.7, 1.0),
    "change": (0.0, 0.05, 0.15, 0.4),
    "size_rate": (0.2, 0.3, 0.5, 0.7, 1.0),
    "lead": (0.0, 0.3, 0.6, 0.9),
    "inertia": (0.0, 0.3, 0.6),
    "doubt": (0.0, 0.1, 0.2, 0.3),
    "widen": (1.0, 1.2, 1.5),
    "refind": (0, 3, 6, 10),
}
"""What is drawn from, each value equally likely."""

MOST = 10_000
"""Rules; there are some 30,000 different ones."""
HALVINGS, SURE = 200, 0.9
"""How often the clips are halved, and in what share of halvings a chosen rule must gain to be kept."""

Scores = list[dict[str, Any]]
"""``rule``: its settings; ``auc``: clip -> success AUC."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``model``: weights; ``held_out``: clips of the folders ``data``, by name or by folder; ``draws``: rules, the
    published one among them; ``seed``: of the draws; ``folder``: where scores and the result go."""

    model: Path
    data: tuple[Path, ...]
    held_out: tuple[str, ...]
    draws: int
    seed: int
    folder: Path


def drawn_rules(count: int, seed: int) -> list[LoopRule]:
    """``count`` different rules, the published one first; the same ones from the same seed, whatever the count."""
    rng = np.random.default_rng(seed)
    found = {PUBLISHED: None}
    while len(found) < count:
        values = {name: levels[int(rng.integers(len(levels)))] for name, levels in LEVELS.items()}
        # What has no effect is left at its default, so that no rule is scored twice.
        idle = [] if values["doubt"] else ["widen", "refind"]
        idle += [] if values["lead"] else ["inertia"]
        found[LoopRule(**{k: v for k, v in values.items() if k not in idle})] = None  # type: ignore[arg-type]
    return list(found)


def choose(choice: Choice, tell: Tell) -> dict[str, Any]:
    """Score what is missing, keep the best; returns what ``loop.json`` holds.

    ``chosen`` has the best weighted mean over the clips. ``across`` says what such a choice gains on clips it was not
    made on: chosen on a drawn half of them, scored on the other. Where too few halvings gain (:data:`SURE`), the choice
    is luck: it is not ``kept``, and the model has the published rule. InputError: no clips, unusable weights, a folder
    of another choice.
    """
    clips = read_folders(choice.data).split(choice.held_out)[1]
    if len(clips) < 2 or not any(clip.weight for clip in clips):
        raise InputError(
            "a rule is chosen on two held-out clips or more; name them, or a folder of --data, with --hold-out"
        )
    if not 2 <= choice.draws <= MOST:
        raise UsageError(f"the number of rules is 2 to {MOST:,}, not {choice.draws:,}")
    names = [clip.name for clip in clips]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two held-out clips are called {shown(twice)}; rename one, scores are kept by name")
    model, config = load_checkpoint(choice.model)
    claim = {
        "schema": SCHEMA,
        "model": file_digest(choice.model / MODEL_FILE if choice.model.is_dir() else choice.model),
        "clips": {clip.name: clip.weight for clip in clips},
        "seed": choice.seed,
    }
    rules = drawn_rules(choice.draws, choice.seed)
    scores, network = _opened(choice.folder, claim, rules), None
    with closing(FrameStore()) as store:
        for index, rule in enumerate(rules[len(scores) :], len(scores)):
            network = network or _network(choice.model, tell)
            tell(f"rule {index + 1} of {len(rules)}: {rule.to_dict() or 'published'}", index, len(rules))
            scores.append({"rule": rule.to_dict(), "auc": _scored(network, rule, clips, store)})
            write_json(choice.folder / RUN_FILE, {**claim, "rules": scores})
    result = {**claim, "rules": scores, **_verdict(scores[: len(rules)], clips)}
    write_json(choice.folder / RUN_FILE, result)
    chosen = replace(config, loop=LoopRule(**result["chosen"]["rule"]) if result["kept"] else PUBLISHED)
    save_model(model, chosen, choice.folder / MODEL_FILE, compact=True)
    write_json(choice.folder / CONFIG_FILE, chosen.to_dict())
    return result


def _opened(folder: Path, claim: Mapping[str, Any], rules: Sequence[LoopRule]) -> Scores:
    file = folder / RUN_FILE
    if not file.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder}: holds something else than a choice of rules; choose another folder with -o")
        return []
    found = read_json(file, remedy="choose another folder with -o").table()
    other = next((key for key, value in claim.items() if found.get(key) != value), None)
    if other:
        raise InputError(f"{folder}: its rules were scored with another {other}; choose another folder with -o")
    scores: Scores = found.get("rules", [])
    for row, rule in zip(scores if isinstance(scores, list) else [None], rules):
        whole = isinstance(row, dict) and row.get("rule") == rule.to_dict() and isinstance(row.get("auc"), dict)
        if not whole or not all(type(row["auc"].get(clip)) is float for clip in claim["clips"]):
            raise InputError(
                f"{file}: is damaged; remove it and score the rules again, or choose another folder with -o"
            )
    return scores


def _network(model: Path, tell: Tell) -> ProgramNetwork:
    compiled = compile(model, Options(clip=find_frames(None, None, None), tell=tell))
    config = load_checkpoint(model)[1]
    return ProgramNetwork(compiled.program, make_engine("sim", compiled.program, threads=1), config, count=False)


def _scored(
    network: ProgramNetwork, rule: LoopRule, clips: Sequence[VideoSequence], store: FrameStore
) -> dict[str, float]:
    return {clip.name: loop_auc(network, clip, store, rule) for clip in clips}


def _verdict(scores: Scores, clips: Sequence[VideoSequence]) -> dict[str, Any]:
    table = np.array([[row["auc"][clip.name] for clip in clips] for row in scores])
    weights = np.array([clip.weight for clip in clips])
    means = table @ weights / weights.sum()
    best = int(means.argmax())
    gains = _across(table, weights)
    low, high = np.percentile(gains, [2.5, 97.5])
    across = {"mean": float(gains.mean()), "low": float(low), "high": float(high), "higher": float((gains > 0).mean())}
    marginal = {
        name: {f"{level:g}": float(np.mean(means[at])) for level in levels if (at := _with(scores, name, level))}
        for name, levels in LEVELS.items()
    }
    return {
        "published": float(means[0]),
        "chosen": {"index": best, "rule": scores[best]["rule"], "auc": float(means[best])},
        "across": across,
        "kept": best > 0 and across["higher"] >= SURE,
        "marginal": marginal,
    }


def _across(table: Any, weights: Any) -> Any:
    """What rules chosen on halves of the clips gain over the published one on the other halves, ``[2 HALVINGS]``."""
    generator, count, gains = np.random.RandomState(0), len(weights), []
    for _ in range(HALVINGS):
        order = generator.permutation(count)
        one, two = order[: count // 2], order[count // 2 :]
        for half, other in ((one, two), (two, one)):
            best = int((table[:, half] @ weights[half]).argmax())
            gains.append((table[best, other] - table[0, other]) @ weights[other] / weights[other].sum())
    return np.array(gains)


def _with(scores: Scores, name: str, level: float) -> list[int]:
    default = PUBLISHED.__dict__[name]
    return [i for i, row in enumerate(scores) if row["rule"].get(name, default) == level]
