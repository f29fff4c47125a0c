"""What a stage can do by now: a sheet of samples from its averaged weights, made while it trains."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from material import Captions, lower, raise_
from sampling import SAMPLING, Constant, stage_for
from stages import Plan

from vdm_blocks import Batch, Conditioning, Grid, VideoTransformer, VideoUNet, contact_sheet

PROMPTS = (
    "a penguin dances in front of a red umbrella",
    "a tiger by the sea",
    "a blue car moves left in the desert",
    "a yellow star grows at sunset",
)


def peek(
    path: Path,
    plan: Plan,
    before: Plan | None,
    network: VideoUNet | VideoTransformer,
    captions: Captions,
    batch: Batch,
) -> None:
    """Saves a sheet: for the base, clips of four prompts; for the others, the low video, the sample and the truth."""
    sampling = replace(SAMPLING[plan.name], steps=12, tile=None, dtype=torch.float32)
    if before is None:
        sampling = replace(sampling, guidance=Constant(scale=4.0))
    stage = stage_for(plan, copy.deepcopy(network).eval(), sampling)
    if before is None:
        text, mask = captions(PROMPTS)
        videos = stage.run(Conditioning(text=text, text_mask=mask), seeds=range(len(PROMPTS)))
        contact_sheet(path, list(videos), PROMPTS, cell_height=96)
        return
    clips = [i for i, pack in enumerate(batch.images.tolist()) if not pack][:2]
    if not clips:
        return
    truth = batch.video[clips]
    names = [batch.captions[i][0] for i in clips]
    frames, height, width = truth.shape[2:]
    stage = replace(stage, grid=Grid(frames=frames, height=height, width=width, fps=plan.grid.fps))
    low = lower(truth, *plan.grid.over(before.grid), images=False)
    text, mask = captions(names)
    made = stage.run(Conditioning(text=text, text_mask=mask), low, seeds=range(len(clips)))
    raised = raise_(low, plan, truth.shape)[:, :3]
    rows = [video for trio in zip(raised, made, truth, strict=True) for video in trio]
    labels = [f"{name}: {what}" for name in names for what in ("given", "made", "true")]
    contact_sheet(path, rows, labels, cell_height=96)
