"""diffusers' UNet3DConditionModel, distilled by the example as it stands, with fewer updates."""

from __future__ import annotations

import ast
import copy
import runpy
from pathlib import Path

import torch

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "distill_foreign.py"


def test_the_foreign_network_is_distilled(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLE))
    torch.manual_seed(0)
    teacher = example["taught"](updates=2)
    before = copy.deepcopy(teacher.state_dict())
    ladder = example["distilled"](teacher, 2, str(tmp_path))
    assert [result.rung.steps for result in ladder.rungs] == [8, 4, 2]
    assert ladder.stopped is None
    assert all(0 < value < 10 for result in ladder.rungs for value in result.quality)
    assert all(torch.equal(x, before[name]) for name, x in teacher.state_dict().items())


def test_distilling_it_takes_ten_lines() -> None:
    """From their network and its teacher to two steps of one evaluation each, the docstring not counted."""
    functions = {
        f.name: f
        for f in ast.parse(EXAMPLE.read_text(encoding="utf-8")).body
        if isinstance(f, ast.FunctionDef)
    }
    first, *_, last = functions["distilled"].body[1:]
    assert last.end_lineno is not None
    assert last.end_lineno - first.lineno + 1 <= 10
