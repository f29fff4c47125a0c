"""From the ledger to the table's results: all that is known of the weights that are there now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import table_cover
import torch
from distilled_stages import RECIPES
from stages import PLANS, Plan
from table_bench import PROMPTS, Bench
from table_read import BASELINES, references
from table_rows import DEMO, Row, all_rows, table
from table_sample import digest, missing, title_of, weights_of
from table_sets import LEADING, Readings, Renders
from table_summary import compare, figures
from torch import Tensor
from videotext import record


def collect(bench: Bench) -> dict[str, Any]:
    """Rows with their figures, what passes behind covers, and the distilled rows against the full ones."""
    args, reader = bench.args, bench.reader
    reference = references(bench.pack, bench.held_out, reader, bench.ledger, args.reference, quiet=True)
    renders = Renders(reference, extractor=reader.encoder.name)
    pool = pool_of(bench)
    upper = [bench.ledger.rows.get(key) for key, _ in upper_keys(bench)]
    readings: dict[str, Readings] = {name: of_baseline(bench, name) for name in BASELINES}
    rows: list[dict[str, Any]] = [
        {"name": name, "group": "Ground truth and baselines", "title": title, "steps": "", "stages": ""}
        for name, title in BASELINES.items()
    ]
    for row in all_rows():
        why = missing(row, bench.weights)
        readings[row.name] = {} if why else of_row(bench, row)
        said = {
            "name": row.name,
            "group": row.group,
            "title": title_of(row, bench.weights),
            "steps": row.steps,
        }
        rows.append({**said, "stages": len(row.parts), "missing": why or "not measured yet"})
    steps = {row.name: upper_steps(row) for row in all_rows() if len(row.parts) == 3}
    for entry in rows:
        own = readings[entry["name"]]
        found = figures(own, pool, renders) if own else {}
        entry |= {"videos": len(own), "figures": found, "missing": None if own else entry.get("missing")}
        timed = own and entry["name"] in steps and len(upper) == 3 and None not in upper
        entry["to the sixth"] = None
        if timed:
            each = zip(steps[entry["name"]], upper, strict=True)
            entry["to the sixth"] = found["cpu"]["mean"] + sum(
                n * step["cpu"] for n, step in each if step is not None
            )
    return {
        "command": "python examples/cascade/table.py",
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "settings": {
            "device": f"{args.device}, {torch.get_num_threads()} thread(s)",
            "prompts": PROMPTS,
            "seeds": args.seeds,
            "batch": args.batch,
            "pool": args.pool,
            "width": pool.shape[1],
            "leading": LEADING,
            "reference": args.reference,
            "encoder": record(Path(args.encoder)),
            "reader": reader.name,
            "scenes": bench.drawn,
        },
        "rows": rows,
        "covers": table_cover.collect(bench, all_rows()),
        "comparisons": comparisons(readings, pool, renders),
    }


def of_row(bench: Bench, row: Row) -> Readings:
    """What was read from a row's videos, with what they cost."""
    sampler, known = bench.sampler(row), bench.ledger.rows
    keys = {at: bench.key(sampler, *at) for at in bench.pairs(PROMPTS * bench.args.seeds)}
    return {
        (number, seed): {**known[key], **sampler.spent(bench.made[number], seed)}
        for (number, seed), key in keys.items()
        if key in known
    }


def of_baseline(bench: Bench, name: str) -> Readings:
    """What was read from a baseline."""
    keys, known = bench.baseline_keys(name, PROMPTS), bench.ledger.rows
    return {(number, 0): known[key] for number, key in keys.items() if key in known}


def pool_of(bench: Bench) -> Tensor:
    """(P, D) embeddings of the captions of the first prompts.

    Raises:
        ValueError: two of them are the same.
    """
    count = bench.args.pool
    texts = list(dict.fromkeys(prompt.text for prompt in bench.made[:count]))
    if len(texts) < count:
        raise ValueError(f"two of the first {count} prompts are the same; choose another --pool")
    return torch.nn.functional.normalize(torch.cat([bench.reader.text(text) for text in texts]), dim=1)


def upper_steps(row: Row) -> list[int]:
    """Steps of the stages beyond the third: as the row's own, but the demo's students take what each is shipped for."""
    if row.group == DEMO and row.parts[-1].student:
        return [RECIPES[plan.name].shipped for plan in PLANS[3:6]]
    return [row.parts[-1].steps] * 3


def upper_keys(bench: Bench) -> Iterator[tuple[str, Plan]]:
    """The ledger's keys of a step's seconds in the stages to 128x192x320, with their plans."""
    part = table()[0].parts[0]
    for plan in PLANS[3:6]:
        try:
            file = weights_of(plan, part, bench.weights)
        except ValueError:
            continue
        yield f"a step of {plan.name} {digest(file)} {bench.args.device}", plan


def comparisons(
    readings: Mapping[str, Readings], pool: Tensor, renders: Renders
) -> dict[str, dict[str, Any]]:
    """Each row of students alone against the 256/128 row of the same guidance, on the videos that both have.

    So is the ground truth of the same prompts, once for each guidance.
    """
    rows = table()
    full = {row.parts[0].guidance: row.name for row in rows if row.steps == "256/128"}
    found = {}

    def add(name: str, title: str, against: str, few: Readings) -> None:
        one = readings.get(against, {})
        if both := one.keys() & few.keys():
            found[name] = {
                "title": title,
                "against": against,
                "videos": len(both),
                "figures": compare(one, few, pool, renders),
            }

    truth = readings.get("truth", {})
    for against in full.values():
        own = {at: truth[at[0], 0] for at in readings.get(against, {}) if (at[0], 0) in truth}
        add(f"truth of {against}", f"ground truth, less `{against}`", against, own)
    for row in rows:
        guidance = row.parts[0].guidance
        if guidance in full and all(part.student for part in row.parts):
            add(row.name, f"`{row.name}`", full[guidance], readings.get(row.name, {}))
    return found
