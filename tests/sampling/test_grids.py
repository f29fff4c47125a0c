from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vdm_blocks.diffusion import CosineSchedule, KarrasSchedule, LinearLogSNRSchedule, RectifiedFlowSchedule
from vdm_blocks.sampling import karras_times, trailing_times, uniform_logsnr_times, uniform_times

GRIDS: dict[str, Callable[[int], Tensor]] = {
    "uniform": uniform_times,
    "trailing": lambda n: trailing_times(n, train_steps=1000),
    "log-SNR": lambda n: uniform_logsnr_times(n, CosineSchedule()),
    "log-SNR of a flow": lambda n: uniform_logsnr_times(n, RectifiedFlowSchedule()),
    "log-SNR, narrowed": lambda n: uniform_logsnr_times(n, CosineSchedule(), logsnr_min=-8, logsnr_max=9),
    "karras": lambda n: karras_times(n, CosineSchedule()),
    "karras, narrowed": lambda n: karras_times(n, CosineSchedule(), logsnr_min=-8.7, logsnr_max=12.4),
    "karras of karras": lambda n: karras_times(n, KarrasSchedule()),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_every_grid_falls_from_exactly_1_to_exactly_0(grid: Callable[[int], Tensor]) -> None:
    for steps in (1, 2, 7, 256):
        times = grid(steps)
        assert times.shape == (steps + 1,)
        assert times.dtype == torch.float64
        assert float(times[0]) == 1.0
        assert float(times[-1]) == 0.0
        assert bool((times.diff() < 0).all())
    with pytest.raises(ValueError, match="at least 1"):
        grid(0)


def test_what_each_grid_is_uniform_in() -> None:
    schedule = CosineSchedule()
    assert torch.equal(uniform_times(8), 1 - torch.arange(9).double() / 8)
    logsnr = schedule.logsnr(uniform_logsnr_times(16, schedule))
    torch.testing.assert_close(logsnr.diff(), torch.full((16,), 40 / 16).double())
    # Within float64: at t = 0 and 1 the cosine is steep in log-SNR, hence the tolerance.
    root = torch.exp(-schedule.logsnr(karras_times(16, schedule, rho=3.0)) / 6)
    torch.testing.assert_close(root.diff(), root.diff()[:1].expand(16), rtol=1e-6, atol=0)
    torch.testing.assert_close(karras_times(9, KarrasSchedule()), uniform_times(9))


def test_narrowed_grids_evaluate_only_within_their_range() -> None:
    schedule = LinearLogSNRSchedule()
    logsnr = schedule.logsnr(karras_times(10, schedule, logsnr_min=-6.0, logsnr_max=5.0)[1:-1])
    assert float(logsnr.min()) > -6
    assert float(logsnr.max()) < 5


def test_trailing_starts_from_noise_and_agrees_with_the_discrete_rule() -> None:
    """round(T (1 - i / n)), for 30 of 1000 too, where a fixed stride is off on ten of 29 steps."""
    got = trailing_times(30, train_steps=1000) * 1000
    expected = torch.tensor([round(1000 * (1 - i / 30)) for i in range(31)]).double()
    torch.testing.assert_close(got, expected)
    with pytest.raises(ValueError, match="train_steps=10"):
        trailing_times(11, train_steps=10)


def test_grids_without_finite_ends_are_refused() -> None:
    class Infinite:
        def logsnr(self, t: Tensor) -> Tensor:
            return torch.logit(1 - t)

        def time(self, logsnr: Tensor) -> Tensor:
            return 1 - torch.sigmoid(logsnr)

        def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return (1 - t).sqrt(), t.sqrt()

    with pytest.raises(ValueError, match="logsnr_min"):
        uniform_logsnr_times(4, Infinite())
    assert len(karras_times(4, Infinite(), logsnr_min=-10, logsnr_max=10)) == 5
    with pytest.raises(ValueError, match="rho"):
        karras_times(4, CosineSchedule(), rho=0.0)
