from __future__ import annotations

import math

import pytest
import torch
from contract import randn

from vdm_blocks.nn import BlurDownsample, BlurUpsample

TAPS = [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0), (1.0, 5.0, 10.0, 10.0, 5.0, 1.0)]
each = pytest.mark.parametrize("taps", TAPS, ids=str)


@each
def test_a_constant_stays_itself(taps: tuple[float, ...]) -> None:
    x = torch.full((1, 2, 3, 6, 8), 1.5)
    for layer in (BlurDownsample(taps), BlurUpsample(taps)):
        out = layer(x)
        torch.testing.assert_close(out, torch.full_like(out, 1.5))


def test_two_taps_are_the_mean_and_the_repetition() -> None:
    x = randn(2, 3, 2, 4, 6)
    mean = x.unflatten(4, (3, 2)).mean(5).unflatten(3, (2, 2)).mean(4)
    torch.testing.assert_close(BlurDownsample((1.0, 1.0))(x), mean)
    again = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
    torch.testing.assert_close(BlurUpsample((1.0, 1.0))(x), again)


@each
def test_up_is_twice_the_transpose_of_down_away_from_the_edges(taps: tuple[float, ...]) -> None:
    down, up = BlurDownsample(taps), BlurUpsample(taps)
    x, y = torch.zeros(1, 1, 1, 24, 24).double(), torch.zeros(1, 1, 1, 12, 12).double()
    x[..., 8:16, 8:16], y[..., 4:8, 4:8] = randn(8, 8), randn(4, 4, seed=2)
    torch.testing.assert_close((down(x) * y).sum() * 4, (x * up(y)).sum())


def test_a_wave_above_the_new_limit_is_damped() -> None:
    wave = torch.cos(math.pi * 0.9 * torch.arange(64.0)).expand(1, 1, 1, 64, 64)
    plain = wave[..., ::2, ::2]
    assert BlurDownsample()(wave)[..., 4:-4].abs().max() < 0.02 < plain.abs().max()


def test_a_shift_by_two_is_a_shift_by_one() -> None:
    x, down = randn(1, 2, 1, 16, 16), BlurDownsample()
    moved = down(x.roll(2, 4))[..., 3:-3]
    torch.testing.assert_close(moved, down(x).roll(1, 4)[..., 3:-3])


@pytest.mark.parametrize("taps", [(1.0,), (1.0, 2.0, 1.0), (1.0, 2.0), (0.0, 0.0)], ids=str)
def test_taps_that_do_not_fit_are_refused(taps: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="symmetric, of even length"):
        BlurDownsample(taps)
