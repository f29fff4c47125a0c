"""The BERT encoder (arXiv 1810.04805) on torch alone, just deep enough to run frozen weights.

Axes: B batch, L tokens, D width, N heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["Bert", "BertSpec"]


@dataclass(frozen=True, kw_only=True)
class BertSpec:
    """Sizes of a BERT encoder; the defaults are all-MiniLM-L6-v2's."""

    vocabulary: int = 30522
    width: int = 384
    hidden: int = 1536
    layers: int = 6
    heads: int = 12
    positions: int = 512
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")


class Layer(nn.Module):
    """One post-norm encoder layer: h = norm(h + attention(h)); h = norm(h + mlp(h))."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.query = nn.Linear(spec.width, spec.width)
        self.key = nn.Linear(spec.width, spec.width)
        self.value = nn.Linear(spec.width, spec.width)
        self.attention_out = nn.Linear(spec.width, spec.width)
        self.attention_norm = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.mlp_in = nn.Linear(spec.width, spec.hidden)
        self.mlp_out = nn.Linear(spec.hidden, spec.width)
        self.mlp_norm = nn.LayerNorm(spec.width, eps=spec.norm_eps)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """`h` (B, L, D), `mask` bool (B, L)."""
        q, k, v = (
            rearrange(project(h), "b l (n d) -> b n l d", n=self.heads)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=rearrange(mask, "b l -> b 1 1 l"))
        h = self.attention_norm(h + self.attention_out(rearrange(attended, "b n l d -> b l (n d)")))
        out: Tensor = self.mlp_norm(h + self.mlp_out(F.gelu(self.mlp_in(h))))
        return out


class Bert(nn.Module):
    """Token numbers to the states of the last layer. Single segment, no pooler, no dropout."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.spec = spec
        self.words = nn.Embedding(spec.vocabulary, spec.width)
        self.positions = nn.Embedding(spec.positions, spec.width)
        self.segment = nn.Parameter(torch.zeros(spec.width))
        self.norm = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`ids` int64 (B, L) and `mask` bool (B, L), True for tokens, to states (B, L, D)."""
        h = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]] + self.segment)
        for layer in self.layers:
            h = layer(h, mask)
        out: Tensor = h
        return out


_RENAMED = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
    "output.LayerNorm": "mlp_norm",
}


def renamed_weights(published: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The published names, with or without the prefix `bert.`, to those of `Bert`; the pooler is left out.

    Raises:
        ValueError: a weight that the encoder needs is missing.
    """
    source = {name.removeprefix("bert."): value for name, value in published.items()}
    names = {
        "words.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "norm.weight": "embeddings.LayerNorm.weight",
        "norm.bias": "embeddings.LayerNorm.bias",
    }
    for layer in range(layers):
        for theirs, ours in _RENAMED.items():
            for part in ("weight", "bias"):
                names[f"layers.{layer}.{ours}.{part}"] = f"encoder.layer.{layer}.{theirs}.{part}"
    missing = sorted(set(names.values()) - source.keys())
    if missing:
        raise ValueError(f"the weights lack {missing[:3]} (and {len(missing) - 1} more); is this BERT?")
    weights = {ours: source[theirs] for ours, theirs in names.items()}
    return {**weights, "segment": source["embeddings.token_type_embeddings.weight"][0]}
