"""The benchmark of the step rules: what it calls the bare arithmetic is the rule's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from vdm_blocks.sampling import DDIM, DPMSolverPP2M, Heun, StepDraw, UniPC
from vdm_blocks.types import Conditioning, Denoised

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "steps.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_steps", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rule", [DDIM(), DPMSolverPP2M(), UniPC(order=1), Heun()], ids=str)
def test_the_replay_makes_the_same_video(benchmark: ModuleType, rule: Any) -> None:
    x0, eps, z = torch.randn(3, 1, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    denoiser = benchmark.Answers(lambda: Denoised(x0, eps))
    t, s = benchmark.TIMES[3], benchmark.TIMES[4]
    draw = StepDraw(None, 3)
    with torch.no_grad(), benchmark.Recorder(z.numel()) as recorder:
        result = rule(denoiser, z, t, s, Conditioning(), None, draw)
    assert torch.equal(recorder.replay()(), result.z)


def test_every_rule_is_measured(benchmark: ModuleType) -> None:
    """Restart must restart in the step that is timed, and the loop hold as much as DDIM's test allows."""
    shape = (1, 3, 1, 4, 4)
    evaluations = [benchmark.measure(rule, shape, 0.0).evaluations for rule in benchmark.RULES]
    assert evaluations == [1] * 8 + [2, 2, 2, 2, 3]
    assert 3.9 < benchmark.peak(DDIM(), (1, 3, 4, 32, 32)) < 4.1
