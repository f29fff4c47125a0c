"""Plans of published networks at their published grids, for `VideoUNet`.

No widths of Imagen Video were published, only its grids, parameter counts, what mixes time where, and that the base
was grown by channels and depth. The widths here are ours:

- base and the two models below 100 rows keep Imagen's multiples (1, 2, 3, 4) and attend at all but the finest level
  (arXiv 2205.11487, appendix F), the base at twice Imagen's 512 channels;
- the four large ones follow its Efficient U-Net (appendix B.1): downsampling first and upsampling last (`fold` 2, so
  that no block runs at the full size), most blocks at the coarsest levels, where a parameter costs the fewest
  operations, attention there alone, and skips scaled by 1/sqrt(2).

`vdm` and `imagen` give the published widths, blocks and places of attention. What a `VideoUNet` of those has in
parameters is not what the paper's network has, and `imagen` says by how much and as far as can be told why.
"""

from __future__ import annotations

from dataclasses import dataclass

from vdm_blocks.diffusion.values import check_numbers
from vdm_blocks.models.spec import (
    LevelSpec,
    SpatialAttentionSpec,
    TemporalAttentionSpec,
    TemporalConvSpec,
    TextAttentionSpec,
    UNetSpec,
)

__all__ = ["Preset", "imagen", "imagen_video", "vdm"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A network's plan and the grid that it works on.

    Attributes:
        name: of the stage.
        spec: the plan.
        frames, height, width: of the video that it makes.
        published: its number of parameters as published, None where none was.

    Raises:
        ValueError: a grid that the network's levels and patches do not divide.

    >>> base = imagen_video()[0]
    >>> base.name, base.frames, base.height, base.width, [level.channels for level in base.spec.levels]
    ('base', 16, 24, 40, [1024, 2048, 3072, 4096])
    """

    name: str
    spec: UNetSpec
    frames: int
    height: int
    width: int
    published: float | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        d = self.spec.divisor
        if min(self.frames, self.height, self.width) < 1 or self.height % d or self.width % d:
            raise ValueError(
                f"{self.name}: {self.frames} frames of {self.height}x{self.width} do not fit a network whose frames "
                f"divide by {d}; give a grid of one frame or more that does"
            )


def imagen_video() -> tuple[Preset, ...]:
    """The seven networks of Imagen Video (arXiv 2210.02303, figure 4), in the order in which they run.

    Text states are T5-XXL's, 4,096 wide. Super-resolution in time is given the known frames and a mask of them,
    super-resolution in space the enlarged video.
    """
    attend, conv = TemporalAttentionSpec(heads=16), TemporalConvSpec()
    return (
        _stage(
            "base", (16, 24, 40), 5.6e9, (1024, 2048, 3072, 4096), (3, 3, 3, 3), attend,
            space_from=1, text_from=1, embedding=1024, cond_channels=0,
        ),
        _stage(
            "tsr-2", (32, 24, 40), 1.7e9, (480, 960, 1440, 1920), (4, 4, 4, 4), conv,
            space_from=1, text_from=1, embedding=1024, cond_channels=4, head=96,
        ),
        _stage(
            "ssr-3", (32, 48, 80), 1.4e9, (512, 1024, 1536, 2048), (3, 3, 3, 3), conv,
            space_from=2, text_from=2, embedding=1024, cond_channels=3,
        ),
        _stage(
            "ssr-4", (32, 192, 320), 1.2e9, (224, 448, 896, 1344), (2, 4, 8, 8), conv,
            space_from=3, text_from=3, embedding=1024, cond_channels=3, inner=512, efficient=True,
        ),
        _stage(
            "tsr-5", (64, 192, 320), 780e6, (192, 384, 768, 1152), (2, 4, 8, 8), conv,
            space_from=4, text_from=3, embedding=512, cond_channels=4, inner=512, efficient=True,
        ),
        _stage(
            "tsr-6", (128, 192, 320), 630e6, (224, 448, 672, 896), (2, 4, 8, 10), conv,
            space_from=4, text_from=3, embedding=512, cond_channels=4, inner=512, efficient=True,
        ),
        _stage(
            "ssr-7", (128, 768, 1280), 340e6, (128, 256, 512, 768), (2, 4, 6, 8), conv,
            space_from=4, text_from=3, embedding=512, cond_channels=3, inner=512, efficient=True,
        ),
    )  # fmt: skip


def vdm() -> tuple[Preset, ...]:
    """The video U-Nets of Video Diffusion Models (arXiv 2204.03458, appendix A).

    Attention in space and over time where frames are 8, 16 or 32 pixels wide. Of text they know BERT-large's pooled
    states, 1,024 wide. Channels, blocks, attention, widths of heads and of the embedding are the paper's; it gives no
    numbers of parameters. Where its blocks take a skip connection each and have one more a level on the way up, as its
    predecessors' do, is not said; ours have one a level.
    """
    return (
        _attentive("ucf101", (16, 64, 64), 256, (1, 2, 4, 8), 2, head=64),
        _attentive("bair", (16, 64, 64), 128, (1, 2, 3, 4), 3, head=64),
        _attentive("kinetics", (16, 64, 64), 256, (1, 2, 4, 8), 2, head=64),
        _attentive("text-small", (16, 64, 64), 128, (1, 2, 4, 8), 2, head=64, text_width=1024),
        _attentive("text-large", (16, 64, 64), 256, (1, 2, 4, 8), 2, head=64, text_width=1024),
        _attentive("text-large-128", (9, 128, 128), 128, (1, 2, 4, 8, 16), 2, head=128, text_width=1024),
    )


def imagen() -> tuple[Preset, ...]:
    """The three image networks of Imagen (arXiv 2205.11487, appendix F), on clips of one frame.

    Channels, blocks, heads and the levels that attend are the paper's, and with them a `VideoUNet` has 1,252M, 562M
    and 495M parameters where the paper states 2B, 600M and 400M (-37%, -6%, +24%):

    - base-64: the paper's network is of the kind whose blocks on the way up take a skip connection each, with one more
      of them a level, and whose resampling is done by residual blocks ('biggan'). By arithmetic (29 C^2 + 3 * 47 C^2 in
      place of 108 C^2 a level, six resampling blocks of 18 C^2, attention after the further blocks) the same plan then
      has about 1.93B, 3% below. Ours has one skip a level and resamples by one linear map. Others found both numbers:
      imagen-pytorch's base has 1.3B (its issue 52), NeMo's regular U-Net of that plan 2.1B (its page on Imagen).
    - sr-1024: ours modulates every residual block and attends to text after each at the coarsest level, while the
      paper's figures A.27 to A.30 do either once for all blocks of a level. By arithmetic that is 411M, 3% above.
    - sr-256: counted that way it would have 430M, which NeMo's of the same widths has too (429M, on the same page,
      as "400M"), and its 600M are not explained by anything published.

    The paper joins the caption to the keys and values of attention in the first two (`JoinedTextSpec`, 2 C^2 fewer a
    block); ours attend to it apart, as its third does.
    """
    widths, blocks = (128, 256, 512, 1024), (2, 4, 8, 8)
    return (
        _stage(
            "base-64", (1, 64, 64), 2e9, (512, 1024, 1536, 2048), (3, 3, 3, 3), None,
            space_from=1, text_from=1, embedding=512, cond_channels=0,
        ),
        _stage(
            "sr-256", (1, 256, 256), 600e6, widths, blocks, None,
            space_from=3, text_from=3, embedding=512, cond_channels=3, head=128, efficient=True,
        ),
        _stage(
            "sr-1024", (1, 1024, 1024), 400e6, widths, blocks, None,
            space_from=4, text_from=3, embedding=512, cond_channels=3, head=128, efficient=True,
        ),
    )  # fmt: skip


def _stage(
    name: str,
    grid: tuple[int, int, int],
    published: float,
    channels: tuple[int, ...],
    blocks: tuple[int, ...],
    temporal: TemporalConvSpec | TemporalAttentionSpec | None,
    *,
    space_from: int,
    text_from: int,
    embedding: int,
    cond_channels: int,
    head: int = 64,
    inner: int = 1024,
    efficient: bool = False,
) -> Preset:
    """A network that attends in space and to text from these levels on, the finest being 0."""
    levels = tuple(
        LevelSpec(
            channels=c,
            blocks=count,
            temporal=temporal,
            attention=SpatialAttentionSpec(heads=c // head) if index >= space_from else None,
            text=TextAttentionSpec(heads=c // head) if index >= text_from else None,
        )
        for index, (c, count) in enumerate(zip(channels, blocks, strict=True))
    )
    spec = UNetSpec(
        levels=levels,
        cond_channels=cond_channels,
        fold=2 if efficient else 1,
        embedding=embedding,
        text_width=4096,
        text_inner=inner,
        skip_scale=2**-0.5 if efficient else 1.0,
    )
    frames, height, width = grid
    return Preset(name=name, spec=spec, frames=frames, height=height, width=width, published=published)


def _attentive(
    name: str,
    grid: tuple[int, int, int],
    base: int,
    multiples: tuple[int, ...],
    blocks: int,
    *,
    head: int,
    text_width: int = 0,
) -> Preset:
    frames, height, width = grid
    levels = []
    for index, multiple in enumerate(multiples):
        c, attends = base * multiple, (width >> index) in (8, 16, 32)
        levels.append(
            LevelSpec(
                channels=c,
                blocks=blocks,
                temporal=TemporalAttentionSpec(heads=c // head) if attends else None,
                attention=SpatialAttentionSpec(heads=c // head) if attends else None,
            )
        )
    spec = UNetSpec(levels=tuple(levels), embedding=1024, text_width=text_width)
    return Preset(name=name, spec=spec, frames=frames, height=height, width=width)
