"""Which jumps a student learns: those that its sampler will ask for, by steps that its teacher can make."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.distillation import Jumps, ddim_jumps, segment_jumps, stochastic_jumps
from vdm_blocks.distillation.jumps import as_jumps
from vdm_blocks.sampling import DDIM, DistilledStochastic, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised


class Recorder:
    """Notes the times that it is asked for."""

    schedule = CosineSchedule()

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        self.asked.append(float(t))
        return Denoised(z_t, z_t)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_the_stochastic_sampler_asks_for_these_times_and_no_others(steps: int) -> None:
    recorder = Recorder()
    sample(recorder, DistilledStochastic(), uniform_times(steps), torch.randn(1, 1, 2, 1, 1), Conditioning())
    assert recorder.asked == list(stochastic_jumps(steps).t)


@pytest.mark.parametrize("steps", [2, 8])
def test_a_stochastic_student_serves_half_the_steps_of_ddim(steps: int) -> None:
    recorder = Recorder()
    times = uniform_times(steps // 2)
    sample(recorder, DDIM(), times, torch.randn(1, 1, 2, 1, 1), Conditioning())
    assert all(stochastic_jumps(steps).makes(float(t), float(s)) for t, s in itertools.pairwise(times))
    assert set(recorder.asked) <= set(stochastic_jumps(steps).t)


def test_stochastic_jumps_are_twice_the_step_but_for_the_last() -> None:
    jumps = stochastic_jumps(5)
    lengths = torch.tensor(jumps.t) - torch.tensor(jumps.s)
    torch.testing.assert_close(lengths, torch.tensor([0.4, 0.4, 0.4, 0.4, 0.2]))
    assert jumps.s[-2:] == (0.0, 0.0)


@pytest.mark.parametrize("law", [stochastic_jumps, as_jumps])
def test_every_rung_is_made_of_steps_that_the_one_before_has_learned(law: Callable[[int], Jumps]) -> None:
    learned = law(64)
    for steps in (32, 16, 8, 4, 2, 1):
        jumps = law(steps).by_way_of(learned)
        assert all(learned.makes(t, mid) and learned.makes(mid, s) for t, mid, s in jumps)
        assert (jumps.t, jumps.s) == (law(steps).t, law(steps).s)
        learned = jumps


def test_only_the_last_stochastic_jump_is_one_that_the_teacher_makes_at_once() -> None:
    jumps = stochastic_jumps(8).by_way_of(stochastic_jumps(16))
    assert [mid == t for t, mid, _ in jumps] == [False] * 7 + [True]


def test_a_teacher_of_other_jumps_is_refused() -> None:
    with pytest.raises(ValueError, match="neither at once nor by way of"):
        stochastic_jumps(8).by_way_of(ddim_jumps(uniform_times(16)))


def test_grids_of_any_start_and_end() -> None:
    jumps = ddim_jumps(torch.tensor([0.8, 0.5, 0.1]))
    assert jumps.s[-1] == pytest.approx(0.1)
    assert jumps.mid == pytest.approx((0.65, 0.3))


def test_draws_reach_every_jump_and_nothing_else() -> None:
    jumps = stochastic_jumps(3)
    t, mid, s = jumps.draw(torch.tensor([0.0, 0.34, 0.5, 0.99, 1.0], dtype=torch.float64))
    assert t.tolist() == [jumps.t[i] for i in (0, 1, 1, 2, 2)]
    assert mid.tolist() == [jumps.mid[i] for i in (0, 1, 1, 2, 2)]
    assert s.tolist() == [jumps.s[i] for i in (0, 1, 1, 2, 2)]


@pytest.mark.parametrize(
    ("t", "mid", "s", "says"),
    [
        ((), (), (), "at least one"),
        ((1.0,), (0.5,), (), "as many of each"),
        ((0.5,), (0.6,), (0.0,), "times fall"),
        ((0.5,), (0.5,), (0.5,), "times fall"),
        ((1.2,), (0.5,), (0.0,), "times fall"),
        ((1.0, 1.0), (0.5, 0.75), (0.0, 0.5), "two jumps from 1.0"),
    ],
)
def test_impossible_jumps_are_refused(
    t: tuple[float, ...], mid: tuple[float, ...], s: tuple[float, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Jumps(t=t, mid=mid, s=s)


def test_segments_must_divide_the_steps() -> None:
    with pytest.raises(ValueError, match="3 segments do not divide 8"):
        segment_jumps(3, 8)
