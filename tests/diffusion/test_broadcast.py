from __future__ import annotations

import pytest
import torch

from vdm_blocks.diffusion.broadcast import expand_level, level_of_batch

VIDEO = torch.arange(2 * 3 * 2 * 3 * 2, dtype=torch.float64).view(2, 3, 2, 3, 2)  # B = T = W, H = C


def test_levels_multiply_what_they_belong_to() -> None:
    per_sample, per_frame = torch.tensor([2.0, 5.0]), torch.tensor([[2.0, 3.0], [5.0, 7.0]])
    scaled = VIDEO * expand_level(per_sample, VIDEO)
    by_frame = VIDEO * expand_level(per_frame, VIDEO)
    for b in range(2):
        assert torch.equal(scaled[b], VIDEO[b] * float(per_sample[b]))
        for f in range(2):
            assert torch.equal(by_frame[b, :, f], VIDEO[b, :, f] * float(per_frame[b, f]))
    assert torch.equal(VIDEO * expand_level(torch.tensor(3.0), VIDEO), VIDEO * 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (2,), (2, 2)])
def test_the_product_keeps_the_dtype_of_the_video(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    level = torch.rand(shape, dtype=torch.float64)
    video = VIDEO.to(dtype)
    assert (video * expand_level(level, video)).dtype == dtype


def test_one_level_per_sample_fits_anything_with_a_batch() -> None:
    assert expand_level(torch.rand(4), torch.rand(4, 7)).shape == (4, 1)
    assert expand_level(torch.rand(4), torch.rand(4, 7, 3)).shape == (4, 1, 1)


@pytest.mark.parametrize(
    ("level", "like"),
    [
        ((1,), (2, 3, 4, 5, 5)),
        ((5,), (2, 3, 4, 5, 5)),
        ((4, 2), (2, 3, 4, 5, 5)),
        ((2, 1), (2, 3, 4, 5, 5)),
        ((2, 5), (2, 3, 4, 5, 5)),
        ((2, 3), (2, 3)),
        ((2, 4), (2, 3, 4, 5)),
        ((2, 1, 1, 1, 1), (2, 3, 4, 5, 5)),
        ((2,), (2,)),
    ],
)
def test_other_levels_are_refused(level: tuple[int, ...], like: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="give"):
        expand_level(torch.rand(level), torch.rand(like))
    with pytest.raises(ValueError, match="give"):
        level_of_batch(torch.rand(level), torch.rand(like))


@pytest.mark.parametrize("shape", [(), (2,), (2, 2)])
def test_networks_are_told_float32_levels(shape: tuple[int, ...]) -> None:
    level = torch.rand(shape, dtype=torch.float64)
    told = level_of_batch(level, VIDEO)
    assert told.dtype == torch.float32
    assert torch.equal(told, level.float().expand(told.shape))
    assert told.shape == (shape or (2,))
