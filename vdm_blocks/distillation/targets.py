"""What a student is asked for, as pure functions of a teacher's answers; all levels are (), (B,) or (B, T)."""

from __future__ import annotations

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.types import Conditioning, Denoiser, Schedule

__all__ = ["ddim_step", "first_share", "jump_gain", "two_step_target"]


def _half_logsnr(schedule: Schedule, t: Tensor) -> Tensor:
    """log(alpha / sigma) from the scales themselves: -inf where alpha is 0."""
    alpha, sigma = schedule.alpha_sigma(t)
    return alpha.log() - sigma.log()


def jump_gain(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """What x0 is multiplied by in a DDIM step: alpha_s - alpha_t sigma_s / sigma_t, without cancellation."""
    alpha_s, _ = schedule.alpha_sigma(s)
    return -alpha_s * torch.expm1(_half_logsnr(schedule, t) - _half_logsnr(schedule, s))


def ddim_step(schedule: Schedule, z_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """z_s = (sigma_s / sigma_t) z_t + (alpha_s - alpha_t sigma_s / sigma_t) x0, and x0 itself where s is 0.

    (arXiv 2202.00512, eq. 8.) Each sample, or frame, has its own times. s = t gives z_t to the bit.
    """
    (_, sigma_t), (_, sigma_s) = schedule.alpha_sigma(t), schedule.alpha_sigma(s)
    stays = s == t
    ratio = torch.where(stays, 1.0, sigma_s / sigma_t)
    gain = torch.where(stays, 0.0, jump_gain(schedule, t, s))
    z_s = expand_level(ratio, z_t) * z_t + expand_level(gain, z_t) * x0
    clean = (s == 0) & ~stays
    return torch.where(expand_level(clean, z_t).to(device=z_t.device, dtype=torch.bool), x0, z_s)


def first_share(schedule: Schedule, t: Tensor, mid: Tensor, s: Tensor) -> Tensor:
    """The share of the first step's x0 in the x0 that leads from z_t to the end of both steps, in [0, 1].

    exp(h_ms) expm1(h_tm) / expm1(h_ts), h_ab = (logsnr_a - logsnr_b) / 2, of t's shape. It depends on the log-SNRs
    alone, whatever the path, and is finite where alpha_t or sigma_s is 0: a first step from pure noise has exp(h_ms),
    and one on the way to the clean end nothing at all.
    """
    a, b, c = (_half_logsnr(schedule, x) for x in (t, mid, s))
    share = torch.exp(b - c) * torch.expm1(a - b) / torch.expm1(a - c)
    share = torch.where((mid == t) | (s == 0), 0.0, share)
    return torch.where(mid == s, 1.0, share)


@torch.no_grad()
def two_step_target(
    teacher: Denoiser, z_t: Tensor, t: Tensor, mid: Tensor, s: Tensor, cond: Conditioning
) -> Tensor:
    """The x0 with which one DDIM step from t to s lands where the teacher's two, by way of `mid`, land.

        z_m = DDIM(z_t, x0_t; t -> mid),   x0 = w x0_t + (1 - w) x0_m,   w = first_share(t, mid, s)

    (arXiv 2202.00512, algorithm 2 and appendix G.) Written there as (z_s - r z_t) / (alpha_s - r alpha_t),
    r = sigma_s / sigma_t, whose numerator and denominator both vanish for short steps and near the clean end. The
    two estimates are all there is in it, so it is a mean of the two. Nothing is clipped.

    Args:
        teacher: any denoiser, guided or not; it is evaluated twice, without gradients.
        z_t: (B, C, T, H, W).
        t: the time of z_t; (), (B,) or (B, T).
        mid: where the teacher halts; mid = t or mid = s make it one step.
        s: where the jump ends; at 0 the target is the teacher's last x0.
        cond: passed on to the teacher.

    >>> from vdm_blocks.diffusion import CosineSchedule
    >>> from vdm_blocks.types import Denoised
    >>> class Point:  # knows that the data is a single point
    ...     schedule = CosineSchedule()
    ...     def __call__(self, z_t, t, cond):
    ...         return Denoised(torch.full_like(z_t, 0.25), z_t)
    >>> half, end = torch.tensor(0.5), torch.tensor(0.25)
    >>> two_step_target(Point(), torch.randn(1, 1, 1, 1, 1), torch.tensor(1.0), half, end, Conditioning()).item()
    0.25
    """
    schedule = teacher.schedule
    first = teacher(z_t, t, cond).x0
    second = teacher(ddim_step(schedule, z_t, first, t, mid), mid, cond).x0
    share = expand_level(first_share(schedule, t, mid, s), first)
    return torch.lerp(second, first, share.to(first)) if share.ndim else second.lerp(first, float(share))
