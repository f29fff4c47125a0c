"""What the judge reads in a base's videos of what their captions name, over many captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from evaluate_base import drawn, fits, kept, prompts, seed_of
from ledger import Ledger, Progress, Row
from material import HERE, Captions
from safetensors.torch import load_file
from student_measures import JUDGE, judge

from vdm_blocks.cascade import Stage
from vdm_blocks.checkpoint import file_hash, save_tensors
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.types import Conditioning
from vdm_blocks.video.pixels import from_bytes, to_bytes

TOGETHER = 4
"""Videos that are made at once."""


def readings(
    stage: Stage,
    settings: str,
    count: int,
    captions: Captions,
    ledger: Ledger,
    folder: Path,
    *,
    quiet: bool,
) -> list[Row]:
    """Of each of the evaluation's first `count` prompts: how many things it names, how many of them the judge reads.

    Half of the prompts are of combinations that training never drew. Videos are kept in `folder`; `settings` is all
    that they depend on besides prompt and noise.
    """
    made = prompts(SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json"), count)
    files = [kept(folder, f"read {settings} {p.text!r}") for p in made]
    keys = [f"read {settings} {p.text!r} {drawn(p.scene)} {file_hash(JUDGE)[:12]}" for p in made]
    lacking = [i for i, key in enumerate(keys) if key not in ledger.rows]
    todo = [i for i in lacking if not files[i].is_file()]
    progress = Progress("base: videos to read", len(todo), quiet=quiet)
    for start in range(0, len(todo), TOGETHER):
        part = todo[start : start + TOGETHER]
        text, mask = captions([made[i].text for i in part])
        seeds = [seed_of(made[i], 0) for i in part]
        videos = stage.run(Conditioning(text=text, text_mask=mask), seeds=seeds)
        folder.mkdir(parents=True, exist_ok=True)
        for i, video in zip(part, videos, strict=True):
            save_tensors(files[i], {"frames": to_bytes(video)}, {})
        progress(len(part))
    for i in lacking:
        seen = judge().read(torch.stack([from_bytes(load_file(files[i])["frames"])]))[0]
        right = [name for name in made[i].named if fits(seen, made[i].named, [name])]
        ledger.add(keys[i], {"named": len(made[i].named), "right": len(right), "object": "object" in right})
    return ledger.present(keys)


def total(rows: Sequence[Row]) -> dict[str, int]:
    """Of all prompts together."""
    names = ("named", "right", "object")
    return {"prompts": len(rows)} | {name: sum(int(row[name]) for row in rows) for name in names}
