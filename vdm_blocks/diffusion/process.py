"""The forward process and its conditionals; levels have shape (), (B,) or (B, T).

    q(z_t | x0)      = N(alpha_t x0, sigma_t^2)
    q(z_t | z_s)     = N(alpha_t / alpha_s z_s, (1 - r) sigma_t^2)                             s <= t
    q(z_s | z_t, x0) = N(alpha_t sigma_s^2 / (alpha_s sigma_t^2) z_t + (1 - r) alpha_s x0, (1 - r) sigma_s^2)

with r = exp(logsnr_t - logsnr_s) (arXiv 2107.00630, appendix A). 1 - r is computed by expm1 and nothing is divided
by alpha_t, so that short steps lose no digits and the ends are finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.schedules import NoiseSchedule, check_time

__all__ = ["diffuse", "initial", "posterior", "transition"]


def diffuse(x0: Tensor, eps: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z_t = alpha_t x0 + sigma_t eps.

    Raises:
        ValueError: times on the CPU outside [0, 1], or noise of another shape than the video's.

    >>> from vdm_blocks.diffusion.schedule_paths import RectifiedFlowSchedule
    >>> z_t = diffuse(torch.full((1, 2), 4.0), torch.zeros(1, 2), torch.tensor(0.25), RectifiedFlowSchedule())
    >>> round(float(z_t.mean()), 4)
    3.0
    """
    check_time(t)
    if eps.shape != x0.shape:
        raise ValueError(
            f"eps has shape {tuple(eps.shape)} and x0 {tuple(x0.shape)}; every entry of the video has noise of "
            "its own, so the two must be equal: torch.randn_like(x0)"
        )
    alpha, sigma = schedule.alpha_sigma(t)
    return expand_level(alpha, x0) * x0 + expand_level(sigma, x0) * eps


def initial(noise: Tensor, schedule: NoiseSchedule) -> Tensor:
    """z_1 = sigma_1 noise: where sampling starts. Only variance-exploding schedules have a sigma_1 other than 1."""
    _, sigma = schedule.alpha_sigma(torch.ones((), dtype=torch.float64, device="cpu"))
    return sigma * noise


def _check_order(s: Tensor, t: Tensor) -> None:
    check_time(s)
    check_time(t)
    if s.device.type == "cpu" and t.device.type == "cpu" and bool((s > t).any()):
        raise ValueError(
            f"s={s.flatten()[:4].tolist()} lies after t={t.flatten()[:4].tolist()}; give the cleaner time as s and "
            "the noisier as t (0 is clean, 1 is noise)"
        )


def _ratio(alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
    """alpha_t / alpha_s; 1 where both are 0, which is a step from pure noise to itself."""
    return torch.where(alpha_s == 0, 1.0, alpha_t / alpha_s)


def transition(z_s: Tensor, s: Tensor, t: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """Mean, and standard deviation in a shape that multiplies it, of q(z_t | z_s).

    Raises:
        ValueError: times on the CPU with s after t, or outside [0, 1].
    """
    _check_order(s, t)
    (alpha_s, _), (alpha_t, sigma_t) = schedule.alpha_sigma(s), schedule.alpha_sigma(t)
    one_minus_r = -torch.expm1(schedule.logsnr(t) - schedule.logsnr(s))
    mean = expand_level(_ratio(alpha_t, alpha_s), z_s) * z_s
    return mean, expand_level(one_minus_r.sqrt() * sigma_t, z_s)


def posterior(
    z_t: Tensor, x0: Tensor, s: Tensor, t: Tensor, schedule: NoiseSchedule, *, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean, and standard deviation in a shape that multiplies it, of q(z_s | z_t, x0).

    Args:
        z_t: (B, C, T, H, W), the noisier video.
        x0: the clean video, or an estimate of it, whose errors then want a larger variance.
        s: the time to go to.
        t: the time of z_t.
        schedule: what the times mean.
        gamma: 0 for the exact variance (1 - r) sigma_s^2, 1 for its upper bound (1 - r) sigma_t^2, and between them
            the geometric mean (arXiv 2204.03458, section 2; Imagen Video's ancestral sampler).

    Raises:
        ValueError: gamma outside [0, 1], or times on the CPU with s after t or outside [0, 1].
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"posterior got gamma={gamma}; it must lie between 0, the exact variance, and 1")
    _check_order(s, t)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule.alpha_sigma(s), schedule.alpha_sigma(t)
    one_minus_r = -torch.expm1(schedule.logsnr(t) - schedule.logsnr(s))
    keep = _ratio(alpha_t, alpha_s) * (sigma_s / sigma_t) ** 2
    mean = expand_level(keep, z_t) * z_t + expand_level(one_minus_r * alpha_s, z_t) * x0
    return mean, expand_level(one_minus_r.sqrt() * sigma_s ** (1 - gamma) * sigma_t**gamma, z_t)
