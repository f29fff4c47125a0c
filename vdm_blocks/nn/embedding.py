"""Numbers as vectors: log-SNR and frame rate for a network to read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["FramePositions", "LogSNREmbedding", "ScalarEmbedding", "sinusoid"]


def sinusoid(x: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """[sin(x w_k), cos(x w_k)], w_k = longest^(-k / (K-1)) for k < K = width / 2.

    Args:
        x: any shape.
        width: even.
        longest: ratio of the longest to the shortest wavelength.

    Returns:
        x's shape with an axis of size `width` appended, float32.

    Raises:
        ValueError: `width` is odd or less than 4.
    """
    if width < 4 or width % 2:
        raise ValueError(f"the width of a sinusoidal embedding is even and at least 4; got {width}")
    half = width // 2
    rate = torch.exp(
        -math.log(longest) / (half - 1) * torch.arange(half, device=x.device, dtype=torch.float32)
    )
    angle = x.float()[..., None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ScalarEmbedding(nn.Module):
    """A number, scaled, as sin and cos features through two linear maps with a SiLU between them.

    Args:
        width: of the result.
        scale: factor on the number before the sinusoids; their shortest period is 2 pi / scale.
        features: sinusoids; even.
        hidden: width between the two maps; None is `width`.

    Shape: (...) -> (..., width).
    """

    def __init__(
        self, width: int, *, scale: float = 1.0, features: int = 64, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        self.features = features
        hidden = width if hidden is None else hidden
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Embeds `x`, any shape."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # a rounded angle is a wrong one
        wave = sinusoid(wide * self.scale, self.features).to(next(self.mlp.parameters()).dtype)
        out: Tensor = self.mlp(wave)
        return out


class LogSNREmbedding(ScalarEmbedding):
    """u = atan(exp(-logsnr / 2)) / (pi / 2) in (0, 1), then sinusoids of 1000 u.

    u is the time of the cosine schedule at that log-SNR ('inv_cos' of arXiv 2202.00512's code), so all log-SNRs
    are spread as evenly as that schedule visits them, whichever schedule the model uses.

    Shape: (...) -> (..., width).
    """

    def __init__(self, width: int, *, features: int = 64) -> None:
        super().__init__(width, scale=1000.0, features=features)

    def forward(self, logsnr: Tensor) -> Tensor:
        """Embeds `logsnr`, any shape."""
        u = torch.atan(torch.exp(-0.5 * logsnr.float().clamp(-20, 20))) / (math.pi / 2)
        return super().forward(u)


class FramePositions(nn.Module):
    """W (sinusoids of frame i less those of frame 0), so that every frame of a clip is told its number.

    The first frame is told nothing, and so is an independent picture wherever it stands: both come out as from a
    clip of one frame. W starts at zero.

    Shape: () -> (1, T, width), or (B, T, width) with `images`, bool (B,) or (B, T).
    """

    def __init__(self, width: int, *, features: int = 64) -> None:
        super().__init__()
        self.features = features
        self.linear = nn.Linear(features, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, frames: int, images: Tensor | None = None, *, first: int = 0) -> Tensor:
        """Of `frames` frames of a clip, from number `first` on."""
        weight = self.linear.weight
        index = torch.arange(first, first + frames, device=weight.device, dtype=torch.float32)
        wave = sinusoid(index, self.features) - sinusoid(torch.zeros_like(index), self.features)
        told: Tensor = self.linear(wave.to(weight.dtype))[None]
        if images is None:
            return told
        return told * ~(images if images.ndim == 2 else images[:, None])[..., None]
