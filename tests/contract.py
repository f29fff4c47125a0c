"""What every block and network is held to, in pieces: how to wake one, feed it and compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vdm_blocks.models import (
    AttentionPoolSpec,
    FourierSpec,
    GroupNormSpec,
    JoinedTextSpec,
    LevelSpec,
    MagnitudeNormSpec,
    RMSNormSpec,
    SinusoidSpec,
    SpatialAttentionSpec,
    TemporalAttentionSpec,
    TemporalConvSpec,
    TextAttentionSpec,
    UNetSpec,
)
from vdm_blocks.types import Conditioning

WIDTH = 10  # of the text states


def awaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` with everything that starts at zero or one drawn at random, so that no path is silent."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if p.numel() > 1 and bool((p == p.flatten()[0]).all()):
                scale = 1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.5
                p.add_(scale * torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p.dtype))
            elif p.numel() == 1:
                p.add_(0.5)
    return module


def randn(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same ones for the same seed and shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def all_get_gradient(module: nn.Module, output: Tensor) -> list[str]:
    """Names of the parameters that the sum of squares of `output` does not reach."""
    output.square().sum().backward()
    return [name for name, p in module.named_parameters() if p.grad is None or not bool(p.grad.any())]


BASE = UNetSpec(
    levels=(
        LevelSpec(
            channels=8, temporal=TemporalAttentionSpec(heads=2, reach=3), text=TextAttentionSpec(heads=2)
        ),
        LevelSpec(
            channels=12,
            temporal=TemporalAttentionSpec(heads=3),
            attention=SpatialAttentionSpec(heads=2),
            text=TextAttentionSpec(heads=3),
        ),
    ),
    embedding=16,
    text_width=WIDTH,
    text_inner=6,
)
UPSAMPLER = UNetSpec(
    levels=(
        LevelSpec(channels=8, blocks=2, temporal=TemporalConvSpec()),
        LevelSpec(
            channels=8,
            temporal=TemporalConvSpec(kernel=5),
            attention=SpatialAttentionSpec(heads=1),
            text=TextAttentionSpec(heads=1),
        ),
    ),
    cond_channels=4,
    fold=2,
    embedding=12,
    text_width=WIDTH,
    text_inner=4,
)
LOCAL = UNetSpec(
    levels=(
        LevelSpec(channels=6, temporal=TemporalConvSpec()),
        LevelSpec(channels=4, temporal=TemporalConvSpec()),
    ),
    fold=2,
    embedding=8,
    text_width=0,
)
CAUSAL = UNetSpec(
    levels=(LevelSpec(channels=6, temporal=TemporalConvSpec(causal=True)),), embedding=8, text_width=0
)
GROUPED = replace(
    UPSAMPLER,
    levels=(
        replace(UPSAMPLER.levels[0], blocks=1),
        replace(UPSAMPLER.levels[1], attention=None, text=JoinedTextSpec(heads=2)),
    ),
    norm=GroupNormSpec(groups=2),
    skip_scale=2**-0.5,
    pool=AttentionPoolSpec(heads=2),
    logsnr=FourierSpec(features=10),
)
ROOT_MEAN = replace(LOCAL, fold=1, norm=RMSNormSpec(), skip_scale=0.5)
MAGNITUDE = replace(CAUSAL, norm=MagnitudeNormSpec(), logsnr=SinusoidSpec(features=12, scale=3.0))
ATTENDING_BACK = replace(
    CAUSAL,
    levels=(replace(CAUSAL.levels[0], temporal=TemporalAttentionSpec(heads=2, causal=True, window=2)),),
)
NUMBERED = replace(BASE, frame_positions=True)
NUMBERED_BACK = replace(ATTENDING_BACK, frame_positions=True)
SPECS = {
    "base": BASE,
    "numbered frames": NUMBERED,
    "upsampler": UPSAMPLER,
    "local": LOCAL,
    "causal": CAUSAL,
    "causal attention": ATTENDING_BACK,
    "group norms, joined text, attention pool, Fourier waves": GROUPED,
    "root-mean-square norms": ROOT_MEAN,
    "magnitude-preserving norms, sinusoids": MAGNITUDE,
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A call's arguments."""

    z_t: Tensor
    logsnr: Tensor
    cond: Conditioning

    def map(self, fn: Callable[[Tensor], Tensor]) -> Inputs:
        return Inputs(z_t=fn(self.z_t), logsnr=fn(self.logsnr), cond=self.cond.map(fn))

    def to(self, dtype: torch.dtype) -> Inputs:
        return self.map(lambda x: x.to(dtype) if x.is_floating_point() else x)


def inputs(
    spec: UNetSpec,
    batch: int = 2,
    frames: int = 3,
    size: tuple[int, int] = (8, 12),
    *,
    dtype: torch.dtype = torch.float64,
    per_frame: bool = False,
) -> Inputs:
    """All that a network of `spec` can be told; with `per_frame`, log-SNR and text of every frame's own."""
    h, w = size
    lead = (batch, frames) if per_frame else (batch,)
    length = 4
    mask = torch.arange(length) < 1 + torch.arange(math.prod(lead)).view(*lead, 1) % length
    return Inputs(
        z_t=randn(batch, spec.channels, frames, h, w, dtype=dtype),
        logsnr=3 * randn(*lead, seed=2, dtype=dtype),
        cond=Conditioning(
            text=randn(*lead, length, spec.text_width, seed=3, dtype=dtype) if spec.text_width else None,
            text_mask=mask if spec.text_width else None,
            video=randn(batch, spec.cond_channels, frames, h, w, seed=4, dtype=dtype)
            if spec.cond_channels
            else None,
            aug_logsnr=randn(batch, seed=5, dtype=dtype) if spec.cond_channels else None,
            fps=(3.0 * 2 ** torch.arange(batch)).to(dtype),
        ),
    )


def one_frame(x: Inputs, index: int, *, frames: int) -> Inputs:
    """The clip of one frame that frame `index` is by itself."""

    def cut(value: Tensor | None, axis: int, ndim: int) -> Tensor | None:
        return value.narrow(axis, index, 1) if value is not None and value.ndim == ndim else value

    assert x.z_t.shape[2] == frames
    logsnr = cut(x.logsnr, 1, 2)
    assert logsnr is not None
    return Inputs(
        z_t=x.z_t[:, :, index : index + 1],
        logsnr=logsnr,
        cond=Conditioning(
            text=cut(x.cond.text, 1, 4),
            text_mask=cut(x.cond.text_mask, 1, 3),
            video=cut(x.cond.video, 2, 5),
            aug_logsnr=x.cond.aug_logsnr,
            fps=x.cond.fps,
        ),
    )
