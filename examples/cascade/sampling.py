"""How each stage is sampled, as data, and the cascade built from it and the shipped weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from stages import PLANS, Plan
from torch import Tensor, nn

from vdm_blocks.cascade import Grid, Stage
from vdm_blocks.checkpoint import load_network, read_info
from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.conditioning.upsample import blend_frames, upsample_bicubic
from vdm_blocks.denoisers import (
    ClassifierFreeGuidance,
    DynamicThreshold,
    ModelDenoiser,
    Oscillating,
    StaticThreshold,
)
from vdm_blocks.denoisers.residual import ResidualNetwork
from vdm_blocks.models import VideoTransformer, VideoUNet
from vdm_blocks.models.tiled import TiledNetwork
from vdm_blocks.sampling import DDIM, Ancestral, uniform_times
from vdm_blocks.types import Conditioning, Denoiser

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same guidance scale at every step; 1 is off."""

    scale: float = 6.0


@dataclass(frozen=True, kw_only=True)
class Swinging:
    """Oscillating guidance (arXiv 2210.02303, section 2.6)."""

    high: float = 15.0
    low: float = 1.0
    constant: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one stage is sampled.

    Attributes:
        steps: of a uniform grid.
        rule: the step rule.
        guidance: constant or swinging; for the stages beyond 48x80 the paper's is not published, and ours is off.
        tile: (frames, height, width) at a time, for a stage too large to be run whole.
        dtype: of the noisy video.
    """

    steps: int
    rule: DDIM | Ancestral = DDIM()  # noqa: RUF009 - frozen
    guidance: Constant | Swinging = Constant(scale=1.0)
    tile: tuple[int, int, int] | None = None
    dtype: torch.dtype = torch.float32


SAMPLING: dict[str, Sampling] = {
    "1-base": Sampling(steps=32, rule=Ancestral(gamma=0.0), guidance=Constant(scale=3.0)),
    "2-tsr": Sampling(steps=2, guidance=Constant(scale=1.5)),
    "3-ssr": Sampling(steps=2, guidance=Constant(scale=1.5)),
    "4-ssr": Sampling(steps=2),
    "5-tsr": Sampling(steps=2),
    "6-tsr": Sampling(steps=2, tile=(32, 192, 320)),
    "7-ssr": Sampling(steps=2, tile=(32, 768, 1280), dtype=torch.float16),
}
"""What looked best on a few clips. The base holds its things together longest with the smallest variance of the paper's
rule. The upper stages know most of what they make: two steps are nearest the truth, and more only add grain.
`evaluate.py` measures each stage as it is set here."""

OSCILLATING = ("1-base", "2-tsr", "3-ssr")
"""The stages that the paper guides by (15, 1) in turn; beyond 48x80 it saw artifacts and no gain."""


def oscillating(plan: Plan) -> Sampling:
    """A stage's sampling with the paper's oscillating guidance where the paper has it."""
    own = SAMPLING[plan.name]
    return replace(own, guidance=Swinging()) if plan.name in OSCILLATING else own


class Bfloat16(nn.Module):
    """A network run in bfloat16 throughout: half the memory traffic of autocast, which keeps norms in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(torch.bfloat16)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """As the network's own, in z_t's type."""
        out: Tensor = self.network(z_t.to(torch.bfloat16), logsnr, cond)
        return out.to(z_t.dtype)


def raise_time(video: Tensor, grid: Grid) -> Tensor:
    """Frames blended, with the mask of the known ones."""
    return blend_frames(video, grid.frames)


def raise_space(video: Tensor, grid: Grid) -> Tensor:
    """Bicubic."""
    return upsample_bicubic(video, grid.height, grid.width)


def find_weights(plan: Plan, folder: Path = WEIGHTS) -> Path:
    """The file of a stage's weights.

    Raises:
        ValueError: none there, or of another network than the plan's.
    """
    path = folder / f"{plan.name}.safetensors"
    if not path.is_file():
        raise ValueError(f"{path} is missing; train it: python examples/cascade/train.py {plan.name}")
    if read_info(path).spec != plan.unet:
        raise ValueError(f"{path} holds another network than stages.py plans for {plan.name}; train it anew")
    return path


def denoiser_for(plan: Plan, network: VideoUNet | VideoTransformer, sampling: Sampling) -> Denoiser:
    """A stage's denoiser: the network, tiled if it must be, in bfloat16, guided and thresholded."""
    run: nn.Module = Bfloat16(network)
    if network.spec.cond_channels:
        run = ResidualNetwork(run, detail_std=plan.detail)
    if sampling.tile is not None:
        margin = network.receptive_field()
        if margin is None:
            raise ValueError(
                f"the network of {plan.name} sees the whole video and cannot be run in tiles; leave its tile at None, "
                "or plan a U-Net without attention"
            )
        run = TiledNetwork(run, tile=sampling.tile, margin=margin, divisor=network.spec.divisor)
    denoiser = ModelDenoiser(run, schedule=plan.schedule)
    guidance = sampling.guidance
    if isinstance(guidance, Constant) and guidance.scale == 1.0:
        return StaticThreshold(denoiser)
    scale = (
        guidance.scale
        if isinstance(guidance, Constant)
        else Oscillating(
            high=guidance.high,
            low=guidance.low,
            constant=guidance.constant,
            times=uniform_times(sampling.steps),
        )
    )
    return DynamicThreshold(ClassifierFreeGuidance(denoiser, scale=scale))


def stage_for(plan: Plan, network: VideoUNet | VideoTransformer, sampling: Sampling | None = None) -> Stage:
    """A stage of the cascade around its network."""
    sampling = SAMPLING[plan.name] if sampling is None else sampling
    return Stage(
        name=plan.name,
        grid=plan.grid,
        denoiser=denoiser_for(plan, network, sampling),
        step=sampling.rule,
        times=uniform_times(sampling.steps),
        augmentation=ConditioningAugmentation() if plan.unet.cond_channels else None,
        snr=plan.snr,
        raise_=raise_time if plan.unet.cond_channels == 4 else raise_space,
        noise=plan.noise,
        dtype=sampling.dtype,
    )


def load_stage(plan: Plan, folder: Path = WEIGHTS) -> Stage:
    """A stage with its shipped weights."""
    return stage_for(plan, load_network(find_weights(plan, folder)))


def load_stages(count: int = len(PLANS), folder: Path = WEIGHTS) -> list[Stage]:
    """The first `count` stages; all files are checked before any is read."""
    for plan in PLANS[:count]:
        find_weights(plan, folder)
    return [load_stage(plan, folder) for plan in PLANS[:count]]
