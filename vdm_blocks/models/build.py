"""From a plan to its network, whichever of the two it is of."""

from __future__ import annotations

from vdm_blocks.models.spec import UNetSpec
from vdm_blocks.models.transformer import VideoTransformer
from vdm_blocks.models.transformer_spec import TransformerSpec
from vdm_blocks.models.unet import VideoUNet

__all__ = ["build_network"]


def build_network(spec: UNetSpec | TransformerSpec) -> VideoUNet | VideoTransformer:
    """The network that `spec` plans, its weights drawn anew.

    Raises:
        ValueError: a plan of another kind.

    >>> from vdm_blocks.models.spec import LevelSpec
    >>> type(build_network(UNetSpec(levels=(LevelSpec(channels=8),)))).__name__
    'VideoUNet'
    """
    if isinstance(spec, UNetSpec):
        return VideoUNet(spec)
    if isinstance(spec, TransformerSpec):
        return VideoTransformer(spec)
    raise ValueError(f"a network is built from a UNetSpec or a TransformerSpec; got {spec!r}")
