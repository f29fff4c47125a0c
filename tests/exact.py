"""Small videos drawn from Gaussians and mixtures, about which everything is known in closed form (float64).

`Mixture` knows its density, posterior mean, score, guided density and probability-flow map at any noise
level, of shape (), (B,) or (B, T). `ExactDenoiser` makes a `Denoiser` of it over any schedule. The class of
a sample is written into `Conditioning.text`; text that is masked out means unconditional.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.types import Conditioning, Denoised, Schedule

SHAPE = (2, 3, 2, 2)  # C, T, H, W: 24 numbers


def label_conditioning(labels: Sequence[int]) -> Conditioning:
    """A conditioning that says which class each sample is of; -1 says nothing."""
    text = torch.tensor(labels, dtype=torch.float64).view(-1, 1, 1)
    return Conditioning(text=text, text_mask=torch.tensor(labels).view(-1, 1) >= 0)


def labels_of(cond: Conditioning, batch: int) -> Tensor:
    """The class of each sample, -1 where there is none."""
    if cond.text is None or cond.text_mask is None:
        return torch.full((batch,), -1)
    return torch.where(cond.text_mask[:, 0], cond.text[:, 0, 0].round().long(), -1)


@dataclass(frozen=True)
class Mixture:
    """sum_k w_k N(mean_k, covariance_k); component k belongs to class labels[k]."""

    weights: Tensor  # (K,)
    means: Tensor  # (K, C, T, H, W)
    covariances: Tensor  # (K, D, D), D = C T H W
    labels: Tensor  # (K,)

    @property
    def shape(self) -> torch.Size:
        return self.means.shape[1:]

    @property
    def size(self) -> int:
        return self.shape.numel()

    def sample(self, count: int, generator: torch.Generator, label: int = -1) -> Tensor:
        """`count` clean videos, of class `label` or of all."""
        log_weights = self._log_weights(torch.tensor([label]))[0]
        k = torch.multinomial(log_weights.exp(), count, replacement=True, generator=generator)
        root = torch.linalg.cholesky(self.covariances)[k]
        noise = torch.randn(count, self.size, dtype=torch.float64, generator=generator)
        return self.means[k] + torch.einsum("nij,nj->ni", root, noise).view(count, *self.shape)

    def _log_weights(self, labels: Tensor) -> Tensor:
        """(B, K), normalised over the components of each sample's class."""
        fits = (labels[:, None] < 0) | (labels[:, None] == self.labels)
        return torch.where(fits, self.weights.log(), -math.inf).log_softmax(dim=1)

    def _marginals(self, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per sample and component: a^T Sigma's factor, C^-1 (z - a mean) and log N(z; a mean, C)."""
        batch = z_t.shape[0]
        a = expand_level(alpha, z_t).expand(z_t.shape).reshape(batch, 1, -1)
        s = expand_level(sigma, z_t).expand(z_t.shape).reshape(batch, 1, -1)
        covariance = a[..., :, None] * self.covariances * a[..., None, :] + torch.diag_embed(s**2)
        residual = z_t.reshape(batch, 1, -1) - a * self.means.reshape(1, -1, self.size)
        root = torch.linalg.cholesky(covariance)
        solved = torch.cholesky_solve(residual[..., None], root)[..., 0]
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_normal = -0.5 * ((residual * solved).sum(-1) + log_det + self.size * math.log(2 * math.pi))
        return a, solved, log_normal

    def denoise(self, z_t: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x0 | z_t], conditional on the class where labels >= 0."""
        labels = torch.full((z_t.shape[0],), -1) if labels is None else labels
        a, solved, log_normal = self._marginals(z_t, alpha, sigma)
        posterior = (self._log_weights(labels) + log_normal).softmax(dim=1)
        means = self.means.reshape(1, -1, self.size) + torch.einsum(
            "kij,bkj->bki", self.covariances, a * solved
        )
        return torch.einsum("bk,bki->bi", posterior, means).view_as(z_t)

    def log_density(
        self,
        z_t: Tensor,
        alpha: Tensor | None = None,
        sigma: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """log p(z_t), (B,) in nats; with no level given that of the clean data."""
        alpha = torch.ones((), dtype=torch.float64) if alpha is None else alpha
        sigma = torch.zeros((), dtype=torch.float64) if sigma is None else sigma
        labels = torch.full((z_t.shape[0],), -1) if labels is None else labels
        return (self._log_weights(labels) + self._marginals(z_t, alpha, sigma)[2]).logsumexp(dim=1)

    def score(self, z_t: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """The gradient of log p(z_t)."""
        _, solved, log_normal = self._marginals(z_t, alpha, sigma)
        labels = torch.full((z_t.shape[0],), -1) if labels is None else labels
        posterior = (self._log_weights(labels) + log_normal).softmax(dim=1)
        return -torch.einsum("bk,bki->bi", posterior, solved).view_as(z_t)

    def guided_log_density(
        self, z_t: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor, scale: float
    ) -> Tensor:
        """log of p(z_t | c)^scale p(z_t)^(1 - scale), not normalised: the tilt of guidance."""
        conditional = self.log_density(z_t, alpha, sigma, labels)
        return scale * conditional + (1 - scale) * self.log_density(z_t, alpha, sigma)

    def entropy(self) -> float:
        """The differential entropy in nats, of one Gaussian."""
        if len(self.weights) > 1:
            raise ValueError("the entropy of a mixture has no closed form")
        return float(0.5 * (torch.logdet(self.covariances[0]) + self.size * (1 + math.log(2 * math.pi))))

    def flow(
        self,
        z_t: Tensor,
        t: Tensor,
        s: Tensor,
        schedule: Schedule,
        labels: Tensor | None = None,
        scale: float = 1.0,
        steps: int = 400,
    ) -> Tensor:
        """The probability-flow map from time `t` to time `s`, both 0-d; `scale` guides towards the class.

        In closed form for one Gaussian. For mixtures dz/dphi = v by Runge-Kutta's fourth order, where
        z / sqrt(alpha^2 + sigma^2) = cos(phi) x + sin(phi) eps.
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.alpha_sigma(t), schedule.alpha_sigma(s)
        if len(self.weights) == 1:
            values, vectors = torch.linalg.eigh(self.covariances[0])
            ratio = ((alpha_s**2 * values + sigma_s**2) / (alpha_t**2 * values + sigma_t**2)).sqrt()
            centred = (z_t - alpha_t * self.means[0]).reshape(z_t.shape[0], -1)
            moved = (centred @ vectors * ratio) @ vectors.T
            there: Tensor = alpha_s * self.means[0] + moved.view_as(z_t)
            return there

        def velocity(phi: Tensor, z: Tensor) -> Tensor:
            alpha, sigma = phi.cos(), phi.sin()
            x0 = self.guided(z, alpha, sigma, labels, scale)
            return (alpha * z - x0) / sigma  # cos(phi) eps - sin(phi) x0

        start, end = torch.atan2(sigma_t, alpha_t), torch.atan2(sigma_s, alpha_s)
        grid = torch.linspace(float(start), float(end), steps + 1, dtype=torch.float64)
        z = z_t / torch.hypot(alpha_t, sigma_t)
        for phi, following in pairwise(grid):
            h = following - phi
            k1 = velocity(phi, z)
            k2 = velocity(phi + h / 2, z + h / 2 * k1)
            k3 = velocity(phi + h / 2, z + h / 2 * k2)
            k4 = velocity(following, z + h * k3)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return z * torch.hypot(alpha_s, sigma_s)

    def guided(
        self, z_t: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor | None, scale: float
    ) -> Tensor:
        """The posterior mean, guided from the unconditional towards the conditional one; scale 1 is off."""
        conditional = self.denoise(z_t, alpha, sigma, labels)
        if scale == 1.0:
            return conditional
        return self.denoise(z_t, alpha, sigma).lerp(conditional, scale)


@dataclass(frozen=True)
class ExactDenoiser:
    """The best denoiser there is for a `Mixture`, over any schedule; reads the class from `cond`."""

    mixture: Mixture
    schedule: Schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        alpha, sigma = self.schedule.alpha_sigma(t)
        x0 = self.mixture.denoise(z_t.double(), alpha, sigma, labels_of(cond, z_t.shape[0]))
        eps = (z_t - expand_level(alpha, x0) * x0) / expand_level(sigma, x0)
        return Denoised(x0=x0.to(z_t.dtype), eps=eps.to(z_t.dtype))


def gaussian(shape: Sequence[int] = SHAPE, *, seed: int = 0, scale: float = 0.5) -> Mixture:
    """One Gaussian with a full covariance, of standard deviation about `scale` and mean in [-0.5, 0.5]."""
    g = torch.Generator().manual_seed(seed)
    size = math.prod(shape)
    mean = torch.rand(1, *shape, dtype=torch.float64, generator=g) - 0.5
    factor = torch.randn(size, size, dtype=torch.float64, generator=g) / size**0.5
    covariance = scale**2 * (0.2 * torch.eye(size, dtype=torch.float64) + 0.8 * factor @ factor.T)
    return Mixture(
        torch.ones(1, dtype=torch.float64), mean, covariance[None], torch.zeros(1, dtype=torch.long)
    )


def mixture(
    shape: Sequence[int] = SHAPE, *, components: int = 4, classes: int = 2, seed: int = 0, scale: float = 0.3
) -> Mixture:
    """`components` Gaussians with means in [-1, 1], shared out to `classes` in turn."""
    parts = [gaussian(shape, seed=seed + 17 * k, scale=scale) for k in range(components)]
    g = torch.Generator().manual_seed(seed)
    weights = torch.rand(components, dtype=torch.float64, generator=g) + 0.5
    return Mixture(
        weights / weights.sum(),
        torch.cat([2 * p.means for p in parts]),
        torch.cat([p.covariances for p in parts]),
        torch.arange(components) % classes,
    )
