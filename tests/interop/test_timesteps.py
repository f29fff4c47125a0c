from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from vdm_blocks.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from vdm_blocks.interop.timesteps import TimestepSchedule, betas_of

SCHEDULER = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
SCHEDULE = TimestepSchedule(alphas_cumprod=SCHEDULER.alphas_cumprod)


def test_alpha_at_every_timestep_is_the_tables() -> None:
    k = torch.arange(1000, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha_sigma(SCHEDULE.at(k))
    torch.testing.assert_close(alpha**2, SCHEDULER.alphas_cumprod.double(), rtol=1e-10, atol=0)
    torch.testing.assert_close(sigma**2, 1 - SCHEDULER.alphas_cumprod.double(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_time_inverts_logsnr(dtype: torch.dtype) -> None:
    t = torch.linspace(0, 1, 3000, dtype=dtype).view(3, -1)
    logsnr = SCHEDULE.logsnr(t)
    assert bool((logsnr.flatten().diff() < 0).all())
    assert logsnr.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(SCHEDULE.time(logsnr), t, rtol=0, atol=tolerance)
    torch.testing.assert_close(SCHEDULE.timestep(SCHEDULE.at(t)), t, rtol=0, atol=1e3 * tolerance)


def test_a_schedule_that_ends_in_pure_noise_ends_at_the_floor() -> None:
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    schedule = TimestepSchedule(alphas_cumprod=scheduler.alphas_cumprod)
    assert float(schedule.logsnr(torch.ones((), dtype=torch.float64))) == -20.0


@pytest.mark.parametrize("ours", [CosineSchedule(), LinearLogSNRSchedule(logsnr_min=-9.0, logsnr_max=9.0)])
def test_a_scheduler_made_of_betas_has_our_levels(ours: CosineSchedule) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=100, trained_betas=betas_of(ours, 100).tolist())
    t = torch.arange(1, 101, dtype=torch.float64) / 100
    torch.testing.assert_close(
        torch.special.logit(scheduler.alphas_cumprod.double())[:-1], ours.logsnr(t)[:-1], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([0.9], "at least 2"),
        ([0.5, 0.6], "must fall"),
        ([1.0, 0.5], "must fall"),
        ([1e-12, 1e-13], "must fall"),
    ],
)
def test_a_table_that_is_no_schedule_is_refused(table: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TimestepSchedule(alphas_cumprod=torch.tensor(table, dtype=torch.float64))


def test_one_timestep_is_no_schedule() -> None:
    with pytest.raises(ValueError, match="at least 2 timesteps"):
        betas_of(CosineSchedule(), 1)
