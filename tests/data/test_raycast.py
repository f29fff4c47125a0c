from __future__ import annotations

from dataclasses import replace
from math import pi
from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d

from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.raycast import render_solids, solid_truth, trace_solids
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.shapes import SHAPES
from vdm_blocks.data.solid_captions import solid_caption, solid_still_caption
from vdm_blocks.data.solids import (
    SOLID_MOTIONS,
    Camera,
    Solid,
    SolidScene,
    draw_solids,
    solids_held_out,
)

HELD_OUT = HeldOut.load(Path(__file__).parents[2] / "examples" / "cascade" / "heldout.json")
LEVEL = Camera(distance=6.0, elevation=0.0, height=0.8)


def scenes(count: int) -> list[SolidScene]:
    return [draw_solids(0, i, held_out=HELD_OUT) for i in range(count)]


def still(*solids: Solid, camera: Camera = LEVEL, relation: str = "behind") -> SolidScene:
    other = solids[1] if len(solids) > 1 else None
    return SolidScene(
        subject=solids[0],
        motion="stays still",
        other=other,
        relation=None if other is None else relation,
        camera=camera,
    )


@pytest.mark.parametrize("shape", list(SHAPES))
def test_entries_lie_on_the_surface_and_normals_face_the_ray(shape: str) -> None:
    rng = torch.Generator().manual_seed(0)
    o = torch.randn(3, 4, 2000, generator=rng, dtype=torch.float64)
    o = 3 * o / o.norm(dim=0)
    d = torch.randn(3, 4, 2000, generator=rng, dtype=torch.float64) - o
    hit = SHAPES[shape](o, d)
    met = hit.distance < float("inf")
    assert 0.1 < met.double().mean() < 0.9
    p = o + hit.distance.where(met, torch.zeros(())) * d
    x, y, z = p[:, met]
    radius = (x * x + y * y).sqrt()
    surface = {
        "sphere": (x * x + y * y + z * z).sqrt() - 1,
        "box": p[:, met].abs().amax(dim=0) - 1,
        "cylinder": torch.maximum(radius, z.abs()) - 1,
        "cone": torch.where(z < -1 + 1e-9, (radius - 1).clamp(min=0), radius - (1 - z) / 2),
    }[shape]
    assert surface.abs().max() < 1e-6
    n = hit.normal(p)[:, met]
    assert ((n * d[:, met]).sum(dim=0) <= 1e-9).all(), "an entry's normal looks against the ray"
    inside = 0.02 * d[:, met] + p[:, met]
    assert ((inside - p[:, met]) * n).sum(dim=0).max() <= 1e-9


@pytest.mark.parametrize("shape", list(SHAPES))
def test_rays_hit_as_many_as_the_solid_covers(shape: str) -> None:
    """Parallel rays downwards, and along y: the share that hit is the area of the shadow."""
    side = torch.linspace(-1.2, 1.2, 241)
    a, b = (grid.reshape(1, -1) for grid in torch.meshgrid(side, side, indexing="ij"))
    far, zero = torch.full_like(a, 5.0), torch.zeros_like(a)
    above = SHAPES[shape](torch.stack([a, b, far]), torch.stack([zero, zero, zero - 1]) + 1e-6)
    before = SHAPES[shape](torch.stack([a, -far, b]), torch.stack([zero, zero + 1, zero]) + 1e-6)
    cell = (2.4 / 240) ** 2
    expected = {"sphere": (pi, pi), "box": (4, 4), "cylinder": (pi, 4), "cone": (pi, 2)}[shape]
    areas = tuple(float((hit.distance < 99).sum()) * cell for hit in (above, before))
    assert areas == pytest.approx(expected, rel=0.02)


def test_depth_of_a_sphere_and_of_the_floor_is_analytic() -> None:
    size = 0.8
    scene = still(Solid(shape="sphere", color="red", size=size))
    raster = Raster(frames=1, height=61, width=101)
    truth = solid_truth(scene, raster)
    slope = LEVEL.slope
    up = (1 - 2 * raster.rows() / 61).view(-1, 1) * slope
    right = (2 * raster.columns() / 101 - 1).view(1, -1) * slope * raster.aspect
    a = up**2 + right**2 + 1
    floor = torch.where(up < 0, 0.8 / -up, float("inf")).expand_as(a)
    under = 36 - a * (36 - size**2)
    sphere = torch.where(under > 0, (6 - under.clamp(min=0).sqrt()) / a, float("inf"))
    expected = torch.minimum(sphere, floor)
    torch.testing.assert_close(truth.depth[0], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(truth.ids[0], (sphere < floor).long())
    assert truth.depth[0, 30, 50] == pytest.approx(6 - size, abs=1e-4)


def test_what_is_behind_a_larger_solid_is_not_seen_and_comes_back() -> None:
    cover = Solid(shape="box", color="blue", size=1.0, y=-0.5)
    moving = Solid(shape="sphere", color="red", size=0.5, y=2.0, dx=-5.0)
    scene = replace(still(moving, cover), motion="moves left")
    truth = solid_truth(scene, Raster(frames=17, height=36, width=60, fps=3.0))
    assert truth.visible[0, 0] == 1
    assert truth.visible[8, 0] == 0
    assert not bool((truth.ids[8] == 1).any())
    assert truth.boxes[8, 0].tolist() == [0, 0, 0, 0]
    assert truth.visible[15, 0] == 1
    partly = (truth.visible[:, 0] > 0) & (truth.visible[:, 0] < 1)
    assert bool(partly.any())
    assert torch.equal(truth.visible[:, 1], torch.ones(17)), "nothing stands before the box"


def test_a_projected_track_is_the_centroid_of_the_ids() -> None:
    """Of a sphere at a distance of 6 and a radius of 0.4 the outline's centre is within 1 % of its size."""
    ball = Solid(shape="sphere", color="red", size=0.4, dx=2.0, dy=1.0, hop=0.5)
    camera = replace(LEVEL, elevation=0.3, orbit=0.8, approach=0.3)
    scene = replace(still(ball, camera=camera), motion="bounces")
    raster = Raster(frames=6, height=120, width=200, fps=1.0, crop=(4, 8, 112, 184))
    truth = solid_truth(scene, raster)
    for frame in range(6):
        centroid = (truth.ids[frame] == 1).nonzero().float().mean(dim=0) + 0.5
        torch.testing.assert_close(truth.tracks[frame, 0], centroid, atol=0.6, rtol=0)


def test_a_camera_is_a_rotation_at_its_distance() -> None:
    camera = Camera(azimuth=0.4, elevation=0.3, orbit=0.9, approach=0.7, height=0.5)
    eye, axes = camera.at(torch.linspace(0, 5, 7, dtype=torch.float64), duration=5.0)
    identity = torch.eye(3, dtype=torch.float64).expand(7, 3, 3)
    torch.testing.assert_close(axes @ axes.transpose(1, 2), identity)
    handed = torch.linalg.det(axes[:, [0, 2, 1]])
    torch.testing.assert_close(handed, torch.ones(7, dtype=torch.float64))
    distance = (eye - torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)).norm(dim=1)
    torch.testing.assert_close(distance, 6 * 2 ** (-0.7 * torch.linspace(-0.5, 0.5, 7, dtype=torch.float64)))


def test_shadows_fall_away_from_the_sun() -> None:
    lit = still(Solid(shape="box", color="white", size=0.6), camera=replace(LEVEL, elevation=0.6))
    raster = Raster(frames=1, height=48, width=80)
    columns = torch.arange(80.0).view(1, -1)
    for side in (-1.0, 1.0):
        scene = replace(lit, sun=(0.7 * side, 0.0, 0.714), floor=((0.8, 0.8, 0.8), (0.8, 0.8, 0.8)))
        trace = trace_solids(scene, raster)
        dark = (trace.rgb[0].mean(dim=0) < 0.6) & (trace.ids[0] == 0) & (trace.depth[0] < 12)
        assert int(dark.sum()) > 10
        assert (float((columns * dark).sum() / dark.sum()) - 40) * side < -3


def test_a_pack_shows_what_each_scene_alone_shows_and_a_crop_what_the_whole_shows() -> None:
    several = scenes(5)
    times = torch.linspace(0.3, 5, 5, dtype=torch.float64)
    together = render_solids(several, Raster(frames=5, height=24, width=40), times=times)
    crop = Raster(frames=1, height=24, width=40, crop=(3, 5, 16, 24))
    for i, scene in enumerate(several):
        alone = render_solids(scene, replace(crop, crop=None), times=times[i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, atol=2e-3, rtol=0)
        part = render_solids(scene, crop, times=times[i : i + 1])
        torch.testing.assert_close(part, alone[:, :, 3:19, 5:29], atol=2e-3, rtol=0)


def test_a_coarse_rendering_is_near_the_average_of_a_fine_one() -> None:
    """2 x 2 against 8 x 8 rays a pixel: edges are off by at most a quarter of a pixel's contrast."""
    raster = Raster(frames=2, height=24, width=40, fps=0.4)
    for scene in scenes(6):
        plain = replace(scene, floor=(scene.floor[0], scene.floor[0]))
        fine = render_solids(plain, replace(raster, height=96, width=160))
        error = (avg_pool2d(fine, 4) - render_solids(plain, raster)).abs()
        assert error.mean() < 0.015


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    raster = Raster(frames=3, height=24, width=40, fps=1.0)
    whole = trace_solids(scenes(1)[0], raster)
    monkeypatch.setattr("vdm_blocks.data.raycast.CHUNK", 100)
    parts = trace_solids(scenes(1)[0], raster)
    torch.testing.assert_close(parts.rgb, whole.rgb, atol=1e-5, rtol=0)
    assert torch.equal(parts.ids, whole.ids)
    assert torch.equal(parts.areas, whole.areas)


def test_scenes_are_deterministic_and_never_held_out() -> None:
    drawn = scenes(20_000)
    assert drawn[:50] == scenes(50)
    assert not any(solids_held_out(scene, HELD_OUT) for scene in drawn)
    assert {scene.motion for scene in drawn} == set(SOLID_MOTIONS)
    assert {solid.shape for scene in drawn for solid in scene.solids} == set(SHAPES)
    assert {solid.color for scene in drawn for solid in scene.solids} == set(COLORS)
    assert {scene.camera_move for scene in drawn} == {None, "moves around", "moves closer"}
    for index in range(30):
        assert solids_held_out(draw_solids(0, index, held_out=HELD_OUT, only_held_out=True), HELD_OUT)
    assert all(color in COLORS and shape in SHAPES for color, shape in HELD_OUT.shape_colors)
    assert all(shape in SHAPES and motion in SOLID_MOTIONS for shape, motion in HELD_OUT.shape_motions)


def test_captions_say_what_is_there() -> None:
    raster = Raster(frames=3, height=24, width=40, fps=0.37)
    for i, scene in enumerate(scenes(150)):
        words = solid_caption(scene)
        for solid in scene.solids:
            assert solid.noun in words
            assert solid.noun in solid_still_caption(scene)
        assert (scene.camera_move is not None) == ("camera" in words)
        if scene.relation is not None:
            assert f" {scene.relation} a" in words
        if "floor" in words:
            assert ("checkered" in words) == (scene.floor[0] != scene.floor[1])
        if i % 5 or scene.camera_move:
            continue
        tracks = solid_truth(scene, raster).tracks
        across = float(tracks[-1, 0, 1] - tracks[0, 0, 1])
        assert (across < -12) == (scene.motion == "moves left"), words
        assert (across > 12) == (scene.motion == "moves right"), words


def test_relations_are_seen_in_depth() -> None:
    for scene in scenes(60):
        if scene.relation not in ("behind", "in front of") or scene.other is None:
            continue
        t = torch.tensor([scene.duration / 2], dtype=torch.float64)
        eye, axes = scene.camera.at(t, duration=scene.duration)
        subject, other = (
            float((solid.centre(t, duration=scene.duration) - eye)[0] @ axes[0, 2])
            for solid in scene.solids[:2]
        )
        assert (subject > other) == (scene.relation == "behind")


def test_wrong_words_and_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="'torus'"):
        Solid(shape="torus", color="red")
    with pytest.raises(ValueError, match="flies"):
        replace(scenes(1)[0], motion="flies")
    with pytest.raises(ValueError, match="3 frames"):
        render_solids(scenes(2), Raster(frames=3, height=8, width=8))


def test_scenes_that_are_equal_but_not_the_same_object_are_all_drawn() -> None:
    one, raster = scenes(1)[0], Raster(frames=4, height=9, width=15)
    assert torch.equal(
        render_solids((one, one, replace(one), replace(one)), raster), render_solids(one, raster)
    )
