"""Known cameras on ray-cast scenes: projection, true flow with occlusion, epipolar lines."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vdm_blocks.data import Raster, SolidScene, SolidTruth, render_solids, solid_truth
from vdm_blocks.data.solids import Camera, Solid
from vdm_blocks.metrics import (
    Cameras,
    epipolar_residual,
    estimate_flow,
    fundamental_from_matches,
    match_points,
    motion_degree,
    sampson_distance,
    warping_error,
)

RASTER = Raster(frames=6, height=36, width=60, fps=3.0)


def orbiting() -> SolidScene:
    return SolidScene(
        subject=Solid(shape="sphere", color="red", size=0.6, x=-0.6),
        motion="stays still",
        other=Solid(shape="box", color="green", size=0.7, x=1.0, y=1.0, yaw=0.5),
        relation="next to",
        camera=Camera(orbit=1.2, elevation=0.35),
    )


def cameras(truth: SolidTruth, scene: SolidScene) -> Cameras:
    return Cameras(eye=truth.eye, axes=truth.axes, slope=scene.camera.slope, height=36, width=60)


@cache
def seen() -> tuple[Tensor, SolidTruth, Cameras]:
    scene = orbiting()
    truth = solid_truth(scene, RASTER)
    return render_solids(scene, RASTER), truth, cameras(truth, scene)


def centres(scene: SolidScene) -> tuple[Tensor, Tensor]:
    t = RASTER.times()
    return (
        torch.stack([solid.centre(t, duration=scene.duration) for solid in scene.solids], dim=1),
        torch.stack([solid.heading(t, duration=scene.duration) for solid in scene.solids], dim=1),
    )


def test_projection_is_the_renderers() -> None:
    _, truth, known = seen()
    place, depth = known.project(centres(orbiting())[0])
    torch.testing.assert_close(place.float(), truth.tracks, atol=1e-3, rtol=0)
    assert float(depth.min()) > 3


def test_true_matches_lie_on_their_lines_and_wrong_ones_do_not() -> None:
    known = seen()[2]
    points = torch.rand(1, 30, 3, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    place, _ = known.project(points.expand(6, -1, -1))
    f = known.fundamental(0, 3)
    assert float(sampson_distance(f, place[0], place[3]).max()) < 1e-5
    across = place[3] + torch.tensor([2.0, 0.0])
    assert 1 < float(sampson_distance(f, place[0], across).median()) < 2, "two pixels, shared by both ends"
    found = fundamental_from_matches(place[0], place[3])
    torch.testing.assert_close(found * (found * f).sum().sign(), f, atol=1e-6, rtol=1e-4)


def test_flow_on_a_render_explains_the_next_frame() -> None:
    video, truth, known = seen()
    flow, visible = known.flow(truth.depth, truth.ids)
    error = float(warping_error(video[None], flow, visible))
    assert error < 0.01
    assert error < float(warping_error(video[None], torch.zeros_like(flow), visible)) / 4
    frozen = video[:, :1].expand_as(video)
    assert float(warping_error(frozen[None], flow, visible)) > 4 * error
    assert 0.5 < float(visible.float().mean()) < 0.95


def test_things_that_move_and_turn_are_followed_and_what_they_uncover_is_left_out() -> None:
    ball = Solid(shape="box", color="red", size=0.6, dx=2.5, y=-0.5, turns=0.2)
    wall = Solid(shape="box", color="blue", size=1.0, y=1.2)
    scene = replace(
        orbiting(), subject=ball, other=wall, motion="moves right", camera=Camera(), relation="in front of"
    )
    truth = solid_truth(scene, RASTER)
    video = render_solids(scene, RASTER)[None]
    where, turns = centres(scene)
    known = cameras(truth, scene)
    flow, visible = known.flow(truth.depth, truth.ids, centres=where, turns=turns)
    everything = torch.ones_like(visible)
    error = float(warping_error(video, flow, visible))
    assert error < 0.01
    assert error < float(warping_error(video, flow, everything)) / 3
    on_ball = truth.ids[:-1] == 1
    assert float(flow[0, 1][on_ball].mean()) > 1
    assert float(flow[0, :, truth.ids[:-1] == 0].abs().max()) < 1e-3


def test_residual_under_the_true_camera_is_small_and_frozen_or_shuffled_videos_are_off() -> None:
    video, _, known = seen()
    true = float(epipolar_residual(video, known))
    assert true < 0.3
    for wrong in (video[:, :1].expand_as(video), video.flip(1), video[:, [3, 0, 5, 2, 4, 1]]):
        assert float(epipolar_residual(wrong, known)) > 2 * true


def test_matches_are_found_where_they_are() -> None:
    picture = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(picture, scale_factor=3, mode="bicubic")[0]
    first, second = match_points(picture[:, 4:52, 4:60], picture[:, 3:51, 6:62])
    assert len(first) > 20
    away = (second - first) - torch.tensor([1.0, -2.0])
    assert float(away.abs().median()) < 0.1
    flow = estimate_flow(torch.stack([picture[:, 4:52, 4:60], picture[:, 3:51, 6:62]], dim=1)[None])
    assert float((flow[0, 0, 0, 6:-6, 6:-6] - 1).abs().median()) < 0.1
    assert float((flow[0, 1, 0, 6:-6, 6:-6] + 2).abs().median()) < 0.1
    assert float(motion_degree(flow[..., 6:-6, 6:-6], top=1.0)) == pytest.approx(5**0.5, rel=0.1)


def test_cameras_and_matches_may_lie_on_any_device() -> None:
    """On fake tensors of the meta device, an operation on that and on the CPU raises."""
    with FakeTensorMode(), torch.device("meta"):
        known = Cameras(eye=torch.rand(3, 3), axes=torch.rand(3, 3, 3), slope=0.3, height=4, width=6)
        depth, ids, centres = torch.rand(3, 4, 6), torch.ones(3, 4, 6, dtype=torch.int64), torch.rand(3, 1, 3)
        for turns in (None, torch.rand(3, 1)):
            flow, visible = known.flow(depth, ids, centres=centres, turns=turns)
            assert flow.is_meta
            assert visible.is_meta
        first, second = torch.rand(9, 2), torch.rand(9, 2)
        assert fundamental_from_matches(first, second).is_meta
        assert sampson_distance(torch.eye(3, device="cpu"), first, second).is_meta


def test_what_does_not_fit_is_refused() -> None:
    video, truth, known = seen()
    with pytest.raises(ValueError, match="at one place"):
        replace(known, eye=known.eye[:1].expand(6, 3)).fundamental(0, 1)
    with pytest.raises(ValueError, match="8 matches"):
        fundamental_from_matches(torch.zeros(7, 2), torch.zeros(7, 2))
    with pytest.raises(ValueError, match="6 cameras of 36x60"):
        epipolar_residual(video[:, :4], known)
    with pytest.raises(ValueError, match="one camera a frame"):
        known.flow(truth.depth[:3], truth.ids[:3])
    with pytest.raises(ValueError, match="T cameras"):
        replace(known, slope=0.0)
    with pytest.raises(ValueError, match="T >= 2"):
        estimate_flow(video[None, :, :1])
