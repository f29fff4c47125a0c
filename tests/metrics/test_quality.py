"""PSNR and SSIM against what can be worked out by hand, and against a slow reading of the definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vdm_blocks.metrics.quality import psnr, ssim


def noise(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=draw, dtype=torch.float64) * 2 - 1


def slow_ssim(x: Tensor, y: Tensor, data_range: float) -> float:
    """One channel of one frame, window by window, as the paper writes it."""
    grid = [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for i in range(11) for j in range(11)]
    w = torch.tensor(grid, dtype=torch.float64).view(11, 11)
    w /= w.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    scores = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb, ab = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
            luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
            scores.append(luminance * (2 * ab + c2) / (va + vb + c2))
    return float(torch.stack(scores).mean())


def test_psnr_of_a_known_error() -> None:
    video = noise(2, 3, 4, 5, 6)
    off = torch.tensor([0.5, 0.1, 0.02, 1.0], dtype=torch.float64)
    got = psnr(video + off.view(1, 1, 4, 1, 1), video)
    torch.testing.assert_close(got, (20 * torch.log10(2 / off)).expand(2, 4))


@pytest.mark.parametrize("scale", [0.5, 127.5])
def test_scores_do_not_depend_on_the_unit(scale: float) -> None:
    x, y = noise(1, 3, 2, 13, 14), noise(1, 3, 2, 13, 14, seed=1)
    for score in (psnr, ssim):
        torch.testing.assert_close(score(x * scale, y * scale, data_range=2 * scale), score(x, y))


def test_a_video_equals_itself() -> None:
    x = noise(2, 3, 2, 12, 12)
    assert torch.equal(psnr(x, x), torch.full((2, 2), math.inf, dtype=torch.float64))
    torch.testing.assert_close(ssim(x, x), torch.ones(2, 2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_ssim_is_the_definition() -> None:
    x, y = noise(2, 2, 3, 14, 12), noise(2, 2, 3, 14, 12, seed=1)
    y = 0.7 * x + 0.3 * y + 0.1
    slow = [
        [sum(slow_ssim(x[b, c, t], y[b, c, t], 2.0) for c in range(2)) / 2 for t in range(3)]
        for b in range(2)
    ]
    torch.testing.assert_close(ssim(x, y), torch.tensor(slow, dtype=torch.float64))


def test_ssim_of_two_constants_is_the_luminance_term() -> None:
    x, y = torch.full((1, 1, 1, 11, 11), 0.5), torch.full((1, 1, 1, 11, 11), 0.25)
    expected = (2 * 0.5 * 0.25 + 0.0004) / (0.5**2 + 0.25**2 + 0.0004)
    assert float(ssim(x, y)) == pytest.approx(expected, rel=1e-9)


def test_frames_are_scored_alone() -> None:
    x, y = noise(2, 3, 3, 12, 12), noise(2, 3, 3, 12, 12, seed=1)
    for score in (psnr, ssim):
        alone = torch.stack([score(x[:, :, t : t + 1], y[:, :, t : t + 1])[:, 0] for t in range(3)], dim=1)
        torch.testing.assert_close(score(x, y), alone)


def test_what_does_not_compare_is_refused() -> None:
    x = noise(1, 3, 2, 12, 12)
    for score in (psnr, ssim):
        with pytest.raises(ValueError, match="same shape"):
            score(x, x[:, :, :1])
        with pytest.raises(ValueError, match="data_range"):
            score(x, x, data_range=0)
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(x[..., :10], x[..., :10])
