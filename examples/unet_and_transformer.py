"""The same clip through a video U-Net and a video transformer: one call, one conditioning, two networks.

python examples/unet_and_transformer.py
"""

from __future__ import annotations

from dataclasses import replace

import torch

from vdm_blocks.models import (
    FactorizedSpec,
    LevelSpec,
    SpatialAttentionSpec,
    TemporalAttentionSpec,
    TextAttentionSpec,
    TransformerSpec,
    UNetSpec,
    VideoTransformer,
    VideoUNet,
)
from vdm_blocks.types import Conditioning, Network

TEXT = 16
UNET = UNetSpec(
    levels=(
        LevelSpec(channels=32, temporal=TemporalAttentionSpec(heads=2)),
        LevelSpec(
            channels=64,
            temporal=TemporalAttentionSpec(heads=2),
            attention=SpatialAttentionSpec(heads=2),
            text=TextAttentionSpec(heads=2),
        ),
    ),
    fold=2,
    embedding=64,
    text_width=TEXT,
)
TRANSFORMER = TransformerSpec(
    width=64, depth=4, heads=4, mixing=FactorizedSpec(), patch=4, embedding=64, text_width=TEXT
)


def main() -> None:
    torch.manual_seed(0)
    clip = torch.rand(2, 3, 8, 24, 40) * 2 - 1
    cond = Conditioning(
        text=torch.randn(2, 5, TEXT),
        text_mask=torch.ones(2, 5, dtype=torch.bool),
        fps=torch.tensor([3.0, 6.0]),
    )
    one_level, per_frame = torch.zeros(2), torch.linspace(-4, 4, 8).expand(2, -1)
    pictures = torch.ones(2, dtype=torch.bool)
    for module in (VideoUNet(UNET), VideoTransformer(TRANSFORMER)):
        # Networks predict zero at the start; a little noise in their weights lets us see them work.
        with torch.no_grad():
            for p in module.parameters():
                p.add_(0.05 * torch.randn_like(p))
        network: Network = module
        with torch.no_grad():
            plain = network(clip, one_level, cond)
            forced = network(clip, per_frame, cond)  # a noise level for each frame
            alone = network(clip, one_level, replace(cond, images=pictures))
            single = network(clip[:, :, 3:4], one_level, cond)
        size = sum(p.numel() for p in module.parameters()) / 1e6
        print(f"{type(module).__name__}: {size:.2f}M parameters, {tuple(plain.shape)}")
        print(f"  a level per frame changes it by       {(forced - plain).abs().mean():.4f}")
        print(f"  frames as pictures change it by       {(alone - plain).abs().mean():.4f}")
        print(f"  and then frame 3 is as it is alone to {(alone[:, :, 3:4] - single).abs().max():.0e}")


if __name__ == "__main__":
    main()
