"""Operations that keep the expected magnitude of activations at one (arXiv 2312.02696)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video

__all__ = ["MagnitudeNorm", "magnitude_cat", "magnitude_silu", "magnitude_sum"]


class MagnitudeNorm(nn.Module):
    """y = x / sqrt(mean_c x[c]^2 + eps) at each (b, t, h, w): the norm of arXiv 2312.02696, with nothing to learn.

    Shape: (B, C, T, H, W) -> the same.

    Raises:
        ValueError: not a video.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `x`; the mean is taken in float32 or better."""
        check_video(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide)
        return x * torch.rsqrt(length.square() / x.shape[1] + self.eps).to(x.dtype)


def magnitude_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596, so that standard normal numbers keep their mean square (arXiv 2312.02696, eq. 81)."""
    return F.silu(x) / 0.596


def magnitude_sum(a: Tensor, b: Tensor, share: float = 0.5) -> Tensor:
    """((1 - s) a + s b) / sqrt((1 - s)^2 + s^2) with s = `share` (arXiv 2312.02696, eq. 88).

    With s = 1/2 it is (a + b) / sqrt(2), the scaling of skip connections of arXiv 2205.11487, appendix B.

    Raises:
        ValueError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is b's part of the sum, from 0 to 1; got {share}")
    return a.lerp(b, share) / math.sqrt((1 - share) ** 2 + share**2)


def magnitude_cat(a: Tensor, b: Tensor, share: float = 0.5, dim: int = 1) -> Tensor:
    """[w_a a, w_b b] along `dim`, weighted so that b makes up `share` and the whole keeps its magnitude.

    w_a = C (1 - s) / sqrt(N_a), w_b = C s / sqrt(N_b), C = sqrt((N_a + N_b) / ((1 - s)^2 + s^2)), N the numbers of
    channels (arXiv 2312.02696, eq. 103).

    Raises:
        ValueError: a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is b's part of the result, from 0 to 1; got {share}")
    na, nb = a.shape[dim], b.shape[dim]
    scale = math.sqrt((na + nb) / ((1 - share) ** 2 + share**2))
    return torch.cat(
        [a * (scale * (1 - share) / math.sqrt(na)), b * (scale * share / math.sqrt(nb))], dim=dim
    )
