"""Motion estimated from the pixels alone, for videos whose true motion nobody knows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.metrics.consistency import warp

__all__ = ["estimate_flow"]


def estimate_flow(
    video: Tensor, *, reach: int = 3, iterations: int = 4, least: int = 12, floor: float = 1e-4
) -> Tensor:
    """Pyramidal Lucas-Kanade: how each pixel of frame t moves until frame t + 1, in rows and columns.

    At every pixel and level the step d solves sum w (grad I grad I^T) d = -sum w grad I (I_{t+1}(p + flow) - I_t(p))
    over a Gaussian window w (Lucas and Kanade 1981), again and again, from coarse to fine. It is blind on plain
    areas, where it says no motion, and smears motion over edges: good to a fraction of a pixel on texture.

    Args:
        video: (B, C, T, H, W), two frames or more; the channels' mean is followed.
        reach: of the window, in pixels: it is 2 reach + 1 wide.
        iterations: at each level.
        least: the coarsest level's shorter side, at least.
        floor: added to the diagonal; where the texture is weaker, the flow is drawn to that of the level above.

    Returns:
        (B, 2, T - 1, H, W) float32, as `warp` takes it.

    Raises:
        ValueError: no video of two frames.
    """
    if video.ndim != 5 or video.shape[2] < 2:
        raise ValueError(f"motion is between frames of (B, C, T, H, W), T >= 2; got {tuple(video.shape)}")
    gray = video.float().mean(1)  # frames stand as channels, so that halving treats each alone
    levels = [gray]
    while min(levels[-1].shape[-2:]) >= 2 * least:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    batch, frames = gray.shape[:2]
    flow = gray.new_zeros(batch, 2, frames - 1, *levels[-1].shape[-2:])
    for number, level in enumerate(reversed(levels)):
        if number:
            scale = [new / old for new, old in zip(level.shape[-2:], flow.shape[-2:], strict=True)]
            flow = F.interpolate(
                flow.flatten(1, 2), size=level.shape[-2:], mode="bilinear", align_corners=False
            ).view(batch, 2, frames - 1, *level.shape[-2:])
            flow = flow * torch.tensor(scale, device=flow.device).view(1, 2, 1, 1, 1)
        for _ in range(iterations):
            flow = flow + _step(level, flow, reach, floor)
    return flow


def _step(level: Tensor, flow: Tensor, reach: int, floor: float) -> Tensor:
    fetched = warp(level[:, None], flow)[0][:, 0]
    first = level[:, :-1]
    middle = F.pad((fetched + first) / 2, (1, 1, 1, 1), mode="replicate")
    rows = (middle[..., 2:, 1:-1] - middle[..., :-2, 1:-1]) / 2
    columns = (middle[..., 1:-1, 2:] - middle[..., 1:-1, :-2]) / 2
    change = fetched - first
    rr, cc, rc = (
        _window(rows * rows, reach),
        _window(columns * columns, reach),
        _window(rows * columns, reach),
    )
    rt, ct = _window(rows * change, reach), _window(columns * change, reach)
    rr, cc = rr + floor, cc + floor
    det = rr * cc - rc * rc
    step = torch.stack([(rc * ct - cc * rt) / det, (rc * rt - rr * ct) / det], dim=1)
    return step.clamp(-1, 1)


def _window(x: Tensor, reach: int) -> Tensor:
    at = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-2 * (at / (reach + 1)) ** 2)
    weights = weights / weights.sum()
    flat = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(flat, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1)).view_as(x)
