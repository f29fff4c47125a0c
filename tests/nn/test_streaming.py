from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from allocations import peak_bytes
from contract import ATTENDING_BACK, CAUSAL, NUMBERED_BACK, awaken, inputs, randn
from torch import nn

from vdm_blocks.models import UNetSpec, VideoUNet
from vdm_blocks.nn import Rotary, Streamed, TemporalAttention, TemporalConv, stream_attention, stream_conv
from vdm_blocks.nn.streaming import AttentionCache

CUTS = {"one by one": [1] * 7, "uneven": [3, 1, 2, 1], "at once": [7]}
cuts = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
LAYERS: dict[str, Callable[[], TemporalConv | TemporalAttention]] = {
    "conv": lambda: TemporalConv(4, 5, causal=True),
    "attention": lambda: TemporalAttention(4, 2, reach=2, causal=True),
    "window": lambda: TemporalAttention(4, 2, reach=2, causal=True, window=2),
    "window of none": lambda: TemporalAttention(4, 2, causal=True, window=0),
    "rotary": lambda: TemporalAttention(4, 1, causal=True, window=3, rotary=Rotary(widths=(4,))),
}
EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 1e-12}


@cuts
@pytest.mark.parametrize("name", LAYERS)
def test_streamed_is_the_whole_clip(name: str, cut: list[int]) -> None:
    layer, x = awaken(LAYERS[name]().double()), randn(2, 4, 7, 2, 3)
    stream = Streamed(layer)
    for _ in range(2):
        parts = [stream(part) for part in x.split(cut, dim=2)]
        torch.testing.assert_close(torch.cat(parts, dim=2), layer(x), **EXACT)
        stream.reset()


def test_caches_are_as_long_as_what_is_seen() -> None:
    x = randn(1, 4, 9, 2, 3)
    conv = LAYERS["conv"]().double()
    assert isinstance(conv, TemporalConv)
    assert stream_conv(conv, x, None)[1].shape[2] == 4
    for name, length in {"attention": 9, "window": 2, "window of none": 0}.items():
        layer = LAYERS[name]().double()
        assert isinstance(layer, TemporalAttention)
        cache = stream_attention(layer, x, None)[1]
        assert isinstance(cache, AttentionCache)
        assert cache.k.shape[2] == cache.v.shape[2] == length
        assert cache.frames == 9


@pytest.mark.parametrize(
    "spec", [CAUSAL, ATTENDING_BACK, NUMBERED_BACK], ids=["convolution", "attention", "numbered frames"]
)
def test_a_network_streams_with_the_weights_that_it_shares(spec: UNetSpec) -> None:
    net, x = awaken(VideoUNet(spec).double()), inputs(spec, 1, 7)
    stream = Streamed(net)
    with torch.no_grad():
        net.get_parameter("head.conv.bias").add_(1)
        parts = [stream(part, x.logsnr, x.cond) for part in x.z_t.split(2, dim=2)]
        torch.testing.assert_close(torch.cat(parts, dim=2), net(x.z_t, x.logsnr, x.cond), rtol=0, atol=1e-12)
    keys = list(net.state_dict())
    awaken(net)
    assert list(net.state_dict()) == keys


def test_memory_does_not_grow_with_the_clip() -> None:
    stream = Streamed(
        nn.Sequential(TemporalConv(8, causal=True), TemporalAttention(8, 2, causal=True, window=3))
    )

    def run(frames: int) -> None:
        with torch.no_grad():
            for _ in range(frames):
                stream(torch.zeros(1, 8, 1, 8, 8))
        stream.reset()

    run(4)
    assert peak_bytes(lambda: run(24)) <= 1.05 * peak_bytes(lambda: run(8))


@pytest.mark.parametrize("layer", [TemporalConv(4), TemporalAttention(4, 2)])
def test_what_sees_the_future_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match="cannot be streamed; build it with causal=True"):
        Streamed(layer)(torch.zeros(1, 4, 2, 1, 1))


def test_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="no time to stream in"):
        Streamed(TemporalConv(4, causal=True))(torch.zeros(1, 4, 2, 1, 1), torch.ones(1, dtype=torch.bool))
