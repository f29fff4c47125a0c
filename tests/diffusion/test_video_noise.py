from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vdm_blocks.diffusion import IndependentNoise, KeyedNoise, MixedNoise, ProgressiveNoise, VideoNoise

FRAMES = 5


def frame_covariance(noise: VideoNoise) -> Tensor:
    drawn = noise.draw(torch.Generator().manual_seed(0), (4, 3, FRAMES, 100, 100), step=0)
    return drawn.transpose(1, 2).transpose(0, 1).flatten(1).double().cov()


@pytest.mark.parametrize("a", [0.0, 1.0, 2.0])
def test_mixed_frames_share_a_part(a: float) -> None:
    expected = torch.full((FRAMES, FRAMES), a**2 / (1 + a**2)).fill_diagonal_(1.0)
    assert (frame_covariance(MixedNoise(a=a)) - expected).abs().max() < 0.02


@pytest.mark.parametrize("a", [0.0, 1.0, 2.0])
def test_progressive_frames_follow_one_another(a: float) -> None:
    apart = (torch.arange(FRAMES)[:, None] - torch.arange(FRAMES)).abs()
    expected = torch.tensor(a / (1 + a**2) ** 0.5) ** apart
    assert (frame_covariance(ProgressiveNoise(a=a)) - expected).abs().max() < 0.02


def test_independent_frames_have_nothing_in_common() -> None:
    assert (frame_covariance(IndependentNoise()) - torch.eye(FRAMES)).abs().max() < 0.02


@pytest.mark.parametrize("noise", [IndependentNoise(), MixedNoise(a=1.5), ProgressiveNoise(a=1.5)])
def test_noise_by_key_does_not_depend_on_the_batch(noise: VideoNoise) -> None:
    source, shape = KeyedNoise(seeds=(1, 2, 3), stage="base"), (2, FRAMES, 4, 4)
    whole = noise.draw(source, (3, *shape), step=1)
    assert torch.equal(noise.draw(source.select([2]), (1, *shape), step=1)[0], whole[2])
    assert not torch.equal(noise.draw(source, (3, *shape), step=2), whole)


@pytest.mark.parametrize("noise", [MixedNoise, ProgressiveNoise])
def test_what_makes_no_sense_is_refused(noise: type[MixedNoise | ProgressiveNoise]) -> None:
    with pytest.raises(ValueError, match="0, for independent frames"):
        noise(a=-1.0)
    with pytest.raises(ValueError, match=r"needs \(B, C, T, H, W\)"):
        noise().draw(None, (2, 3, 4, 4), step=0)
