"""The direction of guidance as a layer, beside the one that it was copied from."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from vdm_blocks.diffusion.broadcast import expand_level

__all__ = ["GuidanceDirection", "of_each"]


class GuidanceDirection(nn.Module):
    """cond - uncond from what the last layer is given: sum over k of hat_k(logsnr) layer_k(h).

    As many copies of the layer as `knots`, each for a noise level, in line between one and the next: how far the text
    moves the answer, and where to, is not the same at all of them. Levels are u = atan(exp(-logsnr / 2)) / (pi / 2),
    in (0, 1), as our networks embed them. Starts at zero.

    Args:
        layer: that is copied; linear in its weights.
        knots: of them; 1 is one layer for all noise levels.

    Raises:
        ValueError: no knots.

    >>> direction = GuidanceDirection(nn.Conv3d(8, 3, 1))
    >>> direction((torch.zeros(2, 8, 1, 4, 4),), torch.zeros(2)).shape
    torch.Size([2, 3, 1, 4, 4])
    """

    def __init__(self, layer: nn.Module, knots: int = 4) -> None:
        super().__init__()
        if knots < 1:
            raise ValueError(
                f"GuidanceDirection got knots={knots}; it takes one at least, for all noise levels"
            )
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(knots))
        for p in self.parameters():
            nn.init.zeros_(p)

    def forward(self, given: tuple[Any, ...], logsnr: Tensor) -> Tensor:
        """Of what the layer was called with, at levels (B,) or (B, T)."""
        u = torch.atan(torch.exp(-0.5 * logsnr.clamp(-20, 20))) / (math.pi / 2) * (len(self.layers) - 1)
        direction: Tensor | None = None
        for k, layer in enumerate(self.layers):
            own = layer(*given)
            own = of_each((1 - (u - k).abs()).clamp(min=0), own) * own
            direction = own if direction is None else direction + own
        assert direction is not None
        return direction


def of_each(level: Tensor, answer: Tensor) -> Tensor:
    """`level`, (B,) or (B, T), as what multiplies a layer's answer, (B, C, T, H, W) or with B and T in one axis.

    Raises:
        ValueError: an answer whose first axis is neither.
    """
    level = level.to(answer.dtype)
    if answer.ndim == 5 and answer.shape[0] == level.shape[0]:
        return expand_level(level, answer)
    flat = level.flatten()
    if answer.shape[0] % len(flat):
        raise ValueError(
            f"the last layer put out shape {tuple(answer.shape)} for scales of shape {tuple(level.shape)}; name one "
            "whose first axis is the batch, or batch and frames, or give head=None"
        )
    return flat.repeat_interleave(answer.shape[0] // len(flat)).view(-1, *(1,) * (answer.ndim - 1))
