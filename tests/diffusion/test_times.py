from __future__ import annotations

import pytest
import torch

from vdm_blocks.diffusion import (
    CosineSchedule,
    IndependentTimes,
    KarrasSchedule,
    LogitNormalLaw,
    LogNormalLaw,
    LowDiscrepancyTimes,
    PerFrameTimes,
    SigmoidSchedule,
    TimeLaw,
    TimeSampler,
    UniformLaw,
)

LAWS: list[TimeLaw] = [
    UniformLaw(),
    UniformLaw(low=0.2, high=0.6),
    LogitNormalLaw(mean=-0.5, std=1.3),
    LogNormalLaw(schedule=CosineSchedule()),
    LogNormalLaw(schedule=KarrasSchedule(), mean=-0.4, std=1.0),
    LogNormalLaw(schedule=SigmoidSchedule(), std=9.0),
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sampler", [IndependentTimes, LowDiscrepancyTimes])
def test_times_have_their_law(sampler: type[IndependentTimes | LowDiscrepancyTimes], law: TimeLaw) -> None:
    count = 20_000
    t = sampler(law=law).draw(count, seed=1, step=2).sort().values
    expected = law.quantile((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    assert t.dtype == torch.float32
    assert ((t >= 0) & (t <= 1)).all()
    assert (t - expected).abs().max() < (0.05 if sampler is IndependentTimes else 0.02)


def test_log_normal_is_normal_in_the_log_of_sigma() -> None:
    schedule = KarrasSchedule(sigma_min=1e-6, sigma_max=1e4)
    t = IndependentTimes(law=LogNormalLaw(schedule=schedule)).draw(100_000, seed=0, step=0).double()
    log_sigma = schedule.alpha_sigma(t)[1].log()
    assert abs(float(log_sigma.mean()) + 1.2) < 0.02
    assert abs(float(log_sigma.std()) - 1.2) < 0.02


@pytest.mark.parametrize("world", [1, 2, 6])
def test_low_discrepancy_fills_every_share_over_processes_and_passes(world: int) -> None:
    """Every one of N equal parts of [0, 1] has exactly one time, and each process by itself spans them too."""
    batch = 8
    times = [
        LowDiscrepancyTimes().draw(batch, seed=3, step=9, rank=rank, world=world) for rank in range(world)
    ]
    whole = torch.cat(times).double().sort().values * batch * world
    assert (whole - torch.arange(batch * world)).max() < 1
    assert (whole - torch.arange(batch * world)).min() >= -1e-4
    assert (whole.diff() - 1).abs().max() < 1e-3
    for alone in times:
        assert (alone.double().sort().values * batch - torch.arange(batch)).abs().max() < 1 + 1e-6


def test_each_low_discrepancy_time_is_uniform_by_itself() -> None:
    first = torch.stack([LowDiscrepancyTimes().draw(4, seed=0, step=step)[0] for step in range(4000)])
    assert abs(float(first.mean()) - 0.5) < 4 / (12 * 4000) ** 0.5
    assert abs(float(first.var()) - 1 / 12) < 0.005


@pytest.mark.parametrize(
    "sampler",
    [
        IndependentTimes(),
        LowDiscrepancyTimes(),
        PerFrameTimes(frames=5),
        PerFrameTimes(base=LowDiscrepancyTimes(), frames=5),
    ],
)
def test_draws_depend_on_their_key_alone(sampler: TimeSampler) -> None:
    first = sampler.draw(4, seed=0, step=1, rank=1, world=3)
    torch.rand(7)
    assert torch.equal(sampler.draw(4, seed=0, step=1, rank=1, world=3), first)
    for other in ({"seed": 1}, {"step": 2}, {"rank": 2}):
        key = {"seed": 0, "step": 1, "rank": 1, **other}
        assert not torch.equal(sampler.draw(4, **key, world=3), first)


@pytest.mark.parametrize("base", [IndependentTimes(), LowDiscrepancyTimes()])
def test_frames_have_times_of_their_own(base: TimeSampler) -> None:
    sampler = PerFrameTimes(base=base, frames=4)
    drawn = torch.cat([sampler.draw(16, seed=0, step=step) for step in range(400)])
    assert drawn.shape == (6400, 4)
    off = drawn.T.corrcoef() - torch.eye(4)
    assert off.abs().max() < 0.06


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        UniformLaw(low=0.5, high=0.5)
    with pytest.raises(ValueError, match="std positive"):
        LogitNormalLaw(std=0.0)
    with pytest.raises(ValueError, match="std positive"):
        LogNormalLaw(schedule=CosineSchedule(), std=-1.0)
    with pytest.raises(ValueError, match="at least 1"):
        PerFrameTimes(frames=0)
    for sampler in (IndependentTimes(), LowDiscrepancyTimes()):
        with pytest.raises(ValueError, match="rank < world"):
            sampler.draw(4, seed=0, step=0, rank=2, world=2)
