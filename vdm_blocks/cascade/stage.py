"""One stage of a cascade: a grid, a denoiser, and how it is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vdm_blocks.cascade.grid import Grid
from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.conditioning.upsample import upsample_space
from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.diffusion.values import check_numbers, check_value
from vdm_blocks.diffusion.video_noise import IndependentNoise, VideoNoise
from vdm_blocks.sampling.grids import check_times
from vdm_blocks.sampling.loop import StepInfo, sample
from vdm_blocks.sampling.rule import StepRule
from vdm_blocks.types import Conditioning, Denoiser, check_denoiser

__all__ = ["Raise", "Stage", "raise_space"]

Raise = Callable[[Tensor, Grid], Tensor]
"""Brings the video of the stage before, (B, C, T', H', W'), onto a grid: (B, C', T, H, W)."""


def raise_space(video: Tensor, grid: Grid) -> Tensor:
    """Bilinear in space; the frames are as many already."""
    return upsample_space(video, grid.height, grid.width)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What turns noise, a caption and the stage before into a video on `grid`.

    Attributes:
        name: keys this stage's noise; the stages of a cascade differ in it.
        grid: of the video that comes out.
        denoiser: of any make, guided and thresholded as it should be.
        step: the step rule.
        times: the sampling grid, from 1 to 0.
        augmentation: noises the video of the stage before; None for the first stage.
        snr: signal-to-noise ratio of that noise, as a power ratio; the paper uses 3 or 5.
        raise_: brings that video onto `grid`.
        noise: what the frames' noise has in common, as in training.
        channels: of the video.
        dtype: of the noisy video; float16 halves the memory of a large grid.

    Raises:
        ValueError: an SNR that is not positive, a bare network for a denoiser, or times that are no grid.
    """

    name: str
    grid: Grid
    denoiser: Denoiser
    step: StepRule[Any]
    times: Tensor
    augmentation: ConditioningAugmentation | None = None
    snr: float = 5.0
    raise_: Raise = raise_space
    noise: VideoNoise = IndependentNoise()  # noqa: RUF009 - frozen
    channels: int = 3
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.snr > 0:
            raise ValueError(f"stage {self.name}: snr must be positive; got {self.snr}")
        check_denoiser(self.denoiser)
        check_times(self.times)

    def run(
        self,
        cond: Conditioning,
        before: Tensor | None = None,
        *,
        seeds: Sequence[int],
        device: torch.device | str | None = None,
        on_step: Callable[[StepInfo], bool | None] | None = None,
    ) -> Tensor:
        """Samples this stage.

        Args:
            cond: the text, and whatever else the network is told; its video and levels are filled in here.
            before: the video of the stage before, (B, C, T', H', W') in [-1, 1]; None for the first stage.
            seeds: one for each sample; the result of a sample depends on its own alone.
            device: where to; None takes `before`'s, or the CPU.
            on_step: told of each step.

        Returns:
            (B, channels, T, H, W) in [-1, 1].

        Raises:
            ValueError: a `before` that is missing or not wanted, or that does not go onto the grid; or another number
                of seeds than of rows of text.
        """
        if (before is None) != (self.augmentation is None):
            wanted = "no video before it" if self.augmentation is None else "the video of the stage before it"
            raise ValueError(f"stage {self.name} takes {wanted}; got {'none' if before is None else 'one'}")
        check_value("seeds", seeds, Sequence, "a list with one int per sample")
        if cond.text is not None and cond.text.shape[0] != len(seeds):
            raise ValueError(
                f"stage {self.name} got {len(seeds)} seeds and {cond.text.shape[0]} rows of text; give one row a seed"
            )
        device = device if device is not None else (before.device if before is not None else "cpu")
        keyed = KeyedNoise(seeds=tuple(seeds), stage=self.name)
        full = torch.full((len(seeds),), float(self.grid.fps), device=device)
        cond = replace(cond.to(device), fps=full)
        if before is not None and self.augmentation is not None:
            noisy, logsnr = self.augmentation.at_snr(before.to(device), self.snr, generator=keyed)
            raised = self.raise_(noisy, self.grid)
            if raised.shape[2:] != self.grid.shape:
                raise ValueError(
                    f"stage {self.name}: the video of the stage before is {tuple(before.shape)} and was brought onto "
                    f"{tuple(raised.shape[2:])}; the stage's grid is {self.grid}"
                )
            cond = replace(cond, video=raised.to(self.dtype), aug_logsnr=logsnr)
            del noisy, raised
        shape = (len(seeds), self.channels, *self.grid.shape)
        noise = self.noise.draw(keyed, shape, step="start", device=device, dtype=self.dtype)
        return sample(
            self.denoiser,
            self.step,
            self.times,
            noise,
            cond,
            generator=keyed,
            law=self.noise,
            on_step=on_step,
        ).clamp_(-1, 1)
