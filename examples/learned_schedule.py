"""A noise schedule learns where the loss varies: the bound stays, its variance falls (arXiv 2107.00630, section 5.1).

The data are clips whose best denoiser is known, so nothing but the schedule is trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vdm_blocks import (
    IndependentTimes,
    LearnedSchedule,
    LinearLogSNRSchedule,
    NoiseSchedule,
    diffuse,
    logsnr_slope,
)

SHAPE, SPREAD, BATCH = (1, 4, 4, 4), 0.1, 256
MEANS = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def eps_hat(z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The best estimate of the noise; `alpha` and `sigma` are (B,)."""
    a, s = alpha.view(-1, 1, 1, 1, 1), sigma.view(-1, 1, 1, 1, 1)
    variance = (a * SPREAD) ** 2 + s**2
    away = (z_t[:, None] - a[:, None] * MEANS).flatten(2)
    share = (-away.square().sum(2) / (2 * variance.flatten(1))).softmax(1)
    return s / variance * (z_t - a * torch.einsum("bk,k...->b...", share, MEANS))


def integrand(schedule: NoiseSchedule, t: Tensor, generator: torch.Generator) -> Tensor:
    """0.5 |eps - eps_hat|^2 at times t (B,) of fresh clips; its integral over log-SNR is the diffusion loss."""
    k = torch.randint(len(MEANS), t.shape, generator=generator)
    x0 = MEANS[k] + SPREAD * torch.randn(len(t), *SHAPE, generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    with torch.no_grad():
        z_t = diffuse(x0, eps, t, schedule)
        return 0.5 * (eps - eps_hat(z_t, *schedule.alpha_sigma(t))).flatten(1).square().sum(1)


def bound(schedule: NoiseSchedule, generator: torch.Generator) -> tuple[float, float, float]:
    """The diffusion loss in nats, its standard error, and the deviation of one sample's estimate."""
    t = torch.rand(20000, generator=generator)
    values = -logsnr_slope(schedule, t).detach() * integrand(schedule, t, generator)
    return float(values.mean()), float(values.std() / len(t) ** 0.5), float(values.std())


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    learned = LearnedSchedule(logsnr_min=-10.0, logsnr_max=10.0)
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.05)
    times = IndependentTimes()
    for step in range(400):
        t = times.draw(BATCH, seed=0, step=step)
        loss = learned.variance_loss(t, integrand(learned, t, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, schedule in (
        ("straight line", LinearLogSNRSchedule(logsnr_min=-10.0, logsnr_max=10.0)),
        ("learned", learned),
    ):
        mean, error, deviation = bound(schedule, generator)
        print(
            f"{name:14} diffusion loss {mean:7.3f} +- {error:.3f} nats, deviation of one estimate {deviation:7.2f}"
        )
    grid = torch.linspace(0, 1, 11)
    print("learned log-SNR at t = 0, 0.1 .. 1:", " ".join(f"{x:.1f}" for x in learned.logsnr(grid).tolist()))


if __name__ == "__main__":
    main()
