from __future__ import annotations

import pytest
import torch

from vdm_blocks.video.resize import Filter, fit_video, repeat_frames, resize_video, skip_frames


def test_area_is_the_mean_of_what_a_pixel_covers() -> None:
    video = torch.randn(2, 3, 4, 6, 8)
    expected = video.view(2, 3, 4, 3, 2, 4, 2).mean(dim=(4, 6))
    torch.testing.assert_close(resize_video(video, height=3, width=4, filter="area"), expected)


def test_shrinking_bilinear_is_antialiased() -> None:
    checker = torch.ones(1, 1, 32, 32)
    checker[..., ::2, 1::2] = checker[..., 1::2, ::2] = -1
    small = resize_video(checker, height=8, width=8)
    assert small[..., 1:-1, 1:-1].abs().max() < 0.05
    assert resize_video(checker, height=8, width=8, filter="nearest").abs().min() == 1


def test_nearest_copies_and_growing_by_it_repeats() -> None:
    video = torch.randn(3, 2, 4, 5)
    grown = resize_video(video, height=8, width=15, filter="nearest")
    torch.testing.assert_close(grown, video.repeat_interleave(2, -2).repeat_interleave(3, -1))


@pytest.mark.parametrize("filter", ["bilinear", "area", "nearest"])
def test_flat_stays_flat_frames_stay_apart_and_gradients_flow(filter: Filter) -> None:  # noqa: A002
    video = torch.arange(4.0).view(1, 4, 1, 1).expand(3, 4, 6, 10).clone().requires_grad_()
    out = resize_video(video, height=9, width=4, filter=filter)
    torch.testing.assert_close(out, torch.arange(4.0).view(1, 4, 1, 1).expand(3, 4, 9, 4))
    out.sum().backward()
    assert video.grad is not None
    assert float(video.grad.sum()) == pytest.approx(out.numel())


def test_repeating_then_skipping_is_the_identity() -> None:
    video = torch.randn(2, 3, 5, 4, 4)
    assert torch.equal(skip_frames(repeat_frames(video, 3), 3), video)


def test_fitting_covers_and_crops() -> None:
    ramp = torch.arange(40.0).view(1, 1, 1, 40).expand(1, 1, 20, 40)
    assert torch.equal(fit_video(ramp, height=20, width=20), ramp[..., 10:30])
    assert torch.equal(fit_video(ramp, height=20, width=20, left=1.0), ramp[..., 20:])
    assert fit_video(torch.zeros(3, 2, 37, 53), height=24, width=40).shape == (3, 2, 24, 40)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        resize_video(torch.zeros(4, 5), height=2, width=2)
    with pytest.raises(ValueError, match="bilinear"):
        resize_video(torch.zeros(1, 1, 4, 5), height=2, width=2, filter="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="left=2"):
        fit_video(torch.zeros(1, 1, 4, 5), height=2, width=2, left=2.0)
