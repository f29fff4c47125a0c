"""The paper's table at our scale: `python examples/cascade/table.py` writes docs/table.md and docs/table.json.

Every stage of every video is kept as soon as it is made, and every reading, so a stopped run goes on where it was, rows
which begin alike share the work, and `--row NAME` measures one row again once its weights have changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import table_cover
import torch
from evaluate_base import prompts
from ledger import Ledger, Progress
from material import HERE, Captions
from memory import keep_memory
from sampling import WEIGHTS
from table_bench import PROMPTS, Bench
from table_collect import collect, upper_keys
from table_page import page
from table_read import BASELINES, Reader, references
from table_rows import Row, ablations, all_rows, table
from table_sample import Sampler, missing, seconds_of_a_step
from videotext import VideoTextEncoder

from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack

JUDGE = HERE / "judge" / "judge.safetensors"
ENCODER = HERE / "videotext" / "videotext.safetensors"


def main(given: Sequence[str] | None = None) -> int:
    args = arguments(given)
    try:
        if args.list:
            print("\n".join(f"{row.name:32}{row.steps:10}{row.group}: {row.title}" for row in all_rows()))
        else:
            run(args)
    except ValueError as error:
        print(f"table: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what is measured is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Measures what is missing, as far as the minutes go, and writes the page."""
    ends = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    keep_memory()
    torch.set_num_threads(args.threads)
    out, rows = Path(args.out), chosen(args)
    check(args)
    captions = Captions(MiniLMEncoder.load())
    pack, held_out = SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json")
    bench = Bench(
        args=args, pack=pack, held_out=held_out, captions=captions, ledger=Ledger(Path(args.ledger)),
        reader=Reader(JUDGE, VideoTextEncoder.load(Path(args.encoder), captions.encoder)),
        made=prompts(pack, held_out, PROMPTS),
    )  # fmt: skip
    references(pack, held_out, bench.reader, bench.ledger, args.reference, quiet=args.quiet)
    measure_baselines(bench)
    if args.time_upper:
        time_upper(bench)
    few, long = ([row for row in rows if row.is_long is is_long] for is_long in (False, True))
    for part, videos, scenes in ((few, args.videos, args.scenes), (long, args.long_videos, args.long_scenes)):
        measure(bench, part, videos, ends)
        table_cover.measure(bench, part, scenes, ends)
    results = collect(replace(bench, ledger=Ledger(Path(args.ledger))))  # with what other processes added
    (out / "table.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "table.md").write_text(page(results), encoding="utf-8")
    if not args.quiet:
        print(f"wrote {out / 'table.md'}")


def check(args: argparse.Namespace) -> None:
    """Refuses before anything is loaded.

    Raises:
        ValueError: numbers that do not go together, or no folder to write to.
    """
    if min(args.videos, args.seeds, args.batch) < 1:
        raise ValueError(
            f"--videos is {args.videos}, --seeds {args.seeds} and --batch {args.batch}; give one or more of each"
        )
    for name, most in (("videos", PROMPTS), ("scenes", table_cover.MOST)):
        wanted = max(getattr(args, name), getattr(args, f"long_{name}"))
        if wanted > most * args.seeds:
            raise ValueError(
                f"{wanted} {name} are asked for; there are {most} {'prompts' if name == 'videos' else name}, each "
                f"with {args.seeds} seeds: {most * args.seeds} at most, or more --seeds"
            )
    if not Path(args.out).is_dir():
        raise ValueError(
            f"there is no folder {args.out} to write the table to; make it, or choose another with --out"
        )


def chosen(args: argparse.Namespace) -> list[Row]:
    """The rows that the arguments ask to be measured."""
    if not args.row:
        return [*table(), *(ablations() if args.ablations else [])]
    by_name = {row.name: row for row in all_rows()}
    unknown = [name for name in args.row if name not in by_name]
    if unknown:
        raise ValueError(f"there is no row {unknown[0]!r}; --list says which there are")
    return [by_name[name] for name in args.row]


def measure(bench: Bench, rows: Sequence[Row], count: int, ends: float) -> None:
    """The first few videos of all rows, then the next, so that a run that is cut short has as many of each."""
    lacking = {row.name: why for row in rows if (why := missing(row, bench.weights)) is not None}
    if bench.args.row:
        for name, why in lacking.items():
            print(f"{name}: {why}", file=sys.stderr)
    samplers = [bench.sampler(row) for row in rows if row.name not in lacking]
    wanted, size = bench.pairs(count), bench.args.batch

    def lacking_of(sampler: Sampler, first: int) -> list[tuple[int, int]]:
        return [at for at in wanted[first : first + size] if bench.key(sampler, *at) not in bench.ledger.rows]

    jobs = [(sampler, first) for first in range(0, count, size) for sampler in samplers]
    todo = [(sampler, part) for sampler, first in jobs if (part := lacking_of(sampler, first))]
    progress = Progress("videos", sum(len(part) for _, part in todo), quiet=bench.args.quiet)
    for sampler, part in todo:
        if time.monotonic() > ends:
            print(
                f"the minutes are over with {progress.done} of {progress.total} videos made; the same goes on"
            )
            return
        videos = sampler.videos([(bench.made[number], seed) for number, seed in part], bench.captions)
        for (number, seed), video in zip(part, videos, strict=True):
            bench.ledger.add(bench.key(sampler, number, seed), bench.read(video[None], number))
        progress(len(part))


def measure_baselines(bench: Bench) -> None:
    """Of as many prompts as the rows have videos."""
    count = min(max(bench.args.videos, bench.args.long_videos), PROMPTS)
    for name in BASELINES:
        for number, key in bench.baseline_keys(name, count).items():
            if key not in bench.ledger.rows:
                bench.ledger.add(key, bench.read(bench.baselines(name, number), number))


def time_upper(bench: Bench) -> None:
    """Eight steps each of the stages to 128x192x320."""
    for key, plan in upper_keys(bench):
        if key not in bench.ledger.rows:
            bench.ledger.add(key, {**seconds_of_a_step(plan, bench.weights, device=bench.args.device)})


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The paper's table; writes docs/table.md and table.json.")
    parser.add_argument("--row", action="append", help="measure this row alone; may be given again")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--ablations", action="store_true", help="measure the ablations too")
    parser.add_argument(
        "--videos",
        type=int,
        default=16,
        help="of rows with up to 32 steps a stage; each has a prompt of its own",
    )
    parser.add_argument("--long-videos", type=int, default=0, help="of rows with more; 0 leaves them out")
    parser.add_argument(
        "--scenes", type=int, default=8, help="in which a thing passes behind another; as --videos"
    )
    parser.add_argument("--long-scenes", type=int, default=0, help="as --long-videos")
    parser.add_argument("--seeds", type=int, default=4, help="which the videos have in turn")
    parser.add_argument("--batch", type=int, default=4, help="videos that are made together")
    parser.add_argument("--minutes", type=float, default=0, help="begin nothing after so many; 0 is no limit")
    parser.add_argument("--time-upper", action="store_true", help="time eight steps of stages 4 to 6")
    parser.add_argument("--pool", type=int, default=99, help="captions to find the right one among")
    parser.add_argument("--reference", type=int, default=256, help="renders of other scenes to compare with")
    parser.add_argument("--encoder", default=str(ENCODER), help="the video-text encoder")
    parser.add_argument("--weights", default=str(WEIGHTS), help="folder of the stages' weights")
    parser.add_argument("--out", default=str(HERE.parents[1] / "docs"), help="folder of the results")
    parser.add_argument("--ledger", default=str(HERE / "runs" / "table.jsonl"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
