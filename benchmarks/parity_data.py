"""Data about which everything is known, for `parity.py`: independent numbers, of one Gaussian each or of a mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vdm_blocks.types import Conditioning, Denoised, Schedule

SHAPE = (1, 2, 2, 2)  # C, T, H, W
COUNT = 20_000


class Data(Protocol):
    """Videos (N, C, T, H, W) in float64 whose denoiser and flow are known."""

    def denoise(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | z]."""

    def flow(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The probability flow from z, or from as many of its samples as are judged, to the clean video."""

    def start(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """COUNT draws of z at a level; the same at every call."""

    def distance(self, x: Tensor) -> float:
        """How far the samples' distribution is from the data's."""


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Independent numbers with a mean and a standard deviation each, (C, T, H, W) in float64."""

    mean: Tensor
    std: Tensor

    def denoise(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | z] = mean + alpha std^2 (z - alpha mean) / (alpha^2 std^2 + sigma^2)."""
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (z - alpha * self.mean)

    def flow(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The probability flow from z to the clean video."""
        marginal = (alpha**2 * self.std**2 + sigma**2).sqrt()
        return self.mean + self.std * (z - alpha * self.mean) / marginal

    def start(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """COUNT draws of z at a level; the same at every call."""
        g = torch.Generator().manual_seed(0)
        x, n = torch.randn(2, COUNT, *self.mean.shape, dtype=torch.float64, generator=g)
        z: Tensor = alpha * (self.mean + self.std * x) + sigma * n
        return z

    def distance(self, x: Tensor) -> float:
        """How far the samples' mean and deviation are from ours: Wasserstein-2, root mean square."""
        mean, std = x.mean(0) - self.mean, x.std(0) - self.std
        return float((mean**2 + std**2).mean().sqrt())


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """sum_k weight_k N(means_k, stds_k^2): means and stds are (K, C, T, H, W), weights (K,).

    `flow` has no closed form; it is integrated for the first `judged` samples, to 1e-6.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    judged: int = 250

    def denoise(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The components' E[x0 | z], each with its posterior probability."""
        variance = alpha**2 * self.stds**2 + sigma**2
        away = z[:, None] - alpha * self.means
        log_normal = -0.5 * (away**2 / variance + variance.log()).flatten(2).sum(2)
        share = (self.weights.log() + log_normal).softmax(1)
        return torch.einsum("nk,nk...->n...", share, self.means + alpha * self.stds**2 / variance * away)

    def flow(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The probability flow to the clean video, dz/dphi = v by Runge-Kutta on the unit circle."""
        z = z[: self.judged] / torch.hypot(alpha, sigma)
        start, steps = torch.atan2(sigma, alpha), 400
        h = -start / steps

        def v(phi: Tensor, z: Tensor) -> Tensor:
            alpha, sigma = phi.cos(), phi.sin().clamp(min=1e-6)
            return (alpha * z - self.denoise(z, alpha, sigma)) / sigma

        for i in range(steps):
            phi = start + i * h
            k1 = v(phi, z)
            k2 = v(phi + h / 2, z + h / 2 * k1)
            k3 = v(phi + h / 2, z + h / 2 * k2)
            k4 = v(phi + h, z + h * k3) if i + 1 < steps else k3
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return z

    def start(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """COUNT draws of z at a level; the same at every call."""
        return self._draw(0, alpha, sigma)

    def distance(self, x: Tensor) -> float:
        """The Wasserstein-2 distance of each number from exact samples, root mean square."""
        one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        exact = self._draw(1, one, zero)
        return float((x.sort(0).values - exact.sort(0).values).square().mean().sqrt())

    def _draw(self, seed: int, alpha: Tensor, sigma: Tensor) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        k = torch.multinomial(self.weights, COUNT, replacement=True, generator=g)
        x, n = torch.randn(2, COUNT, *self.means.shape[1:], dtype=torch.float64, generator=g)
        z: Tensor = alpha * (self.means[k] + self.stds[k] * x) + sigma * n
        return z


@dataclass(frozen=True)
class DataDenoiser:
    """`Data.denoise` over a schedule."""

    data: Data
    schedule: Schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        alpha, sigma = self.schedule.alpha_sigma(t)
        x0 = self.data.denoise(z_t, alpha, sigma)
        return Denoised(x0=x0, eps=(z_t - alpha * x0) / sigma)


def example() -> Gaussian:
    """Deviations from 0.05 to 1, means from -0.6 to 0.6."""
    size = torch.Size(SHAPE).numel()
    mean = torch.linspace(-0.6, 0.6, size, dtype=torch.float64)[torch.arange(size) * 3 % size]
    return Gaussian(mean=mean.view(SHAPE), std=torch.linspace(0.05, 1, size, dtype=torch.float64).view(SHAPE))


def mixture_example() -> Mixture:
    """Three unequal clips: means within [-0.8, 0.8], deviations from 0.1 to 0.3."""
    g = torch.Generator().manual_seed(5)
    means = 1.6 * torch.rand(3, *SHAPE, dtype=torch.float64, generator=g) - 0.8
    stds = 0.1 + 0.2 * torch.rand(3, *SHAPE, dtype=torch.float64, generator=g)
    return Mixture(weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means=means, stds=stds)
