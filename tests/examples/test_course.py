from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import torch
from course import Course, common_arguments
from torch import nn

from vdm_blocks import EMA
from vdm_blocks.training.state import TrainingState


def parsed(steps: int, folder: Path, *words: str) -> Namespace:
    parser = ArgumentParser()
    parser.add_argument("--steps", type=int, default=steps)
    common_arguments(parser, folder)
    return parser.parse_args(words)


def train(folder: Path, steps: int, *words: str, run: str = "one") -> nn.Linear:
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    state = TrainingState(network, EMA(network, 0.5), torch.optim.Adam(network.parameters(), lr=0.1))

    def step() -> tuple[float, ...]:
        number = state.step
        loss = network(torch.tensor([1.0, float(number)])).square().sum()
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.ema.update(network)
        state.step = number + 1
        return float(number), float(number) / 4, loss.item()

    args = parsed(steps, folder, *words)
    Course(state, ("quarter", "loss"), Path(args.out), {"run": run}).go(step, args)
    return network


def test_a_course_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(tmp_path / "whole", 6, "--quiet")
    train(tmp_path / "parts", 2, "--quiet")
    assert capsys.readouterr().out == ""
    again = train(tmp_path / "parts", 6)
    said = capsys.readouterr().out
    assert said.startswith("going on from step 2\n")
    assert "6/6  quarter 0.625  loss" in said  # the mean of 0 to 5, over 4
    assert torch.equal(whole.weight, again.weight)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert logs[0].startswith("step,quarter,loss\n0,0.0000,")
    assert len(logs[0].splitlines()) == 7


def test_a_row_that_will_be_done_again_is_dropped(tmp_path: Path) -> None:
    train(tmp_path, 2, "--quiet")
    with (tmp_path / "log.csv").open(
        "a"
    ) as file:  # steps after the last checkpoint, of a run that was killed
        file.write("2,9.0,9.0\n3,9.0,9.0\n")
    train(tmp_path, 3, "--quiet")
    assert [row.split(",")[:2] for row in (tmp_path / "log.csv").read_text().splitlines()[1:]] == [
        ["0", "0.0000"],
        ["1", "0.2500"],
        ["2", "0.5000"],
    ]


def test_a_folder_of_another_course_is_refused(tmp_path: Path) -> None:
    train(tmp_path, 1, "--quiet")
    with pytest.raises(ValueError, match="belongs to another run"):
        train(tmp_path, 2, run="two")
