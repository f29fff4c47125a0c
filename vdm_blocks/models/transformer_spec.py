"""What a video transformer is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.models.context_spec import (
    AttentionPoolSpec,
    FourierSpec,
    InverseCosineSpec,
    MeanPoolSpec,
    SinusoidSpec,
    check_pool,
)

__all__ = ["FactorizedSpec", "JointSpec", "TransformerSpec"]


@dataclass(frozen=True, kw_only=True)
class FactorizedSpec:
    """Each block attends within frames, then across them at each place."""


@dataclass(frozen=True, kw_only=True)
class JointSpec:
    """Each block attends among all places of all frames at once."""


@dataclass(frozen=True, kw_only=True)
class TransformerSpec:
    """A whole video transformer.

    Attributes:
        width: channels of a token.
        depth: blocks.
        heads: of each attention, a divisor of `width`.
        mixing: how tokens attend to one another.
        patch: side in pixels of the square that becomes a token.
        patch_frames: frames that become one token; 1 keeps frames apart, as pictures in a pack need.
        mlp: width of the hidden layer over `width`.
        channels, cond_channels, embedding, text_width, text_inner, pool, logsnr: as in `UNetSpec`.
    """

    width: int
    depth: int
    heads: int
    mixing: FactorizedSpec | JointSpec
    patch: int = 2
    patch_frames: int = 1
    mlp: int = 4
    channels: int = 3
    cond_channels: int = 0
    embedding: int = 256
    text_width: int = 384
    text_inner: int = 128
    pool: MeanPoolSpec | AttentionPoolSpec = MeanPoolSpec()  # noqa: RUF009 - frozen
    logsnr: InverseCosineSpec | SinusoidSpec | FourierSpec = InverseCosineSpec()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        check_numbers(self)
        names = (
            "width",
            "depth",
            "heads",
            "patch",
            "patch_frames",
            "mlp",
            "channels",
            "embedding",
            "text_inner",
        )
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("cond_channels", "text_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, for none; got {getattr(self, name)}")
        check_pool(self.pool, self.text_width)
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if self.width // self.heads < 6:
            raise ValueError(
                f"heads of {self.width // self.heads} channels are too narrow for positions in t, h and w; "
                f"take at most {max(self.width // 6, 1)} heads"
            )

    @property
    def divisor(self) -> int:
        """What the height and the width of a frame must divide by."""
        return self.patch
