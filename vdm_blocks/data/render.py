"""Sprite scenes to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from vdm_blocks.data.backdrops import render_backdrops
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.scenes import SpriteObject, SpriteScene
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.tracks import Pose, poses

_LIGHT = {None: (1.0, 0.0), "in dim light": (0.5, 0.0), "in bright light": (1.06, 0.12)}


def render_sprites(
    pack: SpritePack,
    scenes: SpriteScene | Sequence[SpriteScene],
    raster: Raster,
    *,
    times: Tensor | None = None,
) -> Tensor:
    """Draw one scene as a clip, or T scenes as T independent pictures.

    Layers are drawn back to front with premultiplied "over", each supersampled 2 x 2 from the level of the
    pack whose texels are about as fine as the samples, so that half the resolution is close to the average
    of the full one. A sprite enlarged beyond the finest level is drawn bicubically, its outline sharpened.

    Args:
        pack: the pictures.
        scenes: one scene for all frames, or one for each.
        raster: which pixels, how many frames T.
        times: (T,) seconds; default `raster.times()`.

    Returns:
        (3, T, H, W) in [-1, 1].

    Raises:
        ValueError: when the numbers of scenes or times differ from T, or a name is not in the pack.
    """
    scenes, t = scenes_and_times(scenes, raster, times)
    picture = render_backdrops([scene.backdrop for scene in scenes], raster)
    picture = picture.expand(raster.frames, -1, -1, -1)
    for layer in _layers(scenes, raster.frames):
        frames = [i for i, entry in enumerate(layer) if entry is not None]
        objects = [entry for entry in layer if entry is not None]
        if frames:
            rgb, alpha = draw_objects(pack, objects, raster, t[frames], duration=scenes[0].duration)
            if len(frames) == raster.frames:
                picture = picture * (1 - alpha) + rgb
            else:
                picture = picture.index_copy(0, torch.tensor(frames), picture[frames] * (1 - alpha) + rgb)
    light = torch.tensor([_LIGHT[scene.light] for scene in scenes]).view(-1, 2, 1, 1, 1)
    return (picture * light[:, 0] + light[:, 1]).clamp(0, 1).mul(2).sub(1).transpose(0, 1).contiguous()


def scenes_and_times(
    scenes: SpriteScene | Sequence[SpriteScene], raster: Raster, times: Tensor | None
) -> tuple[tuple[SpriteScene, ...], Tensor]:
    """One scene or T of them, and T seconds, float64.

    Raises:
        ValueError: when the numbers of scenes or times differ from T, or the scenes' durations differ.
    """
    several = (scenes,) if isinstance(scenes, SpriteScene) else tuple(scenes)
    t = raster.times() if times is None else times.to(torch.float64)
    if len(several) not in (1, raster.frames) or t.shape != (raster.frames,):
        raise ValueError(
            f"{raster.frames} frames take 1 or {raster.frames} scenes and as many times, "
            f"got {len(several)} scenes and times of shape {tuple(t.shape)}"
        )
    if len({scene.duration for scene in several}) > 1:
        raise ValueError("scenes drawn together share one duration: render those of another apart")
    return several, t


def _layers(scenes: Sequence[SpriteScene], frames: int) -> list[list[SpriteObject | None]]:
    """Back to front, the object of each frame; frames with fewer objects have None in front."""
    depth = max(len(scene.objects) for scene in scenes)
    rows: list[tuple[SpriteObject | None, ...]] = [
        (*scene.objects, *(None,) * (depth - len(scene.objects))) for scene in scenes
    ]
    if len(rows) == 1:
        rows = rows * frames
    return [list(layer) for layer in zip(*rows, strict=True)]


def draw_objects(
    pack: SpritePack, objects: Sequence[SpriteObject], raster: Raster, t: Tensor, *, duration: float
) -> tuple[Tensor, Tensor]:
    """N objects, each in a picture of its own at its time t (N,).

    Returns:
        Premultiplied rgb (N, 3, H, W) and alpha (N, 1, H, W), in [0, 1].
    """
    same = all(one is objects[0] for one in objects)
    pose = poses((objects[0].track,) if same else tuple(one.track for one in objects), t, duration=duration)
    for one in objects:
        if one.name not in pack.number:
            raise ValueError(f"the sprite pack has no {one.name!r}; it has {', '.join(sorted(pack.number))}")
    rows = torch.tensor([pack.number[one.name] for one in objects])
    period = torch.tensor([pack.concepts[i].period or 1.0 for i in rows.tolist()], dtype=t.dtype)
    plays = torch.tensor([one.animated for one in objects])
    phase = torch.tensor([one.phase for one in objects], dtype=t.dtype)
    shown = ((t * plays / period + phase) % 1 * pack.pictures.shape[1]).long() % pack.pictures.shape[1]
    flip = torch.tensor([-1.0 if one.flip else 1.0 for one in objects])
    finest = pack.pictures.shape[-1]
    levels = [
        _level(size * raster.height, finest, len(pack.levels)) for size in pose.size.expand(len(t)).tolist()
    ]
    layer = torch.empty(len(t), 5, *raster.shape[1:])
    for level in sorted(set(levels)):
        chosen = torch.tensor([i for i, one in enumerate(levels) if one == level])
        texture = pack.levels[level][rows[chosen], shown[chosen]].float()
        part = Pose(*(value.expand(len(t))[chosen].float() for value in pose))
        grid = _grid(part, flip[chosen], raster)
        if level > 0 or float(part.size.max()) * raster.height <= finest:
            drawn = grid_sample(texture, grid, align_corners=False) / 255
        else:
            drawn = grid_sample(texture, grid, mode="bicubic", align_corners=False) / 255
            drawn = _sharpen(drawn.clamp(0, 1), (part.size * raster.height / finest).clamp(min=1))
        layer[chosen] = avg_pool2d(drawn, 2)
    colors = torch.tensor(
        [COLORS[one.color] if one.color is not None else (0.0, 0.0, 0.0) for one in objects]
    )
    return layer[:, :3] + layer[:, 4:] * colors.view(-1, 3, 1, 1), layer[:, 3:4]


def _sharpen(drawn: Tensor, grown: Tensor) -> Tensor:
    """Make an outline that was `grown` (N,) times enlarged one pixel soft again, about where alpha is one half."""
    alpha = drawn[:, 3:4]
    sharp = ((alpha - 0.5) * grown.view(-1, 1, 1, 1) + 0.5).clamp(0, 1)
    return drawn * (sharp / alpha.clamp(min=1e-3))


def _level(pixels: float, finest: int, count: int) -> int:
    """The pack level whose texels are nearest in size to the 2 x 2 samples of a sprite `pixels` wide."""
    return min(max(round(log2(finest / (2 * pixels))), 0), count - 1)


def _grid(pose: Pose, flip: Tensor, raster: Raster) -> Tensor:
    """Where in the sprite, [-1, 1], each sample of the raster lies: (N, 2 H, 2 W, 2)."""
    half = (pose.size * raster.height / 2).view(-1, 1, 1)
    dx = (raster.columns(2).view(1, 1, -1) - (pose.x * raster.width).view(-1, 1, 1)) / half
    dy = (raster.rows(2).view(1, -1, 1) - (pose.y * raster.height).view(-1, 1, 1)) / half
    cos, sin = pose.angle.cos().view(-1, 1, 1), pose.angle.sin().view(-1, 1, 1)
    mirror = flip.view(-1, 1, 1)
    return torch.stack([(cos * dx + sin * dy) * mirror, cos * dy - sin * dx], dim=-1)
