"""The training loop: samples in, weights out, resumable at any step.

This module decides the order of a step, the schedule, the averaged weights and when to validate and save. It must not
know layouts, losses or the arithmetic of a stage: those are handed in or imported as functions.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor, nn

from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.errors import SIGNALS
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.tracking.crop import hann_window
from spiketrack_deploy.training.drift import failures, get_failures, put_failures, rolled
from spiketrack_deploy.training.joint import float_maps, init_weights
from spiketrack_deploy.training.losses import Losses, best_boxes, tracking_loss
from spiketrack_deploy.training.pairs import Sample, Sampler
from spiketrack_deploy.training.penalty import Spent, SpikeMeter, SpikePrices
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.runs import RunState, save_run
from spiketrack_deploy.training.stages import Stage
from spiketrack_deploy.training.teacher import Teacher
from spiketrack_deploy.training.validate import Validation, validate
from spiketrack_deploy.training.workers import Crew

REFRESH_STEPS = 200
"""Steps after which exponents and stream units follow the weights again."""
CALIBRATION_SAMPLES = 4
PATIENCE_S = 5.0
"""A signal that comes so long after the first one no longer waits for the end of the step."""
COUNT_STEPS = 10
"""Without a penalty synaptic operations are counted only now and then, for the report."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs: network, recipe, run folder, how often (seconds) to save and (steps) to report, and whether
    it begins from ``trained`` weights."""

    config: TrackerConfig
    recipe: Recipe
    folder: Path
    save_every: float = 90.0
    validate_every: float = 300.0
    report_every: int = 50
    trained: bool = False


class Averaged:
    """Exponential moving average of all floating state; a short memory at first, so that early figures mean
    something."""

    def __init__(self, model: nn.Module, decay: float, start: dict[str, Tensor] | None = None) -> None:
        self._decay = decay
        self.state = {k: v.detach().clone() for k, v in (start or model.state_dict()).items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Fold in the state behind optimiser step ``step`` (counted from 1)."""
        keep = min(self._decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value.detach(), 1 - keep)
            else:
                self.state[key].copy_(value)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Linear warm-up over the first share, then a cosine to 0; ``progress`` 0..1."""
    if progress < recipe.warm_up:
        return recipe.learning_rate * max(progress, 1e-3) / recipe.warm_up
    rest = (progress - recipe.warm_up) / max(1 - recipe.warm_up, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def new_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, not on norms, biases, decays and positional embeddings.

    Gates and decays, which act over template steps, are a group of their own with ``time_rate`` times the rate.
    """
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    over_time: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if ".gate." in name or name.endswith(".decay"):
            over_time.append(parameter)
        else:
            (decayed if parameter.dim() >= 2 and "pos_embed" not in name else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay, "rate": 1.0},
        {"params": free, "weight_decay": 0.0, "rate": 1.0},
        {"params": over_time, "weight_decay": 0.0, "rate": recipe.time_rate},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Every group gets its own multiple of ``rate``."""
    for group in optimiser.param_groups:
        group["lr"] = group["rate"] * rate


def new_model(config: TrackerConfig, seed: int) -> SpikeTrack:
    """Fresh weights; the same seed gives the same network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SpikeTrack(config)
        init_weights(model)
    return model


class Trainer:
    """One worker's share of a run. ``stage`` carries the starting weights; ``saved`` those of an earlier part."""

    def __init__(
        self,
        job: Job,
        crew: Crew,
        stage: Stage,
        sampler: Sampler,
        held_out: Sequence[VideoSequence],
        store: FrameStore,
        saved: RunState | None,
        tell: Tell,
        teacher: Teacher | None = None,
        prices: SpikePrices | None = None,
    ) -> None:
        self.job, self.crew, self.stage, self.sampler, self.held_out = job, crew, stage, sampler, held_out
        self.store, self.tell, self.teacher = store, tell, teacher
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = stage.module.to(self.device)
        self.optimiser = new_optimiser(self.model, job.recipe)
        self.state = saved or RunState()
        if saved is not None:
            self.model.load_state_dict(saved.model)
            self.optimiser.load_state_dict(saved.optimiser)
        average = {k: v.to(self.device) for k, v in saved.average.items()} if saved else None
        self.average = Averaged(self.model, job.recipe.ema, average)
        self.meter = SpikeMeter(stage.convolutions(), prices)
        self._looked = -1
        self._signal = 0
        self._started = self._began = 0.0
        self._ended = False

    def progress(self) -> float:
        """0..1 by steps, or by the clock where the recipe has a budget of minutes."""
        recipe = self.job.recipe
        if recipe.minutes > 0:
            return min(self.state.seconds / (60 * recipe.minutes), 1.0)
        return min(self.state.step / recipe.steps, 1.0)

    def run(self) -> SpikeTrack:
        """Train to the end; returns the averaged network (rank 0's).

        A signal ends the step at hand and saves; Ctrl-C then raises KeyboardInterrupt, another one SystemExit.
        """
        with self._deferred_signals():
            self._steps()
            if self.crew.leads and not self._signal:
                self._validate()
            if self.crew.leads:
                self.save()
        if self._signal:
            raise KeyboardInterrupt if self._signal == signal.SIGINT else SystemExit(128 + self._signal)
        return self.stage.deployed(self.average.state)

    def _steps(self) -> None:
        self._began = time.monotonic()
        self._started = self._began - self.state.seconds
        last_save = last_validation = time.monotonic()
        self.tell(f"training from step {self.state.step}", 0, 0)
        while self.progress() < 1 and not self._ended:
            self._step(self.progress())
            if not self.crew.leads:
                continue
            if self.state.step % self.job.report_every == 0:
                self._report()
            now = time.monotonic()
            if now - last_validation > self.job.validate_every and not self._ended:
                self._validate()
                last_validation = time.monotonic()
            if now - last_save > self.job.save_every:
                self.save()
                last_save = now

    @contextmanager
    def _deferred_signals(self) -> Iterator[None]:
        """A signal in the middle of a step would leave half an update; it is noted and obeyed behind the step.

        One that comes :data:`PATIENCE_S` later ends everything at once. Followers never hear any.
        """
        if not self.crew.leads or threading.current_thread() is not threading.main_thread():
            yield
            return
        since = 0.0

        def note(number: int, frame: FrameType | None) -> None:
            nonlocal since
            if not self._signal:
                self._signal, since = number, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                raise KeyboardInterrupt

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            if before[number] in (signal.SIG_IGN, None):  # a job in the background asks to be left alone
                del before[number]
            else:
                signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _step(self, progress: float) -> None:
        recipe, crew = self.job.recipe, self.crew
        share = recipe.templates_per_step // crew.size
        first = crew.rank * share
        self._look_back()
        samples = self._samples(range(first, first + share))
        if self.state.step and self.state.step % REFRESH_STEPS == 0:
            self.stage.refresh([self.sampler.draw(self.state.step, i) for i in range(CALIBRATION_SAMPLES)])
        self.stage.prepare()
        self.meter.active = recipe.energy_penalty > 0 or self.state.step % COUNT_STEPS == 0
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.half_precision and not self.stage.exact):
            maps = self.stage.maps(*self._crops(samples), recipe.searches)
        boxes = torch.from_numpy(np.concatenate([s.boxes for s in samples])).to(self.device)
        losses = tracking_loss(float_maps(maps), boxes, recipe)
        taught = self._taught(float_maps(maps), boxes, first, samples)
        spent = self.meter.total()
        self.optimiser.zero_grad(set_to_none=True)
        penalty = 0.0 if spent is None or spent.energy is None else recipe.energy_penalty * spent.energy / 1e6
        lesson = recipe.teacher_weight * taught["taught"] if taught else 0.0
        (losses.total + penalty + lesson).backward()
        parameters = list(self.model.parameters())
        # Everybody reads the leader's clock, and ends where the leader ends: below 0 says that it was told to.
        seconds = time.monotonic() - self._started
        told = crew.average(parameters, -seconds if self._signal else seconds)
        self.state.seconds, self._ended = abs(told), told < 0
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        set_rate(self.optimiser, learning_rate(recipe, progress))
        self.optimiser.step()
        self.state.step += 1
        self.average.update(self.model, self.state.step)
        self._record(losses, spent, taught)

    def _samples(self, indices: range) -> list[Sample]:
        """The samples of this worker; some may follow the network as it is."""
        if self.job.recipe.loop_share:
            return rolled(self.sampler, self.state.step, indices, self._answer, self.job.config)
        return [self.sampler.draw(self.state.step, index) for index in indices]

    def _answer(self, templates: Tensor, searches: Tensor) -> Tensor:
        """The present network's boxes ``[N,4]``, as it answers behind training."""
        self.meter.active = False
        if not self.stage.exact:
            self.stage.module.eval()  # the stage prepares itself again before every step
        half = self.job.recipe.half_precision and not self.stage.exact
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            maps = self.stage.maps(templates.to(self.device), searches.to(self.device), 1)
        window = torch.from_numpy(hann_window(self.job.config.grid)).to(self.device)
        return best_boxes(float_maps(maps), window).cpu()

    def _look_back(self) -> None:
        """Follow the clips with the averaged weights now and then, for samples of where they get lost."""
        recipe, step, crew = self.job.recipe, self.state.step, self.crew
        since = step - step % recipe.hard_every
        if not recipe.hard or since == self._looked or (since == 0 and not self.job.trained):
            return
        self._looked, clips = since, list(self.sampler.clips.items())
        if step == since:
            model = self.stage.deployed(self.average.state)
            found = failures(model, clips[crew.rank :: crew.size], self.store, recipe.seed + step)
            put_failures(self.job.folder, since, crew.rank, found)
            crew.average((), 0.0)
        lost = self.sampler.failures = get_failures(self.job.folder, since)
        if self.teacher is not None:
            self.teacher.look(lost)
        self._say(f"lost on {len(lost):,} frames of {len({one.clip for one in lost})} clips, of {len(clips)}")

    def _taught(self, maps: Maps, boxes: Tensor, first: int, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """The teacher's loss on the first templates of this worker, and how good the teacher was."""
        if self.teacher is None:
            return {}
        count = max(round(self.job.recipe.teacher_share * len(samples)), 1)
        taught = boxes[: count * self.job.recipe.searches]
        lesson = self.teacher.lesson(self.state.step, range(first, first + count), samples[:count], taught)
        return {"taught": self.teacher.loss(maps, lesson), "teacher_iou": lesson.trust.mean()}

    def _crops(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """uint8 templates ``[T,N,r,r,3]`` and searches ``[N K,r,r,3]`` on the device."""
        templates = torch.from_numpy(np.stack([s.templates for s in samples], 1))
        searches = torch.from_numpy(np.concatenate([s.searches for s in samples]))
        return templates.to(self.device), searches.to(self.device)

    def _record(self, losses: Losses, spent: Spent | None, taught: Mapping[str, Tensor]) -> None:
        values: dict[str, Tensor] = {name: getattr(losses, name) for name in Losses.__slots__} | dict(taught)
        if spent is not None:
            values["synops_m"] = spent.synops / 1e6
            if spent.energy is not None:
                values["spikes_mj"] = spent.energy / 1e6
        for name, value in values.items():
            total, count = self.state.sums.get(name, (0.0, 0))
            self.state.sums[name] = (total + float(value.detach()), count + 1)

    def _report(self) -> None:
        recipe, progress = self.job.recipe, self.progress()
        means = {name: total / count for name, (total, count) in self.state.sums.items()}
        self.state.sums = {}
        row = {"step": self.state.step, "seconds": self.state.seconds, "lr": learning_rate(recipe, progress), **means}
        self.state.history.append(row)
        crops = self.state.step * recipe.templates_per_step * recipe.searches
        self._say(
            f"{100 * progress:5.1f} %  step {self.state.step}  {crops / 1000:.1f} k crops  "
            f"{crops / max(self.state.seconds, 1e-9):.0f}/s  loss {means['total']:.3f} (score {means['score']:.3f}, "
            f"L1 {means['l1']:.3f}, GIoU {means['giou']:.3f}, log size {means['log_size']:.3f})  "
            f"{means.get('synops_m', math.nan):.1f} M synops{self._lessons(means)}"
        )

    def _lessons(self, means: Mapping[str, float]) -> str:
        if self.teacher is None:
            return ""
        spent = self.teacher.seconds / max(time.monotonic() - self._began, 1e-9)
        iou = means["teacher_iou"]
        return f", teacher {means['taught']:.3f} (its IoU {iou:.2f}, {100 * spent:.0f} % of the time)"

    def _validate(self) -> None:
        if not self.held_out:
            return
        result: Validation = validate(self.stage.deployed(self.average.state), self.held_out, self.store)
        self.state.history.append(
            {"step": self.state.step, "seconds": self.state.seconds, "validation": asdict(result)}
        )
        self._say(
            f"validation: pair IoU {result.pair_iou:.3f}, centre near {result.near:.2f}, "
            f"size slope {result.size_slope:.2f}, bias {result.size_bias:+.3f}, loop AUC {result.loop_auc:.3f} ("
            + ", ".join(f"{k} {v:.2f}" for k, v in result.clips.items())
            + ")"
        )

    def _say(self, what: str) -> None:
        self.tell(what, self.state.step, 0 if self.job.recipe.minutes > 0 else self.job.recipe.steps)

    def save(self) -> None:
        """Write the resumable state."""
        self.state.model, self.state.average = _on_cpu(self.model.state_dict()), _on_cpu(self.average.state)
        self.state.optimiser = self.optimiser.state_dict()
        save_run(self.job.folder, self.state)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in state.items()}
