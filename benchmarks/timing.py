"""Measuring on a machine that is shared: interleaved rounds, CPU beside wall time, and a page to put tables on."""

from __future__ import annotations

import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

PAGE_HEAD = """# Benchmarks

How fast the networks and blocks are beside other libraries', beside the machine, and beside their naive forms. Each
table was written by the command above it, which measures all that it compares in interleaved rounds of one process, in
another order each round, in float32. The machine is a small virtual one, shared with other work, so times are **CPU
time of the process** on one thread, the least over the rounds; a ratio is the median over the rounds of the ratios
within one round. Wall time, where it stands, says how busy the machine was. malloc kept its pages (MALLOC_MMAP_MAX_=0,
MALLOC_TRIM_THRESHOLD_=2147483648), which spares everybody the page faults of large tensors.
"""


@dataclass(kw_only=True)
class Entry:
    """Something to time; `wall` and `cpu` get the seconds of each round."""

    name: str
    run: Callable[[], object]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def least(self) -> float:
        """CPU seconds of the fastest round."""
        return min(self.cpu)


def interleave(entries: Sequence[Entry], rounds: int) -> None:
    """Times every entry once a round, each round in another order."""
    shuffle = random.Random(0)
    for _ in range(rounds):
        for entry in shuffle.sample(list(entries), len(entries)):
            wall, cpu = time.perf_counter(), time.process_time()
            entry.run()
            entry.wall.append(time.perf_counter() - wall)
            entry.cpu.append(time.process_time() - cpu)


def times_as_fast(ours: Entry, theirs: Entry) -> float:
    """The median over the rounds of their CPU time over ours."""
    return statistics.median(b / a for a, b in zip(ours.cpu, theirs.cpu, strict=True))


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products of `run`, those of fused attention included."""
    aten = torch.ops.aten
    fused = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda *args, **_: sdpa_flop_count(*args[:3]),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *args, **_: (
            sdpa_backward_flop_count(*args[:4])
        ),
    }
    counter = FlopCounterMode(display=False, custom_mapping=fused)
    with counter:
        run()
    return counter.get_total_flops()


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes of tensors that torch held at a time during `run` beyond those held before it."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        run()
    assert profiler.profiler is not None
    results = profiler.profiler.kineto_results
    assert results is not None
    held = most = 0
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def setting() -> str:
    """Where and when: processor, torch, threads, date."""
    found = re.search(r"model name\s*:\s*(.+)", _text(Path("/proc/cpuinfo")))
    processor = found.group(1) if found else platform.processor() or platform.machine()
    count = torch.get_num_threads()
    threads = "one thread" if count == 1 else f"{count} threads"
    day = datetime.now(timezone.utc).date().isoformat()
    return f"{processor}, torch {torch.__version__}, {threads} of a shared machine, {day}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the head, as a table."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(page: Path, name: str, text: str) -> None:
    """Puts `text` between the page's marks for `name`; a page, or marks, that are not there yet are made."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    body = f"{begin}\n{text.strip()}\n{end}"
    old = _text(page) or PAGE_HEAD
    if begin in old:
        before, rest = old.split(begin, 1)
        new = before + body + rest.split(end, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{body}\n"
    page.write_text(new, encoding="utf-8")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
