"""A transformer on patches of video, in the place of the U-Net wherever one stands.

Axes: B batch, C channels, T frames, H height, W width, L text tokens, D token width, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdm_blocks.models.context import Context, ContextEncoder, with_condition
from vdm_blocks.models.transformer_layers import Block, modulated
from vdm_blocks.models.transformer_spec import TransformerSpec
from vdm_blocks.nn.axes import channels_last, check_video, from_last, to_last
from vdm_blocks.nn.blocks import film_of
from vdm_blocks.nn.pointwise import Pointwise
from vdm_blocks.nn.resample import fold_space, unfold_space
from vdm_blocks.types import Conditioning

__all__ = ["VideoTransformer"]


class VideoTransformer(nn.Module):
    """Patches as tokens, blocks of attention under adaptive norms, and back (arXiv 2212.09748, made for video).

    Positions (t, h, w) are rotations, so any grid will do. Every block starts as the identity and the prediction
    as zero. It is called as `VideoUNet` is, and told the same.

    Args:
        spec: the plan.

    Shape: z_t (B, channels, T, H, W), logsnr (B,) or (B, T) -> (B, channels, T, H, W). With `patch_frames` above 1,
        a level per frame is averaged over the frames of a token.

    >>> from vdm_blocks.models.transformer_spec import FactorizedSpec
    >>> spec = TransformerSpec(width=24, depth=2, heads=2, mixing=FactorizedSpec(), text_width=0)
    >>> net = VideoTransformer(spec)
    >>> net(torch.zeros(1, 3, 4, 8, 12), torch.zeros(1), Conditioning()).shape
    torch.Size([1, 3, 4, 8, 12])
    """

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.spec = spec
        cell = spec.patch**2 * spec.patch_frames
        self.context = ContextEncoder(spec)
        self.stem = Pointwise(cell * (spec.channels + spec.cond_channels), spec.width)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.film = nn.Linear(spec.embedding, 2 * spec.width)
        self.head = Pointwise(spec.width, cell * spec.channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._checkpointed: frozenset[int] = frozenset()

    def checkpoint_blocks(self, *blocks: int) -> None:
        """Recomputes the activations of these blocks in the backward pass; none turns it off.

        Raises:
            ValueError: a block that the network does not have.
        """
        beyond = [block for block in blocks if not 0 <= block < len(self.blocks)]
        if beyond:
            raise ValueError(f"no block {beyond}; this network has blocks 0 to {len(self.blocks) - 1}")
        self._checkpointed = frozenset(blocks)

    def units(self) -> Iterator[nn.Module]:
        """The blocks in their order: what to shard or compile one by one, as `VideoUNet.units` says."""
        yield from self.blocks

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """Predicts from the noisy video `z_t` at log-SNR `logsnr` under `cond`.

        Raises:
            ValueError: a grid that the patches do not divide, a conditioning video that is missing, unasked for, or
                of another grid, or pictures and captions per frame where frames share tokens.
        """
        self._check(z_t, cond)
        x = with_condition(z_t, cond, self.spec)
        context = self._per_token(self.context(logsnr, cond, z_t.dtype), z_t.shape[2])
        x = self.stem(
            _fold_time(to_last(channels_last(fold_space(x, self.spec.patch))), self.spec.patch_frames)
        )
        for index, block in enumerate(self.blocks):
            if index in self._checkpointed and torch.is_grad_enabled():
                x = checkpoint(block, x, context, use_reentrant=False)
            else:
                x = block(x, context)
        x = self.head(modulated(x, *film_of(self.film(context.emb), x, 2)))
        return unfold_space(from_last(_unfold_time(x, self.spec.patch_frames)), self.spec.patch)

    def receptive_field(self) -> None:
        """None: every output value depends on everything, as `VideoUNet.receptive_field` says it."""
        return

    def receptive_frames(self) -> None:
        """None, as `receptive_field`."""
        return

    def _per_token(self, context: Context, frames: int) -> Context:
        if self.spec.patch_frames == 1 or context.emb.ndim == 2:
            return context
        return context._replace(
            emb=context.emb.unflatten(1, (frames // self.spec.patch_frames, self.spec.patch_frames)).mean(2)
        )

    def _check(self, z_t: Tensor, cond: Conditioning) -> None:
        check_video(z_t, self.spec.channels)
        frames, height, width = z_t.shape[2:]
        p, p_t = self.spec.patch, self.spec.patch_frames
        if height % p or width % p or frames % p_t:
            raise ValueError(
                f"{frames} frames of {height}x{width} do not divide into patches of {p_t}x{p}x{p}; the nearest that "
                f"do are {-(-frames // p_t) * p_t} frames of {-(-height // p) * p}x{-(-width // p) * p}"
            )
        if p_t > 1 and (cond.images is not None or (cond.text is not None and cond.text.ndim == 4)):
            raise ValueError(
                f"each token of this network holds {p_t} frames, so frames cannot be pictures or have captions of "
                "their own; build it with patch_frames=1"
            )


def _fold_time(x: Tensor, factor: int) -> Tensor:
    """(B, f T, H, W, C) -> (B, T, H, W, f C)."""
    return x if factor == 1 else x.unflatten(1, (-1, factor)).permute(0, 1, 3, 4, 2, 5).flatten(4)


def _unfold_time(x: Tensor, factor: int) -> Tensor:
    """(B, T, H, W, f C) -> (B, f T, H, W, C), the inverse of `_fold_time`."""
    return x if factor == 1 else x.unflatten(4, (factor, -1)).permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
