from __future__ import annotations

import pytest
import torch
from contract import randn

from vdm_blocks.nn import FourierEmbedding, MagnitudeNorm, magnitude_cat, magnitude_silu, magnitude_sum

A, B = randn(50, 60, 3, 4, 4), randn(50, 20, 3, 4, 4, seed=2)


def rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


def test_norm_gives_every_position_magnitude_one() -> None:
    out = MagnitudeNorm()(7 * A)
    torch.testing.assert_close(out.square().mean(1), torch.ones_like(out[:, 0]))
    torch.testing.assert_close(out[0, :, 0, 0, 0], A[0, :, 0, 0, 0] / rms(A[0, :, 0, 0, 0]))


def test_everything_keeps_the_magnitude_of_normal_numbers() -> None:
    other = randn(*A.shape, seed=3)
    assert rms(magnitude_silu(A)) == pytest.approx(1, abs=0.01)
    for share in (0.0, 0.3, 0.5, 1.0):
        assert rms(magnitude_sum(A, other, share)) == pytest.approx(1, abs=0.02)
        assert rms(magnitude_cat(A, B, share)) == pytest.approx(1, abs=0.02)


def test_shares_are_what_they_say() -> None:
    assert torch.equal(magnitude_sum(A, 2 * A, 0.0), A)
    torch.testing.assert_close(magnitude_sum(A, 3 * A), 2 * 2**0.5 * A)
    joined = magnitude_cat(A, B, 0.25)
    assert joined.shape[1] == 80
    ratio = (joined[:, 60:].square().sum() / joined[:, :60].square().sum()) ** 0.5
    assert float(ratio) == pytest.approx(0.25 / 0.75, rel=0.02)
    for call in (magnitude_sum, magnitude_cat):
        with pytest.raises(ValueError, match=r"from 0 to 1; got 1\.5"):
            call(A, A, 1.5)


def test_fourier_features_are_the_formula_and_have_magnitude_one() -> None:
    layer = FourierEmbedding(4000, bandwidth=2.0, generator=torch.Generator().manual_seed(3))
    x = randn(2, 3, dtype=torch.float32)
    out = layer(x)
    want = 2**0.5 * torch.cos(2 * torch.pi * (x[..., None] * layer.frequency + layer.phase))
    torch.testing.assert_close(out, want)
    assert rms(out) == pytest.approx(1, abs=0.03)
    assert float(layer.frequency.std()) == pytest.approx(2, rel=0.05)
    again = FourierEmbedding(4000, bandwidth=2.0, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again.frequency, layer.frequency)
    assert sorted(layer.state_dict()) == ["frequency", "phase"]
    with pytest.raises(ValueError, match="must be positive"):
        FourierEmbedding(0)
