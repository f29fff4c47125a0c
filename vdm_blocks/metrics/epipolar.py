"""Does what stands still in a video move as a moving camera has it? Matches against epipolar lines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.metrics.cameras import Cameras
from vdm_blocks.metrics.consistency import warp
from vdm_blocks.metrics.flow import estimate_flow

__all__ = ["epipolar_residual", "fundamental_from_matches", "match_points", "sampson_distance"]


def sampson_distance(fundamental: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """How far, in pixels, matches are from obeying x'^T F x = 0, to first order.

        |x'^T F x| / sqrt((F x)_1^2 + (F x)_2^2 + (F^T x')_1^2 + (F^T x')_2^2)   (Hartley and Zisserman 2004, eq. 11.9)

    Args:
        fundamental: (3, 3).
        first, second: (N, 2) rows and columns.

    Returns:
        (N,) float64.
    """
    x, y = _homogeneous(first), _homogeneous(second)
    f = fundamental.to(x)
    line, back = x @ f.T, y @ f
    slope = line[:, :2].square().sum(1) + back[:, :2].square().sum(1)
    return (y * line).sum(1).abs() / slope.clamp(min=1e-30).sqrt()


def fundamental_from_matches(first: Tensor, second: Tensor) -> Tensor:
    """F (3, 3) of norm 1 from eight matches or more, for a camera that nobody knows.

    The normalised eight-point algorithm (Hartley 1997): least squares, so clean the matches first.

    Args:
        first, second: (N, 2) rows and columns.

    Raises:
        ValueError: fewer than eight matches.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 8:
        raise ValueError(
            f"a fundamental matrix needs 8 matches or more, (N, 2) twice; got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    (x, t), (y, u) = _centred(_homogeneous(first)), _centred(_homogeneous(second))
    rows = (y[:, :, None] * x[:, None, :]).flatten(1)
    f = torch.linalg.svd(rows, full_matrices=True).Vh[-1].view(3, 3)
    left, values, right = torch.linalg.svd(f)
    values = torch.cat([values[:2], torch.zeros_like(values[2:])])
    f = u.T @ (left * values @ right) @ t
    unit: Tensor = f / f.norm()
    return unit


def match_points(
    first: Tensor, second: Tensor, *, most: int = 200, agree: float = 0.5, still: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Corners of one frame and where they are in another, kept where the way back leads home.

    Args:
        first, second: (C, H, W) in [-1, 1].
        most: the strongest corners that are tried.
        agree: pixels within which the way there and back has to end.
        still: bool (H, W), where of the first frame to look; None is everywhere.

    Returns:
        two (N, 2), rows and columns of pixel centres (the first pixel's is 0.5).
    """
    there = estimate_flow(torch.stack([first, second], dim=1)[None])
    back = estimate_flow(torch.stack([second, first], dim=1)[None])
    home = warp(torch.cat([torch.zeros_like(back), back], dim=2), there)[0] + there
    error = home[0, :, 0].square().sum(0).sqrt()
    gray = F.pad(first.float().mean(0)[None, None], (2, 2, 2, 2), mode="replicate")[0, 0]
    rows, columns = (
        (gray[2:, 1:-1] - gray[:-2, 1:-1])[None, None],
        (gray[1:-1, 2:] - gray[1:-1, :-2])[None, None],
    )
    rr, cc, rc = (F.avg_pool2d(x, 3, 1) for x in (rows * rows, columns * columns, rows * columns))
    strength = ((rr + cc) / 2 - ((rr - cc).square() / 4 + rc * rc).sqrt())[0, 0]
    peak = strength == F.max_pool2d(strength[None, None], 3, 1, padding=1)[0, 0]
    good = peak & (error < agree) & (strength > 1e-4)
    if still is not None:
        good = good & still
    place = good.nonzero()
    place = place[strength[good].argsort(descending=True)[:most]]
    start = place.double() + 0.5
    return start, start + there[0, :, 0, place[:, 0], place[:, 1]].T.double()


def epipolar_residual(
    video: Tensor, cameras: Cameras, *, step: int = 1, still: Tensor | None = None, least: int = 8
) -> Tensor:
    """The mean over frame pairs of the median Sampson distance of their matches, in pixels.

    The camera is the one that the video ought to have, so a frozen or shuffled video is off its lines. A point that
    moves along its epipolar line is not caught: read the true track beside it.

    Args:
        video: (3, T, H, W) in [-1, 1].
        cameras: T of them, of the same height and width.
        step: frames between the two of a pair.
        still: bool (T, H, W), True where nothing moves by itself; None is everywhere.
        least: pairs with fewer matches are left out.

    Returns:
        () float64; NaN when no pair has enough matches, which is no success: report how often.

    Raises:
        ValueError: another number of frames or pixels than the cameras', or cameras that do not move.
    """
    if video.ndim != 4 or video.shape[1:] != (len(cameras.eye), cameras.height, cameras.width):
        raise ValueError(
            f"{len(cameras.eye)} cameras of {cameras.height}x{cameras.width} see a video (3, T, H, W) of that size; "
            f"got {tuple(video.shape)}"
        )
    found = []
    for t in range(video.shape[1] - step):
        fundamental = cameras.fundamental(t, t + step)
        first, second = match_points(
            video[:, t], video[:, t + step], still=None if still is None else still[t]
        )
        if len(first) >= least:
            found.append(sampson_distance(fundamental, first, second).median())
    return torch.stack(found).mean() if found else torch.tensor(float("nan"), dtype=torch.float64)


def _homogeneous(points: Tensor) -> Tensor:
    return torch.cat([points.double().flip(1), points.new_ones(len(points), 1).double()], dim=1)


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Moved to mean 0 and scaled to a mean length of sqrt 2; and the matrix that does it."""
    middle = x[:, :2].mean(0)
    scale = 2**0.5 / (x[:, :2] - middle).square().sum(1).sqrt().mean().clamp(min=1e-12)
    t = torch.diag(torch.stack([scale, scale, torch.ones_like(scale)]))
    t[:2, 2] = -scale * middle
    return x @ t.T, t
