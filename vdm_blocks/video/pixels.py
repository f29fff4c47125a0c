"""Between video in [-1, 1] and the bytes that files hold."""

from __future__ import annotations

import torch
from torch import Tensor


def to_bytes(video: Tensor) -> Tensor:
    """(3, T, H, W) in [-1, 1] to uint8 (T, H, W, 3): round(127.5 (x + 1)), clipped.

    Raises:
        ValueError: for another shape, for whole numbers, or for numbers that are none.

    >>> to_bytes(torch.tensor([-1.0, 0.0, 2.0]).view(3, 1, 1, 1)).flatten().tolist()
    [0, 128, 255]
    """
    if video.dim() != 4 or video.shape[0] != 3:
        raise ValueError(
            f"a film to write is (3, T, H, W) in [-1, 1], got {tuple(video.shape)}; of a batch, give video[i]"
        )
    if not video.is_floating_point() or bool(video.isnan().any()):
        raise ValueError(
            f"a film to write is floating-point numbers in [-1, 1], and none of them NaN; got {video.dtype}"
            f"{' with NaN' if video.is_floating_point() else ': for bytes, x / 127.5 - 1'}"
        )
    data = (video.detach().to(device="cpu", dtype=torch.float32) + 1).mul_(127.5).round_().clamp_(0, 255)
    return data.to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def from_bytes(frames: Tensor) -> Tensor:
    """uint8 (T, H, W, 3) to float32 (3, T, H, W) in [-1, 1].

    >>> from_bytes(torch.tensor([0, 255, 0], dtype=torch.uint8).view(1, 1, 1, 3)).flatten().tolist()
    [-1.0, 1.0, -1.0]
    """
    return frames.permute(3, 0, 1, 2).to(torch.float32).div_(127.5).sub_(1)
