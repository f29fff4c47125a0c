"""The layers of the video transformer, on tokens (B, T, H, W, D)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdm_blocks.models.context import Context
from vdm_blocks.models.transformer_spec import FactorizedSpec, TransformerSpec
from vdm_blocks.nn.attention import TextAttention
from vdm_blocks.nn.axes import from_last, to_last
from vdm_blocks.nn.blocks import film_of
from vdm_blocks.nn.heads import Attention, seen_frames, split_heads
from vdm_blocks.nn.joint_attention import alone_or_together
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.recompute import Recomputing
from vdm_blocks.nn.rotary import Rotary, grid_positions

__all__ = ["Block", "Modulated"]


class TokenAttention(Attention):
    """W attend(rotate(q), rotate(k), v) among the tokens of a sequence; what a sequence is, subclasses say."""

    axes = 1

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        each = width // heads // self.axes // 2 * 2
        self.rotary = Rotary(widths=(each,) * self.axes)
        self.qkv = Pointwise(width, 3 * width, bias=False)
        self.out = Pointwise(width, width)

    def among(self, x: Tensor, positions: Tensor, bias: Tensor | None) -> Tensor:
        """`x` (N, S, D) at `positions` (S, axes) -> (N, S, D)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = self.rotary.rotate(q, positions), self.rotary.rotate(k, positions)
        y: Tensor = self.out(self.attend(q, k, v, bias=bias).transpose(1, 2).flatten(2))
        return y


class SpaceTokens(TokenAttention):
    """Attention within each frame."""

    axes = 2

    def forward(self, x: Tensor, images: Tensor | None) -> Tensor:  # noqa: ARG002
        """`x` (B, T, H, W, D) -> the same."""
        b, t, h, w, d = x.shape
        y = self.among(x.reshape(b * t, h * w, d), grid_positions(h, w, device=x.device), None)
        return y.view(b, t, h, w, d)


class TimeTokens(TokenAttention):
    """Attention across the frames at each place; frames marked as images see themselves alone."""

    def forward(self, x: Tensor, images: Tensor | None) -> Tensor:
        """`x` (B, T, H, W, D) -> the same."""
        b, t, h, w, d = x.shape
        seen = seen_frames(images, t)
        bias = None if seen is None else seen[:, None].repeat_interleave(h * w, dim=0)
        rows = x.permute(0, 2, 3, 1, 4).reshape(b * h * w, t, d)
        y = self.among(rows, grid_positions(t, device=x.device), bias)
        return y.view(b, h, w, t, d).permute(0, 3, 1, 2, 4)


class JointTokens(TokenAttention):
    """Attention among all tokens; frames marked as images see themselves alone."""

    axes = 3

    def forward(self, x: Tensor, images: Tensor | None) -> Tensor:
        """`x` (B, T, H, W, D) -> the same."""
        b, t, h, w, d = x.shape
        where = grid_positions(t, h, w, device=x.device)
        return self.among(x.reshape(b, t * h * w, d), where, alone_or_together(images, t, h * w)).view(
            x.shape
        )


class Perceptron(Recomputing):
    """W2 gelu(W1 x) at each token."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = Pointwise(width, hidden)
        self.outer = Pointwise(hidden, width)

    def forward(self, x: Tensor, images: Tensor | None) -> Tensor:  # noqa: ARG002
        """`x` (..., D) -> the same."""
        return self.part(self._outer, self.inner(x))

    def _outer(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.outer(F.gelu(hidden, approximate="tanh"))
        return out


class Modulated(nn.Module):
    """x + gate inner((1 + scale) norm(x) + shift), the three read from `emb` (arXiv 2212.09748, 'adaLN-Zero').

    The map from `emb` starts at zero, so the layer starts as the identity.
    """

    def __init__(self, width: int, embedding: int, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.film = nn.Linear(embedding, 3 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, emb: Tensor, images: Tensor | None) -> Tensor:
        """`x` (B, T, H, W, D), `emb` (B, E) or (B, T, E)."""
        scale, shift, gate = film_of(self.film(emb), x, 3)
        return torch.addcmul(x, gate, self.inner(modulated(x, scale, shift), images).to(x.dtype))


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(1 + scale) norm(x) + shift, at each token."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]).to(x.dtype), 1 + scale)


class Block(nn.Module):
    """Attention as `spec.mixing` says, to the caption where there is one, and a perceptron."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        d, e = spec.width, spec.embedding
        kinds = (SpaceTokens, TimeTokens) if isinstance(spec.mixing, FactorizedSpec) else (JointTokens,)
        self.mix = nn.ModuleList(Modulated(d, e, kind(d, spec.heads)) for kind in kinds)
        self.text = TextAttention(d, spec.text_inner, spec.heads) if spec.text_width else None
        self.mlp = Modulated(d, e, Perceptron(d, spec.mlp * d))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """`x` (B, T, H, W, D) -> the same."""
        for mix in self.mix:
            x = mix(x, context.emb, context.images)
        if self.text is not None:
            assert context.text is not None
            assert context.text_mask is not None
            x = to_last(self.text(from_last(x), context.text, context.text_mask))
        out: Tensor = self.mlp(x, context.emb, context.images)
        return out
