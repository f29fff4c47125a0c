"""Normalisation over groups of channels and the positions of a frame."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.nn.axes import check_video, fold_frames, unfold_frames

__all__ = ["FrameGroupNorm"]


class FrameGroupNorm(nn.GroupNorm):
    """y = w (x - mean) / sqrt(var + eps) + b, statistics over a group of channels of one frame (arXiv 1803.08494).

    It has the parameters of `nn.GroupNorm`, which on a video would take its statistics over all frames; one frame's
    own make a packed picture independent of its neighbours, and a clip's frames of what comes after them.

    Shape: (B, C, T, H, W) -> the same.

    Raises:
        ValueError: not a video, another number of channels, or groups that do not divide them.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalises each frame of `input`."""
        check_video(input, self.num_channels)
        frames = fold_frames(input)
        normed = F.group_norm(frames, self.num_groups, self.weight, self.bias, self.eps)
        return unfold_frames(normed, input.shape[2])
