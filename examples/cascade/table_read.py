"""What is read from each video of the table, and from the renders that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from evaluate_base import RASTER, Prompt
from judge import Judge
from ledger import Ledger, Progress, drawn_as
from torch import Tensor
from videotext import VideoTextEncoder

from vdm_blocks.checkpoint import file_hash
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.scenes import HeldOut, draw_scene
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.metrics import clip_score, dynamic_degree, flicker

REFERENCE_STREAM = 700_001
"""Scenes that no training and no prompt drew."""
Reading = dict[str, Any]


class Reader:
    """The judge and the video-text encoder, on 16 frames of 24x40."""

    def __init__(self, judge: Path, encoder: VideoTextEncoder) -> None:
        self.judge, self.encoder = Judge.load(judge), encoder
        self.name = f"{file_hash(judge)[:12]} {encoder.name}"
        self.texts: dict[str, Tensor] = {}

    def text(self, caption: str) -> Tensor:
        """(1, D), encoded once."""
        if caption not in self.texts:
            self.texts[caption] = self.encoder.encode_texts([caption])
        return self.texts[caption]

    def read(self, video: Tensor, prompt: Prompt) -> Reading:
        """All of one video (1, 3, T, H, W) of 24x40 or a multiple, told what it should show.

        `score`: the clip score; `embedding`: of the clip; `attributes`: whether each that the prompt names was read;
        `steadiness`: the mean cosine of neighbouring frames' embeddings, times 100; `change`, `flicker`: as in the
        metrics; `edge`: the share of values beyond 0.98 in magnitude.
        """
        video = on_grid(video)
        frames = self.encoder.encode_frames(video)
        answer = self.judge.read(video)[0]
        hits = {name: answer[name] == word for name, word in prompt.named.items()}
        whole = F.normalize(frames.mean(1), dim=1)[0]
        return {
            "score": float(clip_score(self.text(prompt.text), frames)),
            "embedding": [round(x, 5) for x in whole.tolist()],
            "attributes": hits,
            "steadiness": 100 * float(F.cosine_similarity(frames[0, 1:], frames[0, :-1], dim=1).mean()),
            "change": float(dynamic_degree(video)),
            "flicker": float(flicker(video)),
            "edge": float((video.abs() > 0.98).float().mean()),
        }


def on_grid(video: Tensor) -> Tensor:
    """(1, 3, T, H, W) as the base has it: the frames of its moments, its pixels the means of the finer ones."""
    frames, side = video.shape[2] // RASTER.frames, video.shape[3] // RASTER.height
    video = video[:, :, ::frames]
    return F.avg_pool3d(video, (1, side, side)) if side > 1 else video


def references(
    pack: SpritePack, held_out: HeldOut, reader: Reader, ledger: Ledger, count: int, *, quiet: bool
) -> Tensor:
    """(count, D) embeddings of other renders, half of them of held-out combinations, as the prompts are."""
    drawn = scenes_digest(pack, held_out)
    keys = [f"reference {number} {drawn} {reader.encoder.name}" for number in range(count)]
    progress = Progress("reference renders", len(ledger.missing(keys)), quiet=quiet)
    for number in (n for n, key in enumerate(keys) if key not in ledger.rows):
        video = reference_render(pack, held_out, number)
        frames = reader.encoder.encode_frames(video)
        embedding = F.normalize(frames.mean(1), dim=1)[0].tolist()
        ledger.add(keys[number], {"embedding": [round(x, 5) for x in embedding]})
        progress()
    return torch.tensor([row["embedding"] for row in ledger.present(keys)])


def reference_render(pack: SpritePack, held_out: HeldOut, number: int) -> Tensor:
    """(1, 3, T, H, W) render number `number` of that stream."""
    only = bool(number % 2)
    scene = draw_scene(pack.concepts, REFERENCE_STREAM, number // 2, held_out=held_out, only_held_out=only)
    return render_sprites(pack, scene, RASTER)[None]


def scenes_digest(pack: SpritePack, held_out: HeldOut) -> str:
    """Another whenever scenes are drawn or rendered otherwise: no reading of old renders stands in for new ones.

    Of the first two renders' bytes, one of a seen combination and one of a held-out one.
    """
    return drawn_as(torch.cat([reference_render(pack, held_out, number)[0] for number in range(2)], dim=1))


BASELINES = {
    "truth": "ground truth: the render of the prompt's scene",
    "shuffled": "baseline: that render, of another prompt",
    "frozen": "baseline: the middle frame of the right render, held",
    "mean": "baseline: the mean of 64 other renders",
    "noise": "baseline: noise",
}


class Baselines:
    """What stands in for the videos of prompts."""

    def __init__(self, pack: SpritePack, held_out: HeldOut, made: Sequence[Prompt]) -> None:
        self.pack, self.held_out, self.made = pack, held_out, made

    def __call__(self, name: str, number: int) -> Tensor:
        """(1, 3, T, H, W): baseline `name` of BASELINES, for the video of prompt `number`."""
        if name == "noise":
            draw = torch.Generator().manual_seed(number)
            return torch.randn(1, 3, *RASTER.shape, generator=draw).clamp_(-1, 1)
        if name == "mean":
            return self.mean
        other = self.made[(number + 2) % len(self.made)] if name == "shuffled" else self.made[number]
        video = render_sprites(self.pack, other.scene, RASTER)[None]
        middle = RASTER.frames // 2
        return video[:, :, [middle] * RASTER.frames] if name == "frozen" else video

    @cached_property
    def mean(self) -> Tensor:
        """(1, 3, T, H, W) of 64 renders."""
        return torch.cat([reference_render(self.pack, self.held_out, n) for n in range(64)]).mean(
            0, keepdim=True
        )
