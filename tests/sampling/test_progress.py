from __future__ import annotations

import io

import pytest
import torch
from exact import SHAPE, ExactDenoiser, mixture

from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.sampling import DDIM, ProgressLine, sample, uniform_times
from vdm_blocks.types import Conditioning


def test_a_line_for_each_step_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands at 10 s after the first step and gains 2 s with each."""
    clock = iter([10.0, 12.0, 14.0, 16.0])
    monkeypatch.setattr("vdm_blocks.sampling.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    denoiser = ExactDenoiser(mixture(), CosineSchedule())
    z = torch.randn(1, *SHAPE, dtype=torch.float64)
    sample(
        denoiser, DDIM(), uniform_times(4), z, Conditioning(), on_step=ProgressLine(name="base", stream=out)
    )
    assert out.getvalue().split("\r")[1:] == [
        "base 1/4\033[K",
        "base 2/4, 4 s left\033[K",
        "base 3/4, 2 s left\033[K",
        "base 4/4\033[K\n",
    ]


def test_it_does_not_stop_the_chain() -> None:
    seen: list[int] = []
    line = ProgressLine(stream=io.StringIO())
    denoiser = ExactDenoiser(mixture(), CosineSchedule())
    z = torch.randn(1, *SHAPE, dtype=torch.float64)

    def both(info: object) -> bool | None:
        seen.append(1)
        return line(info)  # type: ignore[arg-type, func-returns-value]

    sample(denoiser, DDIM(), uniform_times(3), z, Conditioning(), on_step=both)
    assert len(seen) == 3
