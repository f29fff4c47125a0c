"""Captioned clips with ground truth, made from a seed, and anyone's own folder of clips."""

from vdm_blocks.data.clips import FolderClips
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.raycast import SolidTruth, render_solids, solid_truth
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.sample import Batch, Sample, Source
from vdm_blocks.data.scenes import HeldOut, SpriteScene, draw_scene
from vdm_blocks.data.solid_source import SolidClips, SolidImages
from vdm_blocks.data.solids import SolidScene, draw_solids
from vdm_blocks.data.sprite_source import SpriteClips, SpriteImages
from vdm_blocks.data.sprites import Concept, SpritePack
from vdm_blocks.data.stream import Stream, View
from vdm_blocks.data.truth import sprite_truth

__all__ = [
    "Batch",
    "Concept",
    "FolderClips",
    "HeldOut",
    "Raster",
    "Sample",
    "SolidClips",
    "SolidImages",
    "SolidScene",
    "SolidTruth",
    "Source",
    "SpriteClips",
    "SpriteImages",
    "SpritePack",
    "SpriteScene",
    "Stream",
    "View",
    "draw_scene",
    "draw_solids",
    "render_solids",
    "render_sprites",
    "solid_truth",
    "sprite_truth",
]
