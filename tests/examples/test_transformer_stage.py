"""A stage of the example's cascade with a transformer in the place of its U-Net: one entry is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract import awaken
from sampling import SAMPLING, stage_for
from stages import PLANS, Plan

from vdm_blocks.cascade import Cascade, Grid, Stage
from vdm_blocks.checkpoint import load_network, read_info, save_network
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
    return stage_for(replace(plan, grid=grid), network, one_step)


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


ROOT = Path(__file__).resolve().parents[2]
CHANGED = """
import runpy, sys
from dataclasses import replace
import stages
from vdm_blocks import FactorizedSpec, JointSpec, TransformerSpec

def transformer(plan, mixing):
    spec = TransformerSpec(
        width=24, depth=1, heads=2, mixing=mixing, patch=8, cond_channels=plan.unet.cond_channels, embedding=16,
        text_inner=8,
    )
    return replace(plan, unet=spec)

base, tsr, ssr, *rest = stages.PLANS
stages.PLANS = (
    transformer(base, JointSpec()), transformer(tsr, FactorizedSpec()), transformer(ssr, FactorizedSpec()), *rest
)
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""
"""The scripts as they are, with the entries of three stages changed in the list that they read."""


def run(script: str, *args: str) -> str:
    folder = ROOT / "examples" / "cascade"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))),
    }
    command = [sys.executable, "-c", CHANGED, str(folder / script), *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_transformers_are_trained_and_sampled_by_the_scripts_as_they_are(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    places = ("--weights", str(weights), "--out", str(tmp_path / "out"))
    for name in ("1-base", "2-tsr", "3-ssr"):
        wrote = run(
            "train.py", name, "--smoke", "--threads", "1", "--workers", "0", "--checkpointing", *places
        )
        assert f"{name} 3/3" in wrote
        info = read_info(weights / f"{name}.safetensors")
        assert isinstance(info.spec, TransformerSpec)
        assert info.notes["steps"] == "3"
    run("demo.py", "--prompt", "a cat", "--steps", "1", "--stages", "3", *places)
    assert (tmp_path / "out" / "3-ssr.mp4").stat().st_size > 1000
