from __future__ import annotations

import pytest
import torch
from contract import randn

from vdm_blocks.nn import SpatialDownsample, SpatialUpsample, fold_space, from_last, to_last, unfold_space


def test_smaller_frames_are_patches_through_the_map() -> None:
    down = SpatialDownsample(4, 6).double()
    x = randn(2, 4, 3, 6, 10).requires_grad_()
    out, want = down(x), from_last(down.map(to_last(fold_space(x, 2))))
    assert out.shape == (2, 6, 3, 3, 5)
    torch.testing.assert_close(out, want)
    leaves = [x, *down.parameters()]
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (out, want)), strict=True):
        torch.testing.assert_close(a, b)


def test_odd_frames_are_refused_with_the_nearest_that_fit() -> None:
    with pytest.raises(ValueError, match="6x5 does not divide by 2; crop or resize to 6x4"):
        SpatialDownsample(4, 4)(torch.zeros(1, 4, 1, 6, 5))


def test_larger_frames_repeat_the_map_of_each_position() -> None:
    up = SpatialUpsample(4, 6).double()
    x = randn(1, 4, 2, 3, 5)
    small = from_last(up.map(to_last(x)))
    assert torch.equal(up(x), small.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4))


def test_folded_patches_unfold_again() -> None:
    x = randn(2, 3, 2, 6, 9)
    folded = fold_space(x, 3)
    assert folded.shape == (2, 27, 2, 2, 3)
    assert torch.equal(folded[0, 9 * 1 + 3 * 2 + 1, 1, 1, 2], x[0, 1, 1, 3 + 2, 6 + 1])
    assert torch.equal(unfold_space(folded, 3), x)
