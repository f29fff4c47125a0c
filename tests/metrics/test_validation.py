"""Every metric puts the damage that it is meant to see in order: the table of docs/metrics.md, small."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from vdm_blocks.metrics.damage import DAMAGES

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "metrics.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_metrics", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scores(benchmark: ModuleType) -> Any:
    torch.set_num_threads(1)
    return benchmark.measure(2, orbits=1, networks=False)


def test_damage_is_put_in_order(benchmark: ModuleType, scores: Any) -> None:
    """Those over networks take longer: `python benchmarks/metrics.py` tells."""
    wrong = [
        (name, damage)
        for name, damages in benchmark.EXPECTED.items()
        if name in scores
        for damage in damages
        if not benchmark.in_order(scores, name, damage)
    ]
    assert wrong == []


def test_the_table_has_a_row_for_every_metric(benchmark: ModuleType, scores: Any) -> None:
    lines = benchmark.tables(scores).splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 2 * (len(scores) + 2)
    assert "✗" not in benchmark.tables(scores)
    page = (FILE.parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    page = page.partition("<!-- tables -->")[2].partition("<!-- end of tables -->")[0]
    missing = [name for name in (*scores, *benchmark.EXPECTED) if page.count(f"\n| {name} |") != 2]
    assert missing == [], "run python benchmarks/metrics.py"


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damage_at_strength_0_is_none_and_the_video_is_left_alone(name: str) -> None:
    video = torch.rand(2, 3, 6, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    before = video.clone()
    torch.testing.assert_close(DAMAGES[name](video, 0.0), video)
    harmed = DAMAGES[name](video, 1.0)
    assert harmed.shape == video.shape
    assert float((harmed - video).abs().mean()) > 0.01
    assert torch.equal(DAMAGES[name](video, 1.0), harmed)
    assert torch.equal(video, before)
