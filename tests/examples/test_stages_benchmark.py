"""The benchmark's table; its timings are not a test's business."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "stages.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """Loaded by its path: the cascade's stages.py has the same name."""
    spec = importlib.util.spec_from_file_location("benchmark_of_stages", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_table_multiplies_and_divides(benchmark: ModuleType) -> None:
    made = {"grid": "16x24x40 at 3 fps", "parameters": 2_500_000, "gflop": 50.0, "seconds": 0.1, "peak": 0.5}
    rows = [
        benchmark.Measured(name="1-base", calls=128, **made),
        benchmark.Measured(name="2-tsr", calls=8, whole=1.5, **made),
    ]
    lines = benchmark.table(rows, ceiling=1000.0).splitlines()
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[1].split()[-7:] == ["50.0", "0.100", "128", "~12.8", "0.50", "500", "50%"]
    assert "1.5" in lines[2].split()
    assert lines[3].startswith("all stages: 14 s")
