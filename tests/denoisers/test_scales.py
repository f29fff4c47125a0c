from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vdm_blocks.denoisers import Constant, Interval, OfLogSNR, Oscillating, guidance_scale_from_paper
from vdm_blocks.denoisers.scales import as_scale
from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.sampling import uniform_logsnr_times, uniform_times

SCHEDULE = CosineSchedule()


def trace(scale: Oscillating, times: torch.Tensor) -> list[float]:
    return [float(scale(t, SCHEDULE.logsnr(t))) for t in times[:-1]]


def test_constant_has_the_shape_of_the_level() -> None:
    for shape in ((), (3,), (3, 4)):
        assert torch.equal(
            Constant(scale=6.0)(torch.zeros(shape), torch.zeros(shape)), torch.full(shape, 6.0)
        )
    assert as_scale(2) == Constant(scale=2.0)


def test_the_papers_w() -> None:
    assert [guidance_scale_from_paper(w) for w in (0.0, 6.0, 15.0)] == [1.0, 7.0, 16.0]


def test_oscillation_is_high_for_the_first_share_and_then_alternates() -> None:
    times = uniform_times(20)
    low_first = trace(Oscillating(times=times), times)
    assert low_first == [15.0, 15.0] + [1.0, 15.0] * 9
    high_first = trace(Oscillating(times=times, phase=1), times)
    assert high_first == [15.0, 15.0] + [15.0, 1.0] * 9
    other = trace(Oscillating(times=times, high=8.0, low=2.0, constant=0.5), times)
    assert other == [8.0] * 10 + [2.0, 8.0] * 5
    assert trace(Oscillating(times=times, constant=1.0), times) == [15.0] * 20
    assert trace(Oscillating(times=times, constant=0.0), times) == [1.0, 15.0] * 10


@pytest.mark.parametrize("steps", [1, 2, 7, 256, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_step_of_any_grid_is_found_in_any_precision(steps: int, dtype: torch.dtype) -> None:
    times = uniform_times(steps)
    scale = Oscillating(times=times, constant=0.0, high=3.0, low=2.0)
    expected = [2.0 if i % 2 == 0 else 3.0 for i in range(steps)]
    assert trace(scale, times.to(dtype)) == expected
    batch = times[:-1].to(dtype)
    assert scale(batch, SCHEDULE.logsnr(batch)).tolist() == expected


def test_a_grid_of_very_unequal_steps_is_told_apart() -> None:
    times = uniform_logsnr_times(200, SCHEDULE)
    assert trace(Oscillating(times=times, constant=0.0), times) == [1.0, 15.0] * 100


def test_an_evaluation_between_grid_times_belongs_to_the_step_it_lies_in() -> None:
    times = uniform_times(10)
    scale = Oscillating(times=times, constant=0.0)
    for share in (0.01, 0.5, 0.99):
        between = times[:-1] - share * 0.1
        assert scale(between, between).tolist() == [1.0, 15.0] * 5
    assert float(scale(times[-1], times[-1])) == 15.0  # at the end: the last step


def test_scales_keep_the_precision_of_the_level() -> None:
    times = uniform_times(4)
    t = times[0]
    assert float(Oscillating(times=times, high=7.3)(t, SCHEDULE.logsnr(t))) == 7.3
    assert float(Interval(scale=7.3)(t, SCHEDULE.logsnr(t))) == 7.3


def test_an_oscillation_holds_numbers_and_compares() -> None:
    times = uniform_times(5)
    assert Oscillating(times=times) == Oscillating(times=times.tolist())
    assert hash(Oscillating(times=times)) == hash(Oscillating(times=tuple(times.tolist())))


def test_an_interval_is_the_same_set_of_levels_on_every_grid() -> None:
    """arXiv 2404.07724 states it in sigma; a share of the steps would move with their number."""
    interval = Interval(scale=4.0, low_logsnr=-2 * math.log(1.61), high_logsnr=-2 * math.log(0.19))
    for steps in (16, 64, 256):
        times = uniform_times(steps)[:-1]
        sigma = torch.exp(-SCHEDULE.logsnr(times) / 2)
        expected = torch.where((sigma > 0.19) & (sigma <= 1.61), 4.0, 1.0)
        assert torch.equal(interval(times, SCHEDULE.logsnr(times)), expected.double())


def test_an_interval_may_hold_any_scale_and_any_function_is_one() -> None:
    ramp = OfLogSNR(function=lambda logsnr: 1 + logsnr.square())
    logsnr = torch.tensor([-3.0, -1.0, 2.0, 5.0])
    assert Interval(scale=ramp, low_logsnr=-2.0, high_logsnr=5.0)(logsnr, logsnr).tolist() == [
        1.0,
        2.0,
        5.0,
        1.0,
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(scale=float("nan")), "finite"),
        (lambda: Oscillating(times=[1.0]), "grid"),
        (lambda: Oscillating(times=[0.0, 1.0]), "falling"),
        (lambda: Oscillating(times=[1.0, 0.0], constant=1.5), "constant=1.5"),
        (lambda: Oscillating(times=[1.0, 0.0], phase=2), "phase=2"),
        (lambda: Oscillating(times=[1.0, 0.0], high=math.inf), "high=inf"),
        (lambda: Interval(scale=2.0, low_logsnr=1.0, high_logsnr=0.0), "low_logsnr=1.0"),
    ],
)
def test_bad_scales_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
