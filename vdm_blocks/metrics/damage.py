"""Damage of a known kind and strength, to find out what a metric sees before it is believed.

Each takes a video (B, C, T, H, W) in [-1, 1] and a strength from 0, nothing, to 1, and leaves its input alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["DAMAGES", "add_flicker", "add_noise", "blur", "freeze", "separation", "shuffle_frames"]


def add_noise(video: Tensor, strength: float) -> Tensor:
    """Independent Gaussian noise of standard deviation 0.2 strength; the same at every call."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(video.shape, generator=draw, dtype=video.dtype).to(video.device)
    return (video + 0.2 * strength * noise).clamp(-1, 1)


def blur(video: Tensor, strength: float) -> Tensor:
    """Each frame towards a Gaussian blur of 2 pixels."""
    at = torch.arange(-5, 6, dtype=video.dtype, device=video.device)
    weights = torch.exp(-0.5 * (at / 2) ** 2)
    weights = weights / weights.sum()
    flat = F.pad(video.flatten(0, 2)[:, None], (5, 5, 5, 5), mode="replicate")
    soft = F.conv2d(F.conv2d(flat, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1)).view_as(video)
    return torch.lerp(video, soft, strength)


def shuffle_frames(video: Tensor, strength: float) -> Tensor:
    """The first share `strength` of the frames change places; none is changed itself."""
    frames = video.shape[2]
    count = round(strength * frames)
    if count < 2:
        return video.clone()
    order = torch.arange(frames)
    order[:count] = (torch.arange(count) * 0.7 % 1).argsort(
        stable=True
    )  # far, and even places do not stay even
    return video[:, :, order.to(video.device)]


def freeze(video: Tensor, strength: float) -> Tensor:
    """The last share `strength` of the clip shows the frame at which it stopped; at 1 all is the first frame."""
    last = round((1 - strength) * (video.shape[2] - 1))
    order = torch.arange(video.shape[2], device=video.device).clamp(max=last)
    return video[:, :, order]


def add_flicker(video: Tensor, strength: float) -> Tensor:
    """Brightness up and down by 0.1 strength, frame by frame."""
    sign = 1 - 2 * (torch.arange(video.shape[2], dtype=video.dtype, device=video.device) % 2)
    return (video + 0.1 * strength * sign.view(1, 1, -1, 1, 1)).clamp(-1, 1)


DAMAGES: Mapping[str, Callable[[Tensor, float], Tensor]] = MappingProxyType(
    {"noise": add_noise, "blur": blur, "shuffle": shuffle_frames, "freeze": freeze, "flicker": add_flicker}
)
"""All of them by the names that the table in docs/metrics.md has."""


def separation(clean: Tensor, damaged: Tensor) -> float:
    """(mean(damaged) - mean(clean)) / sqrt((var(clean) + var(damaged)) / 2), Cohen's d of a metric's values, (N,) each.

    Of one value, a metric of whole sets, the difference is relative to the clean one.

    >>> separation(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]))
    2.0
    """
    spread = ((clean.var() + damaged.var()) / 2).sqrt() if len(clean) > 1 else clean.abs().mean()
    return float((damaged.mean() - clean.mean()) / spread.clamp(min=1e-12))
