"""Scaled dot-product attention by whichever formulation is fastest for the shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attend", "attend_by_products", "attend_fused", "in_pieces"]

# Kernels index the batch with a 16-bit grid dimension on CUDA, so a larger batch is cut.
_LARGEST_BATCH = 65_535
# On a CPU explicit products win for short sequences (float32, 8 to 32 frames: 1.1 to 1.7 times forward, 0.9 to 1.2 with
# backward; at 240 tokens 0.8 and 0.9), and in half precision, whose fused kernel there is slow backward, for all
# sequences of a frame or a caption (1.3 to 6 times, forward with backward).
_SHORT, _SHORT_HALF = 32, 256


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for every batch entry and head (arXiv 1706.03762, eq. 1).

    On a CPU, short sequences (up to 32 tokens, 256 keys in half precision) go through explicit products and longer
    ones through the fused kernel, which never stores the matrix of weights; other devices always take that, and so does
    a program that `torch.export` makes for lengths yet unknown, so that it is right for all of them.

    Args:
        q: (N, heads, S, d).
        k, v: (N, heads, S', d).
        bias: float, added to the logits, or bool, False where a key is not to be seen; broadcastable to
            (N, heads, S, S'). Each query must see one key at least.

    Returns:
        (N, heads, S, d).
    """
    if q.device.type == "cpu" and _is_short(q, k):
        return attend_by_products(q, k, v, bias=bias)
    return attend_fused(q, k, v, bias=bias)


def _is_short(q: Tensor, k: Tensor) -> bool:
    lengths = (q.shape[-2], k.shape[-2])
    if any(isinstance(length, torch.SymInt) for length in lengths):
        return False
    return max(lengths) <= _SHORT if q.dtype.itemsize > 2 else lengths[1] <= _SHORT_HALF


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """`attend`, written out as two batched products; stores (N, heads, S, S').

    The product needs `k` in one piece; brought there before it is transposed, it is copied row by row instead of number
    by number.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.contiguous().transpose(-1, -2)
    if bias is not None:
        logits = (
            logits.masked_fill(~bias, -torch.inf)
            if bias.dtype == torch.bool
            else logits + bias.to(logits.dtype)
        )
    weights: Tensor = logits.softmax(-1).to(v.dtype)
    return weights @ v


def attend_fused(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """`attend` through torch's fused kernels, at most 65,535 batch entries at a time."""
    if bias is not None and bias.dtype != torch.bool:
        bias = bias.to(q.dtype)
    return in_pieces(
        lambda q, k, v, bias: F.scaled_dot_product_attention(q, k, v, attn_mask=bias), q, k, v, bias
    )


def in_pieces(
    kernel: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """`kernel(q, k, v, bias)`, at most 65,535 batch entries at a time, joined."""
    if q.shape[0] <= _LARGEST_BATCH:
        return kernel(q, k, v, bias)
    parts = []
    for start in range(0, q.shape[0], _LARGEST_BATCH):
        part = slice(start, start + _LARGEST_BATCH)
        own = bias[part] if bias is not None and bias.ndim == 4 and bias.shape[0] > 1 else bias
        parts.append(kernel(q[part], k[part], v[part], own))
    return torch.cat(parts)
