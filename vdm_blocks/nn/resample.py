"""Smaller and larger frames inside a network, and space folded into channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video, fold_frames, from_last, to_last, unfold_frames
from vdm_blocks.nn.pointwise import Pointwise

__all__ = ["SpatialDownsample", "SpatialUpsample", "fold_space", "unfold_space"]


def fold_space(x: Tensor, factor: int) -> Tensor:
    """(B, C, T, f H, f W) -> (B, f f C, T, H, W): each f x f patch becomes the channels of one position.

    Raises:
        ValueError: a frame size that `factor` does not divide.
    """
    check_video(x)
    if factor == 1:
        return x
    _check_divides(x, factor)
    last = to_last(x).unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
    return from_last(last.permute(0, 1, 2, 4, 6, 3, 5).flatten(4))


def unfold_space(x: Tensor, factor: int) -> Tensor:
    """(B, f f C, T, H, W) -> (B, C, T, f H, f W), the inverse of `fold_space`.

    Raises:
        ValueError: channels that factor^2 does not divide.
    """
    check_video(x)
    if factor == 1:
        return x
    if x.shape[1] % factor**2:
        raise ValueError(
            f"{x.shape[1]} channels do not divide by {factor}^2, so they cannot unfold into space"
        )
    last = to_last(x).unflatten(4, (-1, factor, factor)).permute(0, 1, 2, 5, 3, 6, 4)
    return from_last(last.flatten(4, 5).flatten(2, 3))


def _check_divides(x: Tensor, factor: int) -> None:
    height, width = x.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(
            f"a frame of {height}x{width} does not divide by {factor}; "
            f"crop or resize to {height // factor * factor}x{width // factor * factor}"
        )


class SpatialDownsample(nn.Module):
    """Frames of half the size: each 2 x 2 patch through one linear map.

    It is computed as a convolution with a stride of 2, whose kernel is the map's weight as it lies in memory: folding
    the patches into channels first takes 4.0 times as long forward, 2.7 with backward (128 channels, a CPU;
    benchmarks/blocks.py), most of it for a copy.

    Shape: (B, C, T, H, W) -> (B, C', T, H/2, W/2).

    Raises:
        ValueError: odd H or W.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.map = Pointwise(4 * in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Halves the frames of `x`."""
        check_video(x, self.in_channels)
        _check_divides(x, 2)
        weight = self.map.weight.unflatten(1, (self.in_channels, 2, 2))
        return unfold_frames(F.conv2d(fold_frames(x), weight, self.map.bias, stride=2), x.shape[2])


class SpatialUpsample(nn.Module):
    """Frames of twice the size: a linear map at each position, then its value repeated 2 x 2.

    Shape: (B, C, T, H, W) -> (B, C', T, 2 H, 2 W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.map = Pointwise(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Doubles the frames of `x`."""
        check_video(x, self.in_channels)
        small = from_last(self.map(to_last(x)))
        return unfold_frames(F.interpolate(fold_frames(small), scale_factor=2, mode="nearest"), x.shape[2])
