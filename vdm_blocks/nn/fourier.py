"""Numbers as waves of random frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["FourierEmbedding", "FourierLogSNREmbedding"]


class FourierEmbedding(nn.Module):
    """sqrt(2) cos(2 pi (f_k x + phase_k)), f ~ N(0, bandwidth^2), phase ~ U(0, 1) (arXiv 2312.02696, eq. 75).

    The frequencies are drawn once, are never trained, and are saved with the weights.

    Args:
        width: of the result.
        bandwidth: standard deviation of the frequencies; for a log-SNR, a quarter of it is what EDM2 reads.
        generator: what they are drawn from; None takes torch's own.

    Shape: (...) -> (..., width), float32.

    Raises:
        ValueError: a width or bandwidth that is not positive.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(
        self, width: int, *, bandwidth: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if width < 1 or bandwidth <= 0:
            raise ValueError(f"width and bandwidth must be positive; got {width} and {bandwidth}")
        self.register_buffer("frequency", bandwidth * torch.randn(width, generator=generator))
        self.register_buffer("phase", torch.rand(width, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Embeds `x`, any shape."""
        turns = x.float()[..., None] * self.frequency.float() + self.phase.float()
        return math.sqrt(2) * torch.cos(2 * math.pi * turns)


class FourierLogSNREmbedding(nn.Module):
    """`FourierEmbedding` of the log-SNR, kept within +-20, through two linear maps with a SiLU between them.

    Args:
        width: of the result.
        features: waves.
        bandwidth: of their frequencies.

    Shape: (...) -> (..., width).

    Raises:
        ValueError: as `FourierEmbedding`.
    """

    def __init__(self, width: int, *, features: int = 64, bandwidth: float = 0.125) -> None:
        super().__init__()
        self.waves = FourierEmbedding(features, bandwidth=bandwidth)
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, logsnr: Tensor) -> Tensor:
        """Embeds `logsnr`, any shape."""
        waves = self.waves(logsnr.float().clamp(-20, 20))
        out: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return out
