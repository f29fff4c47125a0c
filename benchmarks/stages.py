"""How fast each stage of the cascade runs, and on what share of the machine: `python benchmarks/stages.py`.

Every stage is measured in a process of its own, so that the peak of memory is its own: one call of its network on its
full grid, tiled as the demo tiles it, in bfloat16. The ceiling is a bare 3x3 convolution, 128 channels, channels last,
measured in the same run. Speed does not depend on the weights, so none are needed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "cascade"))

import torch
from sampling import SAMPLING, Constant, stage_for
from stages import PLANS, Plan
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from vdm_blocks.models import build_network
from vdm_blocks.types import Conditioning

ENOUGH = 5.0
"""Seconds of timed calls after which a stage is not called again: long calls vary little."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one stage takes: GFLOP and seconds a call, the peak in GiB, and how often a video calls the network."""

    name: str
    grid: str
    parameters: int
    gflop: float
    seconds: float
    peak: float
    calls: int
    whole: float | None = None

    @property
    def rate(self) -> float:
        """GFLOP/s."""
        return self.gflop / self.seconds


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.child:
        plan = next(plan for plan in PLANS if plan.name == args.child)
        print(json.dumps(asdict(measure(plan, rounds=args.rounds, whole=args.whole))))
        return
    ceilings = {dtype: ceiling(dtype) for dtype in (torch.bfloat16, torch.float32)}
    if not args.quiet:
        words = ", ".join(
            f"{rate:.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}" for dtype, rate in ceilings.items()
        )
        print(f"{args.threads} threads; a 3x3 convolution of 128 channels: {words}", flush=True)
    found = []
    for plan in PLANS:
        if args.stages and plan.name not in args.stages.split(","):
            continue
        command = [sys.executable, __file__, "--child", plan.name, "--threads", str(args.threads)]
        command += ["--rounds", str(args.rounds), *(["--whole"] if args.whole else [])]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(Measured(**json.loads(ran.stdout.splitlines()[-1])))
        if not args.quiet:
            print(f"{plan.name}: {found[-1].seconds:.3f} s a call", file=sys.stderr, flush=True)
    print(table(found, ceilings[torch.bfloat16]))


def measure(plan: Plan, *, rounds: int, whole: bool) -> Measured:
    """One stage, in this process."""
    torch.manual_seed(0)
    network = build_network(plan.unet).eval()
    sampling = SAMPLING[plan.name]
    stage = stage_for(plan, network, sampling)
    cond = Conditioning(
        text=torch.randn(1, 12, plan.unet.text_width), text_mask=torch.ones(1, 12, dtype=torch.bool)
    )
    calls = len(stage.times) - 1
    guided = not (isinstance(sampling.guidance, Constant) and sampling.guidance.scale == 1.0)
    counter = FlopCounterMode(display=False)
    taken: list[float] = []

    def stop(_: object) -> bool:
        return True

    before = None
    if plan.unet.cond_channels:
        earlier = PLANS[[p.name for p in PLANS].index(plan.name) - 1].grid
        before = torch.zeros(1, 3, *earlier.shape)
    with counter:
        stage.run(cond, before, seeds=[0], on_step=stop)
    evaluations = 2 if guided else 1
    for _ in range(rounds):
        began = time.perf_counter()
        stage.run(cond, before, seeds=[0], on_step=stop)
        taken.append((time.perf_counter() - began) / evaluations)
        if sum(taken) * evaluations > ENOUGH:
            break
    seconds = None
    if whole:
        began = time.perf_counter()
        stage.run(cond, before, seeds=[0])
        seconds = time.perf_counter() - began
    return Measured(
        name=plan.name,
        grid=str(plan.grid),
        parameters=sum(x.numel() for x in network.parameters()),
        gflop=counter.get_total_flops() / evaluations / 1e9,
        seconds=statistics.median(taken),
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        calls=calls * evaluations,
        whole=seconds,
    )


def ceiling(dtype: torch.dtype, rounds: int = 9) -> float:
    """GFLOP/s of a bare 3x3 convolution: the best of some rounds."""
    x = torch.randn(16, 128, 48, 80).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)

    def once() -> Tensor:
        return conv2d(x, weight, padding=1)

    return 2 * 16 * 48 * 80 * 128 * 128 * 9 / best_of(once, rounds) / 1e9


@torch.no_grad()
def best_of(work: Callable[[], Tensor], rounds: int) -> float:
    """Seconds of the fastest round, after one that does not count."""
    work()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def table(found: Sequence[Measured], ceiling: float) -> str:
    """Columns: a call of the network, the calls of a video, both multiplied, and the share of the ceiling."""
    head = (
        "stage",
        "grid",
        "M weights",
        "GFLOP/call",
        "s/call",
        "calls",
        "s/stage",
        "peak GiB",
        "GFLOP/s",
        "of ceiling",
    )
    rows = [head]
    for one in found:
        stage = f"{one.whole:.1f}" if one.whole is not None else f"~{one.seconds * one.calls:.1f}"
        rows.append(
            (
                one.name,
                one.grid,
                f"{one.parameters / 1e6:.2f}",
                f"{one.gflop:.1f}",
                f"{one.seconds:.3f}",
                str(one.calls),
                stage,
                f"{one.peak:.2f}",
                f"{one.rate:.0f}",
                f"{100 * one.rate / ceiling:.0f}%",
            )
        )
    total = sum(one.seconds * one.calls if one.whole is None else one.whole for one in found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells))
    return "\n".join([*lines, f"all stages: {total:.0f} s; ~ marks calls times seconds a call, not a run"])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Seconds, memory and share of the machine's ceiling, stage by stage."
    )
    parser.add_argument("--stages", default="", help="these alone: 1-base,3-ssr")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--rounds", type=int, default=2, help="timed calls of each network at most; the median counts"
    )
    parser.add_argument("--whole", action="store_true", help="run every stage to its end as well (minutes)")
    parser.add_argument("--quiet", action="store_true", help="the table alone")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
