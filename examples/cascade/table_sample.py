"""Videos for the rows of the table: every stage's is kept, so that rows which begin alike share the work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from distilled_stages import choose_weights, student_stage
from evaluate_base import Prompt, kept, seed_of
from ledger import Ledger
from material import Captions
from safetensors.torch import load_file
from sampling import SAMPLING, Constant, find_weights, stage_for
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


@lru_cache(maxsize=64)
def digest(path: Path) -> str:
    """The first digits of a file's hash; read once in a process."""
    return file_hash(path)[:12]


def missing(row: Row, folder: Path) -> str | None:
    """Why a row cannot be made, or None."""
    for plan, part in zip(PLANS, row.parts, strict=False):
        if not _fits(plan, replace(part, student=False), folder):
            made = f"`python examples/cascade/train.py {plan.name}` makes them"
            return f"no weights of {plan.name} as it is planned; {made}"
        if not _fits(plan, part, folder):
            return f"no student of {plan.name}'s weights; `python examples/cascade/distill.py {plan.name}` makes one"
    return None


def _fits(plan: Plan, part: Part, folder: Path) -> bool:
    try:
        weights_of(plan, part, folder)
    except ValueError:
        return False
    return True


def chain(row: Row, folder: Path) -> list[str]:
    """For each stage of a row, all that its video depends on besides prompt and seed."""
    keys, key = [], ""
    for plan, part in zip(PLANS, row.parts, strict=False):
        key = f"{key} > {link(plan, part, folder)}".lstrip(" >")
        keys.append(key)
    return keys


def link(plan: Plan, part: Part, folder: Path) -> str:
    """All that one stage's video depends on besides the stage before, prompt and seed."""
    own = f"{plan.name} {digest(weights_of(plan, part, folder))} {part} {SAMPLING[plan.name]}"
    return f"{own} {plan.noise} {plan.snr} {plan.detail}"


def build(plan: Plan, part: Part, folder: Path) -> Stage:
    """The stage as a part has it."""
    own = SAMPLING[plan.name]
    sampling = replace(own, steps=part.steps, guidance=part.guidance, rule=part.rule or own.rule)
    file = weights_of(plan, part, folder)
    if part.student:
        stage = student_stage(plan, load_student(file), part.steps, sampling)
    else:
        stage = stage_for(plan, load_unet(file), sampling)
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
        device: where to compute.
    """

    def __init__(self, row: Row, folder: Path, videos: Path, ledger: Ledger, *, device: str) -> None:
        self.row, self.folder, self.videos, self.ledger, self.device = row, folder, videos, ledger, device
        self.chain = chain(row, folder)
        self.stages: dict[int, Stage] = {}

    def keys(self, prompt: Prompt, seed: int) -> list[str]:
        """Of each stage's video."""
        return [f"{key} | {prompt.split} {prompt.index} {seed} {self.device}" for key in self.chain]

    def video(self, prompt: Prompt, seed: int, captions: Captions) -> Tensor:
        """(1, 3, T, H, W) of the last stage, rounded to half precision, as it is kept."""
        keys = self.keys(prompt, seed)
        first = len(keys)
        while first and not (
            keys[first - 1] in self.ledger.rows and kept(self.videos, keys[first - 1]).exists()
        ):
            first -= 1
        video = load_file(kept(self.videos, keys[first - 1]))["video"].float() if first else None
        text, mask = captions([prompt.text])
        cond = Conditioning(text=text, text_mask=mask)
        for at in range(first, len(keys)):
            stage = self.stage(at)
            wall, cpu = time.monotonic(), time.process_time()
            with evaluations(stage) as count, torch.no_grad():
                before = None if video is None else video.to(self.device)
                made = stage.run(cond, before, seeds=(seed_of(prompt, seed),), device=self.device)
            video = made.half().cpu().float()
            spent = {"seconds": time.monotonic() - wall, "cpu": time.process_time() - cpu}
            self.videos.mkdir(parents=True, exist_ok=True)
            save_tensors(kept(self.videos, keys[at]), {"video": video.half()}, {"key": keys[at]})
            self.ledger.add(keys[at], {**spent, "evaluations": count[0]})
        assert video is not None
        return video

    def through(self, first: Tensor, caption: str, seed: int, captions: Captions) -> Tensor:
        """What the stages after the first make of a video of the first; nothing is kept."""
        text, mask = captions([caption])
        video = first.to(self.device)
        for at in range(1, len(self.row.parts)):
            with torch.no_grad():
                cond = Conditioning(text=text, text_mask=mask)
                video = self.stage(at).run(cond, video, seeds=(seed,), device=self.device)
        return video.float().cpu()

    def base(self, caption: str, seed: int, captions: Captions) -> Tensor:
        """What the first stage makes of a caption; nothing is kept."""
        text, mask = captions([caption])
        with torch.no_grad():
            cond = Conditioning(text=text, text_mask=mask)
            return self.stage(0).run(cond, None, seeds=(seed,), device=self.device).float().cpu()

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


def second_of_one(plan: Plan, folder: Path, *, device: str) -> dict[str, float]:
    """Seconds that one evaluation of a stage's whole grid takes, on noise; a student's takes as long."""
    before = PLANS[PLANS.index(plan) - 1].grid
    stage = build(plan, Part(steps=1, guidance=Constant(scale=1.0)), folder)
    assert isinstance(stage.denoiser, nn.Module)
    stage.denoiser.to(device)
    low = torch.rand(1, 3, *before.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    text = Conditioning(text=torch.zeros(1, 4, 384), text_mask=torch.ones(1, 4, dtype=torch.bool))
    wall, cpu = time.monotonic(), time.process_time()
    with torch.no_grad():
        stage.run(text, low.to(device), seeds=(0,), device=device).cpu()
    return {"seconds": time.monotonic() - wall, "cpu": time.process_time() - cpu}
