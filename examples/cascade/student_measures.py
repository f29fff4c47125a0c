"""What a distilled stage is measured by: held-out clips, and how far samples are from them and from the teacher's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from evaluate_base import RASTER, prompts
from evaluate_stages import STREAM, factors
from judge import NONE, Judge
from material import HERE, Captions, lower
from stages import Plan
from torch import Tensor

from vdm_blocks.cascade import Grid, Stage
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.sample import Source
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.solid_source import SolidClips
from vdm_blocks.data.sprite_source import SpriteClips
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.stream import View
from vdm_blocks.types import Conditioning

VIEWS: dict[str, tuple[int, tuple[int, int] | None]] = {
    "2-tsr": (24, None),
    "3-ssr": (8, None),
    "4-ssr": (4, (96, 160)),
    "5-tsr": (8, (64, 96)),
    "6-tsr": (8, (64, 96)),
    "7-ssr": (4, (128, 192)),
}
"""Frames, and rows and columns of a crop (None: the whole picture), small enough for 128 steps of a stage."""
PATCH = (2, 4, 4)
"""Frames, rows and columns of the patches whose distributions are compared."""
JUDGE = HERE / "judge" / "judge.safetensors"
MOST = 768
"""Patches taken of a video, evenly."""


@dataclass(frozen=True)
class Case:
    """A held-out clip (1, 3, T, H, W), what it is called, and what its caption names (of the base's clips)."""

    video: Tensor
    caption: str
    named: dict[str, str]


@cache
def case(plan: Plan, index: int) -> Case:
    """Held-out clip `index` of a stage, on the part of its grid that is measured; sprites and solids in turn."""
    if plan.unet.cond_channels == 0:
        pack, held_out = SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json")
        prompt = [p for p in prompts(pack, held_out, 2 * index + 2) if p.split == "held out"][index]
        named = {name: word for name, word in prompt.named.items() if word != NONE}
        return Case(render_sprites(pack, prompt.scene, RASTER)[None], prompt.text, named)
    source = held_out_sources()[index % 2]
    frames, crop = VIEWS[plan.name]
    grid, (skip, shrink) = plan.grid, factors(plan)
    view = View(
        frames=frames, height=grid.height, width=grid.width, fps=grid.fps, crop=crop, shrink=shrink, skip=skip
    )
    sample = source.sample(STREAM, index // 2, view.raster(STREAM, index // 2, duration=source.duration))
    return Case(sample.video[None], sample.captions[0], {})


@cache
def held_out_sources() -> tuple[Source, Source]:
    """Sprites and solids, of the combinations that training never drew."""
    held_out, pack = HeldOut.load(HERE / "heldout.json"), SpritePack.load(HERE / "sprites")
    return (
        SpriteClips(pack=pack, held_out=held_out, only_held_out=True),
        SolidClips(held_out=held_out, only_held_out=True),
    )


@cache
def judge() -> Judge:
    """The shipped one, loaded once."""
    return Judge.load(JUDGE)


def read_of(video: Tensor, named: dict[str, str]) -> float:
    """The share of what a caption names that the judge reads in its video (1, 3, T, H, W)."""
    answer = judge().read(video)[0]
    return sum(answer[name] == word for name, word in named.items()) / len(named)


def grid_of(plan: Plan) -> Grid:
    """The part of a stage's grid that is measured."""
    frames, crop = VIEWS.get(plan.name, (plan.grid.frames, None))
    rows, columns = crop or (plan.grid.height, plan.grid.width)
    return Grid(frames=frames, height=rows, width=columns, fps=plan.grid.fps)


def sampled(plan: Plan, stage: Stage, captions: Captions, index: int, seed: int) -> tuple[Tensor, float]:
    """The stage's video of clip `index`, (1, 3, T, H, W), given the true clip on the grid before.

    And the processor's seconds, which other work on the machine does not lengthen as it does the clock's.
    """
    own = case(plan, index)
    text, mask = captions([own.caption])
    low = None if plan.unet.cond_channels == 0 else lower(own.video, *factors(plan), images=False)
    stage = replace(stage, grid=grid_of(plan), dtype=torch.float32)
    began = time.process_time()
    video = stage.run(Conditioning(text=text, text_mask=mask), low, seeds=[seed])
    return video, time.process_time() - began


def patches(video: Tensor) -> Tensor:
    """(N, D): pieces of `PATCH` of a video (1, 3, T, H, W), none overlapping, at most `MOST` of them."""
    x = video[0]
    for axis, size in enumerate(PATCH, start=1):
        x = x.unfold(axis, size, size)
    flat = x.permute(1, 2, 3, 0, 4, 5, 6).flatten(0, 2).flatten(1)
    return flat[:: max(1, -(-len(flat) // MOST))]


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, unbiased: 0 on average where (N, D) and (M, D) have one distribution."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return float(2 * torch.cdist(a, b).mean() - within(a) - within(b))


def quality(made: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    """How far patches of samples are from patches of held-out clips, as they are and without their means.

    The second part sees what the first drowns: detail, grain, and change between frames.
    """
    a, b = (torch.cat([patches(video) for video in videos]) for videos in (made, true))
    centred = [x - x.mean(dim=1, keepdim=True) for x in (a, b)]
    return energy_distance(a, b) + energy_distance(*centred)


def judged(plan: Plan, stage: Stage, captions: Captions, *, seeds: int, clips: int) -> list[float]:
    """`quality` at each seed, on `clips` clips of its own."""
    found = []
    for seed in range(seeds):
        own = range(seed * clips, (seed + 1) * clips)
        made = [sampled(plan, stage, captions, index, seed)[0] for index in own]
        found.append(quality(made, [case(plan, index).video for index in own]))
    return found
