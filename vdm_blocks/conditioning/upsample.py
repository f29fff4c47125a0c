"""A low-resolution video brought onto the grid of the next stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.nn.axes import check_video, fold_frames, unfold_frames

__all__ = ["repeat_frames", "upsample_space"]


def upsample_space(video: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of every frame (arXiv 2210.02303, section 2.4).

    Args:
        video: (B, C, T, H, W).
        height, width: of the result, whole multiples of the video's own.

    Returns:
        (B, C, T, height, width).

    Raises:
        ValueError: a size that is not a multiple.
    """
    check_video(video)
    own = video.shape[-2:]
    if height % own[0] or width % own[1]:
        raise ValueError(
            f"{height}x{width} is not a whole multiple of {own[0]}x{own[1]}; resize to one that is"
        )
    if (height, width) == tuple(own):
        return video
    large = F.interpolate(fold_frames(video), size=(height, width), mode="bilinear", align_corners=False)
    return unfold_frames(large, video.shape[2])


def repeat_frames(video: Tensor, frames: int) -> Tensor:
    """Each frame repeated, and one more channel that is 1 where a frame is one of the given ones, else -1.

    Frame k of the given video stands at k n, k n + 1, ... k n + n - 1 of the result, and is known at k n
    (arXiv 2210.02303, section 2.4: 'repeating frames').

    Args:
        video: (B, C, T, H, W).
        frames: n T for a whole n.

    Returns:
        (B, C + 1, n T, H, W).

    Raises:
        ValueError: a count that is not a multiple.
    """
    check_video(video)
    own = video.shape[2]
    if frames % own:
        raise ValueError(f"{frames} frames is not a whole multiple of {own}; ask for one that is")
    times = frames // own
    known = torch.full((times,), -1.0, dtype=video.dtype, device=video.device)
    known[0] = 1.0
    mask = known.repeat(own).view(1, 1, frames, 1, 1).expand(video.shape[0], 1, -1, *video.shape[3:])
    return torch.cat([video.repeat_interleave(times, dim=2), mask], dim=1)
