"""Augmentation of the low-resolution video: truncated chains, blur, and the sweep over its level."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from exact import ExactDenoiser, gaussian

from vdm_blocks.cascade import Grid, Stage
from vdm_blocks.conditioning import BlurAugmentation, ConditioningAugmentation, sweep_augmentation
from vdm_blocks.diffusion import (
    CosineSchedule,
    KarrasSchedule,
    NoiseSchedule,
    RectifiedFlowSchedule,
    diffuse,
)
from vdm_blocks.sampling import Heun, sample, uniform_times
from vdm_blocks.types import Conditioning

AUGMENT = ConditioningAugmentation()


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(), RectifiedFlowSchedule(), KarrasSchedule()], ids=lambda s: type(s).__name__
)
def test_a_truncated_chain_is_the_augmented_video_of_its_level(schedule: NoiseSchedule) -> None:
    """The same x0 and noise through the stage's schedule, and through the augmentation's own at that log-SNR."""
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 2, 3, 2, 4, 4, generator=g, dtype=torch.float64).unbind()
    t = torch.tensor(0.3, dtype=torch.float64)
    video, logsnr = AUGMENT.truncated(diffuse(x0, eps, t, schedule), t, schedule)
    own = CosineSchedule().time(schedule.logsnr(t))
    torch.testing.assert_close(video, diffuse(x0, eps, own, CosineSchedule()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logsnr, schedule.logsnr(t).float().expand(2))


def test_a_chain_that_stops_early_has_the_law_of_the_augmented_data() -> None:
    """Mean and covariance of what a stopped chain hands over are those of data noised to that level."""
    data, schedule = gaussian((1, 2, 1, 1)), CosineSchedule()
    times = uniform_times(200)[:-40]
    start = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double().view(3, 1, 2, 1, 1)
    z = sample(ExactDenoiser(data, schedule), Heun(), times, start, Conditioning())
    video, logsnr = AUGMENT.truncated(z, times[-1], schedule)
    columns = (video[1:] - video[:1]).view(2, 2).T  # a linear flow: its matrix, column by column
    alpha2, sigma2 = torch.sigmoid(logsnr[0]).double(), torch.sigmoid(-logsnr[0]).double()
    truth = alpha2 * data.covariances[0] + sigma2 * torch.eye(2)
    torch.testing.assert_close(columns @ columns.T, truth, rtol=0, atol=2e-3)
    torch.testing.assert_close(video[0], alpha2.sqrt() * data.means[0], rtol=0, atol=2e-3)


@pytest.mark.parametrize("t", [0.0, 1.5, [0.5, 0.5]])
def test_a_chain_that_was_not_stopped_is_refused(t: Any) -> None:
    with pytest.raises(ValueError, match="one time"):
        AUGMENT.truncated(torch.zeros(2, 3, 1, 2, 2), torch.tensor(t), CosineSchedule())


def test_a_level_that_was_never_trained_is_refused() -> None:
    narrow = ConditioningAugmentation(schedule=CosineSchedule(logsnr_min=-2.0, logsnr_max=2.0))
    with pytest.raises(ValueError, match="stop it between"):
        narrow.truncated(torch.zeros(2, 3, 1, 2, 2), torch.tensor(0.9), CosineSchedule())


def test_blur_spreads_a_point_as_a_gaussian_and_keeps_what_is_even() -> None:
    blur = BlurAugmentation(radius=2)
    point = torch.zeros(2, 1, 2, 7, 9, dtype=torch.float64)
    point[..., 3, 4] = 1
    width = torch.tensor([0.5, 1.3])
    got = blur.at_width(point, width)
    for i, w in enumerate(width.tolist()):
        j = torch.arange(-2, 3).double()
        one = torch.exp(-(j**2) / (2 * w**2))
        one = one / one.sum()
        torch.testing.assert_close(got[i, 0, 1, 1:6, 2:7], one[:, None] * one, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(got.flatten(1).sum(1), torch.full((2,), 2.0).double(), rtol=1e-6, atol=0)
    even = torch.full((2, 3, 2, 4, 4), 0.7)
    torch.testing.assert_close(blur.at_width(even, width), even)


def test_blur_mirrors_at_the_edges() -> None:
    ramp = torch.arange(5.0).view(1, 1, 1, 1, 5).expand(1, 1, 1, 5, 5)
    got = BlurAugmentation().at_width(ramp, torch.tensor([0.6]))[0, 0, 0, 2]
    beside = math.exp(-0.5 / 0.36)
    beside /= 1 + 2 * beside
    want = torch.tensor([2 * beside, 1.0, 2.0, 3.0, 4.0 - 2 * beside])
    torch.testing.assert_close(got, want)


def test_a_share_is_blurred_each_sample_by_its_own_draw() -> None:
    blur = BlurAugmentation()
    video = torch.randn(4, 3, 2, 5, 5)
    u = torch.tensor([0.0, 0.25, 0.5, 0.9])
    got = blur.random(video, u)
    torch.testing.assert_close(got[:2], blur.at_width(video[:2], torch.tensor([0.4, 0.5])))
    assert torch.equal(got[2:], video[2:])
    assert torch.equal(blur.random(video[1:2], u[1:2]), got[1:2])
    assert torch.equal(BlurAugmentation(share=0.0).random(video, u), video)


@pytest.mark.parametrize(
    "options", [{"share": 1.5}, {"low": 0.0}, {"low": 2.0, "high": 1.0}, {"radius": 0}, {"share": math.nan}]
)
def test_bad_blur_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BlurAugmentation(**options)


def test_blur_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="smaller radius"):
        BlurAugmentation(radius=4).at_width(torch.zeros(1, 1, 1, 4, 4), torch.ones(1))
    with pytest.raises(ValueError, match="batch needs"):
        BlurAugmentation().random(torch.zeros(2, 1, 1, 4, 4), torch.zeros(3))


def test_a_sweep_of_a_stage_measures_every_level() -> None:
    """The stage hears each level, and the same noise at all of them."""
    data, schedule, heard = gaussian((3, 2, 4, 4)), CosineSchedule(), []

    class Stagelike(ExactDenoiser):
        def __call__(self, z_t: Any, t: Any, cond: Conditioning) -> Any:
            assert cond.aug_logsnr is not None
            heard.append(round(float(cond.aug_logsnr[0].exp()), 3))
            return super().__call__(z_t.double(), t, Conditioning())

    def stage(snr: float) -> torch.Tensor:
        made = Stage(
            name="up",
            grid=Grid(frames=2, height=4, width=4, fps=8),
            denoiser=Stagelike(data, schedule),
            step=Heun(),
            times=uniform_times(3),
            augmentation=AUGMENT,
            snr=snr,
            dtype=torch.float64,
        )
        return made.run(Conditioning(), torch.zeros(1, 3, 2, 2, 2), seeds=(1,))

    sweep = sweep_augmentation(stage, [5.0, 1.0, 3.0], measures={"size": lambda x: float(x.square().mean())})
    assert sweep.snrs == (1.0, 3.0, 5.0)
    assert sorted(set(heard)) == [1.0, 3.0, 5.0]
    assert all(torch.equal(video, sweep.samples[0]) for video in sweep.samples)
    assert sweep.measures["size"] == (float(sweep.samples[0].square().mean()),) * 3


def test_the_least_and_the_plot() -> None:
    sweep = sweep_augmentation(
        lambda snr: torch.full((2, 3, 2, 4, 4), snr / 10),
        [9.0, 1.0, 4.0],
        measures={"far from 0.4": lambda x: abs(float(x.mean()) - 0.4), "mean": lambda x: float(x.mean())},
    )
    assert sweep.least("far from 0.4") == 4.0
    figure = sweep.plot(frame=1, shown=1)
    above, below = figure.subfigs
    line = above.axes[0].lines[0]
    assert line.get_xdata().tolist() == [1.0, 4.0, 9.0]
    assert line.get_ydata().tolist() == list(sweep.measures["far from 0.4"])
    assert [axes.get_title() for axes in below.axes] == ["1", "4", "9"]
    assert [label.get_text() for label in above.axes[0].get_xticklabels()] == ["1", "4", "9"]
    assert len(above.axes[0].get_xticks(minor=True)) == 0
    shown = below.axes[2].images[0].get_array()
    assert shown.shape == (4, 4, 3)
    assert abs(float(shown.mean()) - 0.95) < 1e-6
    with pytest.raises(ValueError, match="frame 2 of sample 0"):
        sweep.plot(frame=2)
    with pytest.raises(ValueError, match="was not measured"):
        sweep.least("beauty")


def test_a_sweep_without_measures_shows_grey_pictures() -> None:
    sweep = sweep_augmentation(lambda _: torch.zeros(1, 1, 1, 4, 4), [1.0], measures={})
    assert sweep.plot().subfigs[0].axes[0].images[0].get_array().shape == (4, 4)


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    sweep = sweep_augmentation(lambda _: torch.zeros(1, 3, 1, 4, 4), [1.0], measures={})
    with pytest.raises(ImportError, match=r"vdm-blocks\[plots\]"):
        sweep.plot()


@pytest.mark.parametrize("snrs", [[], [0.0], [-1.0], [math.nan], [math.inf]])
def test_bad_levels_are_refused_before_anything_runs(snrs: list[float]) -> None:
    with pytest.raises(ValueError, match="power ratio"):
        sweep_augmentation(lambda _: pytest.fail("it ran"), snrs, measures={})


def test_a_run_that_makes_no_video_is_refused() -> None:
    with pytest.raises(ValueError, match="must give videos"):
        sweep_augmentation(lambda _: torch.zeros(2, 2), [1.0], measures={})
