"""Every step rule on a mixture of clips whose best denoiser is known: what do how many evaluations buy?

Deterministic rules are compared with a fine solution of the same flow, sample by sample. Stochastic ones are judged
by the mixture they draw: each clip's share, and the spread around it, which should be 1.00 of the true one. `EDMHeun`
is not among them: it is for schedules that end at sigma / alpha of about 80, and this one goes on to 22,000.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vdm_blocks import Conditioning, CosineSchedule, Denoised, KeyedNoise, StepRule, sample, uniform_times
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DistilledStochastic,
    DPMSolverPP2M,
    EDMChurn,
    Heun,
    LangevinCorrector,
    Restart,
    UniPC,
)

SAMPLES, SHAPE, SPREAD = 600, (1, 4, 4, 4), 0.1


class Clips:
    """The exact denoiser of clips `means` (K, C, T, H, W), equally likely, with noise of `SPREAD` on them."""

    def __init__(self, means: Tensor) -> None:
        self.schedule, self.means, self.evaluations = CosineSchedule(), means, 0

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        self.evaluations += 1
        alpha, sigma = self.schedule.alpha_sigma(t)
        variance = (alpha * SPREAD) ** 2 + sigma**2
        away = (z_t[:, None] - alpha * self.means).flatten(2)
        share = (-away.square().sum(2) / (2 * variance)).softmax(1)
        residual = z_t - alpha * torch.einsum("bk,k...->b...", share, self.means)
        x0 = (z_t - residual) / alpha + alpha * SPREAD**2 / variance * residual
        return Denoised(x0, (z_t - alpha * x0) / sigma)


def quality(x: Tensor, means: Tensor) -> tuple[float, float]:
    """How far the clips' shares are from equal, and the spread around them, as a share of the true one."""
    distance = (x[:, None] - means).flatten(2).square().mean(2)
    nearest = distance.argmin(1)
    shares = torch.bincount(nearest, minlength=len(means)) / len(x)
    return float((shares - 1 / len(means)).abs().max()), float(distance.min(1).values.mean().sqrt() / SPREAD)


def main() -> None:
    means = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    noise = KeyedNoise(seeds=tuple(range(SAMPLES)), stage="base")
    z = noise.normal((SAMPLES, *SHAPE), step="start")
    fine = sample(Clips(means), Heun(), uniform_times(256), z, Conditioning())
    print(f"{'rule':44}{'steps':>6}{'evals':>7}{'rms to flow':>13}{'share off':>11}{'spread':>8}")
    flow: list[StepRule[Any]] = [DDIM(), DPMSolverPP2M(), UniPC(order=2), UniPC(order=3), Heun()]
    noisy: list[StepRule[Any]] = [DDIM(eta=1.0), Ancestral(), DPMSolverPP2M(eta=1.0), EDMChurn(churn=8.0)]
    noisy += [DistilledStochastic(), LangevinCorrector(rule=Ancestral())]
    noisy += [Restart(noisy_logsnr=-2.0, clean_logsnr=1.0)]
    for rule in [*flow, *noisy]:
        for steps in (8, 32):
            denoiser = Clips(means)
            x = sample(denoiser, rule, uniform_times(steps), z, Conditioning(), generator=noise)
            rms = f"{float((x - fine).square().mean().sqrt()):13.4f}" if rule in flow else f"{'-':>13}"
            off, spread = quality(x, means)
            print(f"{str(rule)[:43]:44}{steps:6}{denoiser.evaluations:7}{rms}{off:11.3f}{spread:8.2f}")


if __name__ == "__main__":
    main()
