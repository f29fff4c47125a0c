"""Noise for videos whose frames resemble one another; every entry is standard normal whatever the correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vdm_blocks.diffusion.noise import NoiseSource, draw_normal
from vdm_blocks.diffusion.values import check_numbers

__all__ = ["IndependentNoise", "MixedNoise", "ProgressiveNoise", "VideoNoise"]


@runtime_checkable
class VideoNoise(Protocol):
    """A law of standard normal noise over (B, C, T, H, W)."""

    def draw(
        self,
        source: NoiseSource,
        shape: Sequence[int],
        *,
        step: int | str,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Noise of `shape` from `source`; `step` is the key of this draw."""


@dataclass(frozen=True, kw_only=True)
class IndependentNoise:
    """Frames that have nothing in common."""

    def draw(
        self,
        source: NoiseSource,
        shape: Sequence[int],
        *,
        step: int | str,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Standard normal noise."""
        return draw_normal(source, shape, step=step, device=device, dtype=dtype)


def _check_strength(name: str, a: float) -> None:
    if not 0 <= a < float("inf"):
        raise ValueError(f"{name} got a={a}; it must be 0, for independent frames, or more")


def _check_video(name: str, shape: Sequence[int]) -> None:
    if len(shape) != 5:
        raise ValueError(
            f"{name} got the shape {tuple(shape)}; it correlates frames and needs (B, C, T, H, W)"
        )


@dataclass(frozen=True, kw_only=True)
class MixedNoise:
    """eps_i = (a shared + own_i) / sqrt(1 + a^2): two frames correlate by a^2 / (1 + a^2).

    (arXiv 2305.10474, mixed noise.)
    The shares are variances: passed on as standard deviations they would leave the noise short of unit variance.

    Raises:
        ValueError: `a` negative, or on drawing a shape that is not a video's.
    """

    a: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_strength("MixedNoise", self.a)

    def draw(
        self,
        source: NoiseSource,
        shape: Sequence[int],
        *,
        step: int | str,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """One frame's noise shared by all, and each frame's own."""
        _check_video("MixedNoise", shape)
        batch, channels, _, height, width = shape
        one_frame = (batch, channels, 1, height, width)
        shared = draw_normal(source, one_frame, step=f"{step}/shared", device=device, dtype=dtype)
        own = draw_normal(source, shape, step=step, device=device, dtype=dtype)
        return own.add_(shared, alpha=self.a).div_((1 + self.a**2) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class ProgressiveNoise:
    """eps_i = (a eps_{i-1} + own_i) / sqrt(1 + a^2): frames i and j correlate by (a / sqrt(1 + a^2))^|i - j|.

    (arXiv 2305.10474, progressive noise.)

    Raises:
        ValueError: `a` negative, or on drawing a shape that is not a video's.
    """

    a: float = 2.0

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_strength("ProgressiveNoise", self.a)

    def draw(
        self,
        source: NoiseSource,
        shape: Sequence[int],
        *,
        step: int | str,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Each frame's own noise, carried on from frame to frame in place."""
        _check_video("ProgressiveNoise", shape)
        noise = draw_normal(source, shape, step=step, device=device, dtype=dtype)
        for i in range(1, shape[2]):
            noise[:, :, i].add_(noise[:, :, i - 1], alpha=self.a).div_((1 + self.a**2) ** 0.5)
        return noise
