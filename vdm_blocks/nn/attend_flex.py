"""Flex attention as a backend: a kernel compiled for the bias at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vdm_blocks.nn.attend import attend
from vdm_blocks.nn.attend_fallback import attend_by, say_once

__all__ = ["attend_flex"]


def attend_flex(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """`attend` through torch's flex attention, at most 65,535 batch entries at a time.

    It reads the bias entry by entry instead of storing it once per sample and head. It needs a CUDA device; where
    it is missing or cannot take these tensors it says so once and `attend` computes instead. The kernel is compiled
    at the first call for a shape.
    """
    if q.device.type != "cuda":
        say_once(
            f"flex attention needs a CUDA device, these tensors are on {q.device.type}; using torch's kernels instead"
        )
        return attend(q, k, v, bias=bias)
    kernel = _load()
    if kernel is None:
        return attend(q, k, v, bias=bias)
    return attend_by(lambda *part: with_kernel(kernel, *part), "flex attention", q, k, v, bias)


def with_kernel(kernel: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention by `kernel`, which is flex attention, compiled or not."""
    if bias is None:
        plain: Tensor = kernel(q, k, v)
        return plain
    full = bias.expand(*q.shape[:-1], k.shape[-2])

    def score(logit: Tensor, n: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        entry = full[n, head, i, j]
        return torch.where(entry, logit, -torch.inf) if full.dtype == torch.bool else logit + entry

    out: Tensor = kernel(q, k, v, score_mod=score)
    return out


@cache
def _load() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.flex_attention import flex_attention
    except ImportError as error:
        say_once(f"this torch has no flex attention ({error}); using its other kernels instead")
        return None
    return torch.compile(flex_attention, dynamic=False)
