"""The likelihood under the probability flow (arXiv 2011.13456, section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vdm_blocks.diffusion.noise import KeyedNoise, NoiseSource, draw_normal
from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.types import Conditioning, Denoiser

__all__ = [
    "ExactTrace",
    "HutchinsonTrace",
    "Trace",
    "bits_per_dimension",
    "dequantize",
    "flow_log_likelihood",
]


class Trace(Protocol):
    """A way to the trace of a Jacobian J: weight * sum over probes of probe . J probe."""

    @property
    def weight(self) -> float:
        """What the sum is multiplied by."""

    def probes(self, z: Tensor, generator: NoiseSource) -> Sequence[Tensor]:
        """The probes, each of a shape that broadcasts to z's."""


@dataclass(frozen=True, kw_only=True)
class ExactTrace:
    """Entry by entry: as many backward passes as a sample has numbers, so for small videos."""

    @property
    def weight(self) -> float:
        """1."""
        return 1.0

    def probes(self, z: Tensor, generator: NoiseSource) -> Sequence[Tensor]:  # noqa: ARG002
        """The unit vectors."""
        size = z[0].numel()
        return torch.eye(size, dtype=z.dtype, device=z.device).view(size, 1, *z.shape[1:]).unbind()


@dataclass(frozen=True, kw_only=True)
class HutchinsonTrace:
    """Random signs: one backward pass a probe, right on average.

    The same probes serve the whole path, so that what they miss is one random offset and the path stays smooth.

    Raises:
        ValueError: fewer than one probe.
    """

    count: int = 1

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.count < 1:
            raise ValueError(f"HutchinsonTrace got count={self.count}; it needs at least 1 probe")

    @property
    def weight(self) -> float:
        """1 / count."""
        return 1 / self.count

    def probes(self, z: Tensor, generator: NoiseSource) -> Sequence[Tensor]:
        """`count` tensors of -1 and 1."""
        draws = (
            draw_normal(generator, z.shape, step=f"trace/{i}", device=z.device, dtype=z.dtype)
            for i in range(self.count)
        )
        return [torch.where(draw < 0, -1.0, 1.0).to(z.dtype) for draw in draws]


def flow_log_likelihood(
    denoiser: Denoiser,
    x0: Tensor,
    cond: Conditioning,
    *,
    steps: int = 32,
    trace: Trace = ExactTrace(),
    generator: NoiseSource = None,
) -> Tensor:
    """log p(x0) in nats, (B,), of the density that the probability flow carries from noise to data.

    On the unit circle z = cos(phi) x + sin(phi) eps, whatever the schedule's own scaling, dz/dphi = v and
        log p(x0) = log N(z_1; 0, sin(phi_1)^2) + int div v dphi + D log cos(phi_0),  z_0 = cos(phi_0) x0.
    Integrated by the classical Runge-Kutta method, with 4 evaluations a step.

    Args:
        denoiser: any denoiser, differentiable in z_t.
        x0: (B, C, T, H, W), continuous; noise data on levels by `dequantize` first.
        cond: passed on.
        steps: of the integration.
        trace: exact, or estimated where videos are large.
        generator: feeds the estimate.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"flow_log_likelihood got steps={steps}; it needs at least 1, and 32 are plenty")
    schedule = denoiser.schedule
    probes = trace.probes(x0, generator)

    def field(phi: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        t = schedule.time(-2 * torch.tan(phi).log()).clamp(0, 1)
        alpha, sigma = schedule.alpha_sigma(t)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            answer = denoiser(torch.hypot(alpha, sigma) * z, t, cond)
            v = torch.cos(phi) * answer.eps - torch.sin(phi) * answer.x0
            divergence = torch.zeros(z.shape[0], dtype=z.dtype, device=z.device)
            for i, probe in enumerate(probes):
                probe = probe.expand_as(z)
                (product,) = torch.autograd.grad(v, z, probe, retain_graph=i + 1 < len(probes))
                divergence += trace.weight * (product * probe).flatten(1).sum(dim=1)
        return v.detach(), divergence

    ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
    first, last = torch.atan(torch.exp(-0.5 * schedule.logsnr(ends).detach())).unbind()
    z, gathered = torch.cos(first) * x0, torch.zeros(x0.shape[0], dtype=x0.dtype, device=x0.device)
    h = (last - first) / steps
    for i in range(steps):
        phi = first + i * h
        v1, d1 = field(phi, z)
        v2, d2 = field(phi + h / 2, z + h / 2 * v1)
        v3, d3 = field(phi + h / 2, z + h / 2 * v2)
        v4, d4 = field(phi + h, z + h * v3)
        z = z + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        gathered = gathered + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    size, variance = x0[0].numel(), torch.sin(last) ** 2
    normal = -0.5 * (z.flatten(1).square().sum(dim=1) / variance + size * torch.log(2 * math.pi * variance))
    return normal + gathered + size * torch.log(torch.cos(first))


def dequantize(x0: Tensor, levels: int, *, generator: NoiseSource = None) -> Tensor:
    """Data on `levels` values from -1 to 1, spread uniformly over the gaps between them.

    The mean of log p over such noise plus D log(2 / (levels - 1)) bounds the log-probability of the data on
    levels from below (arXiv 1511.01844, section 3.1).

    Raises:
        ValueError: fewer than two levels.
    """
    if levels < 2:
        raise ValueError(f"dequantize got levels={levels}; it needs at least 2, 256 for eight bits")
    if isinstance(generator, KeyedNoise):
        normal = draw_normal(generator, x0.shape, step="dequantize", device=x0.device, dtype=x0.dtype)
        uniform: Tensor = torch.special.ndtr(normal)
    else:
        device = x0.device if generator is None else generator.device
        uniform = torch.rand(x0.shape, generator=generator, dtype=x0.dtype, device=device).to(x0.device)
    return x0 + (uniform - 0.5) * (2 / (levels - 1))


def bits_per_dimension(log_likelihood: Tensor, size: int, *, levels: int | None = None) -> Tensor:
    """-log2 p / D; of the data on levels if `log_likelihood` was measured after `dequantize`.

    Args:
        log_likelihood: nats, any shape.
        size: D, the number of entries of one sample.
        levels: those of the data, or None for data with a density.

    Raises:
        ValueError: no entries, or fewer than two levels.

    >>> bits_per_dimension(torch.tensor(-8 * math.log(2.0)), 4)
    tensor(2.)
    """
    if size < 1 or (levels is not None and levels < 2):
        raise ValueError(
            f"bits_per_dimension got size={size}, levels={levels}; a sample has at least 1 entry, and data on levels "
            "at least 2 of them, 256 for eight bits"
        )
    gap = 0.0 if levels is None else math.log(2 / (levels - 1))
    return -(log_likelihood / size + gap) / math.log(2)
