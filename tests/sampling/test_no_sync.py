"""Nothing waits for the device: a chain runs on tensors that have no data to wait for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vdm_blocks.denoisers import (
    Autoguidance,
    ClassifierFreeGuidance,
    DynamicThreshold,
    Guide,
    ModelDenoiser,
    MultiGuidance,
    Oscillating,
    Passes,
    ProjectedGuidance,
    RescaledGuidance,
    StaticThreshold,
    ThresholdPer,
)
from vdm_blocks.diffusion import KeyedNoise
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DistilledStochastic,
    DPMSolverPP2M,
    EDMChurn,
    EDMHeun,
    GuidanceMomentum,
    Heun,
    LangevinCorrector,
    Restart,
    StepRule,
    UniPC,
    sample,
    uniform_times,
)
from vdm_blocks.types import Conditioning, Denoiser

TIMES = uniform_times(4)
RULES: list[StepRule[Any]] = [
    DDIM(),
    DDIM(eta=1.0),
    Ancestral(),
    Heun(),
    EDMHeun(),
    DPMSolverPP2M(eta=1.0),
    UniPC(order=3),
    EDMChurn(),
    DistilledStochastic(),
    LangevinCorrector(rule=Ancestral()),
    Restart(noisy_logsnr=-1.0, clean_logsnr=1.0),
    GuidanceMomentum(rule=Heun(), guide=lambda d, m: ProjectedGuidance(d, 4.0, momentum=m)),
]
WRAPPERS: list[Any] = [
    lambda d: ClassifierFreeGuidance(d, Oscillating(times=TIMES)),
    lambda d: ClassifierFreeGuidance(d, 6.0, both=Passes.TOGETHER),
    RescaledGuidance,
    ProjectedGuidance,
    lambda d: MultiGuidance(d, [Guide(without=Conditioning.without_text, scale=3.0)], both=Passes.TOGETHER),
    lambda d: Autoguidance(d, d),
    StaticThreshold,
    DynamicThreshold,
    lambda d: DynamicThreshold(d, per=ThresholdPer.FRAME),
]


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv3d(3, 3, 1)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        assert cond.text is not None
        out: Tensor = self.mix(z_t) + (logsnr + cond.text.mean(dim=(1, 2))).view(-1, 1, 1, 1, 1)
        return out


def run(rule: StepRule[Any], wrap: Any) -> Tensor:
    """A chain whose z would be 12 GB, on the meta device: reading one number of it raises."""
    denoiser: Denoiser = wrap(ModelDenoiser(Tiny()).to("meta"))
    with torch.device("meta"):
        cond = Conditioning(text=torch.empty(1, 4, 8), text_mask=torch.empty(1, 4, dtype=torch.bool))
        noise = torch.empty(1, 3, 1024, 1024, 1024)
    return sample(denoiser, rule, TIMES, noise, cond)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_step_rules(rule: StepRule[Any]) -> None:
    assert run(rule, lambda d: d).is_meta


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrappers(wrap: Any) -> None:
    assert run(DDIM(), wrap).is_meta


def test_reading_a_meta_tensor_raises() -> None:
    """The control: what a wait for the device would do here."""
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(torch.empty((), device="meta"))
    assert KeyedNoise(seeds=(1,), stage="x").normal((1, 2), step=0, device="meta").is_meta
