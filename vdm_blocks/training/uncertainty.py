"""How hard each noise level is, learned beside the network so that all of them count alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LearnedUncertainty"]


class LearnedUncertainty(nn.Module):
    """loss exp(-u) + u, with u(logsnr) a small network that comes to be the log of the expected loss.

    (arXiv 2312.02696.) The gradients that reach the denoiser then have the same size at every
    level. It starts at u = 0, which changes nothing.

    Raises:
        ValueError: fewer than one feature.

    >>> LearnedUncertainty()(torch.tensor([0.5, 2.0]), torch.tensor([3.0, -3.0]))
    tensor([0.5000, 2.0000], grad_fn=<AddBackward0>)
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(
                f"LearnedUncertainty got features={features}; it needs at least 1, and 128 are plenty"
            )
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        generator, place = torch.Generator().manual_seed(0), self.linear.weight.device
        frequencies = torch.randn(features, generator=generator, device="cpu")
        phases = 2 * math.pi * torch.rand(features, generator=generator, device="cpu")
        self.register_buffer("frequencies", frequencies.to(place))
        self.register_buffer("phases", phases.to(place))

    def u(self, logsnr: Tensor) -> Tensor:
        """The log of the expected loss at `logsnr`, in its shape."""
        scaled = (logsnr / 8).to(self.frequencies)
        features = 2**0.5 * torch.cos(2 * math.pi * scaled[..., None] * self.frequencies + self.phases)
        return torch.as_tensor(self.linear(features)).squeeze(-1)

    def forward(self, loss: Tensor, logsnr: Tensor) -> Tensor:
        """The loss to train both with: `loss` (B,) at `logsnr` (B,)."""
        u = self.u(logsnr)
        return loss * torch.exp(-u) + u
