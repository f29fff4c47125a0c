"""Clips and packs of pictures made by the ray caster."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vdm_blocks.data.raster import Raster
from vdm_blocks.data.raycast import render_solids
from vdm_blocks.data.sample import Sample
from vdm_blocks.data.scenes import DURATION, HeldOut, generator
from vdm_blocks.data.solid_captions import solid_caption, solid_still_caption
from vdm_blocks.data.solids import draw_solids


@dataclass(frozen=True, kw_only=True)
class SolidClips:
    """Clips of ray-cast scenes.

    Args:
        held_out: combinations that are never drawn.
        only_held_out: draw nothing but them.
    """

    held_out: HeldOut | None = None
    only_held_out: bool = False

    @property
    def duration(self) -> float:
        """Seconds that a clip lasts."""
        return DURATION

    def sample(self, seed: int, index: int, raster: Raster) -> Sample:
        """Clip number `index` of the stream `seed`, seen on `raster`."""
        scene = draw_solids(seed, index, held_out=self.held_out, only_held_out=self.only_held_out)
        video = render_solids(scene, raster)
        return Sample(
            video=video, captions=(solid_caption(scene),), fps=raster.fps, scenes=(scene,), raster=raster
        )


@dataclass(frozen=True, kw_only=True)
class SolidImages:
    """Packs of T independent pictures of T ray-cast scenes, each with a caption of its own.

    Args:
        held_out: combinations that are never drawn.
        only_held_out: draw nothing but them.
    """

    held_out: HeldOut | None = None
    only_held_out: bool = False

    @property
    def duration(self) -> float:
        """Seconds that a clip lasts."""
        return DURATION

    def sample(self, seed: int, index: int, raster: Raster) -> Sample:
        """Pack number `index` of the stream `seed`: each scene at a moment of its own."""
        first = index * raster.frames
        scenes = tuple(
            draw_solids(seed, first + i, held_out=self.held_out, only_held_out=self.only_held_out)
            for i in range(raster.frames)
        )
        rng = generator("moments", seed, index)
        times = torch.tensor([rng.uniform(0, scene.duration) for scene in scenes], dtype=torch.float64)
        return Sample(
            video=render_solids(scenes, raster, times=times),
            captions=tuple(solid_still_caption(scene) for scene in scenes),
            fps=0.0,
            images=True,
            scenes=scenes,
            raster=raster,
        )
