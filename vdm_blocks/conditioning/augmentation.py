"""Noise conditioning augmentation: a stage learns not to trust the one before it too much."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource, draw_normal
from vdm_blocks.diffusion.schedules import CosineSchedule, NoiseSchedule

__all__ = ["ConditioningAugmentation"]


@dataclass(frozen=True, kw_only=True)
class ConditioningAugmentation:
    """y' = alpha' y + sigma' e on the low-resolution video, and the log-SNR of it (arXiv 2210.02303, section 2.5).

    In training the time of the augmentation is uniform per sample over [0, `longest`] of the schedule, so the
    log-SNR is random; at sampling it is fixed, the paper's "SNR such as 3 or 5". The video is noised before it is
    upsampled, as Imagen does (arXiv 2205.11487, section 2.3).

    Attributes:
        schedule: variance preserving; turns times into noise.
        longest: the largest training time; 1 reaches pure noise.

    Raises:
        ValueError: `longest` outside (0, 1], or an SNR that is not positive.

    >>> video = torch.zeros(2, 3, 4, 8, 8)
    >>> noisy, logsnr = ConditioningAugmentation().at_snr(video, 3.0, generator=torch.Generator().manual_seed(0))
    >>> round(logsnr[0].exp().item(), 4), round(noisy.std().item(), 1)
    (3.0, 0.5)
    """

    schedule: NoiseSchedule = field(default_factory=CosineSchedule)
    longest: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.longest <= 1:
            raise ValueError(f"longest must lie in (0, 1]; got {self.longest}")

    def at_time(self, video: Tensor, t: Tensor, *, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """`video` (B, C, T, H, W) noised to time `t` (B,) of the schedule, and its log-SNR (B,)."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        eps = draw_normal(generator, video.shape, step="augmentation", device=video.device, dtype=video.dtype)
        noisy = expand_level(alpha, video) * video + expand_level(sigma, video) * eps
        return noisy.to(video.dtype), self.schedule.logsnr(t).float()

    def at_snr(self, video: Tensor, snr: float, *, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """`video` noised to a fixed signal-to-noise ratio alpha^2 / sigma^2, for sampling."""
        ends = self.schedule.logsnr(torch.tensor([1.0, 0.0], dtype=torch.float64)).exp().tolist()
        if not ends[0] <= snr <= ends[1]:
            raise ValueError(
                f"snr must be positive and within the schedule, {ends[0]:.3g} to {ends[1]:.3g}; got {snr}. "
                "Imagen Video uses 3 or 5"
            )
        t = self.schedule.time(torch.full((video.shape[0],), math.log(snr), dtype=torch.float64))
        return self.at_time(video, t.to(video.device, torch.float32), generator=generator)

    def random(self, video: Tensor, u: Tensor, *, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """`video` noised to time `longest` u, with u (B,) uniform on [0, 1]: for training."""
        return self.at_time(video, self.longest * u, generator=generator)
