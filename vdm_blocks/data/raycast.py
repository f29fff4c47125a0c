"""A small batched ray caster: solids on a floor under a sun, with hard shadows and exact ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.shapes import FAR, SHAPES, Hit
from vdm_blocks.data.solids import PATTERNS, Solid, SolidScene
from vdm_blocks.data.truth import boxes_of

CHUNK = 16_384
"""The most rays that are traced at once: larger temporaries leave the cache and cost more."""


class Trace(NamedTuple):
    """What T frames of rays see.

    Args:
        rgb: (T, 3, H, W) in [0, 1].
        depth: (T, H, W) along the camera's axis, in scene units; infinite where there is sky.
        ids: (T, H, W) int64: 0 floor or sky, 1 the subject, 2 the other.
        areas: (T, K) how many rays would meet each solid if it stood alone.
    """

    rgb: Tensor
    depth: Tensor
    ids: Tensor
    areas: Tensor


class SolidTruth(NamedTuple):
    """Ground truth at pixel centres, of T frames and K solids.

    Args:
        depth, ids: as in `Trace`.
        boxes: (T, K, 4) top, left, bottom, right in pixels of the crop, of what is seen; zeros for nothing.
        visible: (T, K) share of the solid's pixels that nothing hides; 0 when hidden, absent or outside.
        tracks: (T, K, 2) row and column of the projected centre, pixels of the crop; NaN when absent.
        eye: (T, 3) where the camera is.
        axes: (T, 3, 3) its right, up and forward.
    """

    depth: Tensor
    ids: Tensor
    boxes: Tensor
    visible: Tensor
    tracks: Tensor
    eye: Tensor
    axes: Tensor


@dataclass(frozen=True)
class _Stage:
    """T frames of scenes as tensors: poses of K solids, the camera, the light."""

    scenes: tuple[SolidScene, ...]
    eye: Tensor
    axes: Tensor
    slope: Tensor
    centre: Tensor
    turn: Tensor
    extent: Tensor

    @property
    def count(self) -> int:
        return self.centre.shape[1]

    def solid(self, frame: int, k: int) -> Solid | None:
        solids = self.scenes[frame].solids
        return solids[k] if k < len(solids) else None


def _stage(scenes: Sequence[SolidScene], t: Tensor) -> _Stage:
    count = max(len(scene.solids) for scene in scenes)
    frames = len(scenes)
    eye, axes = torch.empty(frames, 3), torch.empty(frames, 3, 3)
    centre, turn = torch.zeros(frames, count, 3), torch.zeros(frames, count)
    extent = torch.ones(frames, count, 3)
    for scene in dict.fromkeys(scenes):
        where = torch.tensor([i for i, one in enumerate(scenes) if one == scene])
        moments = t[where]
        place, look = scene.camera.at(moments, duration=scene.duration)
        eye[where], axes[where] = place.float(), look.float()
        for k, solid in enumerate(scene.solids):
            centre[where, k] = solid.centre(moments, duration=scene.duration).float()
            turn[where, k] = solid.heading(moments, duration=scene.duration).float()
            extent[where, k] = torch.tensor(solid.extent)
    slope = torch.tensor([scene.camera.slope for scene in scenes])
    return _Stage(tuple(scenes), eye, axes, slope, centre, turn, extent)


def _prepare(
    scenes: SolidScene | Sequence[SolidScene], raster: Raster, times: Tensor | None
) -> tuple[tuple[SolidScene, ...], Tensor]:
    several = (scenes,) * raster.frames if isinstance(scenes, SolidScene) else tuple(scenes)
    t = raster.times() if times is None else times.to(torch.float64)
    if len(several) != raster.frames or t.shape != (raster.frames,):
        raise ValueError(
            f"{raster.frames} frames take one scene or {raster.frames}, and as many times, "
            f"got {len(several)} scenes and times of shape {tuple(t.shape)}"
        )
    return several, t


def render_solids(
    scenes: SolidScene | Sequence[SolidScene], raster: Raster, *, times: Tensor | None = None
) -> Tensor:
    """Render one scene as a clip, or T scenes as T pictures, with 2 x 2 rays a pixel.

    Args:
        scenes: one scene, or one for each frame.
        raster: which pixels, how many frames T.
        times: (T,) seconds; default `raster.times()`.

    Returns:
        (3, T, H, W) in [-1, 1].

    Raises:
        ValueError: when the numbers of scenes or times differ from T.
    """
    trace = trace_solids(scenes, raster, times=times, per_pixel=2)
    return avg_pool2d(trace.rgb, 2).mul(2).sub(1).transpose(0, 1).contiguous()


def solid_truth(
    scenes: SolidScene | Sequence[SolidScene], raster: Raster, *, times: Tensor | None = None
) -> SolidTruth:
    """The ground truth of what `render_solids` renders from the same arguments, by one ray a pixel."""
    several, t = _prepare(scenes, raster, times)
    trace = trace_solids(several, raster, times=t, per_pixel=1)
    stage = _stage(several, t)
    seen = torch.stack([(trace.ids == k + 1).sum(dim=(1, 2)) for k in range(stage.count)], dim=1)
    offset = stage.centre - stage.eye.unsqueeze(1)
    right, up, forward = torch.einsum("taj,tkj->atk", stage.axes, offset)
    scale = raster.height / (2 * stage.slope.unsqueeze(1) * forward)
    tracks = torch.stack(
        [raster.height / 2 - up * scale - raster.box[0], raster.width / 2 + right * scale - raster.box[1]],
        dim=2,
    )
    absent = torch.tensor(
        [[stage.solid(i, k) is None for k in range(stage.count)] for i in range(len(several))]
    )
    tracks[absent] = float("nan")
    return SolidTruth(
        depth=trace.depth,
        ids=trace.ids,
        boxes=boxes_of(trace.ids, stage.count),
        visible=seen / trace.areas.clamp(min=1),
        tracks=tracks,
        eye=stage.eye,
        axes=stage.axes,
    )


def trace_solids(
    scenes: SolidScene | Sequence[SolidScene],
    raster: Raster,
    *,
    times: Tensor | None = None,
    per_pixel: int = 1,
) -> Trace:
    """Trace `per_pixel`^2 rays through each pixel; fields are at that resolution. Arguments as in `render_solids`."""
    several, t = _prepare(scenes, raster, times)
    stage = _stage(several, t)
    frames, height, width = raster.frames, raster.shape[1] * per_pixel, raster.shape[2] * per_pixel
    up = 1 - 2 * raster.rows(per_pixel) / raster.height
    right = (2 * raster.columns(per_pixel) / raster.width - 1) * raster.aspect
    trace = Trace(
        rgb=torch.empty(frames, 3, height, width),
        depth=torch.empty(frames, height, width),
        ids=torch.empty(frames, height, width, dtype=torch.int64),
        areas=torch.zeros(frames, stage.count, dtype=torch.int64),
    )
    rows = max(1, min(height, CHUNK // width))
    together = max(1, CHUNK // (height * width))
    for first in range(0, frames, together):
        pick = slice(first, min(first + together, frames))
        for top in range(0, height, rows):
            band = slice(top, min(top + rows, height))
            _trace_band(stage, pick, band, up[band], right, trace)
    return trace


def _trace_band(stage: _Stage, pick: slice, band: slice, up: Tensor, right: Tensor, trace: Trace) -> None:
    numbers = range(*pick.indices(len(stage.scenes)))
    frames, shape = len(numbers), (len(numbers), len(up), len(right))
    slope = stage.slope[pick].view(-1, 1, 1)
    camera = torch.stack(
        [
            (right.view(1, 1, -1) * slope).expand(shape).flatten(1),
            (up.view(1, -1, 1) * slope).expand(shape).flatten(1),
            torch.ones(shape).flatten(1),
        ]
    )
    d = torch.einsum("faj,afr->jfr", stage.axes[pick], camera)
    o = stage.eye[pick].T.unsqueeze(2)

    depth = torch.where(d[2] < -1e-6, -o[2] / d[2], FAR)
    ids = torch.zeros(depth.shape, dtype=torch.int64)
    normal = torch.zeros(3, 1, 1)
    normal[2] = 1
    normal = normal.expand_as(d).clone()
    local = torch.zeros_like(d)
    for k in range(stage.count):
        for rows, hit, turn, o_k, d_k in _meet(stage, numbers, k, o, d):
            trace.areas[rows + pick.start, k] += (hit.distance < FAR).sum(dim=1)
            closer = hit.distance < depth[rows]
            p = o_k + hit.distance.where(closer, torch.zeros(())) * d_k
            n = hit.normal(p) / stage.extent[rows + pick.start, k].T.unsqueeze(2)
            n = _rotate(n / n.square().sum(dim=0).sqrt().clamp(min=1e-6), turn)
            depth[rows] = hit.distance.where(closer, depth[rows])
            ids[rows] = ids[rows].masked_fill(closer, k + 1)
            normal[:, rows] = n.where(closer, normal[:, rows])
            local[:, rows] = p.where(closer, local[:, rows])
    point = o + depth.where(depth < FAR, torch.zeros(())) * d
    rgb = _shade(stage, numbers, d, point, normal, local, depth, ids)
    trace.rgb[pick, :, band] = rgb.view(3, *shape).transpose(0, 1)
    trace.depth[pick, band] = depth.view(shape)
    trace.ids[pick, band] = ids.view(shape)
    assert frames == trace.rgb[pick].shape[0]


def _rotate(v: Tensor, turn: Tensor) -> Tensor:
    """v (3, F, R) turned about z by `turn` (F,)."""
    cos, sin = turn.cos().unsqueeze(1), turn.sin().unsqueeze(1)
    return torch.stack([cos * v[0] - sin * v[1], sin * v[0] + cos * v[1], v[2].expand_as(cos * v[0])])


def _meet(
    stage: _Stage, numbers: range, k: int, o: Tensor, d: Tensor
) -> list[tuple[Tensor, Hit, Tensor, Tensor, Tensor]]:
    """Rays against solid k, frames of one shape together: rows, hit, turn, and the ray in the solid's frame."""
    groups: dict[str, list[int]] = {}
    for row, number in enumerate(numbers):
        solid = stage.solid(number, k)
        if solid is not None:
            groups.setdefault(solid.shape, []).append(row)
    met = []
    for shape, members in groups.items():
        rows = torch.tensor(members)
        frames = rows + numbers.start
        turn = stage.turn[frames, k]
        extent = stage.extent[frames, k].T.unsqueeze(2)
        whole = len(members) == len(numbers)
        o_k = _rotate((o if whole else o[:, rows]) - stage.centre[frames, k].T.unsqueeze(2), -turn) / extent
        d_k = _rotate(d if whole else d[:, rows], -turn) / extent
        met.append((rows, SHAPES[shape](o_k, d_k), turn, o_k, d_k))
    return met


def _shade(
    stage: _Stage,
    numbers: range,
    d: Tensor,
    point: Tensor,
    normal: Tensor,
    local: Tensor,
    depth: Tensor,
    ids: Tensor,
) -> Tensor:
    """Colour (3, F, R): ambient light, and the sun's unless another solid stands in its way; floors fade to the sky."""
    scenes = [stage.scenes[number] for number in numbers]

    def column(values: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor(values).T.unsqueeze(2)

    sun = column([scene.sun for scene in scenes])
    away = depth.where(depth < FAR, torch.zeros(()))
    odd = (point[0].floor() + point[1].floor()) % 2
    odd = 0.5 + (odd - 0.5) * torch.exp(-((away / 16) ** 2))
    albedo = torch.lerp(
        column([s.floor[0] for s in scenes]), column([s.floor[1] for s in scenes]), odd.unsqueeze(0)
    )
    for k in range(stage.count):
        solids = [stage.solid(number, k) for number in numbers]
        colors = column([COLORS[solid.color] if solid is not None else (0.0, 0.0, 0.0) for solid in solids])
        tones = column([_second_tone(solid) for solid in solids])
        styles = torch.tensor([PATTERNS.index(solid.pattern) if solid is not None else 0 for solid in solids])
        paint = colors
        if bool(styles.any()):
            stripes = (2.0 * (0.8 * local[0] + 0.6 * local[2]) + 0.5).floor() % 2
            checks = ((1.7 * local + 0.5).floor().sum(dim=0)) % 2
            share = stripes * (styles == 1).unsqueeze(1) + checks * (styles == 2).unsqueeze(1)
            paint = torch.lerp(colors, tones, share)
        albedo = torch.where(ids == k + 1, paint, albedo)

    facing = (normal * sun).sum(dim=0).clamp(min=0)
    lit = torch.ones_like(facing)
    start = point + 2e-3 * normal
    for k in range(stage.count):
        for rows, hit, *_ in _meet(stage, numbers, k, start, sun.expand_as(d)):
            lit[rows] = lit[rows].masked_fill(hit.distance < FAR, 0.0)
    view = d / d.square().sum(dim=0).sqrt()
    half = sun - view
    gloss = ((normal * half).sum(dim=0) / half.square().sum(dim=0).sqrt()).clamp(0, 1) ** 40 * (ids > 0)
    light = 0.46 + 0.10 * normal[2] + 0.58 * facing * lit
    color = albedo * light + 0.30 * gloss * lit
    horizon = column([s.sky[1] for s in scenes])
    haze = (1 - torch.exp(-((away / 22) ** 2))) * (ids == 0)
    sky = torch.lerp(horizon, column([s.sky[0] for s in scenes]), (view[2] * 2.2).clamp(0, 1))
    return torch.where(depth < FAR, torch.lerp(color, horizon.expand_as(color), haze), sky).clamp(0, 1)


def _second_tone(solid: Solid | None) -> tuple[float, float, float]:
    if solid is None:
        return (0.0, 0.0, 0.0)
    r, g, b = COLORS[solid.color]
    if solid.color == "white":
        return (0.35, 0.36, 0.40)
    return (0.25 * r + 0.75, 0.25 * g + 0.75, 0.25 * b + 0.75)
