"""How each stage is sampled, as data, and the cascade built from it and the shipped weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from material import raise_
from stages import PLANS, Plan
from torch import Tensor, nn

from vdm_blocks.cascade import Stage
from vdm_blocks.checkpoint import load_network, read_info
from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
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
from vdm_blocks.sampling import DDIM, Ancestral, StepRule, uniform_times
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
    "1-base": Sampling(steps=64, rule=Ancestral(gamma=0.0), guidance=Constant(scale=2.0)),
    "2-tsr": Sampling(steps=2, guidance=Constant(scale=1.5)),
    "3-ssr": Sampling(steps=2, guidance=Constant(scale=1.5)),
    "4-ssr": Sampling(steps=2),
    "5-tsr": Sampling(steps=2),
    "6-tsr": Sampling(steps=2, tile=(32, 192, 320)),
    "7-ssr": Sampling(steps=2, tile=(32, 768, 1280), dtype=torch.float16),
}
"""What looked best, by eye, on a few clips. Steps, rule and scale of the base were chosen on pictures of the base
before this one: fresh noise mended what DDIM, in as many steps, left broken. No figure here tells the rules apart yet:
see the ablations in docs/table.md. The upper stages know most of what they make: two steps are nearest the truth, and
more only add grain. `evaluate.py` measures each stage as it is set here."""

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


def has_weights(plan: Plan, folder: Path = WEIGHTS) -> bool:
    """Whether a stage's weights are there, and of the network that is planned."""
    try:
        find_weights(plan, folder)
    except ValueError:
        return False
    return True


def model_of(plan: Plan, network: nn.Module) -> ModelDenoiser:
    """A network of the stage as the denoiser that it was trained as, before guidance and thresholding."""
    whole = ResidualNetwork(network, detail_std=plan.detail) if plan.unet.cond_channels else network
    return ModelDenoiser(whole, schedule=plan.schedule)


def sampled_model(
    plan: Plan, network: nn.Module, core: VideoUNet | VideoTransformer, sampling: Sampling
) -> ModelDenoiser:
    """The `model_of` a network as it is sampled: in bfloat16, and in tiles where the stage has them.

    Args:
        plan: the stage.
        network: `core`, or what is around it.
        core: what says how far it sees.
        sampling: says the tiles.

    Raises:
        ValueError: tiles, and a network that sees the whole video.
    """
    model = model_of(plan, Bfloat16(network))
    if sampling.tile is None:
        return model
    margin = core.receptive_field()
    if margin is None:
        raise ValueError(
            f"the network of {plan.name} sees the whole video and cannot be run in tiles; leave its tile at None, "
            "or plan a U-Net without attention"
        )
    tiled = TiledNetwork(model.network, tile=sampling.tile, margin=margin, divisor=core.spec.divisor)
    return ModelDenoiser(tiled, schedule=plan.schedule)


def scale_of(guidance: Constant | Swinging, times: Tensor) -> float | Oscillating:
    """The guidance scale on a sampling grid."""
    if isinstance(guidance, Constant):
        return guidance.scale
    return Oscillating(high=guidance.high, low=guidance.low, constant=guidance.constant, times=times)


def stage_around(
    plan: Plan, denoiser: Denoiser, rule: StepRule[Any], times: Tensor, dtype: torch.dtype
) -> Stage:
    """A stage of the cascade around a denoiser."""
    return Stage(
        name=plan.name,
        grid=plan.grid,
        denoiser=denoiser,
        step=rule,
        times=times,
        augmentation=ConditioningAugmentation() if plan.unet.cond_channels else None,
        snr=plan.snr,
        raise_=lambda video, grid: raise_(video, plan, grid.shape),
        noise=plan.noise,
        dtype=dtype,
    )


def stage_for(plan: Plan, network: VideoUNet | VideoTransformer, sampling: Sampling | None = None) -> Stage:
    """A stage of the cascade around its network, guided and thresholded."""
    sampling = SAMPLING[plan.name] if sampling is None else sampling
    times = uniform_times(sampling.steps)
    model, scale = sampled_model(plan, network, network, sampling), scale_of(sampling.guidance, times)
    off = scale == 1.0
    denoiser = StaticThreshold(model) if off else DynamicThreshold(ClassifierFreeGuidance(model, scale))
    return stage_around(plan, denoiser, sampling.rule, times, sampling.dtype)


def load_stage(plan: Plan, folder: Path = WEIGHTS) -> Stage:
    """A stage with its shipped weights."""
    return stage_for(plan, load_network(find_weights(plan, folder)))


def load_stages(count: int = len(PLANS), folder: Path = WEIGHTS) -> list[Stage]:
    """The first `count` stages; all files are checked before any is read."""
    for plan in PLANS[:count]:
        find_weights(plan, folder)
    return [load_stage(plan, folder) for plan in PLANS[:count]]
