from __future__ import annotations

import pytest
import torch
from contract import all_get_gradient, awaken, randn
from einops import repeat

from vdm_blocks.nn import TemporalDownsample, TemporalUpsample

X = randn(2, 4, 6, 3, 5)


def test_starts_as_the_mean_of_pairs_and_as_repetition() -> None:
    torch.testing.assert_close(TemporalDownsample(4).double()(X), (X[:, :, ::2] + X[:, :, 1::2]) / 2)
    torch.testing.assert_close(
        TemporalUpsample(4).double()(X), repeat(X, "b c t h w -> b c (t twice) h w", twice=2)
    )


def test_are_the_linear_maps_that_they_say() -> None:
    down, up = awaken(TemporalDownsample(4).double()), awaken(TemporalUpsample(4).double())
    assert isinstance(down, TemporalDownsample)
    assert isinstance(up, TemporalUpsample)
    torch.nn.init.normal_(down.map.weight)
    torch.nn.init.normal_(up.map.weight)
    pair = torch.cat([X[:, :, 2], X[:, :, 3]], dim=1)
    want = torch.einsum("oi,bihw->bohw", down.map.weight, pair) + down.map.bias[:, None, None]
    torch.testing.assert_close(down(X)[:, :, 1], want)
    both = torch.einsum("oi,bihw->bohw", up.map.weight, X[:, :, 1]) + up.map.bias[:, None, None]
    torch.testing.assert_close(torch.cat([up(X)[:, :, 2], up(X)[:, :, 3]], dim=1), both)
    for layer in (down, up):
        assert all_get_gradient(layer, layer(X)) == []


def test_odd_frames_and_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="3 frames do not halve; give 4"):
        TemporalDownsample(4)(torch.zeros(1, 4, 3, 2, 2))
    for kind in (TemporalDownsample, TemporalUpsample):
        with pytest.raises(ValueError, match="takes 5 channels; got 4"):
            kind(5)(torch.zeros(1, 4, 2, 2, 2))
