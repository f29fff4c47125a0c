"""Ground truth of rendered scenes: who is where, and how much of it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vdm_blocks.data.raster import Raster
from vdm_blocks.data.render import draw_objects, scenes_and_times
from vdm_blocks.data.scenes import SpriteScene
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.tracks import poses


class Truth(NamedTuple):
    """What is known of T frames and K objects, K the most objects that any scene has.

    Args:
        ids: (T, H, W) int64: 0 background, k the k-th object of the scene: 1 the subject, 2 the other.
        boxes: (T, K, 4) top, left, bottom, right in pixels of the rendered crop, of the visible part; zeros
            where nothing of the object is seen.
        visible: (T, K) share of the object's area in the crop that nothing hides; 0 when it is hidden or absent.
        tracks: (T, K, 2) row and column of its centre, in pixels of the rendered crop; NaN when absent.
    """

    ids: Tensor
    boxes: Tensor
    visible: Tensor
    tracks: Tensor


def boxes_of(ids: Tensor, count: int) -> Tensor:
    """(T, K, 4) top, left, bottom, right of ids 1 to K in (T, H, W); the ends are exclusive, none is zeros."""
    boxes = torch.zeros(len(ids), count, 4, dtype=torch.int64)
    for k in range(count):
        seen = ids == k + 1
        for axis, lines in enumerate((seen.any(dim=2), seen.any(dim=1))):
            length = lines.shape[1]
            first = lines.int().argmax(dim=1)
            last = length - lines.flip(1).int().argmax(dim=1)
            any_seen = lines.any(dim=1)
            boxes[:, k, axis] = first * any_seen
            boxes[:, k, axis + 2] = last * any_seen
    return boxes


def sprite_truth(
    pack: SpritePack,
    scenes: SpriteScene | Sequence[SpriteScene],
    raster: Raster,
    *,
    times: Tensor | None = None,
) -> Truth:
    """The ground truth of what `render_sprites` draws from the same arguments.

    Raises:
        ValueError: as `render_sprites`.
    """
    scenes, t = scenes_and_times(scenes, raster, times)
    scenes = scenes * raster.frames if len(scenes) == 1 else scenes
    count = max(1 + (scene.other is not None) for scene in scenes)
    frames, rows, columns = raster.shape
    alpha = torch.zeros(frames, count, rows, columns)
    front = torch.zeros(frames, count)
    tracks = torch.full((frames, count, 2), float("nan"))
    for k in range(count):
        shown = [(i, scene.subject if k == 0 else scene.other) for i, scene in enumerate(scenes)]
        present = [(i, one) for i, one in shown if one is not None]
        which, objects = torch.tensor([i for i, _ in present]), [one for _, one in present]
        _, mask = draw_objects(pack, objects, raster, t[which], duration=scenes[0].duration)
        alpha[which, k] = mask[:, 0]
        pose = poses(tuple(one.track for one in objects), t[which], duration=scenes[0].duration)
        tracks[which, k, 0] = (pose.y * raster.height - raster.box[0]).float()
        tracks[which, k, 1] = (pose.x * raster.width - raster.box[1]).float()
        for i, one in present:
            front[i, k] = float(scenes[i].objects[-1] is one)
    seen = alpha.clone()
    if count == 2:
        seen[:, 0] = alpha[:, 0] * (1 - alpha[:, 1] * front[:, 1].view(-1, 1, 1))
        seen[:, 1] = alpha[:, 1] * (1 - alpha[:, 0] * front[:, 0].view(-1, 1, 1))
    most, winner = seen.max(dim=1)
    ids = (winner + 1) * (most > 0.5)
    area = alpha.sum(dim=(2, 3))
    visible = torch.where(area > 0, seen.sum(dim=(2, 3)) / area.clamp(min=1e-6), torch.zeros(()))
    return Truth(ids=ids, boxes=boxes_of(ids, count), visible=visible, tracks=tracks)
