"""A network that we never saw, told the guidance scale where it is told the time."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from vdm_blocks.distillation.scale import ScaleRange, as_range, guidance_scale_of
from vdm_blocks.nn.embedding import ScalarEmbedding
from vdm_blocks.types import Conditioning, Network

__all__ = ["ScaleAdapter"]


class ScaleAdapter(nn.Module):
    """The network, with an embedding of the guidance scale added to its embedding of the time.

    (arXiv 2210.03142, section 3.1.) The scale is read from `Conditioning.extra["guidance_scale"]` and embedded as the
    log-SNR is in our networks: sinusoids of 1000 u, u its place in the range, and two linear maps. The last of them
    starts at zero, so at first the network answers as it did, whatever the scale. Used outside of the adapter it is
    unchanged for good.

    Args:
        network: any Module that is called as `network(z_t, logsnr, cond)`.
        at: the name, in `network.named_modules()`, of the submodule that puts out the time's embedding, (B, width) or
            (B, T, width): "context.logsnr" in our `VideoUNet`, "unet.time_embedding" in `DiffusersVideoUNet`.
        width: of that embedding.
        scales: the range that will be learned; others are refused.
        features: sinusoids; even.
        hidden: width between the two maps; None is `width`.

    Raises:
        ValueError: a name that is not the network's; on a call, a scale that is missing or out of range, or an
            embedding of another width.

    >>> import torch
    >>> from vdm_blocks.models import LevelSpec, UNetSpec, VideoUNet
    >>> from vdm_blocks.distillation.scale import with_guidance_scale
    >>> net = VideoUNet(UNetSpec(levels=(LevelSpec(channels=8),), embedding=32, text_width=0))
    >>> adapted = ScaleAdapter(net, at="context.logsnr", width=32)
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
    ) -> None:
        super().__init__()
        names = [name for name, _ in network.named_modules() if name]
        if at not in names:
            near = [n for n in names if "time" in n or "logsnr" in n or "emb" in n] or names
            raise ValueError(
                f"{type(network).__name__} has no submodule {at!r}; name the one that puts out the time's embedding, "
                f"for example one of {near[:8]}"
            )
        self.network = network
        self.at = at
        self.width = width
        self.hidden = hidden
        self.scales = as_range(scales)
        self.embedding = ScalarEmbedding(width, scale=1000.0, features=features, hidden=hidden)
        last = self.embedding.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """What the network answers, told the scale."""
        told: Tensor = self.embedding(self.scales.place(guidance_scale_of(cond)))

        def add(_module: nn.Module, _given: tuple[Any, ...], time: Tensor) -> Tensor:
            if time.shape[-1] != self.width or time.shape[0] != told.shape[0]:
                raise ValueError(
                    f"{self.at} put out shape {tuple(time.shape)}; the scale's embedding is {tuple(told.shape)}: give "
                    "width=, or the name of the submodule that embeds the time"
                )
            wide, scale = (time[:, None], told) if time.ndim < told.ndim else (time, told)
            if scale.ndim < wide.ndim:
                scale = scale[:, None]
            return wide + scale.to(wide.dtype)

        handle = self.network.get_submodule(self.at).register_forward_hook(add)
        try:
            return cast("Network", self.network)(z_t, logsnr, cond)
        finally:
            handle.remove()
