"""Every wrapper is a denoiser itself: around a network, around a stranger, around another wrapper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact import SHAPE, ExactDenoiser, label_conditioning, mixture
from torch import Tensor, nn

from vdm_blocks.denoisers import (
    Autoguidance,
    ClassifierFreeGuidance,
    ConditionAnnealing,
    DynamicThreshold,
    Guide,
    ModelDenoiser,
    MultiGuidance,
    ProjectedGuidance,
    ReconstructionGuidance,
    Replacement,
    RescaledGuidance,
    StaticThreshold,
)
from vdm_blocks.diffusion import CosineSchedule, KeyedNoise
from vdm_blocks.types import Conditioning, Denoiser

SCHEDULE = CosineSchedule()
COND = label_conditioning([0, 1])
T = torch.tensor(0.4, dtype=torch.float64)
VIDEO = torch.rand(2, *SHAPE)
KNOWN = torch.tensor([True, False, False]).view(1, 1, 3, 1, 1)

WRAPPERS: dict[str, Any] = {
    "classifier-free": lambda d: ClassifierFreeGuidance(d, 3.0),
    "rescaled": lambda d: RescaledGuidance(d, 3.0),
    "projected": lambda d: ProjectedGuidance(d, 3.0),
    "multi": lambda d: MultiGuidance(d, [Guide(without=Conditioning.without_text, scale=3.0)]),
    "auto": lambda d: Autoguidance(d, ModelDenoiser(Tiny()), 2.0),
    "annealing": lambda d: ConditionAnnealing(d, KeyedNoise(seeds=(0, 1), stage="x")),
    "static": StaticThreshold,
    "dynamic": DynamicThreshold,
    "replacement": lambda d: Replacement(d, VIDEO, KNOWN),
    "reconstruction": lambda d: ReconstructionGuidance(d, VIDEO[:, :, :1], lambda x: x[:, :, :1], 2.0),
}


class Tiny(nn.Module):
    """A network whose answer depends on the text."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv3d(2, 2, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        assert cond.text is not None
        assert cond.text_mask is not None
        said = (cond.text[..., 0] * cond.text_mask).sum(1).to(z_t.dtype).view(-1, 1, 1, 1, 1)
        out: Tensor = self.dropout(self.mix(z_t)) * (1 + said) + logsnr.view(-1, 1, 1, 1, 1)
        return out


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)
def test_it_is_a_denoiser_around_a_network(make: Any) -> None:
    inner = ModelDenoiser(Tiny())
    wrapper = make(inner)
    typed: Denoiser = wrapper
    assert typed.schedule is inner.schedule
    assert wrapper.denoiser is inner
    assert {id(p) for p in inner.parameters()} <= {id(p) for p in wrapper.parameters()}
    wrapper.eval()
    assert not inner.network.training
    wrapper.to(torch.float64)
    assert next(inner.parameters()).dtype == torch.float64
    z_t = torch.randn(2, *SHAPE, dtype=torch.float64)
    got = wrapper(z_t, T, COND)
    assert got.x0.shape == got.eps.shape == z_t.shape
    assert got.x0.dtype == torch.float64
    alpha, sigma = SCHEDULE.alpha_sigma(T)
    torch.testing.assert_close(alpha * got.x0 + sigma * got.eps, z_t)
    again = wrapper(z_t, T, COND)
    assert torch.equal(got.x0, again.x0)


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)
def test_it_goes_around_a_denoiser_that_is_no_module_and_around_itself(make: Any) -> None:
    exact = ExactDenoiser(mixture(), SCHEDULE)
    z_t = torch.randn(2, *SHAPE, dtype=torch.float64)
    before = z_t.clone()
    wrapper = make(make(exact)) if make is not WRAPPERS["auto"] else Autoguidance(exact, exact, 2.0)
    assert bool(torch.isfinite(wrapper(z_t, T, COND).x0).all())
    assert torch.equal(z_t, before)


@pytest.mark.parametrize("make", WRAPPERS.values(), ids=WRAPPERS)
def test_weights_keep_their_names_within(make: Any) -> None:
    wrapper = make(ModelDenoiser(Tiny()))
    names = set(wrapper.state_dict())
    assert {"denoiser.network.mix.weight", "denoiser.network.mix.bias"} <= names
    assert not {"video", "known", "measured"} & names
