"""diffusers' UNet3DConditionModel, distilled by the example as it stands, with fewer updates."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "distill_foreign.py"


def test_the_foreign_network_is_distilled(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLE))
    torch.manual_seed(0)
    ladder = example["distilled"](example["taught"](updates=2), 2, str(tmp_path))
    assert [result.rung.steps for result in ladder.rungs] == [8, 4, 2]
    assert ladder.stopped is None
    assert all(0 < value < 10 for result in ladder.rungs for value in result.quality)


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 80
