"""docs/choosing.md says when to take each thing of the mathematics."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import vdm_blocks
from vdm_blocks import conditioning, denoisers, diffusion, sampling, training

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "choosing.md").read_text(encoding="utf-8")

# What nobody chooses: protocols that others meet, values that are handed out, and helpers below the ones named.
NOT_CHOSEN = {
    "Decay", "Decoder", "NoiseSchedule", "NoiseSource", "PathSchedule", "Prediction", "Scale", "TextEncoder",
    "TimeLaw", "TimeSampler", "Trace", "VariancePreserving", "VideoNoise", "Weighting", "Draw",
    "AugmentationSweep", "Momentum", "MomentumState", "StepDraw", "TextStates",
    "DenoiserWrapper",
    "alpha_sigma_vp", "check_prediction", "draw_normal", "level_of_batch", "logsnr_slope", "output_weight",
}  # fmt: skip
# Text encoders are not mathematics.
ELSEWHERE = {"MiniLMEncoder", "T5TextEncoder"}
PUBLIC = sorted(
    {name for room in (conditioning, denoisers, diffusion, sampling, training) for name in room.__all__}
)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in NOT_CHOSEN | ELSEWHERE])
def test_the_page_says_when_to_take_it(name: str) -> None:
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", TEXT), f"docs/choosing.md has no line on {name}"


def test_the_exceptions_exist() -> None:
    assert set(PUBLIC) >= NOT_CHOSEN | ELSEWHERE


def test_what_is_an_exception_is_not_also_on_the_page() -> None:
    assert [name for name in sorted(NOT_CHOSEN) if re.search(rf"^\| `{name}\b", TEXT, re.MULTILINE)] == []


@pytest.mark.parametrize(
    ("name", "given"), sorted(set(re.findall(r"`([A-Za-z_]\w*)\(([^`.]*(?:\d\.\d[^`.]*)*)\)`", TEXT)))
)
def test_what_the_page_calls_can_be_called_so(name: str, given: str) -> None:
    arguments = re.findall(r"[^,]+", given)
    named = dict(a.strip().split("=") for a in arguments if "=" in a)
    inspect.signature(getattr(vdm_blocks, name)).bind(*(a for a in arguments if "=" not in a), **named)
