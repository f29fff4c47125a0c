"""How much memory a piece of code allocates at its worst, counted on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["peak_bytes"]


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that torch held at any one time beyond those held before `run`, whose result is kept."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        result = run()
    del result
    kineto = profiler.profiler
    assert kineto is not None
    results = kineto.kineto_results
    assert results is not None
    events = sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    return peak
