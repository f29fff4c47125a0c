"""Clips and packs of pictures made of sprites."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vdm_blocks.data.captions import caption, still_caption
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.sample import Sample
from vdm_blocks.data.scenes import DURATION, HeldOut, draw_scene, generator
from vdm_blocks.data.sprites import SpritePack


@dataclass(frozen=True, kw_only=True)
class SpriteClips:
    """Clips of sprite scenes.

    Args:
        pack: the pictures.
        held_out: combinations that are never drawn.
        only_held_out: draw nothing but them.
    """

    pack: SpritePack
    held_out: HeldOut | None = None
    only_held_out: bool = False

    @property
    def duration(self) -> float:
        """Seconds that a clip lasts."""
        return DURATION

    def sample(self, seed: int, index: int, raster: Raster) -> Sample:
        """Clip number `index` of the stream `seed`, seen on `raster`."""
        scene = draw_scene(
            self.pack.concepts, seed, index, held_out=self.held_out, only_held_out=self.only_held_out
        )
        video = render_sprites(self.pack, scene, raster)
        return Sample(video=video, captions=(caption(scene),), fps=raster.fps, scenes=(scene,), raster=raster)


@dataclass(frozen=True, kw_only=True)
class SpriteImages:
    """Packs of T pictures of T sprite scenes, each with its own caption; a pack costs what a clip costs.

    Args:
        pack: the pictures.
        held_out: combinations that are never drawn.
        only_held_out: draw nothing but them.
    """

    pack: SpritePack
    held_out: HeldOut | None = None
    only_held_out: bool = False

    @property
    def duration(self) -> float:
        """Seconds that a clip lasts."""
        return DURATION

    def sample(self, seed: int, index: int, raster: Raster) -> Sample:
        """Pack number `index` of the stream `seed`: each scene at a moment of its own."""
        scenes = tuple(
            draw_scene(
                self.pack.concepts,
                seed,
                index * raster.frames + i,
                held_out=self.held_out,
                only_held_out=self.only_held_out,
            )
            for i in range(raster.frames)
        )
        rng = generator("moments", seed, index)
        times = torch.tensor([rng.uniform(0, scene.duration) for scene in scenes], dtype=torch.float64)
        return Sample(
            video=render_sprites(self.pack, scenes, raster, times=times),
            captions=tuple(still_caption(scene) for scene in scenes),
            fps=0.0,
            images=True,
            scenes=scenes,
            raster=raster,
        )
