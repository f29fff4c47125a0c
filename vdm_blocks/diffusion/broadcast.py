"""Noise levels onto videos: the only place where a level meets the axes (B, C, T, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor

from vdm_blocks.diffusion.values import check_value

__all__ = ["expand_level", "level_of_batch"]


def _check(level: Tensor, like: Tensor) -> None:
    check_value("a level", level, Tensor, "a tensor of shape (), (B,) or (B, T)")
    shape = tuple(level.shape)
    if level.ndim == 0:
        return
    if level.ndim == 1:
        if like.ndim < 2 or like.shape[0] != shape[0]:
            raise ValueError(
                f"a level of shape {shape} is one per sample, but the tensor has shape {tuple(like.shape)}; "
                "give (), or (B,) with the tensor's batch size"
            )
        return
    if level.ndim != 2 or like.ndim != 5 or shape != (like.shape[0], like.shape[2]):
        raise ValueError(
            f"a level of shape {shape} does not fit a tensor of shape {tuple(like.shape)}; "
            "give (), (B,), or, for a video (B, C, T, H, W), (B, T)"
        )


def expand_level(level: Tensor, like: Tensor) -> Tensor:
    """A noise level in the shape that multiplies `like`: () -> (), (B,) -> (B, 1, ...), (B, T) -> (B, 1, T, 1, 1).

    A 0-d level comes back untouched: torch multiplies any device's tensor by it and keeps that tensor's
    dtype. The others come back on `like`'s device, and in `like`'s dtype so that the product keeps it too.

    Raises:
        ValueError: no tensor, a level with other axes, or whose sizes are not those of `like`.

    >>> expand_level(torch.rand(2, 5), torch.rand(2, 3, 5, 8, 8)).shape
    torch.Size([2, 1, 5, 1, 1])
    """
    _check(level, like)
    if level.ndim == 0:
        return level
    level = level.to(device=like.device, dtype=like.dtype)
    if level.ndim == 1:
        return level.view(-1, *(1,) * (like.ndim - 1))
    return level[:, None, :, None, None]


def level_of_batch(level: Tensor, like: Tensor) -> Tensor:
    """A noise level as a network is told it: float32, (B,) or (B, T), on `like`'s device.

    A 0-d level on the CPU is filled in on the device, so that no copy waits for it.

    Raises:
        ValueError: as `expand_level`.

    >>> level_of_batch(torch.tensor(-3.0), torch.rand(2, 3, 5, 8, 8))
    tensor([-3., -3.])
    """
    _check(level, like)
    if level.ndim > 0:
        return level.to(device=like.device, dtype=torch.float32)
    if level.device.type == "cpu" and not level.requires_grad:
        return torch.full((like.shape[0],), float(level), device=like.device, dtype=torch.float32)
    return level.to(device=like.device, dtype=torch.float32).expand(like.shape[0])
