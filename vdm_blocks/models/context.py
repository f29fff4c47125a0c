"""All that a network is told beside the video: one vector for scale and shift, and the text to attend to."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vdm_blocks.models.context_spec import (
    AttentionPoolSpec,
    FourierSpec,
    InverseCosineSpec,
    MeanPoolSpec,
    SinusoidSpec,
)
from vdm_blocks.nn.embedding import FramePositions, LogSNREmbedding, ScalarEmbedding
from vdm_blocks.nn.fourier import FourierLogSNREmbedding
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.pooling import AttentionPool, MeanPool
from vdm_blocks.types import Conditioning

__all__ = ["Context", "ContextEncoder", "with_condition"]


class Context(NamedTuple):
    """What every block is given.

    Attributes:
        emb: (B, E), or (B, T, E) where frames differ in noise level, caption or position.
        text: (B, 1 + L, D') or (B, T, 1 + L, D'); the first token is a learned one that is always there.
        text_mask: bool, text's shape without D'.
        images: bool (B,) or (B, T), frames that are independent pictures.
    """

    emb: Tensor
    text: Tensor | None
    text_mask: Tensor | None
    images: Tensor | None


class Reader(Protocol):
    """What the spec of a network that reads a context says of it."""

    @property
    def embedding(self) -> int:
        """Width of `Context.emb`."""

    @property
    def cond_channels(self) -> int:
        """Channels of the conditioning video; 0 for none."""

    @property
    def text_width(self) -> int:
        """Width of the text states; 0 for none."""

    @property
    def text_inner(self) -> int:
        """Width that they are projected to."""

    @property
    def pool(self) -> MeanPoolSpec | AttentionPoolSpec:
        """How the caption becomes one vector."""

    @property
    def logsnr(self) -> InverseCosineSpec | SinusoidSpec | FourierSpec:
        """How log-SNR is embedded."""


class ContextEncoder(nn.Module):
    """emb = silu(MLP(logsnr) + MLP(aug_logsnr) + MLP(fps) + pool(n) + P(i)); text = [null, W n], n = layernorm(text).

    The MLPs of both log-SNRs are as `spec.logsnr` says and the pool as `spec.pool`. With `positions`, P is
    `FramePositions`, else there is none.

    The learned null token comes before the caption's and is never masked: dropping the text leaves it alone
    to be seen, and padding never changes a result.
    """

    def __init__(self, spec: Reader, *, positions: bool = False) -> None:
        super().__init__()
        e = spec.embedding
        self.frame = FramePositions(e) if positions else None
        self.logsnr = logsnr_embedding(spec)
        self.fps = ScalarEmbedding(e)
        self.aug = logsnr_embedding(spec) if spec.cond_channels else None
        self.text: Pointwise | None = None
        if spec.text_width:
            self.text_norm = nn.LayerNorm(spec.text_width)
            self.text = Pointwise(spec.text_width, spec.text_inner)
            pool = spec.pool
            self.pooled = (
                AttentionPool(spec.text_width, e, pool.heads)
                if isinstance(pool, AttentionPoolSpec)
                else MeanPool(spec.text_width, e)
            )
            self.null = nn.Parameter(torch.randn(spec.text_inner) * 0.02)
        self.width = spec.text_width

    def forward(self, logsnr: Tensor, cond: Conditioning, dtype: torch.dtype, frames: int = 1) -> Context:
        """Reads `logsnr` (B,) or (B, T) and `cond`; `frames` is T.

        Raises:
            ValueError: text states that are missing or of another width, an augmentation level that is missing.
        """
        emb = self.logsnr(logsnr)
        emb = _add(emb, self.fps(_log_fps(cond, logsnr)))
        if self.frame is not None:
            emb = _add(emb, self.frame(frames, cond.images))
        if self.aug is not None:
            if cond.aug_logsnr is None:
                raise ValueError(
                    "this network is conditioned on a video and must know how noisy it is: "
                    "give aug_logsnr (B,), as ConditioningAugmentation reports it"
                )
            emb = _add(emb, self.aug(cond.aug_logsnr))
        if self.text is None:
            return Context(nn.functional.silu(emb), None, None, cond.images)
        if cond.text is None or cond.text_mask is None:
            raise ValueError(
                "this network reads text; give text states and their mask, or mask them all out "
                "with Conditioning.without_text()"
            )
        if cond.text.shape[-1] != self.width:
            raise ValueError(
                f"text states have width {cond.text.shape[-1]}; this network was built for {self.width}. "
                "Use the encoder that it was trained with"
            )
        normed = self.text_norm(cond.text.to(self.text_norm.weight.dtype))
        emb = _add(emb, self.pooled(normed, cond.text_mask))
        tokens = self.text(normed)
        null = self.null.to(tokens.dtype).expand(*tokens.shape[:-2], 1, -1)
        first = torch.ones_like(cond.text_mask[..., :1])
        text = torch.cat([null, tokens], dim=-2).to(dtype)
        return Context(nn.functional.silu(emb), text, torch.cat([first, cond.text_mask], dim=-1), cond.images)


def with_condition(z_t: Tensor, cond: Conditioning, spec: Reader) -> Tensor:
    """`z_t` with the conditioning video that `spec` asks for behind it: (B, C + C', T, H, W).

    Raises:
        ValueError: a video that is missing, unasked for, or of another batch or grid.
    """
    video, wanted = cond.video, spec.cond_channels
    given = 0 if video is None else video.shape[1]
    if given != wanted:
        raise ValueError(f"this network is conditioned on a video of {wanted} channels; got {given}")
    if video is None:
        return z_t
    if (video.shape[0], *video.shape[2:]) != (z_t.shape[0], *z_t.shape[2:]):
        raise ValueError(
            f"the conditioning video {tuple(video.shape)} is not on the grid of z_t {tuple(z_t.shape)}; upsample it "
            "first"
        )
    return torch.cat([z_t, video.to(z_t.dtype)], dim=1)


def logsnr_embedding(spec: Reader) -> nn.Module:
    """The embedding of a log-SNR that `spec` asks for."""
    kind = spec.logsnr
    if isinstance(kind, FourierSpec):
        return FourierLogSNREmbedding(spec.embedding, features=kind.features, bandwidth=kind.bandwidth)
    if isinstance(kind, SinusoidSpec):
        return ScalarEmbedding(spec.embedding, scale=kind.scale, features=kind.features)
    return LogSNREmbedding(spec.embedding, features=kind.features)


def _log_fps(cond: Conditioning, logsnr: Tensor) -> Tensor:
    """16 log2(1 + fps), so that a doubling moves the sinusoids by whole periods' worth; 0 where none is told."""
    if cond.fps is None:
        return torch.zeros(logsnr.shape[0], device=logsnr.device)
    return 16 * torch.log2(1 + cond.fps.float())


def _add(a: Tensor, b: Tensor) -> Tensor:
    """(B, E) or (B, T, E) plus the same, broadcast over T."""
    if a.ndim != b.ndim:
        a, b = (a[:, None], b) if a.ndim < b.ndim else (a, b[:, None])
    return a + b
