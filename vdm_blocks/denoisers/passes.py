"""Evaluating one denoiser under two conditionings, and mixing the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

import torch
from torch import Tensor

from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.values import check_value
from vdm_blocks.types import Conditioning, Denoised, Denoiser

__all__ = ["Passes", "evaluate_all", "evaluate_both", "is_everywhere", "lerp"]


class Passes(Enum):
    """How the two or more evaluations of guidance are made."""

    APART = "one after the other: half the memory, and any conditioning will do"
    TOGETHER = "as one batch of twice the size or more: faster where the device is not full"


def evaluate_all(
    denoiser: Denoiser, z_t: Tensor, t: Tensor, conds: Sequence[Conditioning], passes: Passes
) -> Iterator[Denoised]:
    """The denoiser's answer under each conditioning, in order.

    Raises:
        ValueError: `passes` that is none.
    """
    check_value("both", passes, Passes, "Passes.APART or Passes.TOGETHER")
    if passes is Passes.APART or len(conds) == 1:
        for cond in conds:
            yield denoiser(z_t, t, cond)
        return
    count = len(conds)
    all_t = t if t.ndim == 0 else torch.cat([t] * count)
    answer = denoiser(torch.cat([z_t] * count), all_t, Conditioning.cat(conds))
    for x0, eps in zip(answer.x0.chunk(count), answer.eps.chunk(count), strict=True):
        yield Denoised(x0, eps)


def evaluate_both(
    denoiser: Denoiser, z_t: Tensor, t: Tensor, conds: tuple[Conditioning, Conditioning], passes: Passes
) -> tuple[Denoised, Denoised]:
    """The denoiser's answers under the first and the second conditioning."""
    first, second = evaluate_all(denoiser, z_t, t, conds, passes)
    return first, second


def is_everywhere(scale: Tensor, value: float) -> bool:
    """Whether `scale` is `value` for every sample, as far as can be known without waiting for a device."""
    return scale.device.type == "cpu" and bool((scale == value).all())


def lerp(start: Denoised, end: Denoised, scale: Tensor) -> Denoised:
    """Start + scale (end - start), in x0 and in eps; they stay consistent, the map being linear."""
    if scale.ndim == 0 and scale.device.type == "cpu":
        weight = float(scale)
        return Denoised(torch.lerp(start.x0, end.x0, weight), torch.lerp(start.eps, end.eps, weight))
    x0_weight, eps_weight = (expand_level(scale, x).to(x) for x in (end.x0, end.eps))
    return Denoised(torch.lerp(start.x0, end.x0, x0_weight), torch.lerp(start.eps, end.eps, eps_weight))
