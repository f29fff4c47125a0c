"""Fewer and more frames inside a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video, from_last, to_last
from vdm_blocks.nn.pointwise import Pointwise

__all__ = ["TemporalDownsample", "TemporalUpsample"]


class TemporalDownsample(nn.Module):
    """Half the frames: y_k = W [x_2k, x_2k+1] + b, at the start their mean.

    Args:
        channels: C.

    Shape: (B, C, T, H, W) -> (B, C, T/2, H, W).

    Raises:
        ValueError: an odd number of frames.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.map = Pointwise(2 * channels, channels)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(channels).repeat(1, 2) / 2)
            self.map.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Halves the frames of `x`."""
        check_video(x, self.channels)
        if x.shape[2] % 2:
            raise ValueError(
                f"{x.shape[2]} frames do not halve; give {x.shape[2] + 1}, the last one repeated"
            )
        b, t, h, w, c = to_last(x).shape
        pairs = to_last(x).unflatten(1, (t // 2, 2)).permute(0, 1, 3, 4, 2, 5).reshape(b, t // 2, h, w, 2 * c)
        return from_last(self.map(pairs))


class TemporalUpsample(nn.Module):
    """Twice the frames: [y_2k, y_2k+1] = W x_k + b, at the start x_k twice.

    Args:
        channels: C.

    Shape: (B, C, T, H, W) -> (B, C, 2 T, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.map = Pointwise(channels, 2 * channels)
        with torch.no_grad():
            self.map.weight.copy_(torch.eye(channels).repeat(2, 1))
            self.map.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Doubles the frames of `x`."""
        check_video(x, self.channels)
        pairs = self.map(to_last(x)).unflatten(4, (2, self.channels))
        return from_last(pairs.permute(0, 1, 4, 2, 3, 5).flatten(1, 2))
