"""The driver: killed anywhere it ends with the same bits, it keeps every rung, and it stops with a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.diffusion import KeyedNoise
from vdm_blocks.distillation import (
    DistillInfo,
    Ladder,
    ProgressiveDistiller,
    Rung,
    RungResult,
    distill,
    halvings,
    stochastic_jumps,
)
from vdm_blocks.sampling import DDIM, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoiser

SHAPE = (1, 2, 1, 1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2))

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        out: Tensor = self.layers(torch.cat([z_t.flatten(1), logsnr[:, None] / 10], dim=1))
        return out.view_as(z_t)


def model() -> ModelDenoiser:
    torch.manual_seed(0)
    return ModelDenoiser(Net())


def batches(update: int) -> tuple[Tensor, Conditioning]:
    return KeyedNoise(seeds=(0, 1, 2, 3), stage="data").normal((4, *SHAPE), step=update), Conditioning()


def judge(denoiser: Denoiser, steps: int) -> Sequence[float]:
    noise = KeyedNoise(seeds=(0, 1, 2), stage="judge").normal((3, *SHAPE), step=0)
    return (
        sample(denoiser, DDIM(), uniform_times(steps), noise, Conditioning())
        .square()
        .flatten(1)
        .mean(1)
        .tolist()
    )


RUNGS = halvings(16, 4, updates=7, rate=1e-2)
run = partial(distill, teacher_steps=16, width=math.inf, save_every=2)


def whole(folder: Path) -> Ladder:
    return run(model(), model(), RUNGS, batches, judge, folder=folder)


class Killed(Exception):  # noqa: N818
    pass


def kill_at(steps: int, update: int) -> Callable[[DistillInfo], None]:
    def on_update(info: DistillInfo) -> None:
        if info.rung.steps == steps and info.update == update:
            raise Killed

    return on_update


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ladder]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, whole(folder)


@pytest.fixture(autouse=True)
def _no_pictures(unbroken: tuple[Path, Ladder], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Drawing takes longer than all the rest; the unbroken run has drawn its own."""
    monkeypatch.setattr(Ladder, "plot", lambda *_args, **_named: None)


def same(folder: Path, unbroken: tuple[Path, Ladder]) -> None:
    names = {p.name for p in unbroken[0].iterdir()} - {"quality.png"}
    assert {p.name for p in folder.iterdir()} == names
    for name in names:
        assert (folder / name).read_bytes() == (unbroken[0] / name).read_bytes(), name


@pytest.mark.parametrize(("steps", "update"), [(8, 1), (8, 5), (8, 7), (4, 1), (4, 6)])
def test_a_killed_run_ends_with_the_same_bits(
    tmp_path: Path, unbroken: tuple[Path, Ladder], steps: int, update: int
) -> None:
    with pytest.raises(Killed):
        run(model(), model(), RUNGS, batches, judge, folder=tmp_path, on_update=kill_at(steps, update))
    student = model()
    ladder = run(model(), student, RUNGS, batches, judge, folder=tmp_path)
    assert ladder == unbroken[1]
    same(tmp_path, unbroken)
    weights = load_file(tmp_path / "rung-0004.safetensors")
    assert all(torch.equal(x, weights[name]) for name, x in student.state_dict().items())


def test_killed_while_it_is_judged(tmp_path: Path, unbroken: tuple[Path, Ladder]) -> None:
    def breaks(denoiser: Denoiser, steps: int) -> Sequence[float]:
        if steps == 4:
            raise Killed
        return judge(denoiser, steps)

    with pytest.raises(Killed):
        run(model(), model(), RUNGS, batches, breaks, folder=tmp_path)
    assert run(model(), model(), RUNGS, batches, judge, folder=tmp_path) == unbroken[1]
    same(tmp_path, unbroken)


def test_what_is_done_is_not_done_again_and_rungs_may_be_added(
    tmp_path: Path, unbroken: tuple[Path, Ladder]
) -> None:
    def never(*_: object) -> Sequence[float]:
        raise AssertionError("judged again")

    run(model(), model(), RUNGS[:1], batches, judge, folder=tmp_path)
    assert run(model(), model(), RUNGS[:1], batches, never, folder=tmp_path).rungs == unbroken[1].rungs[:1]
    assert run(model(), model(), RUNGS, batches, judge, folder=tmp_path) == unbroken[1]
    same(tmp_path, unbroken)


def test_each_rung_learns_from_the_one_before(tmp_path: Path) -> None:
    roles: list[tuple[Denoiser, Denoiser, tuple[float, ...]]] = []

    def method(teacher: Denoiser, student: Denoiser, jumps: object) -> ProgressiveDistiller:
        made = ProgressiveDistiller(teacher, student, jumps)  # type: ignore[arg-type]
        roles.append((teacher, student, made.jumps.mid))
        return made

    teacher, student = model(), model()
    run(teacher, student, RUNGS, batches, judge, folder=tmp_path, method=method, jumps=stochastic_jumps)
    assert roles[0][0] is teacher
    assert all(role[1] is student for role in roles)
    second = roles[1][0]
    assert isinstance(second, nn.Module)
    assert not any(p.requires_grad for p in second.parameters())
    weights = load_file(tmp_path / "rung-0008.safetensors")
    assert all(torch.equal(x, weights[name]) for name, x in second.state_dict().items())
    assert roles[0][2][-1] == 1 / 16  # a teacher of any steps halves the last jump,
    assert roles[1][2][-1] == 1 / 4  # a stochastic student makes it at once


def test_the_rate_falls_to_nothing_and_the_weights_are_the_average(tmp_path: Path) -> None:
    rates: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    rung = Rung(steps=8, updates=4, rate=0.4, average=0.5)
    student, start = model(), model().state_dict()
    run(model(), student, [rung], batches, judge, folder=tmp_path, optimizer=partial(Watched, lr=1.0))
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    plain = model()
    run(model(), plain, [Rung(steps=8, updates=4, rate=0.4)], batches, judge, folder=tmp_path / "b",
        optimizer=partial(Watched, lr=1.0))  # fmt: skip
    for name, x in student.state_dict().items():
        moved, averaged = plain.state_dict()[name] - start[name], x - start[name]
        assert 0 < float(averaged.norm()) < float(moved.norm())


def bad_at_four(denoiser: Denoiser, steps: int) -> Sequence[float]:  # noqa: ARG001
    return (1.0, 1.2, 1.1) if steps > 4 else (1.6, 1.6, 1.6)


def test_it_stops_with_a_reason_where_a_rung_falls_out_of_the_spread(tmp_path: Path) -> None:
    rungs = halvings(16, 2, updates=2)
    ladder = run(model(), model(), rungs, batches, bad_at_four, folder=tmp_path, width=2.0)
    assert [r.rung.steps for r in ladder.rungs] == [8, 4]
    assert ladder.stopped is not None
    assert "at 4 steps the quality is 1.6, outside the teacher's 1.1 + 2 x 0.1 = 1.3" in ladder.stopped
    assert not (tmp_path / "rung-0002.safetensors").exists()
    assert run(model(), model(), rungs, batches, bad_at_four, folder=tmp_path, width=2.0) == ladder
    further = run(model(), model(), rungs, batches, bad_at_four, folder=tmp_path, width=6.0)
    assert [r.rung.steps for r in further.rungs] == [8, 4, 2]
    assert further.stopped is None


def test_nothing_that_is_not_a_number_passes() -> None:
    ladder = Ladder(teacher_steps=8, teacher=(1.0, 1.1))
    result = RungResult(rung=Rung(steps=4, updates=1), loss=0.1, quality=(math.nan,), weights="x")
    assert ladder.judged(result, 3.0).stopped is not None


def test_an_infinite_width_lets_all_pass_even_where_the_teacher_has_no_spread() -> None:
    ladder = Ladder(teacher_steps=8, teacher=(0.0, 0.0))
    result = RungResult(rung=Rung(steps=4, updates=1), loss=0.1, quality=(5.0,), weights="x")
    assert ladder.judged(result, math.inf).stopped is None
    assert ladder.judged(result, 2.0).stopped is not None


def test_the_table_says_it_all_and_survives_the_disk(tmp_path: Path, unbroken: tuple[Path, Ladder]) -> None:
    ladder = unbroken[1]
    ladder.write(tmp_path / "ladder.json")
    assert Ladder.read(tmp_path / "ladder.json") == ladder
    assert [line.split()[0] for line in ladder.table().splitlines()] == ["steps", "16", "8", "4"]
    assert (unbroken[0] / "quality.png").stat().st_size > 1000


def test_another_run_s_folder_is_refused(tmp_path: Path) -> None:
    run(model(), model(), RUNGS[:1], batches, judge, folder=tmp_path)
    other = halvings(16, 4, updates=9)
    with pytest.raises(ValueError, match="holds another run"):
        run(model(), model(), other, batches, judge, folder=tmp_path)
    with pytest.raises(Killed):
        run(model(), model(), RUNGS, batches, judge, folder=tmp_path, on_update=kill_at(4, 5))
    with pytest.raises(ValueError, match="belongs to another run"):
        run(model(), model(), RUNGS, batches, judge, folder=tmp_path, seed=1)
    (tmp_path / "ladder.json").write_text(json.dumps({"rungs": []}))
    with pytest.raises(ValueError, match="not a ladder's table"):
        run(model(), model(), RUNGS, batches, judge, folder=tmp_path)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the steps of teacher and rungs are \[16, 4\]"):
        run(model(), model(), RUNGS[1:], batches, judge, folder=tmp_path)
    with pytest.raises(ValueError, match="no parameters that require a gradient"):
        run(model(), model().requires_grad_(False), RUNGS, batches, judge, folder=tmp_path)
    with pytest.raises(ValueError, match="two at least"):
        run(model(), model(), RUNGS, batches, lambda *_: (1.0,), folder=tmp_path)
    with pytest.raises(ValueError, match="halving does not lead to 5"):
        halvings(64, 5, updates=1)
    with pytest.raises(ValueError, match="it must be at least 1"):
        Rung(steps=0, updates=1)
    with pytest.raises(ValueError, match="below 1"):
        Rung(steps=1, updates=1, average=1.0)
