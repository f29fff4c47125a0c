from __future__ import annotations

import pytest
import torch
from contract import randn
from einops import rearrange

from vdm_blocks.nn import (
    channels_last,
    fold_frames,
    fold_space,
    from_last,
    to_last,
    unfold_frames,
    unfold_space,
)

X = randn(2, 3, 5, 4, 6)


def test_frames_fold_into_the_batch_and_back() -> None:
    folded = fold_frames(X)
    assert torch.equal(folded, rearrange(X, "b c t h w -> (b t) c h w"))
    assert torch.equal(unfold_frames(folded, 5), X)


def test_channels_go_last_and_back() -> None:
    assert torch.equal(to_last(X), rearrange(X, "b c t h w -> b t h w c"))
    assert torch.equal(from_last(to_last(X)), X)


def test_channels_last_makes_the_folds_views() -> None:
    x = channels_last(X)
    assert torch.equal(x, X)
    assert to_last(x).is_contiguous()
    assert fold_frames(x).data_ptr() == x.data_ptr()
    assert fold_frames(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("factor", [1, 2])
def test_space_folds_into_channels_and_back(factor: int) -> None:
    folded = fold_space(X, factor)
    same = rearrange(X, "b c t (h p) (w q) -> b (c p q) t h w", p=factor, q=factor)
    assert torch.equal(folded, same)
    assert torch.equal(unfold_space(folded, factor), X)


def test_what_does_not_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="crop or resize to 3x6"):
        fold_space(X, 3)
    with pytest.raises(ValueError, match="do not divide by 2"):
        unfold_space(X, 2)
