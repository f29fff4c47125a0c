"""Where a frame stands relative to another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RelativeBias"]


class RelativeBias(nn.Module):
    """A learned number for each head and each distance d = j - i, added to the attention logits.

    It starts as 0, -|d - 1|, -|d + 1|, -|d| / 2 for the heads in turn: one sees all frames alike, one the next, one the
    last, one those about. So order is seen from the first step; from zeros, a table whose entries move by a learning
    rate a step takes thousands to tell near from far. (The slopes are those of ALiBi, arXiv 2108.12409, learned on.)

    Distances beyond `reach` share the last entry, so any number of frames can be attended over
    (arXiv 1803.02155, section 3.2, in the scalar form of arXiv 1910.10683).

    Args:
        heads: number of attention heads.
        reach: largest distance that has an entry of its own.

    Shape: () -> (heads, S, S).

    Raises:
        ValueError: no heads, or a negative reach.
    """

    def __init__(self, heads: int, reach: int = 32) -> None:
        super().__init__()
        if heads < 1 or reach < 0:
            raise ValueError(
                f"a bias is of 1 head or more and reaches 0 frames or more; got {heads} and {reach}"
            )
        self.reach = reach
        d = torch.arange(-reach, reach + 1.0)
        views = (torch.zeros_like(d), -(d - 1).abs(), -(d + 1).abs(), -d.abs() / 2)
        self.table = nn.Parameter(torch.stack([views[head % 4] for head in range(heads)]))

    def forward(self, length: int) -> Tensor:
        """The bias for `length` positions."""
        at = torch.arange(length, device=self.table.device)
        return self.at(at[None, :] - at[:, None])

    def at(self, distance: Tensor) -> Tensor:
        """The bias for whole distances j - i of any shape (...): (heads, ...)."""
        return self.table[:, distance.clamp(-self.reach, self.reach) + self.reach]
