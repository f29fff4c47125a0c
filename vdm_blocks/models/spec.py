"""What a video U-Net is made of, as data: one entry per level, finest first."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.models.context_spec import (
    AttentionPoolSpec,
    FourierSpec,
    InverseCosineSpec,
    MeanPoolSpec,
    SinusoidSpec,
    check_pool,
)

__all__ = [
    "ChannelNormSpec",
    "GroupNormSpec",
    "JoinedTextSpec",
    "LevelSpec",
    "MagnitudeNormSpec",
    "RMSNormSpec",
    "SpatialAttentionSpec",
    "TemporalAttentionSpec",
    "TemporalConvSpec",
    "TextAttentionSpec",
    "UNetSpec",
]


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")


@dataclass(frozen=True, kw_only=True)
class TemporalConvSpec:
    """Frames mix by a convolution over `kernel` frames inside each residual block."""

    kernel: int = 3
    causal: bool = False

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and positive; got {self.kernel}")


@dataclass(frozen=True, kw_only=True)
class TemporalAttentionSpec:
    """Frames mix by attention at each pixel after each residual block.

    Attributes:
        heads: a divisor of the level's channels.
        reach, causal, window: as in `TemporalAttention`.
    """

    heads: int = 4
    reach: int = 32
    causal: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        _positive(heads=self.heads, reach=self.reach)
        if self.window is not None and self.window < 0:
            raise ValueError(f"window must be at least 0, or None to see all frames; got {self.window}")


@dataclass(frozen=True, kw_only=True)
class SpatialAttentionSpec:
    """Positions of a frame attend to one another after each residual block."""

    heads: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        _positive(heads=self.heads)


@dataclass(frozen=True, kw_only=True)
class TextAttentionSpec:
    """Positions attend to the caption's tokens after each residual block."""

    heads: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        _positive(heads=self.heads)


@dataclass(frozen=True, kw_only=True)
class JoinedTextSpec:
    """Positions of a frame attend to one another and to the caption in one softmax, after each residual block."""

    heads: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        _positive(heads=self.heads)


@dataclass(frozen=True, kw_only=True)
class ChannelNormSpec:
    """Layer normalisation of each position's channels: local, and the fastest."""


@dataclass(frozen=True, kw_only=True)
class RMSNormSpec:
    """Root-mean-square normalisation of each position's channels: local."""


@dataclass(frozen=True, kw_only=True)
class MagnitudeNormSpec:
    """Root-mean-square normalisation of each position's channels with nothing to learn: local."""


@dataclass(frozen=True, kw_only=True)
class GroupNormSpec:
    """Groups of channels over a whole frame, so that the network sees the frame, and tiles of it differ."""

    groups: int = 32

    def __post_init__(self) -> None:
        check_numbers(self)
        _positive(groups=self.groups)


@dataclass(frozen=True, kw_only=True)
class LevelSpec:
    """One resolution of the U-Net.

    Attributes:
        channels: of every block here.
        blocks: residual blocks on the way down; as many stand on the way up.
        temporal: how frames mix here, or None.
        attention: attention within a frame, or None.
        text: attention to the caption, or None; a `JoinedTextSpec` is attention within a frame, too.
    """

    channels: int
    blocks: int = 1
    temporal: TemporalConvSpec | TemporalAttentionSpec | None = None
    attention: SpatialAttentionSpec | None = None
    text: TextAttentionSpec | JoinedTextSpec | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        _positive(channels=self.channels, blocks=self.blocks)
        if isinstance(self.text, JoinedTextSpec) and self.attention is not None:
            raise ValueError(
                "a level whose text is joined attends within frames already; leave attention at None, or take "
                "TextAttentionSpec"
            )
        temporal_heads = self.temporal.heads if isinstance(self.temporal, TemporalAttentionSpec) else 1
        for heads in (temporal_heads, *(a.heads for a in (self.attention, self.text) if a is not None)):
            if self.channels % heads:
                raise ValueError(f"{heads} heads do not divide a level's {self.channels} channels")


@dataclass(frozen=True, kw_only=True)
class UNetSpec:
    """A whole video U-Net.

    Attributes:
        levels: finest first; each next one has frames of half the height and width.
        channels: of the video that is denoised.
        cond_channels: of the conditioning video concatenated to it (0: none).
        fold: side of the patches of space folded into channels before anything else; 1 folds nothing.
        embedding: width of the vector of log-SNR, augmentation, frame rate and pooled text.
        text_width: width of the text states, 0 for a network without text.
        text_inner: width that they are projected to, once, for all levels.
        norm: of the residual blocks and before the last convolution.
        skip_scale: factor on the sum at the end of every residual block and on what the skip connections carry up;
            2 ** -0.5 keeps variances where both parts have the same one (arXiv 2104.07636, 2205.11487, appendix B.1).
        frame_positions: whether each frame of a clip is told its number, so that "moves left" can say where it is;
            relative biases alone leave that to be counted from the ends.
        pool: how the caption becomes one vector beside log-SNR.
        logsnr: how log-SNR, the video's and the condition's, is embedded.
    """

    levels: tuple[LevelSpec, ...]
    channels: int = 3
    cond_channels: int = 0
    fold: int = 1
    embedding: int = 256
    text_width: int = 384
    text_inner: int = 128
    norm: ChannelNormSpec | GroupNormSpec | MagnitudeNormSpec | RMSNormSpec = ChannelNormSpec()
    skip_scale: float = 1.0
    frame_positions: bool = False
    pool: MeanPoolSpec | AttentionPoolSpec = MeanPoolSpec()  # noqa: RUF009 - frozen
    logsnr: InverseCosineSpec | SinusoidSpec | FourierSpec = InverseCosineSpec()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.levels:
            raise ValueError("levels is empty; a U-Net needs one LevelSpec at least")
        _positive(
            channels=self.channels, fold=self.fold, embedding=self.embedding, text_inner=self.text_inner
        )
        for name, value in (("cond_channels", self.cond_channels), ("text_width", self.text_width)):
            if value < 0:
                raise ValueError(f"{name} must be at least 0, for none; got {value}")
        if self.text_width == 0 and any(level.text is not None for level in self.levels):
            raise ValueError(
                "a level attends to text but text_width is 0; set it to the width of the text states"
            )
        check_pool(self.pool, self.text_width)
        if not 0 < self.skip_scale < math.inf:
            raise ValueError(f"skip_scale must be positive and finite; got {self.skip_scale}")
        if isinstance(self.norm, GroupNormSpec):
            for channels in {level.channels for level in self.levels}:
                if channels % self.norm.groups:
                    raise ValueError(f"{self.norm.groups} groups do not divide a level's {channels} channels")

    @property
    def divisor(self) -> int:
        """What the height and the width of a frame must divide by: fold * 2^(levels - 1)."""
        return self.fold << (len(self.levels) - 1)

    def __repr__(self) -> str:
        """As a dataclass's, but for `pool` and `logsnr` at their defaults: a plan's text stays what it was before them.

        The state of a training names its run by the plan's text, so an older run still goes on.
        """
        told = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name not in ("pool", "logsnr") or getattr(self, f.name) != f.default
        ]
        return f"{type(self).__name__}({', '.join(told)})"
