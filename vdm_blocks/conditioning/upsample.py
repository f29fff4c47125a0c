"""A low-resolution video brought onto the grid of the next stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.nn.axes import check_video, fold_frames, unfold_frames

__all__ = ["blank_frames", "blend_frames", "repeat_frames", "upsample_bicubic", "upsample_space"]


def upsample_space(video: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing of every frame (arXiv 2210.02303).

    Args:
        video: (B, C, T, H, W).
        height, width: of the result, whole multiples of the video's own.

    Returns:
        (B, C, T, height, width).

    Raises:
        ValueError: a size that is not a multiple.
    """
    return _upsample(video, height, width, "bilinear")


def upsample_bicubic(video: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resizing of every frame (Keys 1981, a = -3/4): sharper than bilinear, and a fairer start for a residual.

    Arguments, result and errors as for `upsample_space`. Values may overshoot those of the video by a few percent.
    """
    return _upsample(video, height, width, "bicubic")


def _upsample(video: Tensor, height: int, width: int, mode: str) -> Tensor:
    check_video(video)
    own = video.shape[-2:]
    if height < own[0] or width < own[1] or height % own[0] or width % own[1]:
        raise ValueError(
            f"{height}x{width} is not a whole multiple of {own[0]}x{own[1]}; resize to one that is"
        )
    if (height, width) == tuple(own):
        return video
    large = F.interpolate(fold_frames(video), size=(height, width), mode=mode, align_corners=False)
    return unfold_frames(large, video.shape[2])


def repeat_frames(video: Tensor, frames: int) -> Tensor:
    """Each frame repeated, and one more channel that is 1 where a frame is one of the given ones, else -1.

    Frame k of the given video stands at k n, k n + 1, ... k n + n - 1 of the result, and is known at k n
    (arXiv 2210.02303: 'repeating frames').

    Args:
        video: (B, C, T, H, W).
        frames: n T for a whole n.

    Returns:
        (B, C + 1, n T, H, W).

    Raises:
        ValueError: a count that is not a multiple.
    """
    times = _times(video, frames)
    return torch.cat([video.repeat_interleave(times, dim=2), _known(video, times)], dim=1)


def blank_frames(video: Tensor, frames: int) -> Tensor:
    """Each frame followed by blank ones, of 0 everywhere, and one more channel as that of `repeat_frames`.

    Frame k of the given video stands at k n (arXiv 2210.02303: 'filling in blank frames'). For a network
    that should find out itself what lies between.

    Arguments, result and errors as for `repeat_frames`.
    """
    times = _times(video, frames)
    blank = video.new_zeros(*video.shape[:2], frames, *video.shape[3:])
    blank[:, :, ::times] = video
    return torch.cat([blank, _known(video, times)], dim=1)


def blend_frames(video: Tensor, frames: int) -> Tensor:
    """Frames between two given ones blended from them, and one more channel as that of `repeat_frames`.

    Frame k n + j of the result is (1 - j / n) x_k + (j / n) x_{k+1}; after the last given frame it is repeated.
    What moves shows twice, faintly, where repeating shows it standing still: the better start for a residual.

    Arguments, result and errors as for `repeat_frames`.
    """
    times = _times(video, frames)
    after = torch.cat([video[:, :, 1:], video[:, :, -1:]], dim=2)
    share = torch.arange(times, dtype=video.dtype, device=video.device).div_(times)
    between = torch.lerp(video.unsqueeze(3), after.unsqueeze(3), share.view(-1, 1, 1)).flatten(2, 3)
    return torch.cat([between, _known(video, times)], dim=1)


def _times(video: Tensor, frames: int) -> int:
    check_video(video)
    own = video.shape[2]
    if frames < own or frames % own:
        raise ValueError(f"{frames} frames is not a whole multiple of {own}; ask for one that is")
    return frames // own


def _known(video: Tensor, times: int) -> Tensor:
    """(B, 1, n T, H, W): 1 at the frames that were given, -1 elsewhere."""
    known = torch.full((times,), -1.0, dtype=video.dtype, device=video.device)
    known[0] = 1.0
    mask = known.repeat(video.shape[2]).view(1, 1, -1, 1, 1)
    return mask.expand(video.shape[0], 1, -1, *video.shape[3:])
