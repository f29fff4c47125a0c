"""Videos for the rows of the table: every stage's is kept, so that rows which begin alike share the work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from distilled_stages import FEW, RECIPES, STEPS, choose_weights, rule_of, student_stage
from evaluate_base import Prompt, kept, seed_of
from ledger import Ledger
from material import Captions
from safetensors.torch import load_file
from sampling import SAMPLING, Constant, Sampling, find_weights, has_weights, stage_for
from stages import PLANS, Plan
from table_rows import Clip, Part, Row
from torch import Tensor, nn

from vdm_blocks.cascade import Stage
from vdm_blocks.checkpoint import file_hash, load_unet, save_tensors
from vdm_blocks.denoisers import DynamicThreshold, StaticThreshold
from vdm_blocks.distillation import load_student
from vdm_blocks.models import VideoUNet
from vdm_blocks.types import Conditioning, Denoiser


def weights_of(plan: Plan, part: Part, folder: Path) -> Path:
    """The file that a part runs.

    Raises:
        ValueError: it is not there, does not fit the plan, or is the student of other weights than the plan's.
    """
    return _student(plan, part.steps, folder) if part.student else find_weights(plan, folder)


@lru_cache(maxsize=64)
def _student(plan: Plan, steps: int, folder: Path) -> Path:
    chosen = choose_weights(plan, str(steps), folder)
    if not chosen.student:
        raise ValueError(
            f"{plan.name}: {chosen.why}; `python examples/cascade/distill.py {plan.name}` makes one"
        )
    return chosen.weights


_load_teacher, _load_student = lru_cache(maxsize=8)(load_unet), lru_cache(maxsize=8)(load_student)
"""Rows share their networks."""


@lru_cache(maxsize=64)
def digest(path: Path) -> str:
    """The first digits of a file's hash; read once in a process."""
    return file_hash(path)[:12]


def missing(row: Row, folder: Path) -> str | None:
    """Why a row cannot be made, or None."""
    for plan, part in zip(PLANS, row.parts, strict=False):
        if not has_weights(plan, folder):
            made = f"`python examples/cascade/train.py {plan.name}` makes them"
            return f"no weights of {plan.name} as it is planned; {made}"
        if part.student and not _has_student(plan, part.steps, folder):
            return f"no student of {plan.name}'s weights; `python examples/cascade/distill.py {plan.name}` makes one"
    return None


def _has_student(plan: Plan, steps: int, folder: Path) -> bool:
    try:
        _student(plan, steps, folder)
    except ValueError:
        return False
    return True


def title_of(row: Row, folder: Path) -> str:
    """A row's title; where it has students in fewer steps than are shipped, which of them were distilled for so few."""
    parts = [(plan, part) for plan, part in zip(PLANS, row.parts, strict=False) if part.student]
    fewer = [(plan, part) for plan, part in parts if part.steps < RECIPES[plan.name].shipped]
    if missing(row, folder) is not None:
        return row.title
    own = [plan.name for plan, part in fewer if weights_of(plan, part, folder).parent.name == FEW]
    if not own:
        return row.title
    return f"{row.title}, {'all' if len(own) == len(fewer) else ', '.join(own)} distilled for these steps"


def chain(row: Row, folder: Path) -> list[str]:
    """For each stage of a row, all that its video depends on besides prompt and seed."""
    keys, key = [], ""
    for plan, part in zip(PLANS, row.parts, strict=False):
        key = f"{key} > {link(plan, part, folder)}".lstrip(" >")
        keys.append(key)
    return keys


def link(plan: Plan, part: Part, folder: Path) -> str:
    """All that one stage's video depends on besides the stage before, prompt and seed."""
    path = weights_of(plan, part, folder)
    how = f"student by {rule_of(plan, path)} to {RECIPES[plan.name].last}" if part.student else f"{part.clip}"
    snr = plan.snr if part.snr is None else part.snr
    return f"{plan.name} {digest(path)} {settings(plan, part)} {how} {plan.schedule} {plan.noise} {snr} {plan.detail}"


def settings(plan: Plan, part: Part) -> Sampling:
    """The stage's own, with what the part says instead."""
    own = SAMPLING[plan.name]
    return replace(own, steps=part.steps, guidance=part.guidance, rule=part.rule or own.rule)


def build(plan: Plan, part: Part, folder: Path) -> Stage:
    """The stage as a part has it."""
    file, sampling = weights_of(plan, part, folder), settings(plan, part)
    if part.student:
        stage = student_stage(plan, _load_student(file), part.steps, sampling, rule_of(plan, file))
    else:
        stage = stage_for(plan, _load_teacher(file), sampling)
        stage = replace(stage, denoiser=clipped(stage.denoiser, part.clip))
    return stage if part.snr is None else replace(stage, snr=part.snr)


def clipped(denoiser: Denoiser, clip: Clip) -> Denoiser:
    """A guided denoiser with another thresholding; others stay as they are."""
    if not isinstance(denoiser, DynamicThreshold) or clip is Clip.DYNAMIC:
        return denoiser
    inner = denoiser.denoiser
    if clip is Clip.NONE:
        return inner
    return StaticThreshold(inner) if clip is Clip.STATIC else DynamicThreshold(inner, quantile=0.9)


class Sampler:
    """Makes the videos of one row.

    Args:
        row: which.
        folder: of the weights.
        videos: the folder where every stage's videos are kept.
        ledger: where it is kept what they cost.
        device: where to compute.
    """

    def __init__(self, row: Row, folder: Path, videos: Path, ledger: Ledger, *, device: str) -> None:
        self.row, self.folder, self.videos_at, self.ledger, self.device = row, folder, videos, ledger, device
        self.chain = chain(row, folder)
        self.stages: dict[int, Stage] = {}

    def keys(self, prompt: Prompt, seed: int) -> list[str]:
        """Of each stage's video."""
        what = f"{prompt.split} {prompt.index} {prompt.text!r} {seed} {self.device}"
        return [f"{key} | {what}" for key in self.chain]

    def videos(self, pairs: Sequence[tuple[Prompt, int]], captions: Captions) -> Tensor:
        """(B, 3, T, H, W) of the last stage, of prompts and seeds; rounded to half precision, as they are kept."""
        return self._stage_videos(len(self.chain) - 1, pairs, captions)

    def _stage_videos(self, at: int, pairs: Sequence[tuple[Prompt, int]], captions: Captions) -> Tensor:
        """Stage number `at`, those that are not kept yet all at once, and the stages before as far as it takes."""
        wanted = {self.keys(*pair)[at]: pair for pair in pairs}
        files = {key: kept(self.videos_at, key) for key in wanted}
        todo = [key for key in wanted if key not in self.ledger.rows or not files[key].exists()]
        if todo:
            own = [wanted[key] for key in todo]
            before = self._stage_videos(at - 1, own, captions) if at else None
            made, spent = self.run(at, [(p.text, seed_of(p, seed)) for p, seed in own], before, captions)
            self.videos_at.mkdir(parents=True, exist_ok=True)
            for key, video in zip(todo, made.half(), strict=True):
                save_tensors(files[key], {"video": video[None]}, {"key": key})
                self.ledger.add(key, spent)
        return torch.cat([load_file(file)["video"].float() for file in files.values()])

    def run(
        self, at: int, said: Sequence[tuple[str, int]], before: Tensor | None, captions: Captions
    ) -> tuple[Tensor, dict[str, float]]:
        """Videos of one stage, of captions and seeds, and what one of them cost."""
        text, mask = captions([caption for caption, _ in said])
        stage = self.stage(at)
        wall, cpu = time.monotonic(), time.process_time()
        with evaluations(stage) as count, torch.no_grad():
            made = stage.run(
                Conditioning(text=text, text_mask=mask),
                None if before is None else before.to(self.device),
                seeds=[seed for _, seed in said],
                device=self.device,
            )
            made = made.float().cpu()
        spent = {
            "seconds": time.monotonic() - wall,
            "cpu": time.process_time() - cpu,
            "evaluations": count[0],
        }
        return made, {name: value / len(said) for name, value in spent.items()}

    def spent(self, prompt: Prompt, seed: int) -> dict[str, float]:
        """Seconds, seconds of the processor and network evaluations of all stages together."""
        rows = self.ledger.present(self.keys(prompt, seed))
        return {name: sum(row[name] for row in rows) for name in ("seconds", "cpu", "evaluations")}

    def stage(self, at: int) -> Stage:
        """Stage number `at`, loaded once."""
        if at not in self.stages:
            stage = build(PLANS[at], self.row.parts[at], self.folder)
            assert isinstance(stage.denoiser, nn.Module)
            stage.denoiser.to(self.device)
            self.stages[at] = stage
        return self.stages[at]


@contextmanager
def evaluations(stage: Stage) -> Iterator[list[int]]:
    """Counts what the stage's network is given, one for each video and time; guidance counts twice."""
    count = [0]
    assert isinstance(stage.denoiser, nn.Module)
    network = next(module for module in stage.denoiser.modules() if isinstance(module, VideoUNet))

    def seen(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        count[0] += len(given[0])

    handle = network.register_forward_pre_hook(seen)
    try:
        yield count
    finally:
        handle.remove()


def seconds_of_a_step(plan: Plan, folder: Path, *, device: str) -> dict[str, float]:
    """Seconds that one of eight steps of a stage's whole grid takes, from noise; a student's take as long."""
    before = PLANS[PLANS.index(plan) - 1].grid
    stage = build(plan, Part(steps=STEPS, guidance=Constant(scale=1.0)), folder)
    assert isinstance(stage.denoiser, nn.Module)
    stage.denoiser.to(device)
    low = torch.rand(1, 3, *before.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    text = Conditioning(text=torch.zeros(1, 4, 384), text_mask=torch.ones(1, 4, dtype=torch.bool))
    wall, cpu = time.monotonic(), time.process_time()
    with torch.no_grad():
        stage.run(text, low.to(device), seeds=(0,), device=device).cpu()
    return {"seconds": (time.monotonic() - wall) / STEPS, "cpu": (time.process_time() - cpu) / STEPS}
