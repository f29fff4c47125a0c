"""Our video U-Net against the machine and against diffusers' video U-Net: `python benchmarks/networks.py`.

Networks of about 10 and 35 million parameters on the same clips, in shuffled rounds of one process, next to a bare
3x3 convolution on channels-last frames, which is the ceiling. Milliseconds are the least over the rounds, of wall and
of process CPU time; operations are those of convolutions and matrix products; the two networks differ in architecture,
so read the column per operation too. diffusers is left out where it is not installed. `--quick` takes small ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vdm_blocks.models import LevelSpec, SpatialAttentionSpec, TemporalAttentionSpec, UNetSpec, VideoUNet
from vdm_blocks.types import Conditioning


@dataclass(kw_only=True)
class Entry:
    """Something to time, and what was found."""

    name: str
    run: Callable[[], object]
    parameters: int = 0
    operations: float = 0.0
    wall: float = float("inf")
    cpu: float = float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small networks, two rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=0, help="of timing (8, quick 2)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rounds = args.rounds or (2 if args.quick else 8)
    widths = [(16, 32, 32)] if args.quick else [(64, 128, 192), (128, 256, 352)]
    grids = [(4, 8, 16)] if args.quick else [(16, 24, 40), (16, 64, 64)]
    print(f"torch {torch.__version__}, {args.threads} threads, float32, least of {rounds} rounds")
    for width in widths:
        ours = unet(width)
        theirs = diffusers_unet(width)
        for grid in grids:
            for backward in (False, True):
                entries = [
                    ceiling(grid, width[0]),
                    network("VideoUNet", ours, call_ours(ours, grid), backward),
                ]
                if theirs is not None:
                    entries.append(network("diffusers", theirs, call_diffusers(theirs, grid), backward))
                measure(entries, rounds)
                report(entries, grid, backward)


def unet(width: Sequence[int]) -> VideoUNet:
    """Factorized attention at every level, attention within frames at the two coarser ones."""
    levels = tuple(
        LevelSpec(
            channels=c,
            blocks=2,
            temporal=TemporalAttentionSpec(heads=c // 16),
            attention=SpatialAttentionSpec(heads=c // 16) if index else None,
        )
        for index, c in enumerate(width)
    )
    net = VideoUNet(UNetSpec(levels=levels, text_width=0))
    nn.init.normal_(net.head.conv.weight, std=0.02)
    return net


def diffusers_unet(width: Sequence[int]) -> nn.Module | None:
    """`UNet3DConditionModel` of the same widths, or None where diffusers is not installed."""
    if importlib.util.find_spec("diffusers") is None:
        return None
    from diffusers import UNet3DConditionModel

    net: nn.Module = UNet3DConditionModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=tuple(width),
        layers_per_block=2,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=16,
        down_block_types=("DownBlock3D", *["CrossAttnDownBlock3D"] * (len(width) - 1)),
        up_block_types=(*["CrossAttnUpBlock3D"] * (len(width) - 1), "UpBlock3D"),
    )
    return net


def call_ours(net: VideoUNet, grid: tuple[int, int, int]) -> Callable[[], Tensor]:
    """One evaluation on noise."""
    z_t, logsnr = torch.randn(1, 3, *grid), torch.zeros(1)

    def call() -> Tensor:
        out: Tensor = net(z_t, logsnr, Conditioning())
        return out

    return call


def call_diffusers(net: nn.Module, grid: tuple[int, int, int]) -> Callable[[], Tensor]:
    """One evaluation on noise, under a caption of one token."""
    z_t, step, text = torch.randn(1, 3, *grid), torch.tensor(5), torch.zeros(1, 1, 32)

    def call() -> Tensor:
        out: Tensor = net(z_t, step, encoder_hidden_states=text, return_dict=False)[0]
        return out

    return call


def network(name: str, net: nn.Module, call: Callable[[], Tensor], backward: bool) -> Entry:
    """`call`, forward or with backward, with its operations counted once."""

    def run() -> None:
        if not backward:
            with torch.no_grad():
                call()
            return
        net.zero_grad(set_to_none=True)
        call().square().mean().backward()

    counter = FlopCounterMode(display=False)
    with counter:
        run()
    size = sum(p.numel() for p in net.parameters())
    return Entry(name=name, run=run, parameters=size, operations=counter.get_total_flops())


def ceiling(grid: tuple[int, int, int], channels: int) -> Entry:
    """A 3x3 convolution of 128 channels or more on all frames, channels last."""
    c = max(channels, 128)
    x = torch.randn(grid[0], c, *grid[1:]).to(memory_format=torch.channels_last)
    weight = torch.randn(c, c, 3, 3).to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.no_grad():
            F.conv2d(x, weight, padding=1)

    return Entry(name="convolution", run=run, operations=2.0 * 9 * c * x.numel())


def measure(entries: Sequence[Entry], rounds: int) -> None:
    """Times all entries, each round in another order, after one round to warm up."""
    shuffle = random.Random(0)
    for index in range(rounds + 1):
        for entry in shuffle.sample(list(entries), len(entries)):
            wall, cpu = time.perf_counter(), time.process_time()
            entry.run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if index:
                entry.wall, entry.cpu = min(entry.wall, wall), min(entry.cpu, cpu)


def report(entries: Sequence[Entry], grid: tuple[int, int, int], backward: bool) -> None:
    """Prints one block of the table."""
    top, ours = entries[0], entries[1]
    rate = top.operations / top.cpu
    print(f"\n{'x'.join(map(str, grid))}, {'forward and backward' if backward else 'forward'}")
    for entry in entries:
        share = entry.operations / entry.cpu / rate
        line = f"  {entry.name:12}{entry.parameters / 1e6:7.1f}M {entry.operations / 1e9:9.1f} GFLOP"
        line += f"{1e3 * entry.wall:10.1f} ms wall{1e3 * entry.cpu:10.1f} ms CPU{share:7.0%} of the ceiling"
        if entry not in (top, ours):
            per_operation = (entry.cpu / entry.operations) / (ours.cpu / ours.operations)
            line += f"; ours is {entry.cpu / ours.cpu:.2f}x as fast, {per_operation:.2f}x per operation"
        print(line)


if __name__ == "__main__":
    main()
