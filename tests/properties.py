"""What the property-based tests share: random cases, and what counts as an answer or a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vdm_blocks import diffusion
from vdm_blocks.diffusion import KeyedNoise, expand_level
from vdm_blocks.types import Conditioning, Denoised, Schedule

R = TypeVar("R")
few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
many = settings(few, max_examples=40)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PREDICTIONS = (diffusion.X0, diffusion.EPS, diffusion.V, diffusion.FLOW, diffusion.SCORE, diffusion.EDM)
COSINE = diffusion.CosineSchedule()
numbers = st.floats(min_value=-4, max_value=4) | st.sampled_from([0.0, -1.0, math.inf, -math.inf, math.nan])


@dataclass(frozen=True)
class Case:
    """A clean video, its noise, and times for it."""

    x0: Tensor
    eps: Tensor
    t: Tensor
    seed: int

    @property
    def exact(self) -> tuple[Tensor, Tensor]:
        """Alpha and sigma of the cosine schedule in float64, in a shape that multiplies the video."""
        alpha, sigma = COSINE.alpha_sigma(self.t.double())
        return expand_level(alpha, self.x0.double()), expand_level(sigma, self.x0.double())

    @property
    def unit(self) -> float:
        """The rounding of the coarser of the two dtypes."""
        return max(torch.finfo(self.x0.dtype).eps, torch.finfo(self.t.dtype).eps)

    @property
    def keyed(self) -> KeyedNoise:
        return KeyedNoise(seeds=tuple(self.seed + i for i in range(self.x0.shape[0])), stage="test")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Shapes with sides of 1 to 5, among them batches as large as the width or the frames are many."""
    b, c, t, h = (draw(st.integers(1, top)) for top in (4, 4, 5, 5))
    w = draw(st.sampled_from([b, t, 5, 2]))
    seed, dtype = draw(st.integers(0, 2**16)), draw(st.sampled_from(DTYPES))
    g = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, b, c, t, h, w, dtype=torch.float64, generator=g).to(dtype)
    level = draw(st.sampled_from([(), (b,), (b, t)]))
    times = 0.05 + 0.9 * torch.rand(level, dtype=torch.float64, generator=g)
    return Case(
        x0.clamp(-1, 1), eps, times.to(draw(st.sampled_from([dtype, torch.float32, torch.float64]))), seed
    )


def attempt(call: Callable[[], R], *, right: bool) -> R | None:
    """The answer to what is `right`; to what is not, a ValueError with a sentence, and None."""
    if right:
        return call()
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - any sentence will do, and that is checked
        call()
    assert len(str(refused.value).split()) >= 4
    return None


def near(got: Tensor, want: Tensor, like: Tensor, unit: float, scale: Tensor | float = 1.0) -> None:
    """Of `like`'s shape and dtype, finite, and `want` to some roundings of `scale`."""
    assert got.shape == like.shape
    assert got.dtype == like.dtype
    assert got.isfinite().all()
    error = (got.double() - want.double()).abs()
    assert bool((error <= 16 * unit * (want.double().abs() + scale)).all()), float(error.max())


class Answers(nn.Module):
    """A network that gives one answer, and checks what it is told."""

    def __init__(self, answer: Tensor | None = None) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        assert logsnr.dtype == torch.float32
        assert logsnr.shape in ((z_t.shape[0],), (z_t.shape[0], z_t.shape[2]))
        if self.answer is None:
            return torch.zeros_like(z_t)
        return self.answer.clone()


class Knows:
    """A denoiser that knows the clean video, or scales it by the number that the text says."""

    def __init__(self, x0: Tensor, schedule: Schedule = COSINE) -> None:
        self.x0 = x0
        self.schedule = schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        x0 = self.x0.repeat(z_t.shape[0] // self.x0.shape[0], 1, 1, 1, 1)
        if cond.text is not None and cond.text_mask is not None:
            said = (cond.text[..., 0] * cond.text_mask).sum(1)
            x0 = x0 + said.view(-1, 1, 1, 1, 1).to(x0.dtype)
        alpha, sigma = self.schedule.alpha_sigma(t)
        return Denoised(x0, (z_t - expand_level(alpha, z_t) * x0) / expand_level(sigma, z_t))
