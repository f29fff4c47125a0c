"""A compiled network is compiled once for a whole chain, whatever the rule: no step makes it compile again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vdm_blocks.denoisers import ClassifierFreeGuidance, ModelDenoiser, Oscillating
from vdm_blocks.diffusion import KeyedNoise
from vdm_blocks.sampling import DDIM, Ancestral, EDMChurn, StepRule, UniPC, sample, uniform_times
from vdm_blocks.types import Conditioning

TIMES = uniform_times(6)
COND = Conditioning(text=torch.ones(2, 1, 4), text_mask=torch.ones(2, 1, dtype=torch.bool))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv3d(3, 3, 1)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        assert cond.text is not None
        assert cond.text_mask is not None
        said = (cond.text * cond.text_mask[..., None]).mean((1, 2))
        out: Tensor = self.mix(z_t) + (logsnr.tanh() + said).view(-1, 1, 1, 1, 1)
        return out


@pytest.mark.parametrize("rule", [DDIM(), Ancestral(), UniPC(), EDMChurn()], ids=str)
def test_one_compilation_serves_every_step(rule: StepRule[Any]) -> None:
    torch.compiler.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    net = Tiny()
    scale = Oscillating(high=4.0, low=1.0, times=TIMES)
    noise, keys = torch.randn(2, 3, 2, 4, 4), KeyedNoise(seeds=(0, 1), stage="base")

    def chain(network: Any) -> Tensor:
        guided = ClassifierFreeGuidance(ModelDenoiser(network), scale)
        return sample(guided, rule, TIMES, noise, COND, generator=keys)

    got = chain(torch.compile(net, backend=backend, fullgraph=True))
    assert len(graphs) == 1
    torch.testing.assert_close(got, chain(net), rtol=1e-5, atol=1e-5)
