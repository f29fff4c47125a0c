"""Low-resolution videos on the next grid: exact cases, and the noise that augmentation adds."""

from __future__ import annotations

import math

import pytest
import torch

from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.conditioning.upsample import (
    blank_frames,
    blend_frames,
    repeat_frames,
    upsample_bicubic,
    upsample_space,
)
from vdm_blocks.diffusion.noise import KeyedNoise


def test_bilinear_keeps_constants_and_ramps() -> None:
    ramp = torch.arange(6.0).view(1, 1, 1, 1, 6).expand(1, 1, 2, 4, 6)
    large = upsample_space(ramp, 8, 12)
    inner = (torch.arange(12.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(large[0, 0, 1, 3, 1:-1], inner[1:-1])
    assert torch.equal(upsample_space(torch.ones(1, 3, 2, 4, 6), 8, 12), torch.ones(1, 3, 2, 8, 12))


def test_frames_repeat_and_the_mask_says_which_are_known() -> None:
    video = torch.randn(2, 3, 4, 2, 2)
    out = repeat_frames(video, 12)
    assert out.shape == (2, 4, 12, 2, 2)
    for k in range(12):
        assert torch.equal(out[:, :3, k], video[:, :, k // 3])
        assert bool((out[:, 3, k] == (1.0 if k % 3 == 0 else -1.0)).all())
    assert bool((repeat_frames(video, 4)[:, 3] == 1).all())


def test_blank_frames_hold_nothing_but_the_known_ones() -> None:
    video = torch.randn(2, 3, 4, 2, 2)
    out = blank_frames(video, 12)
    assert torch.equal(out[:, :3, ::3], video)
    assert bool((out[:, :3].reshape(2, 3, 4, 3, 2, 2)[:, :, :, 1:] == 0).all())
    assert torch.equal(out[:, 3:], repeat_frames(video, 12)[:, 3:])
    with pytest.raises(ValueError, match="multiple"):
        blank_frames(video, 13)


def keys(d: torch.Tensor, a: float = -0.75) -> torch.Tensor:
    """Keys's cubic kernel at distances d."""
    d = d.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def test_bicubic_is_the_cubic_kernel() -> None:
    point = torch.zeros(1, 1, 2, 9, 9)
    point[..., 4, 4] = 1
    d = (torch.arange(18.0) + 0.5) / 2 - 0.5 - 4
    torch.testing.assert_close(upsample_bicubic(point, 18, 18)[0, 0, 1], keys(d)[:, None] * keys(d))
    torch.testing.assert_close(upsample_bicubic(torch.ones(1, 3, 2, 4, 6), 8, 12), torch.ones(1, 3, 2, 8, 12))


def test_blending_is_exact_on_steady_change_and_keeps_the_known_frames() -> None:
    steady = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 2, 2)
    out = blend_frames(steady, 12)
    expected = torch.cat([torch.arange(10.0) / 3, torch.full((2,), 3.0)])
    torch.testing.assert_close(out[0, 0, :, 1, 1], expected)
    video = torch.randn(2, 3, 4, 2, 2)
    blended, repeated = blend_frames(video, 8), repeat_frames(video, 8)
    assert torch.equal(blended[:, 3:], repeated[:, 3:])
    assert torch.equal(blended[:, :, ::2], repeated[:, :, ::2])


def test_sizes_that_do_not_divide_are_refused() -> None:
    video = torch.zeros(1, 3, 4, 6, 6)
    with pytest.raises(ValueError, match="not a whole multiple of 4"):
        repeat_frames(video, 6)
    with pytest.raises(ValueError, match="not a whole multiple of 4"):
        blend_frames(video, 6)
    with pytest.raises(ValueError, match="9x12 is not a whole multiple"):
        upsample_space(video, 9, 12)


@pytest.mark.parametrize("snr", [3.0, 5.0, math.exp(5)])
def test_the_fixed_snr_is_the_power_ratio_that_is_reported(snr: float) -> None:
    video = torch.full((1, 3, 16, 64, 64), 0.5)
    noisy, logsnr = ConditioningAugmentation().at_snr(video, snr, generator=KeyedNoise(seeds=(0,), stage="s"))
    assert logsnr.item() == pytest.approx(math.log(snr), abs=1e-4)
    signal, noise = (noisy.mean() / 0.5).item() ** 2, noisy.var().item()
    assert signal / noise == pytest.approx(snr, rel=0.03)


def test_the_random_level_is_per_sample_and_bounded() -> None:
    augment = ConditioningAugmentation(longest=0.5)
    _, logsnr = augment.random(torch.zeros(3, 1, 1, 2, 2), torch.tensor([0.0, 0.5, 1.0]))
    times = augment.schedule.time(logsnr)
    torch.testing.assert_close(times, torch.tensor([0.0, 0.25, 0.5]), rtol=0, atol=1e-4)


def test_the_noise_of_a_sample_is_its_own() -> None:
    augment, keyed = ConditioningAugmentation(), KeyedNoise(seeds=(4, 9), stage="s")
    video = torch.randn(2, 3, 2, 4, 4)
    both, _ = augment.at_snr(video, 5.0, generator=keyed)
    second, _ = augment.at_snr(video[1:], 5.0, generator=keyed.select([1]))
    assert torch.equal(both[1:], second)


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="snr must be positive"):
        ConditioningAugmentation().at_snr(torch.zeros(1, 3, 1, 2, 2), 0.0)
    with pytest.raises(ValueError, match="longest must lie"):
        ConditioningAugmentation(longest=0.0)
