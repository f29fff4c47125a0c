"""What distillation costs and saves: `python examples/cascade/rungs.py`, or with the names of stages.

Each rung that distill.py has left, each other method's student, and the undistilled network in as few steps, against
the teacher in its full number of steps: seconds, network evaluations, the distance to the teacher's video from the
same noise, and the distance to held-out clips. Every measurement is kept in a ledger, so that a stopped run goes on.
Prints the tables and writes docs/distillation.md, .json and .png.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from distill_parts import blank
from distilled_stages import RECIPES, RULES, student_stage, times_of
from heard import by_embedding, entry, heard
from ledger import Ledger, Progress, Row
from material import Captions
from memory import keep_memory
from rungs_page import tables, write_page
from rungs_plain import plain
from safetensors.torch import load_file
from sampling import (
    OSCILLATING,
    SAMPLING,
    WEIGHTS,
    Sampling,
    find_weights,
    model_of,
    oscillating,
    stage_for,
)
from stages import PLANS, Plan
from student_measures import JUDGE, case, grid_of, quality, read_of, sampled
from student_readings import readings, total
from torch import Tensor, nn

from vdm_blocks.cascade import Stage
from vdm_blocks.checkpoint import file_hash, load_unet, save_tensors
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.distillation import ScaleAdapter, load_student
from vdm_blocks.metrics import psnr
from vdm_blocks.models import VideoUNet
from vdm_blocks.sampling import DDIM, uniform_times
from vdm_blocks.video.pixels import from_bytes, to_bytes
from vdm_blocks.video.sheet import contact_sheet

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
MOST = 128
"""Evaluations of a video that the judge's readings are still made of."""
ON_UNIFORM = ("uniform", "own")
"""Teachers that are sampled on the uniform grid, whatever the stage's own."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to sample a stage: what it is called, the weights, the steps; a method's name or that it is a teacher."""

    name: str
    weights: Path
    steps: int
    method: str


def variants(plan: Plan, args: argparse.Namespace) -> list[Variant]:
    """The full teacher first, then all that is to be compared with it."""
    teacher = find_weights(plan, Path(args.weights))
    full = RECIPES[plan.name].full if args.full is None else args.full
    few = [steps for steps in (8, 4, 2, 1) if steps < full]
    found = [Variant(name="teacher", weights=teacher, steps=full, method="teacher")]
    own = SAMPLING[plan.name].steps
    found.append(Variant(name="teacher, as in the demo", weights=teacher, steps=own, method="own"))
    if RECIPES[plan.name].last:
        many = min(RECIPES[plan.name].start, full)
        found.append(Variant(name="teacher, uniform grid", weights=teacher, steps=many, method="uniform"))
    found += [Variant(name="undistilled", weights=teacher, steps=n, method="teacher") for n in few]
    folder = Path(args.runs) / f"{plan.name}-{file_hash(teacher)[:8]}"
    alone = folder / "guidance.safetensors"
    if alone.is_file():
        found += [Variant(name="guidance alone", weights=alone, steps=n, method="guidance") for n in few]
    for path in sorted(folder.glob("*-[0-9][0-9][0-9][0-9].safetensors"), reverse=True):
        method, _, steps = path.stem.rpartition("-")
        name = "student" if method == "rung" else method
        counts = [int(steps)] if method != "consistency" else [n for n in (4, 2, 1) if n >= int(steps)]
        found += [Variant(name=name, weights=path, steps=n, method=method) for n in counts]
    shipped = Path(args.weights) / "students" / f"{plan.name}.safetensors"
    if shipped.is_file():
        count = RECIPES[plan.name].shipped
        found.append(Variant(name="student, as shipped", weights=shipped, steps=count, method="shipped"))
    return found


def stage_of(plan: Plan, variant: Variant, sampling: Sampling) -> tuple[Stage, VideoUNet]:
    """The stage as the variant samples it, whole and in float32, and the network whose calls count."""
    sampling = replace(sampling, steps=variant.steps, tile=None, dtype=torch.float32)
    uniform = variant.method in ON_UNIFORM
    times = uniform_times(variant.steps) if uniform else times_of(plan, variant.steps)
    if variant.method in ("teacher", "uniform", "own"):
        unet = load_unet(variant.weights)
        rule = sampling.rule if variant.method == "own" else DDIM()
        return replace(stage_for(plan, unet, replace(sampling, rule=rule)), times=times), unet
    network: VideoUNet | ScaleAdapter
    if variant.method == "shipped":
        network = load_student(variant.weights)
    else:
        network = blank(plan, variant.method)
        model_of(plan, network).load_state_dict(load_file(variant.weights))
        network.eval()
    inner = network.network if isinstance(network, ScaleAdapter) else network
    assert isinstance(inner, VideoUNet)
    stepping = RULES.get("progressive" if variant.method == "rung" else variant.method)
    stage = student_stage(plan, network, variant.steps, sampling, stepping)
    return replace(stage, times=times), inner


def calls(plan: Plan, variant: Variant) -> int:
    """Evaluations of one video."""
    guided = plan.name in OSCILLATING and variant.method in ("teacher", "uniform", "own")
    return variant.steps * (2 if guided else 1)


class Evaluations:
    """Counts a network's evaluations, one a sample."""

    def __init__(self, network: nn.Module) -> None:
        self.count = 0
        network.register_forward_pre_hook(self._note)

    def _note(self, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.count += len(given[0])


def settings(plan: Plan, variant: Variant, sampling: Sampling) -> str:
    """All that a measurement depends on besides the clip."""
    how = replace(sampling, steps=variant.steps)
    return (
        f"rung {plan.name} {file_hash(variant.weights)[:12]} {variant.method} {how} {grid_of(plan)} {plan.snr} "
        f"{RECIPES[plan.name].last} "
        f"{plan.noise} {plan.detail} {plan.schedule} {RECIPES[plan.name].rule} {torch.get_num_threads()}"
    )


def row_key(plan: Plan, variant: Variant, sampling: Sampling, full: str, index: int) -> str:
    """Of a measurement of clip `index`: the distance is to the teacher's video, and the base's fit is the judge's."""
    reader = "" if plan.unet.cond_channels else f" {file_hash(JUDGE)[:12]}"
    return f"{settings(plan, variant, sampling)} to {full} {index}{reader}"


def measure(plan: Plan, captions: Captions, ledger: Ledger, args: argparse.Namespace) -> list[Row]:
    """The rows of a stage, measured where the ledger has not got them."""
    sampling = oscillating(plan) if args.oscillate else SAMPLING[plan.name]
    ways = variants(plan, args)
    full = settings(plan, ways[0], sampling)
    jobs = [(way, index) for way in ways for index in range(args.seeds)]
    keys = {row_key(plan, way, sampling, full, index): (way, index) for way, index in jobs}
    todo = ledger.missing(keys)
    progress = Progress(f"{plan.name}: videos", len(todo), quiet=args.quiet)
    stage: tuple[Variant, Stage, Evaluations] | None = None
    for key in todo:
        way, index = keys[key]
        if stage is None or stage[0] != way:
            made, network = stage_of(plan, way, sampling)
            stage = way, made, Evaluations(network)
        _, made, evaluations = stage
        evaluations.count = 0
        video, seconds = sampled(plan, made, captions, index, index)
        reference = kept(Path(args.kept), f"{full} {index}")
        if way is ways[0]:
            keep(reference, video)
        true = case(plan, index)
        if plan.unet.cond_channels:
            fit = float(psnr(video, true.video).clamp(max=60).mean())
        else:
            fit = read_of(video, true.named)
        row = {
            "seconds": seconds,
            "evaluations": evaluations.count,
            "distance": float((video - recall(reference)).square().mean().sqrt()),
            "quality": quality([video], [true.video]),
            "fit": fit,
        }
        keep(kept(Path(args.kept), key), video)
        ledger.add(key, row)
        progress()
    rows = []
    for way in ways:
        own = [row_key(plan, way, sampling, full, index) for index in range(args.seeds)]
        what: Row = {
            "stage": plan.name,
            "name": way.name,
            "steps": way.steps,
            "weights": file_hash(way.weights)[:12],
        }
        if plan.unet.cond_channels == 0 and args.readings and calls(plan, way) <= MOST:
            whole, said = stage_of(plan, way, sampling)[0], settings(plan, way, sampling)
            what["read"] = total(
                readings(whole, said, args.readings, captions, ledger, Path(args.kept), quiet=args.quiet)
            )
        rows.append({**what, "videos": ledger.present(own)})
    sheet(plan, ways, [row_key(plan, way, sampling, full, 0) for way in ways], Path(args.kept))
    return rows


def kept(folder: Path, key: str) -> Path:
    """Where a video is kept."""
    return folder / f"{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}.safetensors"


def keep(path: Path, video: Tensor) -> None:
    """Keeps a video (1, 3, T, H, W) as bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"frames": to_bytes(video[0])}, {})


def recall(path: Path) -> Tensor:
    """A kept video, (1, 3, T, H, W)."""
    if not path.is_file():
        raise ValueError(f"the teacher's video {path} is gone, though the ledger has it; delete the ledger")
    return from_bytes(load_file(path)["frames"])[None]


def sheet(plan: Plan, ways: Sequence[Variant], keys: Sequence[str], folder: Path) -> None:
    """The same clip from the same noise, a row a variant."""
    shown = [(way, kept(folder, key)) for way, key in zip(ways, keys, strict=True)]
    shown = [(way, path) for way, path in shown if path.is_file()]
    videos = [case(plan, 0).video[0], *(recall(path)[0] for _, path in shown)]
    labels = ["held out", *(f"{way.name}, {way.steps}" for way, _ in shown)]
    contact_sheet(folder / f"{plan.name}.png", videos, labels, frames=6, cell_height=72)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stages", nargs="*", help="1-base ... 7-ssr; all of them by default")
    parser.add_argument("--seeds", type=int, default=4, help="noises, each on a held-out clip of its own")
    parser.add_argument(
        "--readings",
        type=int,
        default=24,
        help="captions of which the judge reads the base's videos; 0 for none",
    )
    parser.add_argument("--full", type=int, help="the teacher's steps; 256 for the base and 128 in the paper")
    parser.add_argument(
        "--oscillate", action="store_true", help="guidance (15, 1) in turn where the paper has it"
    )
    parser.add_argument("--weights", default=str(WEIGHTS), help="folder of the teachers' weights")
    parser.add_argument("--runs", default=str(HERE / "runs" / "students"), help="distill.py's --out")
    parser.add_argument(
        "--kept", default=str(HERE / "runs" / "rungs"), help="folder of the ledger and the videos"
    )
    parser.add_argument("--docs", default=str(DOCS), help="folder of the page; empty for none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    names = [plan.name for plan in PLANS]
    if unknown := [name for name in args.stages if name not in names]:
        sys.exit(f"rungs: there is no stage {unknown[0]!r}; choose among {', '.join(names)}")
    captions = Captions(MiniLMEncoder.load())
    ledger = Ledger(Path(args.kept) / "rungs.jsonl")
    try:
        plans = [plan for plan in PLANS if not args.stages or plan.name in args.stages]
        rows = [row for plan in plans for row in measure(plan, captions, ledger, args)]
        without = {plan.name: plain(plan, args.seeds) for plan in plans}
        weights = Path(args.weights)
        scales = {
            plan.name: entry(
                heard(plan, captions, weights, weights / "students"), by_embedding(plan, captions, weights)
            )
            for plan in plans
            if plan.name in OSCILLATING and (weights / "students" / f"{plan.name}.safetensors").is_file()
        }
    except ValueError as error:
        sys.exit(f"rungs: {error}")
    print(tables(rows))
    if args.docs:
        write_page(
            Path(args.docs),
            rows,
            names,
            without=without,
            scales=scales,
            seeds=args.seeds,
            full_steps=args.full,
        )


if __name__ == "__main__":
    main()
