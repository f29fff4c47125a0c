from __future__ import annotations

import pytest
import torch
from allocations import peak_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vdm_blocks.denoisers import magnitude_quantile
from vdm_blocks.denoisers.quantile import _pieces


def reference(x: Tensor, quantile: float, keep: int = 1) -> Tensor:
    """torch.quantile in float64, so that its rank is exact, back in x's dtype."""
    return torch.quantile(x.double().abs().flatten(keep), quantile, dim=keep).to(x.dtype)


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 0.95, 0.995, 1.0])
def test_it_is_torchs_quantile_in_float64_exactly(quantile: float) -> None:
    x = torch.randn(3, 2, 5, 7, 11, dtype=torch.float64)
    assert torch.equal(magnitude_quantile(x, quantile), reference(x, quantile))
    frames = x.transpose(1, 2)
    assert torch.equal(magnitude_quantile(frames, quantile, keep=2), reference(frames, quantile, keep=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.995, 0.9999, 1.0])
def test_lower_precisions_agree_to_their_rounding(dtype: torch.dtype, quantile: float) -> None:
    x = (torch.randn(2, 3, 4, 9, 13) * 3).to(dtype)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(magnitude_quantile(x, quantile), reference(x, quantile), rtol=2 * eps, atol=0)
    if dtype == torch.float32:
        torch.testing.assert_close(
            magnitude_quantile(x, quantile),
            torch.quantile(x.abs().flatten(1), quantile, dim=1),
            rtol=1e-4,
            atol=0,
        )


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    quantile=st.floats(0, 1),
)
def test_any_finite_numbers(values: list[float], quantile: float) -> None:
    """Zeros, signs, repetitions, subnormals and the largest numbers."""
    x = torch.tensor([values], dtype=torch.float64)
    torch.testing.assert_close(magnitude_quantile(x, quantile), reference(x, quantile), rtol=1e-12, atol=0)


def test_repeated_values_and_a_single_one() -> None:
    x = torch.tensor([[2.0, 2.0, -2.0, 2.0], [0.0, 0.0, 0.0, -0.0], [5.0, 1.0, 1.0, 1.0]])
    assert magnitude_quantile(x, 0.9).tolist() == pytest.approx([2.0, 0.0, 1 + 0.7 * 4])
    assert magnitude_quantile(torch.tensor([[-3.0]]), 0.995).tolist() == [3.0]
    assert magnitude_quantile(torch.tensor([-3.0, 1.0]), 1.0, keep=0).item() == 3.0


def test_it_does_not_depend_on_the_rest_of_the_batch() -> None:
    x = torch.randn(5, 3, 4, 16, 16)
    assert torch.equal(magnitude_quantile(x, 0.99)[3:4], magnitude_quantile(x[3:4], 0.99))


def test_it_reads_views_without_changing_them() -> None:
    x = torch.randn(2, 3, 8, 6, 10)
    view = x[:, :, 1::2].transpose(-1, -2)
    before = x.clone()
    assert torch.equal(magnitude_quantile(view, 0.9), magnitude_quantile(view.contiguous(), 0.9))
    assert torch.equal(x, before)


def test_beyond_torchs_limit_in_little_memory() -> None:
    """torch.quantile refuses more than 2^24 elements: 85 frames of 256 x 256."""
    x = torch.arange(2**24 + 2**20, dtype=torch.float32).view(1, 1, 17, 1024, 1024)
    x.mul_(-(2.0**-24))
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(x.flatten(), 0.5)
    found: list[Tensor] = []
    extra = peak_bytes(lambda: found.append(magnitude_quantile(x, 0.995)))
    # Every second float above 2^24 is missing, so the answer is within two of its rank.
    assert abs(float(found[0]) * 2**24 - 0.995 * (x.numel() - 1)) <= 2
    assert extra < 0.2 * x.numel() * x.element_size()


def test_a_clip_of_the_last_stage() -> None:
    """3 x 128 x 768 x 1280, 377 million numbers, of which each frame of each channel is of one."""
    levels = torch.linspace(-3, 1, 3 * 128).to(torch.bfloat16)
    x = levels.view(1, 3, 128, 1, 1).expand(1, 3, 128, 768, 1280).contiguous()
    found: list[Tensor] = []
    extra = peak_bytes(lambda: found.append(magnitude_quantile(x, 0.995)))
    # Ranks within a frame share one value; the quantile falls inside the second largest.
    assert float(found[0]) == float(levels.abs().sort().values[int(0.995 * 384)])
    assert extra < 0.2 * x.numel() * x.element_size()


@pytest.mark.parametrize("per_frame", [False, True])
def test_memory_per_clip_and_per_frame(per_frame: bool) -> None:
    x = torch.randn(1, 3, 16, 256, 256)
    view, keep = (x.transpose(1, 2), 2) if per_frame else (x, 1)
    assert peak_bytes(lambda: magnitude_quantile(view, 0.995, keep=keep)) < 0.8 * x.numel() * x.element_size()


def test_pieces_cover_everything_once() -> None:
    x = torch.randn(2, 3, 5, 300, 200)
    seen = torch.cat(list(_pieces(x, 1)), dim=1)
    assert torch.equal(seen.sort(dim=1).values, x.abs().flatten(1).view(torch.int32).sort(dim=1).values)
    assert len(list(_pieces(x, 1))) > 4


@pytest.mark.parametrize(
    ("x", "quantile", "message"),
    [
        (torch.zeros(2, 3), 1.5, r"quantile is 1\.5"),
        (torch.zeros(2, 3, dtype=torch.long), 0.5, "int64"),
        (torch.zeros(2, 0), 0.5, "no numbers"),
    ],
)
def test_bad_input_is_refused(x: Tensor, quantile: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        magnitude_quantile(x, quantile)
