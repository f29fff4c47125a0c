"""A network that we never saw, told the guidance scale where it is told the time."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from vdm_blocks.distillation.direction import GuidanceDirection, of_each
from vdm_blocks.distillation.guided_context import encoder_of, guided_context
from vdm_blocks.distillation.scale import ScaleRange, as_range, guidance_scale_of
from vdm_blocks.models.context import Context, ContextEncoder
from vdm_blocks.nn.embedding import ScalarEmbedding
from vdm_blocks.types import Conditioning, Network

__all__ = ["ScaleAdapter"]


class ScaleAdapter(nn.Module):
    """The network, with an embedding of the guidance scale added to its embedding of the time.

        time + embed(scale)                       at the submodule `at`
        answer + g(scale) direction(h, logsnr)    at the submodule `head`, whose input is h
        emb + g(scale) (emb - emb_uncond)         at the submodule `context`
        g(s) = bend asinh((s - 1) / bend)

    (First line: arXiv 2210.03142, section 3.1.) The scale is read from `Conditioning.extra["guidance_scale"]` and
    embedded as the time is: sinusoids of `angle` u, u its place in the range, and two linear maps. Guidance is
    cond + (scale - 1) (cond - uncond), linear in the scale, which an embedding must learn scale by scale and never
    quite does: with `head` the network has a second last layer for cond - uncond (`GuidanceDirection`), so that what
    it learns at one scale it knows at all, along g, and at scale 1 there is nothing to learn. All new weights start at
    zero: without `context` the network at first answers as it did, whatever the scale. Used outside of the adapter it
    is unchanged for good.

    What starts at zero has far to go at the low rate that suits the network: begin with `fit_direction`, and give
    `added` a higher one, by `learn`'s `factors`. Or begin guided, with `context`, where the caption acts by the
    embedding, as it does in two of the example cascade's stages (docs/distillation.md): that has no weights, and is
    right to first order. `fit_direction` is for adapters without it.

    g has slope 1 where guidance begins. Guidance itself is straight, which an infinite `bend` is; but far out, where
    first order no longer holds, less is better, and what thresholded steps come to grows ever more slowly too.

    Args:
        network: any Module that is called as `network(z_t, logsnr, cond)`.
        at: the name, in `network.named_modules()`, of the submodule that puts out the time's embedding, (B, width) or
            (B, T, width): "context.logsnr" in our `VideoUNet`, "unet.time_embedding" in `DiffusersVideoUNet`.
        width: of that embedding.
        scales: the range that will be learned; others are refused.
        features: sinusoids; even.
        hidden: width between the two maps; None is `width`.
        head: the name of the last layer, which puts out (B, C, T, H, W) or (B T, ...), linear in its weights: "head"
            in our `VideoUNet`, "unet.conv_out" in `DiffusersVideoUNet`. None is without the second line.
        knots: noise levels for which the second last layer is another.
        angle: that the fastest sinusoid turns by over the range, in radians.
        context: the name of the network's `ContextEncoder`, "context" in our networks. None is without the third line.
        bend: how many scales g stays straight for.

    Raises:
        ValueError: a name that is not the network's, or a bend that is not positive; on a call, a scale that is missing
            or out of range, or an embedding of another width.

    >>> import torch
    >>> from vdm_blocks.models import LevelSpec, UNetSpec, VideoUNet
    >>> from vdm_blocks.distillation.scale import with_guidance_scale
    >>> net = VideoUNet(UNetSpec(levels=(LevelSpec(channels=8),), embedding=32, text_width=0))
    >>> adapted = ScaleAdapter(net, at="context.logsnr", width=32, head="head")
    >>> cond = with_guidance_scale(Conditioning(), torch.tensor([6.0]))
    >>> adapted(torch.zeros(1, 3, 2, 4, 4), torch.zeros(1), cond).shape
    torch.Size([1, 3, 2, 4, 4])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        at: str,
        width: int,
        scales: ScaleRange | tuple[float, float] = (1.0, 16.0),
        features: int = 64,
        hidden: int | None = None,
        head: str | None = None,
        knots: int = 4,
        angle: float = 10.0,
        context: str | None = None,
        bend: float = math.inf,
    ) -> None:
        super().__init__()
        names = [name for name, _ in network.named_modules() if name]
        if at not in names:
            near = [n for n in names if "time" in n or "logsnr" in n or "emb" in n] or names
            raise ValueError(
                f"{type(network).__name__} has no submodule {at!r}; name the one that puts out the time's embedding, "
                f"for example one of {near[:8]}"
            )
        if head is not None and head not in names:
            near = [n for n in names if "head" in n or "out" in n] or names
            raise ValueError(
                f"{type(network).__name__} has no submodule {head!r}; name its last layer, for example one of "
                f"{near[-8:]}"
            )
        if context is not None:
            encoder_of(network, context)
        if not bend > 0:
            raise ValueError(
                f"ScaleAdapter got bend={bend}; it is positive: 1.5, say, or inf for a straight line"
            )
        self.network = network
        self.at = at
        self.width = width
        self.hidden = hidden
        self.head = head
        self.knots = knots
        self.angle = angle
        self.context = context
        self.bend = bend
        self.scales = as_range(scales)
        self.embedding = ScalarEmbedding(width, scale=angle, features=features, hidden=hidden)
        last = self.embedding.mlp[-1]
        assert isinstance(last, nn.Linear)
        for p in last.parameters():
            nn.init.zeros_(p)
        self.direction = None if head is None else GuidanceDirection(network.get_submodule(head), knots)

    @property
    def added(self) -> tuple[nn.Module, ...]:
        """What is not the network's own."""
        return (self.embedding,) if self.direction is None else (self.embedding, self.direction)

    def gain(self, scale: Tensor) -> Tensor:
        """g(scale), of the same shape."""
        beyond = scale - 1
        return beyond if math.isinf(self.bend) else self.bend * torch.asinh(beyond / self.bend)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """What the network answers, told the scale."""
        scale = guidance_scale_of(cond)
        gain = self.gain(scale)
        told: Tensor = self.embedding(self.scales.place(scale))

        def add(_module: nn.Module, _given: tuple[Any, ...], time: Tensor) -> Tensor:
            if time.shape[-1] != self.width or time.shape[0] != told.shape[0]:
                raise ValueError(
                    f"{self.at} put out shape {tuple(time.shape)}; the scale's embedding is {tuple(told.shape)}: give "
                    "width=, or the name of the submodule that embeds the time"
                )
            wide, more = (time[:, None], told) if time.ndim < told.ndim else (time, told)
            if more.ndim < wide.ndim:
                more = more[:, None]
            return wide + more.to(wide.dtype)

        def push(_module: nn.Module, given: tuple[Any, ...], answer: Tensor) -> Tensor:
            assert self.direction is not None
            direction: Tensor = self.direction(given, logsnr)
            return answer + of_each(gain, answer) * direction

        def guide(encoder: nn.Module, given: tuple[Any, ...], context: Context) -> Context:
            return guided_context(cast("ContextEncoder", encoder), given, context, gain)

        with ExitStack() as hooks:
            hooks.enter_context(self.network.get_submodule(self.at).register_forward_hook(add))
            if self.head is not None:
                hooks.enter_context(self.network.get_submodule(self.head).register_forward_hook(push))
            if self.context is not None:
                hooks.enter_context(self.network.get_submodule(self.context).register_forward_hook(guide))
            return cast("Network", self.network)(z_t, logsnr, cond)
