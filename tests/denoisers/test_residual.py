"""The linear estimate of a residual network is the posterior mean of the Gaussian that it is derived from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.types import Conditioning


class Says(nn.Module):
    """A network that always puts out the same number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return torch.full_like(z_t, self.value)


def posterior(z: Tensor, y: Tensor, logsnr: float, aug: float, s: float, d: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of v given (z, y), by solving the 2 x 2 normal equations of the joint Gaussian."""
    alpha, sigma = (torch.sigmoid(torch.tensor(x, dtype=torch.float64)).sqrt() for x in (logsnr, -logsnr))
    a, b = (torch.sigmoid(torch.tensor(x, dtype=torch.float64)).sqrt() for x in (aug, -aug))
    # z = alpha x + sigma e, y = a (x - detail) + b e'; v = alpha e - sigma x.  x - detail ~ given x, N(x, d^2).
    cov = torch.stack(
        [
            torch.stack([alpha**2 * s**2 + sigma**2, alpha * a * s**2]),
            torch.stack([alpha * a * s**2, a**2 * (s**2 + d**2) + b**2]),
        ]
    )
    with_v = torch.stack([alpha * sigma * (1 - s**2), -sigma * a * s**2])
    weights = torch.linalg.solve(cov, with_v)
    variance = alpha**2 + sigma**2 * s**2 - with_v @ weights
    return weights[0] * z + weights[1] * y, variance


@pytest.mark.parametrize("logsnr", [-20.0, -3.0, 0.0, 2.0, 12.0])
@pytest.mark.parametrize("aug", [-2.0, 1.0, 5.0])
def test_silent_network_gives_the_posterior_mean(logsnr: float, aug: float) -> None:
    z, y = torch.randn(2, 2, 3, 2, 4, 4, dtype=torch.float64).unbind(0)
    cond = Conditioning(video=y, aug_logsnr=torch.full((2,), aug))
    level = torch.full((2,), logsnr)
    got = ResidualNetwork(Says(0.0), data_std=0.7, detail_std=0.2)(z, level, cond)
    mean, variance = posterior(z, y, logsnr, aug, 0.7, 0.2)
    torch.testing.assert_close(got, mean, rtol=1e-9, atol=1e-9)
    shifted = ResidualNetwork(Says(1.0), data_std=0.7, detail_std=0.2)(z, level, cond)
    torch.testing.assert_close((shifted - got).square().mean(), variance, rtol=1e-6, atol=1e-12)


def test_levels_per_frame_and_further_channels() -> None:
    z, y = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 4, 4, 2, 2)
    level = torch.linspace(-4, 4, 8).view(2, 4)
    cond = Conditioning(video=y, aug_logsnr=torch.tensor([1.0, 5.0]))
    network = ResidualNetwork(Says(0.3))
    got = network(z, level, cond)
    for b in range(2):
        for t in range(4):
            one = Conditioning(video=y[b : b + 1, :, t : t + 1], aug_logsnr=cond.aug_logsnr[b : b + 1])  # type: ignore[index]
            part = network(z[b : b + 1, :, t : t + 1], level[b, t : t + 1], one)
            torch.testing.assert_close(got[b : b + 1, :, t : t + 1], part)


def test_without_a_video_and_unit_data_it_is_the_network() -> None:
    z = torch.randn(2, 3, 2, 4, 4)
    out = ResidualNetwork(Says(0.4), data_std=1.0)(z, torch.tensor([-2.0, 3.0]), Conditioning())
    torch.testing.assert_close(out, torch.full_like(z, 0.4))


def test_ends_are_finite_and_the_denoiser_returns_the_low_video_from_pure_noise() -> None:
    y = torch.randn(1, 3, 2, 4, 4)
    denoiser = ModelDenoiser(ResidualNetwork(Says(0.0), data_std=0.5, detail_std=1e-3))
    cond = Conditioning(video=y, aug_logsnr=torch.tensor([20.0]))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        z = torch.randn(1, 3, 2, 4, 4).to(dtype)
        for t in (0.0, 1.0):
            assert torch.isfinite(denoiser(z, torch.tensor(t), cond).x0).all()
    x0 = denoiser(torch.randn(1, 3, 2, 4, 4), torch.tensor(1.0), cond).x0
    torch.testing.assert_close(x0, y, rtol=1e-3, atol=1e-3)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ResidualNetwork(Says(0.0), detail_std=0.0)
    z = torch.zeros(1, 3, 1, 2, 2)
    with pytest.raises(ValueError, match="aug_logsnr"):
        ResidualNetwork(Says(0.0))(z, torch.zeros(1), Conditioning(video=z))
