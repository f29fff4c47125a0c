"""Trainings of a study: arms that see the same samples go in step, so that each batch is made once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from course import descend
from ledger import Progress
from material import Captions, lower, raise_, stream, text_of
from muon import Muon
from stages import PLANS, Plan
from study_arms import Arm, Target, UpperArm, recipe
from torch import Tensor

from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.data.sample import Batch
from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.models import build_network
from vdm_blocks.training import EMA, DiffusionLoss, WarmedDecay
from vdm_blocks.training.state import TrainingState
from vdm_blocks.types import Conditioning

RATE = 2e-3


def before_of(plan: Plan) -> Plan | None:
    """The stage whose video a plan's takes."""
    index = [own.name for own in PLANS].index(plan.name)
    return PLANS[index - 1] if index else None


class Learner:
    """One arm's network in training, kept in a file whenever it is measured.

    Args:
        arm: which.
        seed: of its first weights, its samples and its noise.
        folder: of the file.
    """

    def __init__(self, arm: Arm, seed: int, folder: Path) -> None:
        self.arm, self.seed, self.plan = arm, seed, arm.plan
        torch.manual_seed(seed)
        self.network = build_network(self.plan.unet)
        self.residual: ResidualNetwork | None = None
        if isinstance(arm, UpperArm) and arm.target is Target.RESIDUAL:
            self.residual = ResidualNetwork(self.network, detail_std=self.plan.detail)
        prediction, self.weighting = arm.learning
        self.denoiser = ModelDenoiser(
            self.network if self.residual is None else self.residual, prediction=prediction
        )
        optimizer = Muon(self.network.parameters(), lr=RATE)
        self.state = TrainingState(self.network, EMA(self.network, WarmedDecay(decay=0.99)), optimizer)
        self.identity = {"arm": recipe(arm), "seed": str(seed)}
        self.file = folder / f"{arm.name}-{seed}.safetensors"
        if self.file.exists():
            self.state.load(self.file, run=self.identity)

    def learn(self, video: Tensor, t: Tensor, cond: Conditioning, noise: KeyedNoise) -> float:
        """One step; returns the loss."""
        for group in self.state.optimizer.param_groups:
            group["lr"] = self.rate()
        loss_of = DiffusionLoss(weighting=self.weighting, noise=self.plan.noise)
        with torch.autocast("cpu", torch.bfloat16):
            losses = loss_of(self.denoiser, video, t, cond, generator=noise)
        if self.residual is not None:
            losses = losses * self.residual.precision(self.denoiser.schedule.logsnr(t), cond).to(losses)
        return descend(self.state, losses.mean())

    def rate(self) -> float:
        """50 steps of warm-up, constant, and linear to a fiftieth over the last 30%."""
        left = (self.arm.steps - self.state.step) / (0.3 * self.arm.steps)
        return RATE * min(1.0, (self.state.step + 1) / 50, max(left, 0.02))

    def save(self) -> None:
        """Whole or not at all."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.state.save(self.file, run=self.identity)


def given(
    step: int, batch: Batch, plan: Plan, captions: Captions, seed: int
) -> tuple[Tensor, Tensor, Conditioning, KeyedNoise]:
    """Video, times, condition and noise of one step: the same for every arm that sees the batch."""
    video, cond = batch.video, text_of(batch, captions)
    count = len(video)
    noise = KeyedNoise(seeds=tuple(step * 100_000 + i for i in range(count)), stage=f"study/{seed}")
    draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
    even = torch.arange(count) / count
    t = (torch.rand((), generator=draw) + even) % 1
    u = ((torch.rand((), generator=draw) + even) % 1)[torch.randperm(count, generator=draw)]
    keep = torch.rand(count, generator=draw) >= 0.1
    before = before_of(plan)
    if before is not None:
        low = lower(video, *plan.grid.over(before.grid), images=False)
        noisy, logsnr = ConditioningAugmentation(longest=0.35).random(low, u.square(), generator=noise)
        cond = replace(cond, video=raise_(noisy, plan, video.shape), aug_logsnr=logsnr)
    return video, t, cond.drop_text(keep), noise


def train(
    group: Sequence[Arm],
    seed: int,
    folder: Path,
    captions: Captions,
    measure: Callable[[Learner, float], None],
    *,
    ends: float,
    quiet: bool,
) -> bool:
    """Trains arms on one sequence of batches, from their files on; False if the time ran out.

    Args:
        group: arms whose samples are the same.
        seed: of all that is drawn.
        folder: of the files.
        captions: the text encoder.
        measure: told of a learner when it has done as many steps as are to be measured, and of the seconds of the
            processor that its steps took since the last time.
        ends: when to stop, by the monotonic clock.
        quiet: no progress.
    """
    learners = [Learner(arm, seed, folder) for arm in group]
    spent = dict.fromkeys(range(len(learners)), 0.0)
    first = min(learner.state.step for learner in learners)
    plan, phase = learners[0].plan, learners[0].plan.training.phases[0]
    progress = Progress(f"{group[0].name}..{group[-1].name} seed {seed}", phase.steps - first, quiet=quiet)
    if first == phase.steps:
        return True
    batches = iter(
        stream(plan, phase, before_of(plan), seed=seed).loader(phase.batch, start=first * phase.batch)
    )
    for step in range(first, phase.steps):
        if time.monotonic() > ends:
            return False
        now = given(step, next(batches), plan, captions, seed)
        for i, learner in enumerate(learners):
            if learner.state.step > step:
                continue
            began = time.process_time()
            learner.learn(*now)
            spent[i] += time.process_time() - began
            if learner.state.step in learner.arm.measured:
                measure(learner, spent[i])
                learner.save()
                spent[i] = 0.0
        progress()
    return True
