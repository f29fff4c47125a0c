"""A stage of the example's cascade with a transformer in the place of its U-Net: one entry is changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract import awaken
from sampling import SAMPLING, stage_for
from stages import PLANS, Plan

from vdm_blocks.cascade import Cascade, Grid, Stage
from vdm_blocks.checkpoint import load_network, save_network
from vdm_blocks.models import (
    FactorizedSpec,
    JointSpec,
    LevelSpec,
    TextAttentionSpec,
    TransformerSpec,
    UNetSpec,
    VideoTransformer,
    VideoUNet,
)
from vdm_blocks.types import Conditioning

GRIDS = (
    Grid(frames=2, height=8, width=12, fps=3),
    Grid(frames=4, height=8, width=12, fps=6),
    Grid(frames=4, height=16, width=24, fps=6),
)
TEXT = 6
COND = Conditioning(text=torch.ones(1, 3, TEXT), text_mask=torch.ones(1, 3, dtype=torch.bool))


def stage(plan: Plan, grid: Grid, network: VideoUNet | VideoTransformer) -> Stage:
    one_step = replace(SAMPLING[plan.name], steps=1)
    return stage_for(replace(plan, grid=grid), network, one_step)  # type: ignore[arg-type, unused-ignore]


def unet(plan: Plan) -> VideoUNet:
    level = LevelSpec(channels=8, text=TextAttentionSpec(heads=1))
    net = awaken(
        VideoUNet(
            UNetSpec(
                levels=(level,), cond_channels=plan.unet.cond_channels, fold=2, embedding=8, text_width=TEXT
            )
        )
    )
    assert isinstance(net, VideoUNet)
    return net


@pytest.mark.parametrize("changed", range(3), ids=[plan.name for plan in PLANS[:3]])
def test_any_stage_may_be_a_transformer(changed: int, tmp_path: Path) -> None:
    stages = [stage(plan, grid, unet(plan)) for plan, grid in zip(PLANS, GRIDS, strict=False)]
    plan = PLANS[changed]
    spec = TransformerSpec(
        width=12,
        depth=1,
        heads=2,
        mixing=JointSpec() if changed == 0 else FactorizedSpec(),
        cond_channels=plan.unet.cond_channels,
        embedding=8,
        text_width=TEXT,
    )
    network = awaken(VideoTransformer(spec))
    assert isinstance(network, VideoTransformer)
    save_network(tmp_path / "stage.safetensors", network)
    before = Cascade(stages).sample(COND, seeds=[3])
    stages[changed] = stage(plan, GRIDS[changed], load_network(tmp_path / "stage.safetensors"))
    video = Cascade(stages).sample(COND, seeds=[3])
    assert video.shape == before.shape == (1, 3, 4, 16, 24)
    assert video.isfinite().all()
    assert not torch.equal(video, before)
