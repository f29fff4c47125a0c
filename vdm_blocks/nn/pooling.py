"""A caption as one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vdm_blocks.nn.heads import Attention, split_heads

__all__ = ["AttentionPool", "MeanPool"]


class MeanPool(nn.Linear):
    """W mean(text) + b over the tokens that `mask` lets through; b alone where it lets none.

    Args:
        width: D of the text states.
        out: width of the result.

    Shape: text (..., L, D), mask bool (..., L) -> (..., out).
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out)

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """Pools the tokens of `text` that `mask` lets through."""
        seen = mask[..., None]
        return super().forward((text * seen).sum(-2) / seen.sum(-2).clamp(min=1))


class AttentionPool(Attention):
    """W attend(q + mean, k, v) over [null, layernorm(text)]: a learned question put to the caption.

    The null token is learned and always there, so a caption that is masked out altogether has an answer too, and
    padding changes nothing (attention pooling as in arXiv 2204.03458, appendix A, and 2205.11487, appendix F).

    Args:
        width: D of the text states.
        out: width of the result.
        heads: a divisor of D.

    Shape: text (..., L, D), mask bool (..., L) -> (..., out).

    Raises:
        ValueError: heads that do not divide the width, or text of another one.
    """

    def __init__(self, width: int, out: int, heads: int = 4) -> None:
        super().__init__(width, heads)
        self.width = width
        self.norm = nn.LayerNorm(width)
        self.null = nn.Parameter(torch.randn(width) * 0.02)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, out)

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        """Pools the tokens of `text` that `mask` lets through."""
        if text.shape[-1] != self.width:
            raise ValueError(f"this pool takes text of width {self.width}; got {text.shape[-1]}")
        lead = text.shape[:-2]
        tokens = self.norm(text.reshape(-1, *text.shape[-2:]))
        seen = mask.reshape(-1, mask.shape[-1])
        count = tokens.shape[0]
        tokens = torch.cat([self.null.to(tokens.dtype).expand(count, 1, -1), tokens], dim=1)
        seen = nn.functional.pad(seen, (1, 0), value=True)
        weight = seen[..., None].to(tokens.dtype)
        mean = (tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        k, v = self.kv(tokens).chunk(2, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (self.q(self.query + mean), k, v))
        pooled = self.attend(q, k, v, bias=seen[:, None, None, :]).transpose(1, 2).reshape(*lead, self.width)
        result: Tensor = self.out(pooled)
        return result
