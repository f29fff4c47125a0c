"""Does the base model show what the prompt names? Prompts, samples, and what the judge reads from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from judge import ATTRIBUTES, NONE, Judge, truth
from ledger import Ledger, Progress, Row
from material import Captions
from sampling import SAMPLING, find_weights, stage_for
from stages import BASE

from vdm_blocks.checkpoint import file_hash, load_unet
from vdm_blocks.data.captions import caption
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.scenes import HeldOut, SpriteScene, draw_scene
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.types import Conditioning

STREAM = 500_001
"""Scenes that neither the cascade nor the judge was trained on."""
SPLITS = ("seen", "held out")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt, the scene that it describes, and what it names."""

    split: str
    index: int
    scene: SpriteScene
    text: str

    @property
    def named(self) -> dict[str, str]:
        """The true answers, of those attributes that the prompt mentions."""
        said = dict(truth(self.scene))
        if not self.scene.says_place:
            del said["place"]
        return {name: word for name, word in said.items() if word != NONE}


def prompts(pack: SpritePack, held_out: HeldOut, count: int) -> list[Prompt]:
    """Half of seen combinations, half of held-out ones, the two in turn."""
    made = []
    for number in range(count):
        split, index = SPLITS[number % 2], number // 2
        only = split == "held out"
        scene = draw_scene(pack.concepts, STREAM, index, held_out=held_out, only_held_out=only)
        made.append(Prompt(split=split, index=index, scene=scene, text=caption(scene)))
    return made


@dataclass(frozen=True, kw_only=True)
class BaseRun:
    """One way to sample the base model, and on what.

    Attributes:
        weights: the model's file.
        judge: the judge's file.
        steps: of the sampler.
        count: how many prompts.
        seeds: one video a prompt for each.
    """

    weights: Path
    judge: Path
    steps: int
    count: int
    seeds: tuple[int, ...]

    @property
    def settings(self) -> str:
        """All that a measurement depends on besides prompt and seed."""
        sampling = replace(SAMPLING[BASE.name], steps=self.steps)
        return f"base {file_hash(self.weights)[:12]} {file_hash(self.judge)[:12]} {sampling}"

    def keys(self, made: Sequence[Prompt]) -> dict[str, tuple[Prompt, int]]:
        """What is to be measured, by key."""
        settings = self.settings
        return {f"{settings} {p.split} {p.index} {seed}": (p, seed) for seed in self.seeds for p in made}


def base_run(folder: Path, judge: Path, *, steps: int | None, count: int, seeds: Sequence[int]) -> BaseRun:
    """A run with the weights in `folder`, `steps` None for the demo's own.

    Raises:
        ValueError: weights that are missing or do not fit the plan.
    """
    steps = SAMPLING[BASE.name].steps if steps is None else steps
    return BaseRun(
        weights=find_weights(BASE, folder), judge=judge, steps=steps, count=count, seeds=tuple(seeds)
    )


def measure(
    run: BaseRun,
    pack: SpritePack,
    captions: Captions,
    made: Sequence[Prompt],
    ledger: Ledger,
    *,
    batch: int,
    quiet: bool,
) -> None:
    """Samples what the ledger has not got, a few prompts at a time, and lets the judge read it."""
    keys = run.keys(made)
    todo = ledger.missing(keys)
    if not todo:
        return
    stage = stage_for(BASE, load_unet(run.weights), replace(SAMPLING[BASE.name], steps=run.steps))
    judge = Judge.load(run.judge)
    raster = Raster(
        frames=BASE.grid.frames, height=BASE.grid.height, width=BASE.grid.width, fps=BASE.grid.fps
    )
    progress = Progress("base: videos", len(todo), quiet=quiet)
    for start in range(0, len(todo), batch):
        part = [(key, *keys[key]) for key in todo[start : start + batch]]
        text, mask = captions([prompt.text for _, prompt, _ in part])
        seeds = [seed_of(prompt, seed) for _, prompt, seed in part]
        videos = stage.run(Conditioning(text=text, text_mask=mask), seeds=seeds)
        renders = torch.stack([render_sprites(pack, prompt.scene, raster) for _, prompt, _ in part])
        read = zip(judge.read(videos), judge.read(renders), strict=True)
        for (key, prompt, seed), (video, render) in zip(part, read, strict=True):
            row: Row = {"split": prompt.split, "index": prompt.index, "seed": seed, "prompt": prompt.text}
            ledger.add(key, {**row, "named": prompt.named, "video": video, "render": render})
        progress(len(part))


def seed_of(prompt: Prompt, seed: int) -> int:
    """A noise of its own for every prompt and seed."""
    return seed * 1_000_003 + prompt.index * 2 + SPLITS.index(prompt.split)


def summary(rows: Sequence[Row]) -> list[Row]:
    """Per split and attribute: how often video and render were read as named, with standard errors, and chance.

    Chance is how often the reading of a video fits another prompt: what a model would score that made equally good
    videos of whatever it liked.
    """
    table = []
    for split in SPLITS:
        own = [row for row in rows if row["split"] == split]
        for name in (*ATTRIBUTES, "object, colour and motion"):
            wanted = ("object", "color", "motion") if name not in ATTRIBUTES else (name,)
            use = [row for row in own if all(key in row["named"] for key in wanted)]
            if len(use) < 2:
                continue
            table.append(
                {
                    "split": split,
                    "attribute": name,
                    "prompts": len({row["index"] for row in use}),
                    "videos": len(use),
                    **_share("video", [fits(row["video"], row["named"], wanted) for row in use]),
                    **_share("render", [fits(row["render"], row["named"], wanted) for row in use]),
                    "chance": _chance(use, wanted),
                }
            )
    return table


def fits(read: Row, named: Row, wanted: Sequence[str]) -> bool:
    """Whether the judge read what was named."""
    return all(read[key] == named[key] for key in wanted)


def _share(what: str, hits: Sequence[bool]) -> Row:
    share = sum(hits) / len(hits)
    return {what: share, f"{what} error": (share * (1 - share) / (len(hits) - 1)) ** 0.5}


def _chance(rows: Sequence[Row], wanted: Sequence[str]) -> float:
    others = [fits(a["video"], b["named"], wanted) for a in rows for b in rows if a["prompt"] != b["prompt"]]
    return sum(others) / max(len(others), 1)
