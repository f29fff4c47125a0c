"""Exact quantiles of magnitudes, for tensors of any size and in little memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["magnitude_quantile"]

_DIGIT = 11
_INTEGERS = {
    torch.float64: (torch.int64, 63),
    torch.float32: (torch.int32, 31),
    torch.float16: (torch.int16, 15),
    torch.bfloat16: (torch.int16, 15),
}


def magnitude_quantile(x: Tensor, quantile: float, *, keep: int = 1) -> Tensor:
    """The `quantile` of |x| over all axes but the first `keep`, interpolated as `torch.quantile` does.

    Exact, without torch.quantile's limit of 2^24 elements, and reading x in pieces instead of sorting a copy:
    the bit patterns of non-negative floats are ordered like the numbers, so the order statistic is found
    digit by digit of 11 bits, from counts. Nothing waits for a device, and the result does not depend on the
    rest of the batch.

    Args:
        x: float64, float32, float16 or bfloat16.
        quantile: from 0 to 1.
        keep: how many leading axes get a quantile each.

    Returns:
        A tensor of shape x.shape[:keep] and x's dtype.

    Raises:
        ValueError: a quantile outside [0, 1], another dtype, or nothing to take it over.

    >>> magnitude_quantile(torch.tensor([[1.0, -4.0, 2.0, -3.0]]), 0.5)
    tensor([2.5000])
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile is {quantile}; it must lie in [0, 1], for example 0.995")
    if x.dtype not in _INTEGERS:
        raise ValueError(f"x is {x.dtype}; a quantile is taken of float64, float32, float16 or bfloat16")
    count = x.shape[keep:].numel()
    if x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}, which holds no numbers")
    x = x.detach()
    position = quantile * (count - 1)
    rank = int(position)
    low, at_most_low = _order_statistic(x, rank, keep)
    if position == rank:
        high = low
    else:
        following = _smallest_above(x, low, keep)
        high = torch.where(at_most_low > rank + 1, low, following)
    return torch.lerp(low, high, position - rank).view(x.shape[:keep])


def _pieces(x: Tensor, keep: int) -> Iterator[Tensor]:
    """The keys of |x| a piece at a time, (rows, n): integers in the order of the magnitudes."""
    integer, bits = _INTEGERS[x.dtype]
    rows = x.shape[:keep].numel()
    limit = max(2**16, x.numel() // 128)

    def split(part: Tensor) -> Iterator[Tensor]:
        if part.numel() <= limit or part.shape[keep:].numel() == 1:
            yield part
            return
        axis = max(range(keep, part.ndim), key=lambda i: part.shape[i])
        for half in part.tensor_split(2, dim=axis):
            yield from split(half)

    for part in split(x):
        yield part.reshape(rows, -1).view(integer) & (2**bits - 1)


def _order_statistic(x: Tensor, rank: int, keep: int) -> tuple[Tensor, Tensor]:
    """Per row, the |x| with `rank` smaller ones before it, and how many are at most as large: (rows,)."""
    integer, bits = _INTEGERS[x.dtype]
    rows = x.shape[:keep].numel()
    prefix = torch.zeros(rows, 1, dtype=integer, device=x.device)
    below = torch.zeros(rows, 1, dtype=torch.int64, device=x.device)
    inside = torch.full_like(below, x.shape[keep:].numel())
    while bits > 0:
        width = min(_DIGIT, bits)
        counts = torch.zeros(rows, 2**width + 1, dtype=torch.int64, device=x.device)
        for keys in _pieces(x, keep):
            digit = (keys >> (bits - width)) - (prefix << width)
            fits = (digit >= 0) & (digit < 2**width)
            index = torch.where(fits, digit, 2**width).long()
            counts.scatter_add_(1, index, torch.ones((), dtype=torch.int64, device=x.device).expand_as(index))
        cumulative = counts[:, :-1].cumsum(1)
        digit = torch.searchsorted(cumulative, rank - below, right=True)
        inside = counts.gather(1, digit)
        below = below + cumulative.gather(1, digit) - inside
        prefix = (prefix << width) + digit.to(integer)
        bits -= width
    return prefix.view(x.dtype)[:, 0], (below + inside)[:, 0]


def _smallest_above(x: Tensor, low: Tensor, keep: int) -> Tensor:
    """Per row the smallest |x| that is larger than `low`; NaN where there is none."""
    integer, _ = _INTEGERS[x.dtype]
    largest = torch.iinfo(integer).max
    keys = low.view(integer)[:, None]
    found = torch.full_like(keys, largest)
    for piece in _pieces(x, keep):
        found = torch.minimum(found, piece.masked_fill(piece <= keys, largest).amin(1, keepdim=True))
    return found.view(x.dtype)[:, 0]
