"""Somebody else's network, wrapped, guided, thresholded and sampled; none of it knows where the network is from.

`Theirs` predicts noise, counts time in steps from 0 to 999, has frames before channels and takes a class number, with
an extra class for "none". Three lines in `Adapter` say all that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vdm_blocks import EPS, Conditioning, CosineSchedule, Denoiser, KeyedNoise
from vdm_blocks.denoisers import ClassifierFreeGuidance, DynamicThreshold, ModelDenoiser, Oscillating
from vdm_blocks.sampling import DDIM, DPMSolverPP2M, StepRule, sample, uniform_times

SHAPE = (3, 4, 8, 8)
schedule = CosineSchedule()


class Theirs(nn.Module):
    """Their network, trained to perfection: two classes of one-coloured clips, red and blue, with noise 0.1."""

    def forward(self, frames: Tensor, timestep: Tensor, label: Tensor) -> Tensor:
        alpha, sigma = (x.view(-1, 1, 1, 1, 1) for x in schedule.alpha_sigma(timestep / 999))
        colors = torch.tensor([[0.7, -0.7, -0.7], [-0.7, -0.7, 0.7]]).view(2, 1, 1, 3, 1, 1)
        variance = (0.1 * alpha) ** 2 + sigma**2
        away = (frames - alpha * colors).flatten(2).square().sum(2) / (2 * variance.flatten())
        share = (-away).softmax(0).T * (label[:, None] == 2) + nn.functional.one_hot(label, 3)[:, :2]
        mean = torch.einsum("bk,k...->b...", share, colors[:, 0])
        noise: Tensor = sigma / variance * (frames - alpha * mean)
        return noise


class Adapter(nn.Module):
    """Their network with our signature."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.theirs = theirs

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        assert cond.text is not None
        assert cond.text_mask is not None
        label = torch.where(cond.text_mask[:, 0], cond.text[:, 0, 0].long(), 2)
        noise: Tensor = self.theirs(z_t.movedim(1, 2), 999 * schedule.time(logsnr), label)
        return noise.movedim(2, 1)


def main() -> None:
    denoiser = ModelDenoiser(Adapter(Theirs()), schedule=schedule, prediction=EPS)
    text = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1, 1)
    cond = Conditioning(text=text, text_mask=torch.ones(4, 1, dtype=torch.bool))
    times = uniform_times(32)
    noise = KeyedNoise(seeds=(0, 1, 2, 3), stage="base")
    z = noise.normal((4, *SHAPE), step="start")
    guided = ClassifierFreeGuidance(denoiser, scale=6.0)
    oscillating = ClassifierFreeGuidance(denoiser, scale=Oscillating(high=15.0, low=1.0, times=times))
    runs: tuple[tuple[str, Denoiser, StepRule[Any]], ...] = (
        ("as it is", denoiser, DDIM()),
        ("guided at 6", guided, DDIM()),
        ("guided and thresholded", DynamicThreshold(guided), DPMSolverPP2M()),
        ("oscillating and thresholded", DynamicThreshold(oscillating), DPMSolverPP2M()),
    )
    for name, wrapped, rule in runs:
        x = sample(wrapped, rule, times, z, cond, generator=noise)
        means = ["{:+.2f} {:+.2f} {:+.2f}".format(*clip.mean(dim=(1, 2, 3)).tolist()) for clip in x[:2]]
        print(f"{name:28} red: {means[0]}   blue: {means[1]}   largest |x|: {float(x.abs().max()):.2f}")


if __name__ == "__main__":
    main()
