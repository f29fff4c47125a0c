"""Does a thing stay what it is behind a cover? Ray-cast scenes of known truth, for the stages and for the base."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from material import lower
from stages import PLANS
from torch import Tensor

from vdm_blocks.conditioning.upsample import blend_frames, upsample_bicubic
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.raycast import render_solids, solid_truth
from vdm_blocks.data.scenes import generator
from vdm_blocks.data.solid_captions import solid_caption
from vdm_blocks.data.solids import Camera, Solid, SolidScene
from vdm_blocks.metrics import Sightings, color_mask, permanence, sight, track_error

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
    seen = sight(video, mask)
    shown = seen.area.isfinite()
    passes = _passes(seen)
    kept = False
    if passes:
        kept = bool(permanence(video, mask, shown.double()).kept(returned=0.0, shape=0.4, speed=0.5))
    return {"found": float(shown.double().mean()), "passes": float(passes), "kept": float(kept)}


def _passes(seen: Sightings) -> bool:
    shown = seen.area[0].isfinite()
    when = shown.nonzero().flatten().tolist()
    if len(when) < 4:
        return False
    gap = (~shown[when[0] : when[-1]]).nonzero().flatten()
    if len(gap) == 0:
        return False
    first, last = when[0] + int(gap[0]), when[0] + int(gap[-1])
    return bool(shown[:first].sum() >= 2) and bool(shown[last:].sum() >= 2)


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


def summary(readings: Sequence[Sequence[Reading]]) -> dict[str, dict[str, float]]:
    """Of readings by seed: means, and standard errors over the seeds, or over the scenes where there is one seed."""
    found = {}
    for name in readings[0][0]:
        by_seed = [[r[name] for r in own if r[name] is not None] for own in readings]
        means = [statistics.fmean(own) for own in by_seed if own]
        if not means:
            continue
        spread = means if len(means) > 1 else next(own for own in by_seed if own)
        error = statistics.stdev(spread) / len(spread) ** 0.5 if len(spread) > 1 else math.nan
        found[name] = {"mean": statistics.fmean(means), "error": error}
    return found


def _plain(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
