from __future__ import annotations

import torch
from contract import awaken, randn

from vdm_blocks.nn import ChannelNorm, FrameGroupNorm, RMSNorm

X = 3 + 2 * randn(2, 6, 3, 4, 5)


def test_channel_norm_is_the_formula() -> None:
    layer = awaken(ChannelNorm(6).double())
    assert isinstance(layer, ChannelNorm)
    centred = X - X.mean(1, keepdim=True)
    want = centred / (X.var(1, correction=0, keepdim=True) + 1e-5).sqrt() * layer.gain.view(-1, 1, 1, 1)
    torch.testing.assert_close(layer(X), want)


def test_rms_norm_is_the_formula() -> None:
    layer = awaken(RMSNorm(6).double())
    assert isinstance(layer, RMSNorm)
    want = X / (X.square().mean(1, keepdim=True) + 1e-6).sqrt() * layer.gain.view(-1, 1, 1, 1)
    torch.testing.assert_close(layer(X), want)


def test_large_half_precision_numbers_do_not_overflow() -> None:
    x = torch.full((1, 6, 1, 1, 1), 6e4, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(6).half()(x), torch.ones_like(x))


def test_frame_group_norm_is_torchs_on_each_frame_and_has_its_parameters() -> None:
    layer, plain = FrameGroupNorm(3, 6).double(), torch.nn.GroupNorm(3, 6).double()
    awaken(plain)
    layer.load_state_dict(plain.state_dict())
    want = torch.stack([plain(X[:, :, t]) for t in range(3)], dim=2)
    torch.testing.assert_close(layer(X), want)
    assert (layer(X) - plain(X)).abs().max() > 1e-3
