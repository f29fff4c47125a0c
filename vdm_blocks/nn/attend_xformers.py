"""xformers as a backend of attention."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from vdm_blocks.nn.attend import attend
from vdm_blocks.nn.attend_fallback import attend_by, first_line, say_once

__all__ = ["attend_xformers"]


def attend_xformers(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """`attend` through xformers' memory-efficient kernel, at most 65,535 batch entries at a time.

    Where xformers is missing, or has no kernel for these tensors, it says so once and `attend` computes instead.
    xformers is imported at the first call.
    """
    ops = _load()
    if ops is None:
        return attend(q, k, v, bias=bias)
    return attend_by(lambda *part: _call(ops, *part), "xformers", q, k, v, bias)


def _call(ops: ModuleType, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    full = None
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.zeros(bias.shape, dtype=q.dtype, device=q.device).masked_fill(~bias, -torch.inf)
        # The kernels want the rows of the bias to start at multiples of eight entries.
        shape = (*q.shape[:-1], -(-k.shape[-2] // 8) * 8)
        full = torch.zeros(shape, dtype=q.dtype, device=q.device)[..., : k.shape[-2]]
        full.copy_(bias.to(q.dtype).expand(full.shape))
    out: Tensor = ops.memory_efficient_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_bias=full
    )
    return out.transpose(1, 2)


@cache
def _load() -> ModuleType | None:
    try:
        import xformers.ops
    except (ImportError, OSError, RuntimeError) as error:
        say_once(f"xformers cannot be imported ({first_line(error)}); using torch's kernels instead")
        return None
    ops: ModuleType = xformers.ops
    return ops
