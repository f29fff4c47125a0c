"""Fidelity to a reference, frame by frame: PSNR and SSIM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["psnr", "ssim"]


def psnr(video: Tensor, reference: Tensor, *, data_range: float = 2.0) -> Tensor:
    """10 log10(data_range^2 / mean (video - reference)^2) of every frame, in dB.

    Args:
        video: (B, C, T, H, W).
        reference: of the same shape.
        data_range: largest minus smallest possible value; 2 for videos in [-1, 1].

    Returns:
        (B, T) float64; infinite where a frame equals its reference.

    Raises:
        ValueError: shapes that differ or are no videos, or a range that is not positive.

    >>> psnr(torch.full((1, 3, 2, 4, 4), 0.5), torch.zeros(1, 3, 2, 4, 4))
    tensor([[12.0412, 12.0412]], dtype=torch.float64)
    """
    _check(video, reference, data_range)
    error = (video.double() - reference.double()).square().mean((1, 3, 4))
    return 10 * torch.log10(data_range**2 / error)


def ssim(
    video: Tensor,
    reference: Tensor,
    *,
    data_range: float = 2.0,
    window: int = 11,
    std: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Structural similarity of every frame: the mean over channels and windows of

        (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2))

    with means, variances and covariance under a Gaussian of `window` x `window` pixels whose weights sum to one,
    c1 = (k1 L)^2, c2 = (k2 L)^2, L = data_range (Wang, Bovik, Sheikh and Simoncelli 2004, IEEE Transactions on Image
    Processing 13(4), eq. 13 to 17). Only windows that lie within the frame count; nothing is made smaller first.

    Args:
        video: (B, C, T, H, W).
        reference: of the same shape.
        data_range: largest minus smallest possible value; 2 for videos in [-1, 1].
        window: side of the window in pixels.
        std: of the Gaussian, in pixels.
        k1, k2: what keeps the quotients finite.

    Returns:
        (B, T) float64; 1 where a frame equals its reference.

    Raises:
        ValueError: shapes that differ or are no videos, a range that is not positive, or frames smaller than the
            window.

    >>> frame = torch.rand(1, 3, 1, 16, 16)
    >>> ssim(frame, frame)
    tensor([[1.]], dtype=torch.float64)
    """
    _check(video, reference, data_range)
    if min(video.shape[-2:]) < window:
        raise ValueError(
            f"frames of {video.shape[-2]}x{video.shape[-1]} are smaller than the window of {window}x{window}; "
            "compare larger frames, or say a smaller window"
        )
    at = torch.arange(window, dtype=torch.float64, device=video.device) - (window - 1) / 2
    weights = torch.exp(-0.5 * (at / std) ** 2)
    weights = weights / weights.sum()
    x, y = (v.double().transpose(1, 2).flatten(0, 2)[:, None] for v in (video, reference))

    def mean(z: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(z, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))

    m_x, m_y = mean(x), mean(y)
    s_xx, s_yy, s_xy = mean(x * x) - m_x**2, mean(y * y) - m_y**2, mean(x * y) - m_x * m_y
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    score = (2 * m_x * m_y + c1) * (2 * s_xy + c2) / ((m_x**2 + m_y**2 + c1) * (s_xx + s_yy + c2))
    batch, channels, frames = video.shape[:3]
    return score.mean((1, 2, 3)).view(batch, frames, channels).mean(2)


def _check(video: Tensor, reference: Tensor, data_range: float) -> None:
    if video.ndim != 5 or video.shape != reference.shape:
        raise ValueError(
            f"a video (B, C, T, H, W) is compared with one of the same shape; got {tuple(video.shape)} and "
            f"{tuple(reference.shape)}"
        )
    if not data_range > 0:
        raise ValueError(
            f"data_range is {data_range}; it is the width of the values' range, 2 for [-1, 1], 255 for bytes"
        )
