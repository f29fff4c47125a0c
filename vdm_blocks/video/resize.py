"""Changing the grid of a video: (..., C, T, H, W) in, the same layout out."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import interpolate

Filter = Literal["bilinear", "area", "nearest"]


def resize_video(video: Tensor, *, height: int, width: int, filter: Filter = "bilinear") -> Tensor:  # noqa: A002
    """Resize every frame; frames are never mixed.

    Args:
        video: (..., T, H, W), of at least four dimensions.
        height: rows wanted.
        width: columns wanted.
        filter: "bilinear" is antialiased when it shrinks; "area" averages what each pixel covers;
            "nearest" copies the pixel under each pixel's centre.

    Returns:
        (..., T, height, width).

    Raises:
        ValueError: for fewer than four dimensions, a size below one, or an unknown filter.

    >>> import torch
    >>> resize_video(torch.arange(4.0).view(1, 1, 2, 2), height=1, width=1, filter="area").item()
    1.5
    """
    if video.dim() < 4 or height < 1 or width < 1:
        raise ValueError(
            f"resizing takes a video (..., C, T, H, W) and a size of at least 1 x 1, "
            f"got {tuple(video.shape)} and {height} x {width}"
        )
    if tuple(video.shape[-2:]) == (height, width):
        return video
    frames = video.reshape(1, -1, *video.shape[-2:])
    if filter == "bilinear":
        frames = interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
    elif filter == "area":
        frames = interpolate(frames, size=(height, width), mode="area")
    elif filter == "nearest":
        frames = interpolate(frames, size=(height, width), mode="nearest-exact")
    else:
        raise ValueError(f"filter is 'bilinear', 'area' or 'nearest', got {filter!r}")
    return frames.view(*video.shape[:-2], height, width)


def repeat_frames(video: Tensor, times: int) -> Tensor:
    """Show every frame `times` times: (..., T, H, W) to (..., T * times, H, W).

    >>> import torch
    >>> repeat_frames(torch.arange(2.0).view(1, 2, 1, 1), 3).flatten().tolist()
    [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    """
    return video if times == 1 else video.repeat_interleave(times, dim=-3)


def skip_frames(video: Tensor, step: int) -> Tensor:
    """Frames 0, step, 2 step, ...: (..., T, H, W) to (..., ceil(T / step), H, W)."""
    return video[..., ::step, :, :]


def fit_video(video: Tensor, *, height: int, width: int, top: float = 0.5, left: float = 0.5) -> Tensor:
    """Resize (antialiased bilinear) until height x width is just covered, then crop.

    Args:
        video: (..., T, H, W).
        height: rows wanted.
        width: columns wanted.
        top: where the crop lies, 0 at the top edge, 1 at the bottom.
        left: where the crop lies, 0 at the left edge, 1 at the right.

    Raises:
        ValueError: when `top` or `left` lies outside [0, 1].
    """
    if not (0 <= top <= 1 and 0 <= left <= 1):
        raise ValueError(f"the crop's place is a share of the free room, 0 to 1; got top={top}, left={left}")
    rows, columns = video.shape[-2:]
    scale = max(height / rows, width / columns)
    rows, columns = max(round(rows * scale), height), max(round(columns * scale), width)
    resized = resize_video(video, height=rows, width=columns)
    y, x = round(top * (rows - height)), round(left * (columns - width))
    return resized[..., y : y + height, x : x + width]
