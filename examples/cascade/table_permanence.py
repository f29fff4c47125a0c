"""Does a thing stay what it is behind a cover? Ray-cast scenes of known truth, for the stages and for the base."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from material import lower
from mean_error import over_groups
from stages import PLANS
from torch import Tensor

from vdm_blocks.conditioning.upsample import blend_frames, upsample_bicubic
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.raycast import render_solids, solid_truth
from vdm_blocks.data.scenes import generator
from vdm_blocks.data.solid_captions import solid_caption
from vdm_blocks.data.solids import Camera, Solid, SolidScene
from vdm_blocks.metrics import color_mask, permanence, sight, track_error

FINE = PLANS[2].grid
RASTER = Raster(frames=FINE.frames, height=FINE.height, width=FINE.width, fps=FINE.fps)
PAIRS = (("red", "blue"), ("green", "purple"), ("blue", "yellow"), ("purple", "green"), ("orange", "blue"))
"""Of the thing and its cover, far apart in hue."""
Reading = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cover:
    """A thing that passes behind another, and its truth on the grid of stage 3.

    Attributes:
        scene: the scene.
        video: (1, 3, T, H, W).
        visible: (1, T) share of the thing that nothing hides.
        tracks: (1, T, 2) row and column of its centre.
    """

    scene: SolidScene
    video: Tensor
    visible: Tensor
    tracks: Tensor

    @property
    def caption(self) -> str:
        """As the training has it."""
        return solid_caption(self.scene)

    @property
    def first(self) -> Tensor:
        """What a perfect base would have made, (1, 3, 16, 24, 40)."""
        grid = PLANS[0].grid
        return lower(self.video, *FINE.over(grid), images=False)


def cover(number: int) -> Cover:
    """Scene `number` of those, drawn by no training."""
    rng = generator("cover", number)
    side = rng.choice((-1, 1))
    thing, other = PAIRS[number % len(PAIRS)]
    subject = Solid(
        shape=rng.choice(("sphere", "cylinder", "cone")), color=thing, size=rng.uniform(0.45, 0.55),
        y=rng.uniform(1.5, 1.8), dx=side * rng.uniform(5.6, 6.2),
    )  # fmt: skip
    scene = SolidScene(
        subject=subject,
        motion="moves right" if side > 0 else "moves left",
        other=Solid(shape="box", color=other, size=0.9, y=-0.2, yaw=rng.uniform(-0.1, 0.1)),
        relation="behind",
        camera=Camera(elevation=rng.uniform(0.12, 0.18)),
        sky=((0.62, 0.64, 0.70), (0.86, 0.87, 0.89)),
        floor=((0.86, 0.84, 0.80), (rng.uniform(0.6, 0.7),) * 3),
    )
    truth = solid_truth(scene, RASTER)
    video = render_solids(scene, RASTER)[None]
    return Cover(scene=scene, video=video, visible=truth.visible[None, :, 0], tracks=truth.tracks[None, :, 0])


def read(video: Tensor, known: Cover) -> Reading:
    """What became of the thing in a video of stage 3, against the truth; None where it was not seen on both sides."""
    mask = color_mask(video, COLORS[known.scene.subject.color], least=0.2)
    found = permanence(video, mask, known.visible)
    away = track_error(sight(video, mask), known.tracks, known.visible > 0.97, height=RASTER.height)
    named = {**found._asdict(), "track": away.distance, "missed": away.missed}
    return {"kept": float(found.kept()), **{name: _plain(value) for name, value in named.items()}}


def read_base(video: Tensor, color: str) -> Reading:
    """What a base's own video (1, 3, T, H, W) shows of a thing of this colour, without a truth to compare with.

    `found`: the share of frames that show the colour; `passes`: whether it is seen twice, then not, then twice again;
    `kept`: whether it did, and came out as it went in.
    """
    mask = color_mask(video, COLORS[color], least=0.2)
    shown = sight(video, mask).area.isfinite()
    passage = _passage(shown[0].tolist())
    kept = False
    if passage is not None:
        found = permanence(video[:, :, passage], mask[:, passage], shown[:, passage].double())
        kept = bool(found.kept(returned=0.0, shape=0.4, speed=0.5))
    return {
        "found": float(shown.double().mean()), "passes": float(passage is not None), "kept": float(kept)
    }  # fmt: skip


def _passage(shown: Sequence[bool]) -> slice | None:
    """From the first frame that shows the thing to the last, if it is seen twice, then not, then twice again."""
    seen = [frame for frame, is_shown in enumerate(shown) if is_shown]
    unseen = [frame for frame in range(seen[0], seen[-1]) if not shown[frame]] if seen else []
    if not unseen:
        return None
    before, after = (frame < unseen[0] for frame in seen), (frame > unseen[-1] for frame in seen)
    return slice(seen[0], seen[-1] + 1) if min(sum(before), sum(after)) >= 2 else None


BASELINES = {
    "truth": "ground truth: the render",
    "swapped": "baseline: a larger thing of another shape and hue comes out",
    "blended": "baseline: the true first stage, bicubic, its frames blended",
    "frozen": "baseline: the first frame, held",
}


def baseline(name: str, known: Cover) -> Tensor:
    """A video whose result is known beforehand."""
    if name == "frozen":
        return known.video[:, :, :1].expand_as(known.video)
    if name == "blended":
        return blend_frames(upsample_bicubic(known.first, FINE.height, FINE.width), FINE.frames)[:, :3]
    if name == "swapped":
        subject = replace(known.scene.subject, shape="box", size=1.5 * known.scene.subject.size, color="pink")
        half = RASTER.frames // 2
        scenes = (known.scene,) * half + (replace(known.scene, subject=subject),) * (RASTER.frames - half)
        return render_solids(scenes, RASTER)[None]
    return known.video


def summary(readings: Mapping[tuple[int, int], Reading]) -> dict[str, dict[str, float | None]]:
    """Of readings by scene and seed: means, and standard errors over the scenes, of those that have each figure."""
    found: dict[str, dict[str, float | None]] = {}
    for name in next(iter(readings.values()), {}):
        own = [(scene, r[name]) for (scene, _), r in readings.items() if r[name] is not None]
        if own:
            mean, error = over_groups(own)
            found[name] = {"mean": mean, "error": error, "n": len(own)}
    return found


def _plain(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
