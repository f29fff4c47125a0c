"""The memory of a network run in tiles, by the number of frames: `python -m benchmarks.bounded`.

Every row is a process of its own that makes a video of 768x1280 pixels, runs a small fully convolutional network on it
tile by tile, then whole, and says how far the two are apart and how high its resident set rose, beyond what it held
with the video and the room for the result in memory. `--quick` takes small frames.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.timing import markdown, setting, write_section
from vdm_blocks.models import (
    ChannelNormSpec,
    GroupNormSpec,
    LevelSpec,
    TemporalConvSpec,
    TiledNetwork,
    UNetSpec,
    VideoUNet,
)
from vdm_blocks.types import Conditioning

NORMS: dict[str, ChannelNormSpec | GroupNormSpec] = {
    "position": ChannelNormSpec(),
    "frame": GroupNormSpec(groups=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small frames")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--write", type=Path, help="a page whose section is written anew")
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        torch.set_num_threads(1)
        norm, *shape = args.row
        print(json.dumps(row(norm, *map(int, shape))))
        return
    height, width = (64, 96) if args.quick else (768, 1280)
    rows = []
    for norm in NORMS:
        for frames in args.frames:
            rows.append(in_a_process(norm, frames, height, width))
            print(rows[-1], file=sys.stderr, flush=True)
    text = section(rows, args.frames, height, width)
    print(text)
    if args.write:
        write_section(args.write, "bounded", text)


def in_a_process(norm: str, *shape: int) -> dict[str, float | str]:
    """`row` in a process of its own, whose malloc gives large tensors back when they go."""
    command = [sys.executable, "-m", "benchmarks.bounded", "--row", norm, *map(str, shape)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    result: dict[str, float | str] = json.loads(out)
    return result


def row(norm: str, frames: int, height: int, width: int) -> dict[str, float | str]:
    """What one process measured, in MiB and CPU seconds."""
    torch.manual_seed(0)
    network, tile = network_of(norm), tile_of(norm, height, width)
    reach, field = network.receptive_frames(), network.receptive_field()
    assert reach is not None
    margin = (reach, 0) if field is None else field
    tiled = TiledNetwork(network, tile=tile, margin=margin, divisor=network.spec.divisor)
    z_t, level, nothing = torch.randn(1, 3, frames, height, width), torch.zeros(1), Conditioning()
    with torch.no_grad():
        network(z_t[:, :, :1, :32, :32], level, nothing)  # the libraries' own first-time memory
        room = torch.zeros_like(z_t)
        held = peak()
        del room
        start = time.process_time()
        parts = tiled(z_t, level, nothing)
        middle, tiled_peak = time.process_time(), peak()
        whole = network(z_t, level, nothing)
        end, whole_peak = time.process_time(), peak()
        apart = max(float((a - b).abs().max()) for a, b in zip(parts[0, 0], whole[0, 0], strict=True))
    return {
        "norm": norm,
        "tile": "x".join(map(str, tile)),
        "frames": frames,
        "video": 2 * z_t.nbytes / 2**20,
        "tiled": tiled_peak - held,
        "whole": whole_peak - held - parts.nbytes / 2**20,
        "apart": apart / float(whole.std()),
        "tiled s": middle - start,
        "whole s": end - middle,
    }


def network_of(norm: str) -> VideoUNet:
    """The cascade's last stage in small, drawn at random so that no path is silent."""
    conv = TemporalConvSpec()
    levels = (LevelSpec(channels=16, temporal=conv), LevelSpec(channels=24, temporal=conv))
    network = VideoUNet(UNetSpec(levels=levels, fold=4, embedding=32, text_width=0, norm=NORMS[norm])).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return network


def tile_of(norm: str, height: int, width: int) -> tuple[int, int, int]:
    """Half a frame each way where norms need no statistics, whole frames where they do."""
    return (16, height // 2, width // 2) if norm == "position" else (16, height, width)


def peak() -> float:
    """The highest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def section(rows: list[dict[str, float | str]], frames: list[int], height: int, width: int) -> str:
    """The page's part."""
    head = ["norms over", "tile", "frames", "video and result MiB", "whole, MiB beyond", "tiled, MiB beyond",
            "furthest apart", "whole CPU s", "tiled CPU s"]  # fmt: skip
    body = [
        [
            f"a {r['norm']}",
            str(r["tile"]),
            str(r["frames"]),
            *(f"{r[key]:,.0f}" for key in ("video", "whole", "tiled")),
            f"{r['apart']:.0g}",
            *(f"{r[key]:.1f}" for key in ("whole s", "tiled s")),
        ]
        for r in rows
    ]
    return f"""## Bounded memory

```console
$ python -m benchmarks.bounded --write docs/benchmarks.md
```

{setting()}. A fully convolutional
`VideoUNet` of two levels (16 and 24 channels, patches of 4) on videos of {frames[0]} to {frames[-1]} frames of
{height}x{width} in float32, whole and by `TiledNetwork`, each row a process of its own: the peak of its resident set
beyond the video and its result, and the largest difference over the result's standard deviation. Norms of a position
let tiles cut frames too; norms over a frame are exact in tiles of whole frames. A tile of 16 frames is read with 4 more
to either side where the clip has them: from 64 frames on some tile has all of them, and the peak grows no more.

{markdown([head, *body])}
"""


if __name__ == "__main__":
    main()
