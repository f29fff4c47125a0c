"""Consistency on clips whose motion is known: a moving picture, a frozen one, a trembling one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vdm_blocks.metrics.consistency import (
    dynamic_degree,
    feature_consistency,
    flicker,
    motion_degree,
    motion_smoothness,
    unless_frozen,
    warp,
    warping_error,
)

FRAMES, SIDE = 4, 12


def moving(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """A picture that slides by whole pixels a frame, seen through a window, and its flow."""
    picture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frames = [
        picture[..., 14 - rows * t : 14 - rows * t + SIDE, 14 - columns * t : 14 - columns * t + SIDE]
        for t in range(FRAMES)
    ]
    flow = torch.tensor([rows, columns]).double().view(1, 2, 1, 1, 1)
    return torch.stack(frames, dim=2), flow.expand(1, 2, FRAMES - 1, SIDE, SIDE)


ALL = torch.ones(1, FRAMES - 1, SIDE, SIDE, dtype=torch.bool)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, -2), (-3, 0)])
def test_true_motion_leaves_no_error(rows: int, columns: int) -> None:
    video, flow = moving(rows, columns)
    fetched, inside = warp(video, flow)
    torch.testing.assert_close((fetched - video[:, :, :-1]) * inside[:, None], torch.zeros_like(fetched))
    assert int(inside[0, 0].sum()) == (SIDE - abs(rows)) * (SIDE - abs(columns))
    assert float(warping_error(video, flow, ALL)) < 1e-25


def test_a_frozen_video_does_not_win() -> None:
    video, flow = moving(1, -2)
    frozen = video[:, :, :1].expand_as(video)
    assert float(warping_error(frozen, flow, ALL)) > 0.05
    assert float(dynamic_degree(frozen)) == 0
    assert float(dynamic_degree(video)) > 0.2
    # What an estimator would find on it is no motion, and then all is well: hence the true flow, or dynamic_degree.
    assert float(warping_error(frozen, torch.zeros_like(flow), ALL)) < 1e-25


def test_half_a_pixel_is_the_mean_of_two() -> None:
    video = torch.arange(6.0).double().view(1, 1, 1, 1, 6).expand(1, 1, 2, 1, 6)
    flow = torch.tensor([0.0, 0.5]).double().view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 6)
    fetched, inside = warp(video, flow)
    assert fetched.flatten().tolist() == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5, 5.0])
    assert inside.flatten().tolist() == [True] * 5 + [False]


def test_hidden_points_do_not_count() -> None:
    video, flow = moving(0, 0)
    broken = video.clone()
    broken[:, :, 2, 3:5] += 1
    visible = ALL.clone()
    visible[:, 1:3, 3:5] = False
    assert float(warping_error(broken, flow, visible)) < 1e-25
    assert float(warping_error(broken, flow, ALL)) == pytest.approx(2 / SIDE * 2 / (FRAMES - 1))
    assert math.isnan(float(warping_error(video, flow, torch.zeros_like(ALL))))


def test_noise_costs_what_its_variance_says() -> None:
    video = torch.randn(1, 3, 30, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.1
    flow = torch.zeros(1, 2, 29, 40, 40)
    error = warping_error(video, flow, torch.ones(1, 29, 40, 40, dtype=torch.bool))
    assert float(error) == pytest.approx(2 * 0.1**2, rel=0.02)


def test_flicker_is_the_swing_of_the_brightness() -> None:
    swing = 0.3 * torch.tensor([1.0, -1.0]).repeat(4)
    fade = torch.linspace(-1, 1, 8)
    for tone, expected in ((swing, 0.3), (fade, 0.0), (fade + swing, 0.3)):
        video = tone.double().view(1, 1, 8, 1, 1).expand(2, 3, 8, 4, 4)
        torch.testing.assert_close(flicker(video), torch.full((2,), expected).double(), atol=1e-6, rtol=0)


def test_shuffled_frames_flicker_and_tear() -> None:
    video, flow = moving(1, 1)
    mixed = video[:, :, [2, 0, 3, 1]]
    assert float(warping_error(mixed, flow, ALL)) > float(warping_error(video, flow, ALL)) + 0.05
    assert float(flicker(mixed)) > float(flicker(video))


def test_samples_are_scored_alone() -> None:
    one, flow = moving(1, 0)
    two = one.flip(2)
    both = torch.cat([one, two])
    errors = warping_error(both, flow.expand(2, -1, -1, -1, -1), ALL.expand(2, -1, -1, -1))
    torch.testing.assert_close(errors[1:], warping_error(two, flow, ALL))
    torch.testing.assert_close(dynamic_degree(both)[1:], dynamic_degree(two))


def test_shapes_that_do_not_fit_are_refused() -> None:
    video, flow = moving(0, 0)
    with pytest.raises(ValueError, match="flow of a video"):
        warp(video, flow[:, :, 1:])
    with pytest.raises(ValueError, match="visible is bool"):
        warping_error(video, flow, ALL.float())
    with pytest.raises(ValueError, match="T >= 3"):
        flicker(video[:, :, :2])
    with pytest.raises(ValueError, match="T >= 2"):
        dynamic_degree(video[:, :, :1])


def test_smoothness_is_the_acceleration_along_paths() -> None:
    """Speed 1, 3, 2 columns a frame: changes of 2 and 1."""
    flow = torch.tensor([1.0, 3.0, 2.0]).view(1, 1, 3, 1, 1) * torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1)
    flow = flow.expand(1, 2, 3, 6, 16).contiguous()
    kept = [16 - 1, 16 - 3]  # columns of which the next place lies in the picture
    assert float(motion_smoothness(flow)) == pytest.approx((2 * kept[0] + 1 * kept[1]) / sum(kept))
    assert float(motion_smoothness(flow[:, :, :1].expand(1, 2, 3, 6, 16))) == 0
    assert float(motion_degree(flow, top=1.0)) == pytest.approx(2)


def test_motion_degree_is_of_the_fastest() -> None:
    flow = torch.zeros(2, 2, 3, 10, 10)
    flow[1, 0, :, 0, :5], flow[1, 1, :, 0, :5] = 3.0, 4.0
    assert motion_degree(flow).tolist() == [0.0, 5.0]
    assert motion_degree(flow, top=0.1).tolist() == [0.0, 2.5]


def test_feature_consistency_by_hand() -> None:
    frames = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    with_previous, with_first = (0 + 0.5**0.5) / 2, (0 + 0.5**0.5) / 2
    assert float(feature_consistency(frames)) == pytest.approx((with_previous + with_first) / 2)
    assert float(feature_consistency(frames[:, :1].expand(1, 3, 2))) == pytest.approx(1)


def test_a_turn_for_good_is_seen_by_the_first_frame_and_jumps_by_the_neighbours() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    turned, jumping = torch.stack([a, a, b, b, b])[None], torch.stack([a, b, a, b, a])[None]
    assert float(feature_consistency(turned, first=1.0)) == pytest.approx(1 / 4)
    assert float(feature_consistency(turned, first=0.0)) == pytest.approx(3 / 4)
    assert float(feature_consistency(jumping, first=1.0)) == pytest.approx(1 / 2)
    assert float(feature_consistency(jumping, first=0.0)) == pytest.approx(0)
    with pytest.raises(ValueError, match="share of the first frame"):
        feature_consistency(turned, first=1.5)


def test_a_frozen_video_is_the_worst() -> None:
    video, flow = moving(1, -2)
    degree = torch.cat([motion_degree(flow), motion_degree(torch.zeros_like(flow))])
    scores = unless_frozen(torch.tensor([0.9, 1.0]), degree, least=0.5, worst=0.0)
    assert scores.tolist() == pytest.approx([0.9, 0.0])
    with pytest.raises(ValueError, match="one degree a score"):
        unless_frozen(torch.ones(3), degree, least=0.5, worst=0.0)
    for wrong in (flow[:, :1], flow[0]):
        with pytest.raises(ValueError, match="flow"):
            motion_degree(wrong)
    with pytest.raises(ValueError, match="T >= 3"):
        motion_smoothness(flow[:, :, :1])
    with pytest.raises(ValueError, match="T >= 2"):
        feature_consistency(torch.ones(1, 1, 4))
    with pytest.raises(ValueError, match="share"):
        motion_degree(flow, top=0.0)
    assert video.shape[2] == FRAMES
