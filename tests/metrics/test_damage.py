"""What each metric sees, and what it does not: controlled damage to a clip whose motion is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vdm_blocks.metrics import dynamic_degree, flicker, psnr, ssim, warping_error

SIDE, FRAMES = 24, 6


def clip() -> tuple[Tensor, Tensor]:
    """A smooth picture that slides one pixel a frame, and its flow."""
    rough = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    picture = F.interpolate(rough, size=(36, 36), mode="bicubic").clamp(0, 1) * 1.6 - 0.8
    frames = [picture[..., 6:30, 6 - t : 30 - t] for t in range(FRAMES)]
    flow = torch.tensor([0.0, 1.0]).double().view(1, 2, 1, 1, 1).expand(1, 2, FRAMES - 1, SIDE, SIDE)
    return torch.stack(frames, dim=2), flow


def noisy(video: Tensor, strength: float) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return video + 0.2 * strength * torch.randn(video.shape, generator=draw, dtype=video.dtype)


def blurred(video: Tensor, strength: float) -> Tensor:
    soft = F.avg_pool3d(F.pad(video, (2, 2, 2, 2, 0, 0), mode="replicate"), (1, 5, 5), 1)
    return torch.lerp(video, soft, strength)


def trembling(video: Tensor, strength: float) -> Tensor:
    sign = torch.tensor([1.0, -1.0]).double().repeat(FRAMES // 2).view(1, 1, -1, 1, 1)
    return video + 0.1 * strength * sign


def frozen(video: Tensor, strength: float) -> Tensor:
    return torch.lerp(video, video[:, :, :1].expand_as(video), strength)


def shuffled(video: Tensor, strength: float) -> Tensor:
    order = [0, 1, 2, 3, 5, 4] if strength < 1 else [3, 0, 5, 2, 1, 4]
    return video[:, :, order] if strength else video


Damage = Callable[[Tensor, float], Tensor]


def measured(damage: Damage) -> dict[str, list[float]]:
    """Every metric at strength 0, a half and 1."""
    video, flow = clip()
    visible = torch.ones(1, FRAMES - 1, SIDE, SIDE, dtype=torch.bool)
    made = [damage(video, strength) for strength in (0.0, 0.5, 1.0)]
    return {
        "psnr": [float(psnr(x, video).clamp(max=60).mean()) for x in made],
        "ssim": [float(ssim(x, video).mean()) for x in made],
        "warping": [float(warping_error(x, flow, visible)) for x in made],
        "flicker": [float(flicker(x)) for x in made],
        "dynamic": [float(dynamic_degree(x)) for x in made],
    }


@pytest.mark.parametrize("damage", [noisy, blurred, trembling, frozen, shuffled])
def test_fidelity_falls_with_any_damage(damage: Damage) -> None:
    found = measured(damage)
    for name in ("psnr", "ssim"):
        good, middle, bad = found[name]
        assert good > middle > bad, name


@pytest.mark.parametrize("damage", [noisy, trembling, frozen, shuffled])
def test_warping_error_rises_with_damage_to_time(damage: Damage) -> None:
    good, middle, bad = measured(damage)["warping"]
    assert good < 1e-20
    assert 1e-4 < middle < bad


def test_flicker_rises_with_trembling_most() -> None:
    good, middle, bad = measured(trembling)["flicker"]
    assert good < middle < bad
    assert bad > max(measured(other)["flicker"][2] for other in (noisy, blurred, frozen, shuffled))


def test_dynamic_degree_tells_a_frozen_video_and_nothing_else_here() -> None:
    good, middle, bad = measured(frozen)["dynamic"]
    assert good > middle > bad == 0
    assert min(measured(other)["dynamic"][2] for other in (noisy, blurred, trembling, shuffled)) > good / 3


def test_what_the_warping_error_does_not_see() -> None:
    """A strong blur moves it less than a tenth of what mild damage to time does: read it beside a fidelity."""
    mild = min(measured(other)["warping"][1] for other in (noisy, trembling, frozen, shuffled))
    assert measured(blurred)["warping"][2] < mild / 10
