"""Grids divide or are refused; a cascade is a fold; its samples depend on their own seeds alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from vdm_blocks.cascade import Cascade, Grid, Stage
from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.conditioning.upsample import upsample_space
from vdm_blocks.diffusion.broadcast import expand_level
from vdm_blocks.diffusion.noise import KeyedNoise
from vdm_blocks.diffusion.schedules import CosineSchedule
from vdm_blocks.sampling import DDIM, Ancestral, uniform_times
from vdm_blocks.types import Conditioning, Denoised

SMALL = Grid(frames=4, height=2, width=3, fps=3)
LARGE = Grid(frames=4, height=4, width=6, fps=3)


@dataclass(frozen=True)
class GaussianGiven:
    """The exact denoiser of x ~ N(y, s^2), where y is the conditioning video, or 0 without one."""

    s: float = 0.1
    schedule: CosineSchedule = CosineSchedule()  # noqa: RUF009 - frozen

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        alpha, sigma = (expand_level(level, z_t).to(z_t.dtype) for level in self.schedule.alpha_sigma(t))
        y = torch.zeros_like(z_t) if cond.video is None else cond.video
        gain = alpha * self.s**2 / (alpha**2 * self.s**2 + sigma**2)
        x0 = y + gain * (z_t - alpha * y)
        return Denoised(x0, (z_t - alpha * x0) / sigma)


def base(**changes: object) -> Stage:
    stage = Stage(name="base", grid=SMALL, denoiser=GaussianGiven(), step=DDIM(), times=uniform_times(8))
    return replace(stage, **changes)  # type: ignore[arg-type]


def upper(**changes: object) -> Stage:
    stage = Stage(
        name="upper",
        grid=LARGE,
        denoiser=GaussianGiven(),
        step=Ancestral(gamma=0.3),
        times=uniform_times(8),
        augmentation=ConditioningAugmentation(),
        snr=math.exp(5),
    )
    return replace(stage, **changes)  # type: ignore[arg-type]


def test_grids_that_are_multiples_say_by_how_much() -> None:
    assert Grid(frames=128, height=768, width=1280, fps=24).over(
        Grid(frames=64, height=192, width=320, fps=12)
    ) == (2, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"height": 5}, "not a whole multiple"),
        ({"width": 12}, "not a whole multiple"),
        ({"frames": 6}, "not a whole multiple"),
        ({"frames": 8}, "must be 6 fps"),
        ({"frames": 2}, "not a whole multiple"),
    ],
)
def test_grids_that_do_not_divide_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(LARGE, **changes).over(SMALL)


def test_a_grid_needs_a_size_and_a_rate() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        Grid(frames=0, height=4, width=4, fps=3)
    with pytest.raises(ValueError, match="positive rate"):
        Grid(frames=1, height=4, width=4, fps=0)


def test_the_cascade_is_the_fold_of_its_stages() -> None:
    stages = [base(), upper()]
    cond = Conditioning()
    by_hand = stages[0].run(cond, seeds=[3, 5])
    by_hand = stages[1].run(cond, by_hand, seeds=[3, 5])
    assert torch.equal(Cascade(stages).sample(cond, seeds=[3, 5]), by_hand)
    assert by_hand.shape == (2, 3, *LARGE.shape)


def test_a_sample_depends_on_its_own_seed_alone() -> None:
    cascade = Cascade([base(), upper()])
    together = cascade.sample(Conditioning(), seeds=[7, 1, 4])
    alone = [cascade.sample(Conditioning(), seeds=[seed]) for seed in (7, 1, 4)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_it_goes_on_from_any_stage_to_the_bit() -> None:
    cascade = Cascade([base(), upper(), upper(name="top", grid=replace(LARGE, height=8, width=12))])
    whole = {stage.name: video for stage, video in cascade.stream(Conditioning(), seeds=[2])}
    rest = {
        stage.name: video
        for stage, video in cascade.stream(Conditioning(), seeds=[2], after=("upper", whole["upper"]))
    }
    assert list(rest) == ["top"]
    assert torch.equal(rest["top"], whole["top"])


def test_the_upper_stage_sees_the_lower_one_augmented_and_raised() -> None:
    seen: list[Conditioning] = []

    def spy(z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        seen.append(cond)
        return GaussianGiven()(z_t, t, cond)

    spy.schedule = CosineSchedule()  # type: ignore[attr-defined]
    low = torch.rand(1, 3, *SMALL.shape)
    upper(denoiser=spy).run(Conditioning(), low, seeds=[0])
    video, logsnr = seen[0].video, seen[0].aug_logsnr
    assert video is not None
    assert logsnr is not None
    assert logsnr.item() == pytest.approx(5.0, abs=1e-4)
    alpha = torch.sigmoid(logsnr).sqrt()
    keyed = KeyedNoise(seeds=(0,), stage="upper")
    eps = keyed.normal(low.shape, step="augmentation")
    expected = upsample_space(alpha * low + (1 - alpha**2).sqrt() * eps, LARGE.height, LARGE.width)
    torch.testing.assert_close(video, expected, rtol=1e-4, atol=1e-4)
    assert seen[0].fps is not None
    assert seen[0].fps.tolist() == [3.0]


def test_a_stage_samples_the_distribution_that_its_denoiser_knows() -> None:
    grid = Grid(frames=16, height=32, width=32, fps=3)
    stage = base(
        grid=grid, denoiser=GaussianGiven(s=0.25), step=Ancestral(gamma=0.3), times=uniform_times(256)
    )
    video = stage.run(Conditioning(), seeds=[0])
    assert abs(video.mean().item()) < 4 * 0.25 / math.sqrt(video.numel())
    assert video.std().item() == pytest.approx(0.25, rel=0.03)


def test_progress_is_told_of_every_step_and_may_stop() -> None:
    told: list[tuple[str, int]] = []
    cascade = Cascade([base(), upper()])
    for _ in cascade.stream(
        Conditioning(), seeds=[0], on_step=lambda stage, info: told.append((stage.name, info.index))
    ):
        pass
    assert told == [("base", i) for i in range(8)] + [("upper", i) for i in range(8)]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], "one stage at least"),
        ([base(), base()], "two stages are called base"),
        ([upper()], "start with a base"),
        ([base(), base(name="second")], "cannot follow"),
        ([base(), upper(grid=replace(LARGE, height=5))], "not a whole multiple"),
    ],
)
def test_cascades_that_cannot_run_are_refused(stages: list[Stage], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cascade(stages)


def test_misuse_is_refused_before_any_compute() -> None:
    cascade = Cascade([base(), upper()])
    with pytest.raises(ValueError, match="no stage 'middle'"):
        next(cascade.stream(Conditioning(), seeds=[0], after=("middle", torch.zeros(1, 3, *SMALL.shape))))
    with pytest.raises(ValueError, match="not on the grid of base"):
        next(cascade.stream(Conditioning(), seeds=[0], after=("base", torch.zeros(1, 3, 4, 3, 3))))
    with pytest.raises(ValueError, match="takes no video"):
        base().run(Conditioning(), torch.zeros(1, 3, *SMALL.shape), seeds=[0])
    with pytest.raises(ValueError, match="the video of the stage before it"):
        upper().run(Conditioning(), seeds=[0])
    with pytest.raises(ValueError, match="snr must be positive"):
        base(snr=0.0)
