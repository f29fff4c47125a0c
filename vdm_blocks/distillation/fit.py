"""Where a student's direction of guidance starts: the best that its last layer can do before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.diffusion.process import diffuse
from vdm_blocks.distillation.guidance import GuidanceDistiller
from vdm_blocks.distillation.learn import Batches
from vdm_blocks.distillation.match import draw_uniform
from vdm_blocks.distillation.scale import with_guidance_scale
from vdm_blocks.distillation.scale_adapter import ScaleAdapter
from vdm_blocks.types import Conditioning

__all__ = ["fit_direction"]


@dataclass(frozen=True)
class _Seen:
    """What the last layer was given, cond - uncond of what it put out, at which levels, and what a sample counts."""

    given: tuple[Tensor, ...]
    wanted: Tensor
    logsnr: Tensor
    weight: Tensor


def fit_direction(
    distiller: GuidanceDistiller,
    adapter: ScaleAdapter,
    batches: Batches,
    numbers: Iterable[int],
    *,
    key: str,
    ridge: float = 1.0,
    iterations: int = 20,
) -> float:
    """Fits the adapter's `direction` to cond - uncond by ridge regression, on what its last layer is given.

    min over direction of  mean w |direction(h, logsnr) - (head(h) - head(h_uncond))|^2 + ridge mean(h^2) |direction|^2

    w is the distiller's emphasis, if it has one.

    A quadratic function of few weights, which twenty steps of L-BFGS take most of the way, where training, at a rate
    that the network bears, takes hundreds of updates. Call it before `learn`, while the network is still the
    teacher's; two evaluations a sample, and h of all of them stays in memory.

    Args:
        distiller: whose student's network `adapter` is; its law of times, its noise and its emphasis are taken.
        adapter: with a `head`.
        batches: as for `learn`.
        numbers: of the batches.
        key: names the noise.
        ridge: how much weights cost, relative to the mean square of h. 1 suits a hundred samples; with 0 the direction
            is one of these samples alone, unless it is exact.
        iterations: of L-BFGS.

    Returns:
        The share of w |cond - uncond|^2 that is left, from 0, exact, to 1, nothing found. Where no text changes the
        answer there is nothing to find, and that is 0 too.

    Raises:
        ValueError: an adapter without a head, or one that `context` guides already.
    """
    if adapter.head is None or adapter.direction is None:
        raise ValueError(
            "this ScaleAdapter has no direction to fit; give it head=, the name of the last layer"
        )
    if adapter.context is not None:
        raise ValueError(
            "this ScaleAdapter is guided by its context, and a direction that is fitted to all of guidance would add "
            "what is there already; fit an adapter without context=, or let `learn` find what is left"
        )
    kept: list[tuple[tuple[Tensor, ...], Tensor]] = []

    def keep(_module: torch.nn.Module, given: tuple[Any, ...], answer: Tensor) -> None:
        kept.append((tuple(_wide(x) for x in given), _wide(answer)))

    seen = []
    with torch.no_grad(), adapter.network.get_submodule(adapter.head).register_forward_hook(keep):
        for number in numbers:
            x0, cond = batches(number)
            logsnr, weight = _pass_both(
                distiller, x0, cond, KeyedNoise(seeds=tuple(range(len(x0))), stage=f"{key}/{number}")
            )
            (h, with_text), (_, without) = kept
            seen.append(_Seen(h, with_text - without, logsnr, weight))
            kept.clear()
    size = sum(float(_error(one, torch.zeros_like(one.wanted))) for one in seen)
    if size == 0:
        return 0.0
    direction = adapter.direction
    parameters = list(direction.parameters())
    optimizer = torch.optim.LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe")
    given = sum(float(one.weight.sum() * one.given[0].square().mean()) for one in seen)
    cost = ridge * given / seen[0].wanted.shape[1] / size

    def closure() -> float:
        optimizer.zero_grad()
        total = 0.0
        for one in seen:
            loss = _error(one, direction(one.given, one.logsnr)) / size
            loss.backward()
            total += float(loss.detach())
        if ridge > 0:
            loss = cost * torch.stack([p.square().sum() for p in parameters]).sum()
            loss.backward()
            total += float(loss.detach())
        return total

    with torch.enable_grad(), torch.autocast(seen[0].wanted.device.type, enabled=False):
        optimizer.step(closure)
        with torch.no_grad():
            left = sum(float(_error(one, direction(one.given, one.logsnr))) for one in seen) / size
    optimizer.zero_grad(set_to_none=True)
    return left


def _pass_both(
    distiller: GuidanceDistiller, x0: Tensor, cond: Conditioning, noise: KeyedNoise
) -> tuple[Tensor, Tensor]:
    """The student with and without its text at scale 1; at which log-SNR, and how much each sample counts."""
    schedule = distiller.student.schedule
    t = distiller.times.quantile(draw_uniform(noise, x0, key="distillation/time"))
    eps = distiller.noise.draw(noise, x0.shape, step="distillation/noise", device=x0.device, dtype=x0.dtype)
    z_t = diffuse(x0, eps, t, schedule)
    told = with_guidance_scale(cond, torch.ones(len(x0), device=x0.device))
    distiller.student(z_t, t, told)
    distiller.student(z_t, t, distiller.unconditional(told))
    logsnr = schedule.logsnr(t)
    if distiller.emphasis is None:
        return logsnr, torch.ones(len(x0), device=x0.device)
    return logsnr, distiller.emphasis(logsnr, told).float()


def _error(one: _Seen, answer: Tensor) -> Tensor:
    """Summed over samples; frames in the first axis count as samples."""
    error = (answer - one.wanted).square().flatten(1).mean(dim=1)
    weight = one.weight.flatten()
    return (weight.repeat_interleave(len(error) // len(weight)).to(error) * error).sum()


def _wide(x: Tensor) -> Tensor:
    return x if x.element_size() >= 4 else x.float()
