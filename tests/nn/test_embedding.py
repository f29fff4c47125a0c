from __future__ import annotations

import math

import pytest
import torch
from contract import all_get_gradient, randn

from vdm_blocks.nn import LogSNREmbedding, RelativeBias, ScalarEmbedding, sinusoid


def test_sinusoid_is_the_formula() -> None:
    x, width, longest = randn(3, 2), 6, 100.0
    wave = sinusoid(x, width, longest)
    assert wave.shape == (3, 2, 6)
    for k in range(3):
        angle = x * longest ** (-k / 2)
        torch.testing.assert_close(wave[..., k].double(), angle.sin(), atol=1e-6, rtol=0)
        torch.testing.assert_close(wave[..., 3 + k].double(), angle.cos(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", [2, 5])
def test_sinusoid_refuses_a_width_without_a_formula(width: int) -> None:
    with pytest.raises(ValueError, match=f"got {width}"):
        sinusoid(torch.zeros(1), width)


@pytest.mark.parametrize("shape", [(2,), (2, 5), ()], ids=str)
@pytest.mark.parametrize("kind", [ScalarEmbedding, LogSNREmbedding])
def test_embeds_any_shape(kind: type[ScalarEmbedding], shape: tuple[int, ...]) -> None:
    layer = kind(12)
    out = layer(torch.zeros(shape))
    assert out.shape == (*shape, 12)
    assert all_get_gradient(layer, out) == []


def test_log_snr_is_read_as_the_time_of_the_cosine_schedule() -> None:
    t = torch.tensor([0.1, 0.5, 0.93], dtype=torch.float64)
    logsnr = -2 * torch.log(torch.tan(math.pi * t / 2))
    layer = LogSNREmbedding(8, features=6)
    want = layer.mlp(sinusoid(1000 * t, 6))
    torch.testing.assert_close(layer(logsnr), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("logsnr", [-1e4, -20.0, 20.0, 1e4, math.inf, -math.inf])
def test_log_snr_at_its_ends_is_finite(logsnr: float) -> None:
    assert LogSNREmbedding(4)(torch.tensor([logsnr])).isfinite().all()


def test_relative_bias_depends_on_distance_alone_and_stops_at_its_reach() -> None:
    layer = RelativeBias(2, reach=3)
    torch.nn.init.normal_(layer.table)
    bias = layer(7)
    assert bias.shape == (2, 7, 7)
    for i in range(7):
        for j in range(7):
            assert torch.equal(bias[:, i, j], layer.table[:, max(-3, min(3, j - i)) + 3])


def test_relative_bias_starts_with_heads_that_look_everywhere_ahead_back_and_about() -> None:
    weights = RelativeBias(5, reach=4)(9).softmax(dim=-1)
    assert torch.allclose(weights[0], torch.full((9, 9), 1 / 9))
    assert [int(weights[head, 4].argmax()) for head in (1, 2, 3)] == [5, 3, 4]
    assert torch.equal(weights[1, 4], weights[2, 4].flip(0))  # one looks ahead as the other looks back
    assert torch.equal(weights[4], weights[0])  # in turn


def test_a_bias_for_no_heads_or_a_negative_reach_is_refused() -> None:
    for heads, reach in ((0, 4), (2, -1)):
        with pytest.raises(ValueError, match="1 head or more"):
            RelativeBias(heads, reach)
