"""Does a thing that passes behind another come out as the thing that went in?"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.metrics.objects import sight

__all__ = ["Permanence", "permanence"]

_SIDE = 16


class Permanence(NamedTuple):
    """How a thing differs after it was hidden from what it was before; NaN where it was not seen on both sides.

    Args:
        returned: (B,) share of the frames that ought to show it whole again, and show it.
        color: (B,) distance of its mean colours, in units of [0, 1] for each channel.
        size: (B,) |log| of the ratio of its areas: 0.69 is twice or half.
        shape: (B,) one minus the overlap of its outlines over their union, moved and scaled onto one another.
        speed: (B,) length of the change of its velocity, over the speed before.
    """

    returned: Tensor
    color: Tensor
    size: Tensor
    shape: Tensor
    speed: Tensor

    def kept(
        self,
        *,
        returned: float = 0.5,
        color: float = 0.1,
        size: float = 0.3,
        shape: float = 0.25,
        speed: float = 0.35,
    ) -> Tensor:
        """(B,) bool: it came back, and each difference is within its bound. A thing that is lost is not kept."""
        ok = self.returned >= returned
        for found, bound in (
            (self.color, color),
            (self.size, size),
            (self.shape, shape),
            (self.speed, speed),
        ):
            ok = ok & (found <= bound)
        return ok


def permanence(video: Tensor, mask: Tensor, visible: Tensor, *, whole: float = 0.97) -> Permanence:
    """Compares a thing before and after the frames in which something else ought to hide it.

    For a thing that keeps its distance from the camera and its speed, so that truth scores near 0 on all counts.

    Args:
        video: (B, 3, T, H, W) in [-1, 1].
        mask: bool (B, T, H, W), where this video shows the thing: from `color_mask`, or from a tracker. Never the true
            mask of another video: what comes out elsewhere, or not at all, would go unseen.
        visible: (B, T), the true share of it that nothing hides, in [0, 1].
        whole: from which share on it counts as seen whole.

    Returns:
        five numbers a sample.

    Raises:
        ValueError: shapes that do not belong together, or a sample in which the thing is never hidden between two
            whole views of two frames each.
    """
    seen = sight(video, mask)
    if visible.shape != seen.area.shape:
        raise ValueError(f"visible is {tuple(seen.area.shape)}; got {tuple(visible.shape)}")
    before, after = _sides(visible, whole)
    a, b = before & seen.area.isfinite(), after & seen.area.isfinite()
    color = (_mean(seen.color, a) - _mean(seen.color, b)).square().sum(1).sqrt() / 2
    size = (_mean(seen.area[..., None], b) / _mean(seen.area[..., None], a)).log().abs()[:, 0]
    one, two = (_outline(mask, seen.centre, seen.area, side) for side in (a, b))
    shape = 1 - torch.minimum(one, two).sum((1, 2)) / torch.maximum(one, two).sum((1, 2))
    first, last = _velocity(seen.centre, a), _velocity(seen.centre, b)
    speed = (last - first).square().sum(1).sqrt() / first.square().sum(1).sqrt()
    return Permanence(
        returned=b.sum(1) / after.sum(1), color=color, size=size, shape=shape.double(), speed=speed
    )


def _sides(visible: Tensor, whole: float) -> tuple[Tensor, Tensor]:
    hidden = visible < 0.05
    frames = torch.arange(visible.shape[1], device=visible.device)
    first = torch.where(hidden, frames, visible.shape[1]).amin(1, keepdim=True)
    last = torch.where(hidden, frames, -1).amax(1, keepdim=True)
    before, after = (visible >= whole) & (frames < first), (visible >= whole) & (frames > last)
    few = (before.sum(1) < 2) | (after.sum(1) < 2) | ~hidden.any(1)
    if bool(few.any()):
        raise ValueError(
            f"samples {few.nonzero().flatten().tolist()}: a thing has to be seen whole in 2 frames, hidden in one, and "
            "seen whole in 2 again; take clips in which that happens"
        )
    return before, after


def _mean(x: Tensor, keep: Tensor) -> Tensor:
    return x.where(keep[..., None], 0.0).sum(1) / keep.sum(1, keepdim=True)


def _velocity(centre: Tensor, keep: Tensor) -> Tensor:
    """(B, 2) pixels a frame, by least squares over the frames that are kept; NaN for fewer than two."""
    t = torch.arange(centre.shape[1], dtype=torch.float64, device=centre.device).expand(keep.shape)
    t = (t - (t * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True)) * keep
    return (t[..., None] * centre.where(keep[..., None], 0.0)).sum(1) / t.square().sum(1)[:, None]


def _outline(mask: Tensor, centre: Tensor, area: Tensor, keep: Tensor) -> Tensor:
    """(B, 16, 16): the mean mask, centred, in a window of 2.5 times the side of a square of its area."""
    batch, frames, height, width = mask.shape
    at = torch.linspace(-1.25, 1.25, _SIDE, dtype=torch.float64, device=mask.device)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    scale = area.nan_to_num(1.0).sqrt()[..., None, None]
    middle = centre.nan_to_num(0.0)[..., None, None]
    grid = torch.stack(
        [
            (middle[:, :, 1] + columns * scale) * 2 / width - 1,
            (middle[:, :, 0] + rows * scale) * 2 / height - 1,
        ],
        dim=4,
    )
    found = F.grid_sample(
        mask.reshape(-1, 1, height, width).double(), grid.flatten(0, 1), align_corners=False
    ).view(batch, frames, _SIDE, _SIDE)
    return (found * keep[..., None, None]).sum(1) / keep.sum(1)[:, None, None]
