"""The U-Net as one graph: compiled, and exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from contract import BASE, SPECS, UPSAMPLER, WIDTH, awaken, inputs
from torch import Tensor, nn

from vdm_blocks.models import (
    FactorizedSpec,
    TemporalConvSpec,
    TransformerSpec,
    UNetSpec,
    VideoTransformer,
    VideoUNet,
)
from vdm_blocks.nn import recompute_activations
from vdm_blocks.types import Conditioning

# One level with everything that can stand in it, and one with the rest.
ATTENTIVE = replace(BASE, levels=BASE.levels[1:], embedding=8)
CONVOLUTIONAL = replace(
    UPSAMPLER, levels=tuple(replace(x, blocks=1, attention=None, text=None, temporal=TemporalConvSpec(causal=c))
                            for x, c in zip(UPSAMPLER.levels, (True, False), strict=True)), text_width=0)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "recomputes"),
    [(ATTENTIVE, False), (ATTENTIVE, True), (CONVOLUTIONAL, False)],
    ids=["attention", "attention, recomputed", "convolution"],
)
def test_compiles_to_one_graph_that_gives_the_same_numbers_and_gradients(
    spec: UNetSpec, recomputes: bool
) -> None:
    net, x = awaken(VideoUNet(spec)), inputs(spec, 1, 3, (4, 8), dtype=torch.float32)
    images = torch.tensor([[False, False, True]])
    cond = replace(x.cond, images=images)
    want = net(x.z_t, x.logsnr, cond)
    recompute_activations(net, recomputes)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    got = compiled(x.z_t, x.logsnr, cond)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    leaves = list(net.parameters())
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), leaves),
        torch.autograd.grad(want.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_network_of_the_contract_compiles_to_one_graph_of_the_same_numbers(spec: UNetSpec) -> None:
    torch.compiler.reset()  # it counts the graphs of one function, and refuses more than eight
    net, x = awaken(VideoUNet(spec)), inputs(spec, 1, 3, (4, 8), dtype=torch.float32)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    with torch.no_grad():
        want, got = net(x.z_t, x.logsnr, x.cond), compiled(x.z_t, x.logsnr, x.cond)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


class Flat(nn.Module):
    """The network with its conditioning as plain tensors, which is what an exported program takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z_t: Tensor, logsnr: Tensor, fps: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.network(z_t, logsnr, Conditioning(text=text, text_mask=mask, fps=fps))
        return out


def unet() -> nn.Module:
    return VideoUNet(ATTENTIVE)


def transformer() -> nn.Module:
    return VideoTransformer(
        TransformerSpec(width=12, depth=1, heads=2, mixing=FactorizedSpec(), embedding=8, text_width=WIDTH)
    )


@pytest.mark.parametrize("make", [unet, transformer])
def test_exports_with_any_number_of_frames(make: Callable[[], nn.Module]) -> None:
    """On either side of the 32 frames at which `attend` changes its formulation."""
    spec, size = ATTENTIVE, (4, 6)
    net, x = Flat(awaken(make())), inputs(spec, 1, 4, size, dtype=torch.float32)
    longer = [inputs(spec, 1, count, size, dtype=torch.float32) for count in (7, 33)]

    def arguments(y: object) -> tuple[Tensor, ...]:
        assert isinstance(y, type(x))
        assert y.cond.fps is not None
        assert y.cond.text is not None
        assert y.cond.text_mask is not None
        return y.z_t, y.logsnr, y.cond.fps, y.cond.text, y.cond.text_mask

    frames = torch.export.Dim("frames", min=2, max=64)
    program = torch.export.export(
        net, arguments(x), dynamic_shapes=({2: frames}, None, None, None, None), strict=False
    ).module()
    for y in (x, *longer):
        torch.testing.assert_close(program(*arguments(y)), net(*arguments(y)), rtol=0, atol=1e-5)
