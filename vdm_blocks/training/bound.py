"""The variational bound on the likelihood, in bits per dimension (arXiv 2107.00630)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import KeyedNoise, NoiseSource, draw_normal
from vdm_blocks.diffusion.process import diffuse
from vdm_blocks.diffusion.schedules import logsnr_slope
from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.types import Conditioning, Denoiser

__all__ = ["Bits", "ContinuousDecoder", "Decoder", "DiscreteDecoder", "variational_bound"]


@dataclass(frozen=True, kw_only=True)
class Bits:
    """A bound on -log2 p(x0) and its parts, each (B,), in bits per dimension.

    Attributes:
        prior: what z_1 says of x0 beyond pure noise.
        reconstruction: what x0 costs given z_0.
        diffusion: what lies between; the part that is estimated.
    """

    prior: Tensor
    reconstruction: Tensor
    diffusion: Tensor

    @property
    def total(self) -> Tensor:
        """The bound for each sample."""
        return self.prior + self.reconstruction + self.diffusion

    @property
    def mean(self) -> float:
        """The bound on the average of the samples."""
        return float(self.total.double().mean())

    @property
    def standard_error(self) -> float:
        """Of `mean`, from the differences between successive samples, whose times are neighbours.

        Raises:
            ValueError: a single sample.
        """
        if len(self.total) < 2:
            raise ValueError("one sample has no standard error; give several, or join batches by Bits.cat")
        return math.sqrt(0.5 * float(self.total.double().diff().square().mean()) / len(self.total))

    @staticmethod
    def cat(parts: Sequence[Bits]) -> Bits:
        """The samples of several batches."""
        return Bits(
            prior=torch.cat([p.prior for p in parts]),
            reconstruction=torch.cat([p.reconstruction for p in parts]),
            diffusion=torch.cat([p.diffusion for p in parts]),
        )


class Decoder(Protocol):
    """p(x0 | z_0)."""

    @property
    def resolved(self) -> float:
        """The log-SNR from which on the data can be told exactly; infinite for a density."""

    def nats(self, x0: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """-log p(x0 | z_0), (B,) float64, at z_0 = alpha x0 + sigma eps of that log-SNR, 0-d."""


@dataclass(frozen=True, kw_only=True)
class ContinuousDecoder:
    """p(x0 | z_0) = N(z_0 / alpha_0, 1 / SNR_0), for data with a density; its expectation over eps is exact."""

    @property
    def resolved(self) -> float:
        """Never."""
        return math.inf

    def nats(self, x0: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:  # noqa: ARG002
        """D (log(2 pi e) - logsnr) / 2."""
        size = x0[0].numel()
        nats = 0.5 * size * (math.log(2 * math.pi * math.e) - logsnr.double())
        return nats.to(x0.device).expand(x0.shape[0])


@dataclass(frozen=True, kw_only=True)
class DiscreteDecoder:
    """p(x0 | z_0) proportional to q(z_0 | x0) over `levels` values from -1 to 1, for data that take only those.

    (arXiv 2107.00630, section 3.) Eight-bit video has 256 levels.

    Raises:
        ValueError: fewer than two levels; on a call, data off the levels.
    """

    levels: int = 256

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.levels < 2:
            raise ValueError(
                f"DiscreteDecoder got levels={self.levels}; it needs at least 2, 256 for eight bits"
            )

    @property
    def resolved(self) -> float:
        """Where the noise is a quarter of the distance between levels."""
        return 2 * math.log(2 * (self.levels - 1))

    def nats(self, x0: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """The cross-entropy of the level, 65536 entries at a time against all levels."""
        place = (x0.double() + 1) * (self.levels - 1) / 2
        index = place.round()
        if bool(((place - index).abs() > 0.01).any()) or bool(
            (index < 0).any() | (index >= self.levels).any()
        ):
            raise ValueError(
                f"x0 takes values off the {self.levels} levels from -1 to 1, by up to "
                f"{float((place - index).abs().max()):.3g} of their distance; round it to them, or use "
                "ContinuousDecoder"
            )
        values = torch.linspace(-1, 1, self.levels, dtype=torch.float64, device=x0.device)
        scale = float(torch.exp(0.5 * logsnr.double()))
        total = torch.zeros(x0.shape[0], dtype=torch.float64, device=x0.device)
        for i in range(x0.shape[0]):
            for part, noise, label in zip(
                values[index[i].long()].flatten().split(65536),
                eps[i].double().flatten().split(65536),
                index[i].long().flatten().split(65536),
                strict=True,
            ):
                logits = -0.5 * (scale * (part[:, None] - values) + noise[:, None]).square()
                total[i] += F.cross_entropy(logits, label, reduction="sum")
        return total


@torch.no_grad()
def variational_bound(
    denoiser: Denoiser,
    x0: Tensor,
    cond: Conditioning,
    *,
    generator: NoiseSource = None,
    draws: int = 1,
    decoder: Decoder = ContinuousDecoder(),
) -> Bits:
    """An upper bound on the bits per dimension of x0 under the model, in three parts.

        prior = |x0|^2 SNR_1 / 2,   reconstruction = E[-log p(x0 | z_0)],
        diffusion = 1/2 int |eps - eps_hat|^2 dlogsnr

    The last is estimated at times spread evenly over batch and draws, and as
        1/2 int c dlogsnr + 1/2 int (|eps - eps_hat|^2 - c |eps|^2) dlogsnr,
        c = sigmoid(logsnr)^2 - sigmoid(logsnr - resolved)^2,
    which has the same mean, because |eps|^2 is D on average, and far less variance: at high SNR the noise of smooth
    data cannot be told, so its error is |eps|^2. The first half is exact. The bound depends on the schedule's
    ends only.

    Args:
        denoiser: any denoiser; its `eps` is judged.
        x0: (B, C, T, H, W).
        cond: passed on.
        generator: where noise and times come from.
        draws: how many times each sample is noised; every second draw takes the negative noise of the one before.
        decoder: continuous, for data with a density, or discrete, for data on levels.

    Raises:
        ValueError: fewer than one draw, or what the decoder refuses.
    """
    if draws < 1:
        raise ValueError(f"variational_bound got draws={draws}; it needs at least 1")
    schedule, batch, size = denoiser.schedule, x0.shape[0], x0[0].numel()
    first, last = (
        schedule.logsnr(torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")).detach().unbind()
    )
    nats_to_bits = 1 / (size * math.log(2))
    prior = 0.5 * x0.flatten(1).square().sum(dim=1, dtype=torch.float64) * torch.exp(last).to(x0.device)
    diffusion = torch.zeros(batch, dtype=torch.float64, device=x0.device)
    reconstruction = torch.zeros(batch, dtype=torch.float64, device=x0.device)
    known = 0.5 * (_integral(first, decoder.resolved) - _integral(last, decoder.resolved))
    eps = x0
    for draw, times in enumerate(_even_times(generator, batch, draws)):
        t = times.to(x0.device)
        if draw % 2:
            eps = -eps  # what is odd in it cancels
        else:
            eps = draw_normal(generator, x0.shape, step=f"bound/{draw}", device=x0.device, dtype=x0.dtype)
        answer = denoiser(diffuse(x0, eps, t, schedule), t, cond).eps
        logsnr, slope = schedule.logsnr(t), -logsnr_slope(schedule, t)
        c = torch.sigmoid(logsnr).square() - torch.sigmoid(logsnr - decoder.resolved).square()
        excess = (eps - answer).square() - expand_level(c, eps) * eps.square()
        diffusion += size * known.to(x0.device) + 0.5 * slope * excess.flatten(1).sum(
            dim=1, dtype=torch.float64
        )
        reconstruction += decoder.nats(x0, eps, first)
    return Bits(
        prior=prior * nats_to_bits,
        reconstruction=reconstruction / draws * nats_to_bits,
        diffusion=diffusion / draws * nats_to_bits,
    )


def _integral(logsnr: Tensor, resolved: float) -> Tensor:
    """The integral of c from minus infinity; that of sigmoid^2 is softplus - sigmoid."""
    later = logsnr - resolved
    return F.softplus(logsnr) - torch.sigmoid(logsnr) - F.softplus(later) + torch.sigmoid(later)


def _even_times(generator: NoiseSource, batch: int, draws: int) -> Tensor:
    """float64 times, (draws, B), on the CPU: spread evenly, or, by key, so that none depends on the batch."""
    if isinstance(generator, KeyedNoise):
        uniform: Tensor = torch.special.ndtr(generator.normal((batch, draws), step="bound/times").double())
        return uniform.T
    device = None if generator is None else generator.device
    common = torch.rand((), generator=generator, dtype=torch.float64, device=device).cpu()
    even = torch.arange(batch * draws, dtype=torch.float64, device="cpu").view(batch, draws).T / (
        batch * draws
    )
    return torch.remainder(common + even, 1)
