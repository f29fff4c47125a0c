"""The batches of a distillation, by number: those of the stage's training, conditions and dropped captions included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from material import Captions, lower, raise_, stream, text_of, unpack
from stages import Phase, Plan
from torch import Tensor

from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.data.sample import Batch
from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.types import Conditioning

OFFSET = 10_000_000
"""Samples that the stage's own training does not reach."""


def shared(phase: Phase, pictures: float | None) -> Phase:
    """The phase with another share of packs of pictures; clips take the rest, each among themselves as before."""
    if pictures is None:
        return phase
    packs = pictures / (phase.images + phase.ray_images)
    clips = (1 - pictures) / (phase.clips + phase.ray_clips)
    return replace(
        phase,
        clips=phase.clips * clips,
        ray_clips=phase.ray_clips * clips,
        images=phase.images * packs,
        ray_images=phase.ray_images * packs,
    )


class StudentBatches:
    """Batch number n: clips and packs in the shares of the training's last phase, and what the student is told.

    As in training, one caption in ten is dropped, and the stage before is noised to a random level.

    Args:
        plan: the stage.
        before: the one before it.
        captions: encodes captions.
        batch: clips, or packs of pictures, of a batch.
        seed: of everything.
        pictures: the share of packs; None is that of the training's last phase.
        data: a folder of captioned clips instead of the scenes.
        workers: processes that make data.
        device: where the batches go.
    """

    def __init__(
        self,
        plan: Plan,
        before: Plan | None,
        captions: Captions,
        *,
        batch: int,
        seed: int,
        pictures: float | None = None,
        data: Path | None = None,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan, self.before, self.captions = plan, before, captions
        self.batch, self.seed, self.workers, self.device = batch, seed, workers, device
        phase = replace(shared(plan.training.phases[-1], pictures), batch=batch)
        self.stream = stream(plan, phase, before, seed=seed, data=data)
        self.loader: Iterator[Batch] = iter(())
        self.following = -1

    def __call__(self, number: int) -> tuple[Tensor, Conditioning]:
        """Clean videos and their conditioning; numbers in turn are made ahead by the workers."""
        if number != self.following:
            start = OFFSET + number * self.batch
            self.loader = iter(self.stream.loader(self.batch, start=start, workers=self.workers))
        self.following = number + 1
        return self.prepared(number, next(self.loader))

    def prepared(self, number: int, batch: Batch) -> tuple[Tensor, Conditioning]:
        """What the student sees of a batch."""
        video, cond = batch.video, text_of(batch, self.captions)
        if self.before is None and bool(batch.images.all()):
            video, cond = unpack(video, cond)
        count = len(video)
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + OFFSET + number)
        u = (torch.rand((), generator=draw) + torch.arange(count) / count) % 1
        keep = torch.rand(count, generator=draw) >= 0.1
        if self.before is not None:
            factors = self.plan.grid.over(self.before.grid)
            seeds = tuple(number * 100_000 + i for i in range(count))
            noise = KeyedNoise(seeds=seeds, stage=f"{self.plan.name}/students/{self.seed}")
            augmentation = ConditioningAugmentation(longest=0.35)  # as in training
            raised, levels = [], []
            for i in range(count):
                low = lower(video[i : i + 1], *factors, bool(batch.images[i]))
                noisy, level = augmentation.random(low, u[i : i + 1].square(), generator=noise.select([i]))
                raised.append(raise_(noisy, self.plan, video.shape))
                levels.append(level)
            cond = replace(cond, video=torch.cat(raised), aug_logsnr=torch.cat(levels))
        return video.to(self.device), cond.drop_text(keep).to(self.device)
