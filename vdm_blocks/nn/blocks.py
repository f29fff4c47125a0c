"""The residual block that the networks are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video, from_last, to_last
from vdm_blocks.nn.conv import SpatialConv, TemporalConv, zero_
from vdm_blocks.nn.norm import ChannelNorm
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.recompute import Recomputing

__all__ = ["ResidualBlock"]


class ResidualBlock(Recomputing):
    """s (skip(x) + conv(silu(film(norm(temporal(conv(silu(norm(x))))))))).

    film(h) = (1 + scale) h + shift, both read from `emb` (arXiv 2105.05233, section 3, 'adaptive group norm', here
    with a norm per position); the second convolution starts at zero, so the block starts as its skip. The first
    convolution is factorized over space and time where `temporal` is given; otherwise frames do not mix. With
    s = 1 / sqrt(2) the sum keeps its variance (arXiv 2104.07636, section 2.4).

    Args:
        in_channels, out_channels: C and C'.
        embedding: E, width of `emb`.
        temporal: the convolution over time after the first one over space, or None.
        norm: from a number of channels to a norm; None takes `ChannelNorm`, whose second one is fused with film.
        skip_scale: s.

    Shape: x (B, C, T, H, W), emb (B, E) or (B, T, E) -> (B, C', T, H, W).

    >>> from vdm_blocks.nn.group_norm import FrameGroupNorm
    >>> block = ResidualBlock(8, 8, 4, norm=lambda c: FrameGroupNorm(2, c), skip_scale=2**-0.5)
    >>> x = torch.randn(1, 8, 2, 4, 4)
    >>> torch.equal(block(x, torch.zeros(1, 4)), x * 2**-0.5)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        *,
        temporal: TemporalConv | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        skip_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.skip_scale = skip_scale
        self.norm = ChannelNorm(in_channels) if norm is None else norm(in_channels)
        self.norm2 = None if norm is None else norm(out_channels)
        self.conv1 = SpatialConv(in_channels, out_channels)
        self.temporal = temporal
        self.film = nn.Linear(embedding, 2 * out_channels)
        self.conv2 = zero_(SpatialConv(out_channels, out_channels))
        self.skip = Pointwise(in_channels, out_channels, bias=False) if in_channels != out_channels else None

    def forward(self, x: Tensor, emb: Tensor, images: Tensor | None = None) -> Tensor:
        """Transforms `x` under `emb`; `images` marks frames that are independent pictures."""
        check_video(x, self.in_channels)
        h = self.part(self._first, x)
        if self.temporal is not None:
            h = self.temporal(h, images)
        h = self.part(self._second, h, self.film(emb))
        skip = x if self.skip is None else from_last(self.skip(to_last(x)))
        out: Tensor = skip + h
        return out if self.skip_scale == 1 else out * self.skip_scale

    def _first(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.silu(self.norm(x)))
        return out

    def _second(self, h: Tensor, film: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.silu(modulated_norm(h, film, self.norm2)))
        return out


def film_of(film: Tensor, x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """`film` (B, parts C) or (B, T, parts C) as parts (B, 1 or T, 1, 1, C), which meet `x` with channels last."""
    return (film[:, None] if film.ndim == 2 else film)[:, :, None, None].to(x.dtype).chunk(parts, dim=-1)


def modulated_norm(x: Tensor, film: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(1 + scale) norm(x) + shift, with (scale, shift) = `film`, (B, 2 C) or (B, T, 2 C).

    Without a `norm` it is layer normalisation of each position's channels. That is given a gain of ones, with which
    torch's CPU kernel takes a faster way than without.
    """
    scale, shift = film_of(film, x, 2)
    channels = x.shape[1]
    normed = F.layer_norm(to_last(x), (channels,), x.new_ones(channels)) if norm is None else to_last(norm(x))
    return from_last(torch.addcmul(shift, normed, 1 + scale))
