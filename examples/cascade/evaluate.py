"""Measure the cascade: `python examples/cascade/evaluate.py` writes docs/results.md and docs/results.json.

Every measurement is kept as soon as it is made, so a stopped run goes on where it was, and two may share the work
(--parts base, --parts sr). `--parts table` writes the paper's table beside it, and `--parts ablations` that with its
second half, as `table.py` does; that one measures a single row again: `table.py --row NAME`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import evaluate_base
import evaluate_stages
import table
import torch
from judge import Judge
from ledger import Ledger
from material import HERE, Captions
from results_page import page
from safetensors import safe_open
from safetensors.torch import load_file
from sampling import SAMPLING, WEIGHTS, find_weights, has_weights
from stages import BASE, PLANS

from vdm_blocks.checkpoint import file_hash, read_info
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.video.pixels import from_bytes
from vdm_blocks.video.sheet import contact_sheet

JUDGE = HERE / "judge" / "judge.safetensors"
PICTURE = "results-base.png"
PARTS = ("base", "sr", "table", "ablations")


def main() -> int:
    args = arguments()
    try:
        run(args)
    except ValueError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what is measured is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Measures what is missing and writes the page."""
    torch.set_num_threads(args.threads)
    parts = tuple(args.parts.split(","))
    if not set(parts) <= set(PARTS):
        raise ValueError(f"--parts is {args.parts!r}; give some of {','.join(PARTS)}")
    if min(args.prompts, args.clips) < 2:
        raise ValueError(
            f"--prompts is {args.prompts} and --clips {args.clips}; a standard error takes two at least"
        )
    stages = [plan for plan in PLANS[1:] if not args.stages or plan.name in args.stages.split(",")]
    weights, out = Path(args.weights), Path(args.out)
    for plan in [*([BASE] if "base" in parts else []), *(stages if "sr" in parts else [])]:
        find_weights(plan, weights)
    if not out.is_dir():
        raise ValueError(
            f"there is no folder {out} to write the results to; make it, or choose another with --out"
        )
    ledger = Ledger(Path(args.ledger))
    captions = Captions(MiniLMEncoder.load())
    if "base" in parts:
        measure_base(args, weights, captions, ledger, out)
    if "sr" in parts:
        for plan in stages:
            evaluate_stages.measure(plan, weights, captions, ledger, count=args.clips, quiet=args.quiet)
    results = collect(args, weights, ledger)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "results.md").write_text(page(results), encoding="utf-8")
    if not args.quiet:
        print(f"wrote {out / 'results.md'}")
    if {"table", "ablations"} & set(parts):
        own = ["--weights", args.weights, "--out", args.out, "--threads", str(args.threads)]
        amount = ["--videos", str(args.videos), "--long-videos", str(args.long_videos)]
        flags = [*(["--ablations"] if "ablations" in parts else []), *(["--quiet"] if args.quiet else [])]
        table.run(table.arguments([*own, *amount, *flags]))


def measure_base(
    args: argparse.Namespace, weights: Path, captions: Captions, ledger: Ledger, out: Path
) -> None:
    """Samples and reads the base's videos, and draws the first of them."""
    pack, held_out = SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json")
    made = evaluate_base.prompts(pack, held_out, args.prompts)
    base, folder = base_run(args, weights), Path(args.ledger).parent / "videos"
    evaluate_base.sample(base, captions, made, folder, batch=args.batch, quiet=args.quiet)
    evaluate_base.read(base, pack, made, folder, ledger, quiet=args.quiet)
    first = list(base.videos(made).items())[:8]
    videos = [from_bytes(load_file(evaluate_base.kept(folder, key))["frames"]) for key, _ in first]
    labels = [f"{prompt.text} ({prompt.split})" for _, (prompt, _) in first]
    contact_sheet(out / PICTURE, videos, labels, frames=8, cell_height=72)


def base_run(args: argparse.Namespace, weights: Path) -> evaluate_base.BaseRun:
    """What the arguments ask of the base."""
    seeds = [int(seed) for seed in args.seeds.split(",")]
    return evaluate_base.base_run(weights, JUDGE, steps=args.steps or None, count=args.prompts, seeds=seeds)


def collect(args: argparse.Namespace, weights: Path, ledger: Ledger) -> dict[str, Any]:
    """All that the ledger knows of the weights that are there now."""
    results: dict[str, Any] = {
        "command": "python examples/cascade/evaluate.py",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
    }
    if has_weights(BASE, weights) and JUDGE.exists():
        results["base"] = collect_base(base_run(args, weights), args, ledger)
    rows, settings = [], {}
    names = tuple(evaluate_stages.sources())
    for plan in PLANS[1:]:
        if not has_weights(plan, weights):
            continue
        file = find_weights(plan, weights)
        own = ledger.present(evaluate_stages.keys(plan, file, names, args.clips))
        rows += evaluate_stages.summary(own)
        frames, crop = evaluate_stages.VIEWS[plan.name]
        height, width = crop or (plan.grid.height, plan.grid.width)
        sampling = SAMPLING[plan.name]
        if own:
            settings[plan.name] = {
                "view": f"{frames}x{height}x{width}",
                "sampling": f"{sampling.steps} steps, `{sampling.rule}`, `{sampling.guidance}`, SNR {plan.snr:g}",
                "weights": file_hash(file)[:12],
                "trained": read_info(file).notes.get("steps", "?"),
            }
    results["stages"] = {"table": rows, "settings": settings}
    return results


def collect_base(base: evaluate_base.BaseRun, args: argparse.Namespace, ledger: Ledger) -> dict[str, Any]:
    """The base's table, how it was made, and the judge's own record."""
    pack, held_out = SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json")
    rows = ledger.present(base.keys(evaluate_base.prompts(pack, held_out, args.prompts)))
    with safe_open(JUDGE, framework="pt") as file:
        notes = file.metadata()
    sampling = SAMPLING[BASE.name]
    return {
        "table": evaluate_base.summary(rows),
        "picture": PICTURE if (Path(args.out) / PICTURE).exists() else None,
        "settings": {
            "prompts": len({row["prompt"] for row in rows}),
            "done": len(rows),
            "steps": base.steps,
            "rule": str(sampling.rule),
            "guidance": str(sampling.guidance),
            "seeds": args.seeds,
            "weights": file_hash(base.weights)[:12],
            "trained": read_info(base.weights).notes.get("steps", "?"),
        },
        "judge": {
            "parameters": sum(x.numel() for x in Judge.load(JUDGE).parameters()),
            "accuracy": json.loads(notes["accuracy"]),
            "steps": notes["steps"],
            "seed": notes["seed"],
        },
        "readings": rows,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the cascade; writes docs/results.md and results.json."
    )
    parser.add_argument("--parts", default="base,sr", help="some of base, sr, table and ablations")
    parser.add_argument(
        "--stages", default="", help="of the super-resolution stages, these alone: 2-tsr,3-ssr"
    )
    parser.add_argument("--prompts", type=int, default=200, help="half seen combinations, half held out")
    parser.add_argument("--seeds", default="0", help="one video of every prompt for each: 0,1,2")
    parser.add_argument(
        "--steps", type=int, default=0, help="of the base's sampler; 0 takes the demo's own number"
    )
    parser.add_argument("--clips", type=int, default=8, help="per stage and source")
    parser.add_argument("--batch", type=int, default=4, help="videos at a time, the base's")
    parser.add_argument(
        "--videos", type=int, default=16, help="of the table's rows of up to 32 steps a stage"
    )
    parser.add_argument("--long-videos", type=int, default=0, help="of the rows with more; 0 leaves them out")
    parser.add_argument("--weights", default=str(WEIGHTS), help="folder of the stages' weights")
    parser.add_argument("--out", default=str(HERE.parents[1] / "docs"), help="folder of the results")
    parser.add_argument("--ledger", default=str(HERE / "runs" / "evaluation.jsonl"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
