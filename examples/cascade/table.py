"""The paper's table at our scale: `python examples/cascade/table.py` writes docs/table.md and docs/table.json.

Every stage of every video is kept as soon as it is made, and every reading, so a stopped run goes on where it was, rows
which begin alike share the work, and `--row NAME` measures one row again once its weights have changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import table_cover
import torch
from evaluate_base import prompts
from ledger import Ledger, Progress
from material import HERE, Captions
from sampling import WEIGHTS
from stages import PLANS
from table_bench import Bench
from table_page import page
from table_read import BASELINES, Reader, Reading, baseline, references
from table_rows import Row, ablations, table
from table_sample import digest, missing, second_of_one, weights_of
from table_summary import Figure, compare, figures
from videotext import VideoTextEncoder, record

from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack

JUDGE = HERE / "judge" / "judge.safetensors"
ENCODER = HERE / "videotext" / "videotext.safetensors"
Readings = dict[tuple[int, int], Reading]
MOST = 200
"""Prompts that are ever looked for in the ledger."""


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


def all_rows() -> list[Row]:
    """Of the table and of the ablations."""
    return [*table(), *ablations()]


def run(args: argparse.Namespace) -> None:
    """Measures what is missing, as far as the minutes go, and writes the page."""
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    rows = chosen(args)
    if min(args.prompts, args.seeds) < 1 or max(args.prompts, args.long_prompts) > MOST:
        raise ValueError(
            f"--prompts is {args.prompts}, --long-prompts {args.long_prompts} and --seeds {args.seeds}; "
            f"give 1 to {MOST} prompts and a seed or more"
        )
    if not out.is_dir():
        raise ValueError(
            f"there is no folder {out} to write the table to; make it, or choose another with --out"
        )
    captions = Captions(MiniLMEncoder.load())
    reader = Reader(JUDGE, VideoTextEncoder.load(Path(args.encoder), captions.encoder))
    pack, held_out = SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json")
    bench = Bench(
        args=args, pack=pack, held_out=held_out, captions=captions, reader=reader,
        ledger=Ledger(Path(args.ledger)), made=prompts(pack, held_out, MOST),
    )  # fmt: skip
    ends = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    references(pack, held_out, reader, bench.ledger, args.reference, quiet=args.quiet)
    measure_baselines(bench)
    if args.time_upper:
        time_upper(bench)
    few = [row for row in rows if not row.is_long]
    for part, count in ((few, args.prompts), ([row for row in rows if row.is_long], args.long_prompts)):
        measure(bench, part, count, ends)
    for part, count in ((few, args.scenes), ([row for row in rows if row.is_long], args.long_scenes)):
        table_cover.measure(bench, part, count, ends)
    results = collect(replace(bench, ledger=Ledger(Path(args.ledger))))  # with what other processes added
    (out / "table.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(page(results), encoding="utf-8")
    if not args.quiet:
        print(f"wrote {out / 'table.md'}")


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
    """All rows of one prompt and seed, then of the next, so that a run that is cut short has some of each."""
    folder = Path(bench.args.weights)
    lacking = {row.name: why for row in rows if (why := missing(row, folder)) is not None}
    if bench.args.row:
        for name, why in lacking.items():
            print(f"{name}: {why}", file=sys.stderr)
    samplers = [bench.sampler(row) for row in rows if row.name not in lacking]
    todo = [
        (sampler, number, seed)
        for number in range(count)
        for seed in range(bench.args.seeds)
        for sampler in samplers
        if bench.key(sampler, number, seed) not in bench.ledger.rows
    ]
    progress = Progress("videos", len(todo), quiet=bench.args.quiet)
    for sampler, number, seed in todo:
        if time.monotonic() > ends:
            print(
                f"the minutes are over with {progress.done} of {len(todo)} videos made; the same command goes on"
            )
            return
        prompt = bench.made[number]
        video = sampler.video(prompt, seed, bench.captions)
        bench.ledger.add(bench.key(sampler, number, seed), bench.reader.read(video, prompt))
        progress()


def measure_baselines(bench: Bench) -> None:
    """Of as many prompts as the rows have."""
    for name in BASELINES:
        for number in range(bench.args.prompts):
            key = f"{name} {number} {bench.reader.name}"
            if key not in bench.ledger.rows:
                video = baseline(name, bench.pack, bench.held_out, bench.made, number)
                bench.ledger.add(key, bench.reader.read(video, bench.made[number]))


def time_upper(bench: Bench) -> None:
    """One evaluation each of the stages to 128x192x320."""
    for key, plan in upper_keys(bench):
        if key not in bench.ledger.rows:
            found = second_of_one(plan, Path(bench.args.weights), device=bench.args.device)
            bench.ledger.add(key, {**found})


def upper_keys(bench: Bench) -> Iterator[tuple[str, Any]]:
    """The ledger's keys of those timings, with their plans."""
    part = table()[0].parts[0]
    for plan in PLANS[3:6]:
        try:
            file = weights_of(plan, part, Path(bench.args.weights))
        except ValueError:
            continue
        yield f"one evaluation {plan.name} {digest(file)} {bench.args.device}", plan


def collect(bench: Bench) -> dict[str, Any]:
    """All that the ledger knows of the weights that are there now."""
    args, reader = bench.args, bench.reader
    reference = references(bench.pack, bench.held_out, reader, bench.ledger, args.reference, quiet=True)
    firsts = list(dict.fromkeys(prompt.text for prompt in bench.made[: args.pool]))
    if len(firsts) < args.pool:
        raise ValueError(f"two of the first {args.pool} prompts are the same; choose another --pool")
    pool = torch.nn.functional.normalize(torch.cat([reader.text(text) for text in firsts]), dim=1)
    timed = [bench.ledger.rows.get(key) for key, _ in upper_keys(bench)]
    rows: list[dict[str, Any]] = []
    seen: dict[str, Readings] = {}

    def figure(readings: Readings) -> dict[str, Figure]:
        return figures(readings, pool, reference, extractor=reader.encoder.name) if readings else {}

    def add(readings: Readings, **said: Any) -> None:
        found = figure(readings)
        seen[said["name"]] = readings
        rows.append(
            {"to the sixth": None, "missing": None, **said, "videos": len(readings), "figures": found}
        )

    for name, title in BASELINES.items():
        readings = {
            (number, 0): bench.ledger.rows[key]
            for number in range(MOST)
            if (key := f"{name} {number} {reader.name}") in bench.ledger.rows
        }
        add(readings, name=name, group="Ground truth and baselines", title=title, steps="", stages="")
    for row in all_rows():
        why = missing(row, Path(args.weights))
        said = {"name": row.name, "group": row.group, "title": row.title, "steps": row.steps}
        readings = {}
        if why is None:
            sampler = bench.sampler(row)
            readings = {
                (number, seed): {
                    **bench.ledger.rows[key],
                    **sampler.spent(bench.made[number], seed),
                }
                for number in range(MOST)
                for seed in range(args.seeds)
                if (key := bench.key(sampler, number, seed)) in bench.ledger.rows
            }
        reason = None if readings else why or "not measured yet"
        add(readings, **said, stages=len(row.parts), missing=reason)
        if readings and len(row.parts) == 3 and len(timed) == 3 and None not in timed:
            each = sum(found["cpu"] for found in timed if found is not None)
            own = rows[-1]["figures"]["cpu"]["mean"]
            rows[-1]["to the sixth"] = own + row.parts[-1].steps * each
    return {
        "command": "python examples/cascade/table.py",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "settings": {
            "device": f"{args.device}, {torch.get_num_threads()} thread(s)",
            "why": "" if args.device != "cpu" else ", for want of a GPU",
            "prompts": args.prompts,
            "long prompts": args.long_prompts,
            "scenes": args.scenes,
            "long scenes": args.long_scenes,
            "seeds": args.seeds,
            "pool": args.pool,
            "width": pool.shape[1],
            "reference": args.reference,
            "encoder": record(Path(args.encoder)),
            "reader": reader.name,
        },
        "rows": rows,
        "covers": table_cover.collect(bench, all_rows()),
        "comparisons": comparisons(seen, figure),
    }


def comparisons(
    seen: Mapping[str, Readings], figure: Callable[[Readings], dict[str, Figure]]
) -> dict[str, dict[str, Any]]:
    """Each 8/8 row against the 256/128 row of the same guidance, over the prompts and seeds that both were read on."""
    found = {}
    for name, few in seen.items():
        full = seen.get(name.replace("-8-8", "-256-128"), {})
        both = sorted(few.keys() & full.keys())
        if "-8-8" in name and "teacher" not in name and both:
            one, other = ({key: own[key] for key in both} for own in (full, few))
            found[name] = {"videos": len(both), "figures": compare(figure(one), figure(other))}
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The paper's table; writes docs/table.md and table.json.")
    parser.add_argument("--row", action="append", help="measure this row alone; may be given again")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--ablations", action="store_true", help="measure the ablations too")
    parser.add_argument("--prompts", type=int, default=8, help="of rows with up to 32 steps a stage")
    parser.add_argument("--long-prompts", type=int, default=0, help="of rows with more; 0 leaves them out")
    parser.add_argument(
        "--scenes", type=int, default=4, help="in which a thing passes behind another; as --prompts"
    )
    parser.add_argument("--long-scenes", type=int, default=0, help="as --long-prompts")
    parser.add_argument("--seeds", type=int, default=4, help="one video of every prompt for each")
    parser.add_argument(
        "--minutes", type=float, default=0, help="begin no video after so many; 0 is no limit"
    )
    parser.add_argument("--time-upper", action="store_true", help="time an evaluation of stages 4 to 6")
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
