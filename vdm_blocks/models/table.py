"""What each network of a preset costs, and how long a device would take: `python -m vdm_blocks.models.table`.

Nothing is computed, so networks of any size are measured in seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from vdm_blocks.models.cost import DeviceSpeed, cost_of
from vdm_blocks.models.presets import Preset, imagen, imagen_video, vdm

__all__ = ["main", "rows"]


def rows(presets: Sequence[Preset], dtype: torch.dtype, device: DeviceSpeed) -> list[str]:
    """The table's lines."""
    heads = ("parameters", "published", "operations", "weights", "activations", "time")
    lines = [f"{'network':15}{'grid':>15}" + "".join(f"{head:>13}" for head in heads)]
    for preset in presets:
        cost = cost_of(preset, dtype=dtype)
        published = "-" if preset.published is None else f"{preset.published / 1e6:,.0f}M"
        cells = (
            f"{cost.parameters / 1e6:,.0f}M",
            published,
            f"{cost.operations / 1e12:,.2f} T",
            f"{cost.weight_bytes / 2**30:.2f} GiB",
            f"{cost.activation_bytes / 2**30:.2f} GiB",
            f"{cost.seconds(device):.2f} s",
        )
        grid = f"{preset.frames}x{preset.height}x{preset.width}"
        lines.append(f"{preset.name:15}{grid:>15}" + "".join(f"{cell:>13}" for cell in cells))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m vdm_blocks.models.table", description=__doc__)
    parser.add_argument("which", nargs="?", choices=["imagen-video", "imagen", "vdm"], default="imagen-video")
    parser.add_argument(
        "--float32", action="store_true", help="weights and activations of four bytes, not two"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=DeviceSpeed.tflops,
        help="what the device reaches, in 1e12 operations a second (%(default)g)",
    )
    parser.add_argument(
        "--bandwidth",
        type=float,
        default=DeviceSpeed.bandwidth,
        help="what its memory reaches, in 1e9 bytes a second (%(default)g)",
    )
    chosen = parser.parse_args(arguments)
    device = DeviceSpeed(tflops=chosen.tflops, bandwidth=chosen.bandwidth)
    presets = {"imagen-video": imagen_video, "imagen": imagen, "vdm": vdm}[chosen.which]()
    dtype = torch.float32 if chosen.float32 else torch.bfloat16
    sys.stdout.write("\n".join(rows(presets, dtype, device)) + "\n")
    sys.stdout.write(
        f"One evaluation on one clip. Of every kernel the time is the larger of operations / {device.tflops:g}e12 and "
        f"bytes / {device.bandwidth:g}e9; a compiled network moves fewer bytes.\n"
    )


if __name__ == "__main__":
    main()
