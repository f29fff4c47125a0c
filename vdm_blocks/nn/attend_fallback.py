"""What the optional backends of attention share: where they cannot, they say so once, and `attend` computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from vdm_blocks.nn.attend import attend, in_pieces

__all__ = ["attend_by", "first_line", "say_once"]


def attend_by(
    kernel: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Attention by `kernel` in pieces of the batch, or by `attend` where `kernel` cannot take these tensors."""
    try:
        return in_pieces(kernel, q, k, v, bias)
    except (NotImplementedError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        say_once(f"{name} cannot take these tensors ({first_line(error)}); using torch's kernels instead")
        return attend(q, k, v, bias=bias)


@cache
def say_once(message: str) -> None:
    """Warns of it the first time."""
    warnings.warn(message, stacklevel=4)


def first_line(error: Exception) -> str:
    """Of what an error says."""
    return str(error).strip().partition("\n")[0]
