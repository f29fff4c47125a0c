"""Noise conditioning augmentation: a stage learns not to trust the one before it too much."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import NoiseSource, draw_normal
from vdm_blocks.diffusion.schedules import CosineSchedule, NoiseSchedule, alpha_sigma_vp, check_time

__all__ = ["ConditioningAugmentation"]


@dataclass(frozen=True, kw_only=True)
class ConditioningAugmentation:
    """y' = alpha' y + sigma' e on the low-resolution video, and the log-SNR of it (arXiv 2210.02303, section 2.5).

    In training the time of the augmentation is uniform per sample over [0, `longest`] of the schedule, so the
    log-SNR is random; at sampling it is fixed, the paper's "SNR such as 3 or 5". The video is noised before it is
    upsampled, as Imagen does (arXiv 2205.11487, section 2.4).

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
        """`video` (B, C, T, H, W) noised to time `t` (B,) of the schedule, and its log-SNR (B,).

        Raises:
            ValueError: times on the CPU outside [0, 1], or a video in whole numbers.
        """
        check_time(t)
        if not video.is_floating_point():
            raise ValueError(
                f"video is {video.dtype}; give floating-point numbers in [-1, 1]: bytes / 127.5 - 1"
            )
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

    def truncated(self, z: Tensor, t: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
        """What a stage's chain had reached when it was stopped at time t > 0, as an augmented video, and its log-SNR.

        The other way to the same law (arXiv 2106.15282, section 3): z_t of the low-resolution stage is its video
        noised already, so its last steps are saved, and no noise is drawn. `at_time` is the non-truncated way. The
        network hears the log-SNR and sees sqrt(alpha^2 + sigma^2) = 1 in both.

        Args:
            z: where the chain was, (B, C, T, H, W): sample it on a grid that ends at `t`, such as `times[:-3]`.
            t: the time of z, 0-d.
            schedule: that of the stage that made z, on any path.

        Raises:
            ValueError: a time outside (0, 1], or a log-SNR beyond this augmentation's own schedule.
        """
        if t.ndim > 0 or not 0 < float(t) <= 1:
            raise ValueError(f"t is {t.tolist()}; the chain stopped at one time in (0, 1], 0-d")
        logsnr = schedule.logsnr(t.double())
        noisy, clean = self.schedule.logsnr(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        if not noisy <= float(logsnr) <= clean:
            raise ValueError(
                f"the chain stopped at log-SNR {float(logsnr):.4g}, but the augmentation was trained from "
                f"{noisy:.4g} to {clean:.4g}; stop it between"
            )
        shrink = alpha_sigma_vp(logsnr)[0] / schedule.alpha_sigma(t.double())[0]
        return z * shrink, torch.full((z.shape[0],), float(logsnr), device=z.device)

    def random(self, video: Tensor, u: Tensor, *, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """`video` noised to time `longest` u, with u (B,) uniform on [0, 1]: for training."""
        return self.at_time(video, self.longest * u, generator=generator)
