"""The seven networks of Imagen Video at full size, 11.6 billion parameters, built on the meta device in seconds.

No weight is allocated. The grids and parameter counts are the paper's (arXiv 2210.02303, figure 4); the widths, which
were never published, are ours: `vdm_blocks.models.presets` says why. For operations, bytes and times run
`python -m vdm_blocks.models.table`.

    python examples/paper_networks.py
"""

from __future__ import annotations

import torch

from vdm_blocks import VideoUNet, imagen_video


def main() -> None:
    total = 0
    for preset in imagen_video():
        with torch.device("meta"):
            network = VideoUNet(preset.spec)
        parameters = sum(p.numel() for p in network.parameters())
        total += parameters
        assert preset.published is not None
        widths = "-".join(str(level.channels) for level in preset.spec.levels)
        blocks = "-".join(str(level.blocks) for level in preset.spec.levels)
        field = network.receptive_field()
        sees = "sees everything" if field is None else f"sees {field[0]} frames, {field[1]} pixels"
        print(
            f"{preset.name:6} {preset.frames:3}x{preset.height}x{preset.width:<5} {parameters / 1e6:6,.0f}M "
            f"({parameters / preset.published - 1:+.1%} of the paper's)  channels {widths}, blocks {blocks}, {sees}"
        )
    print(f"together {total / 1e9:.2f} billion parameters")


if __name__ == "__main__":
    main()
