"""Does a video hang together in time? Against the true motion, so that a frozen video cannot win."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "dynamic_degree",
    "feature_consistency",
    "flicker",
    "motion_degree",
    "motion_smoothness",
    "unless_frozen",
    "warp",
    "warping_error",
]


def warp(video: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Each frame but the first, fetched back to the one before it: out_t(p) = video_{t+1}(p + flow_t(p)), bilinear.

    Args:
        video: (B, C, T, H, W).
        flow: (B, 2, T - 1, H, W), rows and columns that the point at each pixel of frame t moves until frame t + 1.

    Returns:
        The fetched frames (B, C, T - 1, H, W), and bool (B, T - 1, H, W), False where a point left the picture.

    Raises:
        ValueError: shapes that do not belong together.
    """
    batch, _, frames, height, width = _shape(video, least=2)
    if flow.shape != (batch, 2, frames - 1, height, width):
        raise ValueError(
            f"flow of a video {tuple(video.shape)} is {(batch, 2, frames - 1, height, width)}; got {tuple(flow.shape)}"
        )
    rows = torch.arange(height, device=video.device).view(-1, 1) + flow[:, 0]
    columns = torch.arange(width, device=video.device) + flow[:, 1]
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    following = video[:, :, 1:].transpose(1, 2).flatten(0, 1)
    fetched = F.grid_sample(
        following, grid.flatten(0, 1).to(video.dtype), align_corners=False, padding_mode="border"
    )
    return fetched.unflatten(0, (batch, frames - 1)).transpose(1, 2), inside


def warping_error(video: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    """The mean squared difference of each frame and the next one fetched back along the true motion.

    Over the points that both frames show (arXiv 1808.00449, the warping error of its evaluation). With the motion
    that the video ought to have, a frozen video scores badly wherever that motion is not zero; with a motion estimated
    from the video itself it would be perfect, so do not use one without `dynamic_degree` beside it.

    Args:
        video: (B, C, T, H, W).
        flow: (B, 2, T - 1, H, W), see `warp`.
        visible: bool (B, T - 1, H, W), True where a point of frame t is seen in frame t + 1 as well.

    Returns:
        (B,); NaN where no point is seen twice.

    Raises:
        ValueError: shapes that do not belong together.
    """
    fetched, inside = warp(video, flow)
    if visible.shape != inside.shape or visible.dtype != torch.bool:
        raise ValueError(f"visible is bool {tuple(inside.shape)}; got {visible.dtype} {tuple(visible.shape)}")
    error = (fetched - video[:, :, :-1]).double().square().mean(1)
    counted = inside & visible
    total = (error * counted).sum((1, 2, 3))
    return total / counted.sum((1, 2, 3))


def flicker(video: Tensor) -> Tensor:
    """How much the brightness of whole frames trembles: mean |m_{t-1} - 2 m_t + m_{t+1}| / 4.

    m is a frame's mean, channel by channel. A steady fade scores 0, and so does motion that keeps the mean; brightness
    that goes up and down by a at every frame scores a.

    Args:
        video: (B, C, T, H, W), three frames or more.

    Returns:
        (B,)

    Raises:
        ValueError: fewer than three frames.
    """
    _shape(video, least=3)
    mean = video.double().mean((3, 4))
    return (mean[:, :, :-2] - 2 * mean[:, :, 1:-1] + mean[:, :, 2:]).abs().mean((1, 2)) / 4


def dynamic_degree(video: Tensor) -> Tensor:
    """The mean absolute change from each frame to the next; 0 for a frozen video.

    Args:
        video: (B, C, T, H, W), two frames or more.

    Returns:
        (B,)

    Raises:
        ValueError: fewer than two frames.
    """
    _shape(video, least=2)
    return video.double().diff(dim=2).abs().mean((1, 2, 3, 4))


def motion_degree(flow: Tensor, *, top: float = 0.05) -> Tensor:
    """How far the fastest `top` of the points go, mean pixels a frame over frames and points.

    What VBench calls dynamic degree, over any flow (arXiv 2311.17982, section 3.1.1). Unlike `dynamic_degree` it does
    not take noise or flicker for motion.

    Args:
        flow: (B, 2, T - 1, H, W), see `warp`.
        top: share of the points, in (0, 1].

    Returns:
        (B,)

    Raises:
        ValueError: another shape or share.
    """
    speed = _speed(flow).flatten(2)
    if not 0 < top <= 1:
        raise ValueError(f"top is a share of the points, in (0, 1]; got {top}")
    return speed.topk(max(1, round(top * speed.shape[2])), dim=2).values.mean((1, 2))


def motion_smoothness(flow: Tensor) -> Tensor:
    """How much points speed up or swerve: mean |flow_{t+1}(p + flow_t(p)) - flow_t(p)|, pixels a frame squared.

    0 for things that go on as they went, whichever way; a video that jumps or shuffles its frames is high. A frozen
    video scores 0 too: pass it through `unless_frozen`.

    Args:
        flow: (B, 2, T - 1, H, W), T >= 3, see `warp`.

    Returns:
        (B,); NaN when all points leave the picture.

    Raises:
        ValueError: another shape.
    """
    if flow.ndim != 5 or flow.shape[1] != 2 or flow.shape[2] < 2:
        raise ValueError(f"smoothness is of flow (B, 2, T - 1, H, W) with T >= 3; got {tuple(flow.shape)}")
    fetched, inside = warp(flow, flow[:, :, :-1])
    change = _speed(fetched - flow[:, :, :-1]) * inside
    return change.sum((1, 2, 3)) / inside.sum((1, 2, 3))


def feature_consistency(features: Tensor, *, first: float = 0.5) -> Tensor:
    """(1 - first) mean cos(f_t, f_{t-1}) + first mean cos(f_t, f_0), over the frames t = 1 to T - 1.

    With `first` at one half it is VBench's subject consistency, over any features (arXiv 2311.17982, section 3.1.1).
    The two halves see different faults: a thing that turns into another one for good is unlike the first frame and like
    its neighbours; frames in a wrong order are unlike their neighbours, and as like the first frame as before. So take
    0 to find jumps. A frozen video scores 1: pass it through `unless_frozen`.

    Args:
        features: (B, T, D), two frames or more.
        first: how much the first frame counts, in [0, 1].

    Returns:
        (B,)

    Raises:
        ValueError: another shape or share.
    """
    if features.ndim != 3 or features.shape[1] < 2:
        raise ValueError(f"features of frames are (B, T, D) with T >= 2; got {tuple(features.shape)}")
    if not 0 <= first <= 1:
        raise ValueError(f"first is the share of the first frame, in [0, 1]; got {first}")
    x = F.normalize(features.double(), dim=2)
    previous, start = (x[:, 1:] * x[:, :-1]).sum(2), (x[:, 1:] * x[:, :1]).sum(2)
    return ((1 - first) * previous + first * start).mean(1)


def unless_frozen(score: Tensor, degree: Tensor, *, least: float, worst: float) -> Tensor:
    """The score of each video that moves at least as much as it has to, and `worst` for the others.

    Every measure of smoothness is perfect on a frozen video, so none is reported without this.

    Args:
        score: (B,).
        degree: (B,), `motion_degree` or `dynamic_degree` of the same videos.
        least: e.g. half of what real videos have.
        worst: what a frozen video scores.

    >>> unless_frozen(torch.tensor([0.99, 0.90]), torch.tensor([0.0, 2.0]), least=0.5, worst=0.0)
    tensor([0.0000, 0.9000])
    """
    if score.shape != degree.shape:
        raise ValueError(f"one degree a score; got {tuple(degree.shape)} and {tuple(score.shape)}")
    return score.where(degree >= least, worst)


def _speed(flow: Tensor) -> Tensor:
    if flow.ndim != 5 or flow.shape[1] != 2:
        raise ValueError(f"a flow is (B, 2, T - 1, H, W); got {tuple(flow.shape)}")
    return flow.double().square().sum(1).sqrt()


def _shape(video: Tensor, *, least: int) -> tuple[int, int, int, int, int]:
    if video.ndim != 5 or video.shape[2] < least:
        raise ValueError(f"a video is (B, C, T, H, W) with T >= {least} here; got {tuple(video.shape)}")
    batch, channels, frames, height, width = video.shape
    return batch, channels, frames, height, width
