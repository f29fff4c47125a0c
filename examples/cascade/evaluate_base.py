"""Does the base model show what the prompt names? Prompts, samples, and what the judge reads from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from judge import ATTRIBUTES, NONE, Judge, truth
from ledger import Ledger, Progress, Row
from material import Captions
from mean_error import over_groups
from safetensors.torch import load_file
from sampling import SAMPLING, find_weights, stage_for
from stages import BASE

from vdm_blocks.checkpoint import file_hash, load_unet, save_tensors
from vdm_blocks.data.captions import caption
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.scenes import HeldOut, SpriteScene, draw_scene
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.types import Conditioning
from vdm_blocks.video.pixels import from_bytes, to_bytes

STREAM = 500_001
"""Scenes that neither the cascade nor the judge was trained on."""
SPLITS = ("seen", "held out")
RASTER = Raster(frames=BASE.grid.frames, height=BASE.grid.height, width=BASE.grid.width, fps=BASE.grid.fps)


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
        """All that a video depends on besides prompt and seed."""
        how = f"{replace(SAMPLING[BASE.name], steps=self.steps)} {BASE.schedule} {BASE.noise}"
        return f"base {file_hash(self.weights)[:12]} {how}"

    def videos(self, made: Sequence[Prompt]) -> dict[str, tuple[Prompt, int]]:
        """The videos that are wanted, by key."""
        settings = self.settings
        return {
            f"{settings} {p.split} {p.index} {p.text!r} {seed}": (p, seed)
            for seed in self.seeds
            for p in made
        }

    def keys(self, made: Sequence[Prompt]) -> list[str]:
        """The keys of what the judge reads from those videos and from the renders of their scenes, in their order."""
        judge = file_hash(self.judge)[:12]
        return [f"{key} {drawn(p.scene)} {judge}" for key, (p, _) in self.videos(made).items()]


def drawn(scene: SpriteScene) -> str:
    """Another for each scene, and whenever a scene is drawn otherwise."""
    return hashlib.blake2b(repr(scene).encode(), digest_size=6).hexdigest()


def base_run(folder: Path, judge: Path, *, steps: int | None, count: int, seeds: Sequence[int]) -> BaseRun:
    """A run with the weights in `folder`, `steps` None for the demo's own.

    Raises:
        ValueError: weights that are missing or do not fit the plan.
    """
    steps = SAMPLING[BASE.name].steps if steps is None else steps
    return BaseRun(
        weights=find_weights(BASE, folder), judge=judge, steps=steps, count=count, seeds=tuple(seeds)
    )


def sample(
    run: BaseRun, captions: Captions, made: Sequence[Prompt], folder: Path, *, batch: int, quiet: bool
) -> None:
    """Makes the videos that are not in `folder` yet, a few prompts at a time."""
    videos = run.videos(made)
    todo = [key for key in videos if not kept(folder, key).exists()]
    if not todo:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stage = stage_for(BASE, load_unet(run.weights), replace(SAMPLING[BASE.name], steps=run.steps))
    progress = Progress("base: videos", len(todo), quiet=quiet)
    for start in range(0, len(todo), batch):
        part = todo[start : start + batch]
        text, mask = captions([videos[key][0].text for key in part])
        seeds = [seed_of(*videos[key]) for key in part]
        for key, video in zip(
            part, stage.run(Conditioning(text=text, text_mask=mask), seeds=seeds), strict=True
        ):
            save_tensors(kept(folder, key), {"frames": to_bytes(video)}, {"key": key})
        progress(len(part))


def kept(folder: Path, key: str) -> Path:
    """Where a video is kept."""
    return folder / f"{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}.safetensors"


def read(
    run: BaseRun, pack: SpritePack, made: Sequence[Prompt], folder: Path, ledger: Ledger, *, quiet: bool
) -> None:
    """Lets the judge read every video that it has not read yet, and the render of the same scene."""
    todo = set(ledger.missing(run.keys(made)))
    if not todo:
        return
    judge = Judge.load(run.judge)
    progress = Progress("base: readings", len(todo), quiet=quiet)
    for key, (video_key, (prompt, seed)) in zip(run.keys(made), run.videos(made).items(), strict=True):
        if key not in todo:
            continue
        video = from_bytes(load_file(kept(folder, video_key))["frames"])
        render = render_sprites(pack, prompt.scene, RASTER)
        seen, true = judge.read(torch.stack([video, render]))
        row: Row = {"split": prompt.split, "index": prompt.index, "seed": seed, "prompt": prompt.text}
        ledger.add(key, {**row, "named": prompt.named, "video": seen, "render": true})
        progress()


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
            if len({row["index"] for row in use}) < 2:
                continue
            table.append(
                {
                    "split": split,
                    "attribute": name,
                    "prompts": len({row["index"] for row in use}),
                    "videos": len(use),
                    **_share("video", use, wanted),
                    **_share("render", use, wanted),
                    "chance": _chance(use, wanted),
                }
            )
    return table


def fits(read: Row, named: Row, wanted: Sequence[str]) -> bool:
    """Whether the judge read what was named."""
    return all(read[key] == named[key] for key in wanted)


def _share(what: str, rows: Sequence[Row], wanted: Sequence[str]) -> Row:
    """Of the prompts: the videos of one with other seeds are no more prompts."""
    share, error = over_groups((row["index"], float(fits(row[what], row["named"], wanted))) for row in rows)
    return {what: share, f"{what} error": error}


def _chance(rows: Sequence[Row], wanted: Sequence[str]) -> float:
    others = [fits(a["video"], b["named"], wanted) for a in rows for b in rows if a["prompt"] != b["prompt"]]
    return sum(others) / max(len(others), 1)
