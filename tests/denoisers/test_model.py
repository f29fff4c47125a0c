from __future__ import annotations

import pytest
import torch
from exact import SHAPE, ExactDenoiser, gaussian
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.diffusion import (
    EDM,
    EPS,
    FLOW,
    SCORE,
    X0,
    CosineSchedule,
    KarrasSchedule,
    LearnedSchedule,
    LinearBetaSchedule,
    LogNormalLaw,
    LowDiscrepancyTimes,
    NoiseSchedule,
    Prediction,
    RectifiedFlowSchedule,
    SigmoidSchedule,
    V,
    ZeroTerminalSNRSchedule,
    expand_level,
)
from vdm_blocks.types import Conditioning

NOTHING = Conditioning()


class Oracle(nn.Module):
    """A network that puts out what the best denoiser of a Gaussian would, and notes what it was given."""

    def __init__(self, schedule: NoiseSchedule, prediction: Prediction) -> None:
        super().__init__()
        self.exact, self.prediction = ExactDenoiser(gaussian(), schedule), prediction
        self.seen: list[Tensor] = []

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        self.seen = [z_t, logsnr]
        t = self.exact.schedule.time(logsnr.double())
        alpha, sigma = self.exact.schedule.alpha_sigma(t)
        unscaled = z_t / expand_level(torch.ones(len(z_t)).double(), z_t)
        if self.prediction is EDM:
            unscaled = z_t * expand_level(torch.hypot(sigma, 0.5 * alpha), z_t)
        answer = self.exact(unscaled, t, cond)
        return self.prediction.target(answer.x0, answer.eps, alpha, sigma)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return z_t * self.weight.to(z_t.dtype) + expand_level(logsnr, z_t) * 0.01


def video(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, *SHAPE, dtype=dtype)


@pytest.mark.parametrize("t", [torch.tensor(0.4), torch.tensor([0.2, 0.9]), torch.rand(2, SHAPE[1])])
@pytest.mark.parametrize("prediction", [X0, EPS, V, FLOW, SCORE, EDM])
@pytest.mark.parametrize("schedule", [CosineSchedule(), KarrasSchedule(), LearnedSchedule(bins=8)])
def test_any_prediction_makes_the_same_denoiser(
    schedule: NoiseSchedule, prediction: Prediction, t: Tensor
) -> None:
    denoiser = ModelDenoiser(Oracle(schedule, prediction), schedule, prediction)
    z_t, t = video(), t.double()
    answer, exact = denoiser(z_t, t, NOTHING), ExactDenoiser(gaussian(), schedule)(z_t, t, NOTHING)
    assert torch.allclose(answer.x0, exact.x0, atol=1e-5)  # the level reaches the network in float32
    assert torch.allclose(answer.eps, exact.eps, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (2,), (2, SHAPE[1])])
def test_the_network_is_told_float32_log_snr(shape: tuple[int, ...]) -> None:
    schedule = CosineSchedule()
    network = Oracle(schedule, V)
    t = torch.rand(shape, dtype=torch.float64)
    ModelDenoiser(network)(video(), t, NOTHING)
    logsnr = network.seen[1]
    assert logsnr.dtype == torch.float32
    assert logsnr.shape == (shape or (2,))
    assert torch.equal(logsnr, schedule.logsnr(t).float().expand(logsnr.shape))


def test_edm_sees_an_input_of_unit_variance() -> None:
    schedule = KarrasSchedule()
    network = Oracle(schedule, EDM)
    z_t, t = video(), torch.tensor(0.9, dtype=torch.float64)
    ModelDenoiser(network, schedule, EDM)(z_t, t, NOTHING)
    _, sigma = schedule.alpha_sigma(t)
    assert torch.allclose(network.seen[0], z_t / torch.sqrt(sigma**2 + 0.25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("t", [torch.tensor(0.0), torch.tensor(1.0), torch.tensor([0.0, 1.0])])
def test_ends_are_finite_and_the_dtype_is_kept(t: Tensor, dtype: torch.dtype) -> None:
    for prediction in (X0, EPS, V, FLOW):
        answer = ModelDenoiser(Linear(), prediction=prediction)(video(dtype), t, NOTHING)
        for part in (answer.x0, answer.eps):
            assert part.isfinite().all()
            assert part.dtype == dtype


def test_gradients_reach_the_network_and_z() -> None:
    network, z_t = Linear(), video().requires_grad_()
    answer = ModelDenoiser(network, reuse_output=True)(z_t, torch.tensor(0.5), NOTHING)
    (answer.x0.sum() + 2 * answer.eps.sum()).backward()
    assert network.weight.grad is not None
    assert network.weight.grad.abs() > 0
    assert z_t.grad is not None
    assert z_t.grad.abs().min() > 0


@pytest.mark.parametrize("t", [torch.tensor(0.4), torch.tensor([0.2, 0.9]), torch.rand(2, SHAPE[1])])
def test_reused_output_changes_where_not_what(t: Tensor) -> None:
    class Noted(Linear):
        last: Tensor

        def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
            self.last = super().forward(z_t, logsnr, cond)
            return self.last

    network, z_t = Noted(), video(torch.float32)
    kept = z_t.clone()
    with torch.no_grad():
        plain, frugal = ModelDenoiser(network), ModelDenoiser(network, reuse_output=True)
        expected = plain(z_t, t, NOTHING)
        assert torch.equal(network.last, plain.output(z_t, t, NOTHING))
        answer = frugal(z_t, t, NOTHING)
        assert answer.eps.data_ptr() == network.last.data_ptr()
    assert torch.equal(z_t, kept)
    assert torch.allclose(answer.x0, expected.x0, atol=1e-6)
    assert torch.allclose(answer.eps, expected.eps, atol=1e-6)


def test_an_output_of_z_itself_is_never_overwritten() -> None:
    class Same(nn.Module):
        def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
            return z_t

    z_t = video()
    kept = z_t.clone()
    with torch.no_grad():
        ModelDenoiser(Same(), reuse_output=True)(z_t, torch.tensor(0.3), NOTHING)
    assert torch.equal(z_t, kept)


def test_what_cannot_work_is_refused_before_it_costs_anything() -> None:
    for schedule in (ZeroTerminalSNRSchedule(base=LinearBetaSchedule()), RectifiedFlowSchedule()):
        with pytest.raises(ValueError, match="cannot give x0 at t=1"):
            ModelDenoiser(Linear(), schedule, EPS)

    with pytest.raises(ValueError, match="values not names"):
        ModelDenoiser(Linear(), prediction="v")  # type: ignore[arg-type]

    class Wider(nn.Module):
        def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
            return torch.cat([z_t, z_t], dim=1)

    with pytest.raises(ValueError, match="check its output channels"):
        ModelDenoiser(Wider())(video(), torch.tensor(0.3), NOTHING)
    with pytest.raises(ValueError, match=r"give \(\), \(B,\)"):
        ModelDenoiser(Linear())(video(), torch.rand(3, 2), NOTHING)
    for t in (2.0, -0.01, float("nan")):
        with pytest.raises(ValueError, match="times run from 0"):
            ModelDenoiser(Linear())(video(), torch.tensor(t), NOTHING)


def test_a_learned_schedule_is_part_of_the_denoiser() -> None:
    names = dict(ModelDenoiser(Linear(), LearnedSchedule(bins=4)).named_parameters())
    assert set(names) == {"network.weight", "schedule.logits"}


def test_a_denoiser_is_made_and_run_without_memory() -> None:
    """On the meta device, where reading a number raises: 12 GB of video, and no wait for any of it."""
    with torch.device("meta"):
        for schedule in (CosineSchedule(), SigmoidSchedule()):
            denoiser = ModelDenoiser(Linear(), schedule, reuse_output=True)
            z_t = torch.empty(1, 3, 1024, 1024, 1024)
            for t in (torch.tensor(0.5, device="cpu"), torch.empty(1), torch.empty(1, 1024)):
                with torch.no_grad():
                    answer = denoiser(z_t, t, NOTHING)
                assert answer.x0.shape == answer.eps.shape == z_t.shape
        with pytest.raises(ValueError, match="cannot give x0"):
            ModelDenoiser(Linear(), RectifiedFlowSchedule(), EPS)
        drawn = LowDiscrepancyTimes(law=LogNormalLaw(schedule=CosineSchedule())).draw(4, seed=0, step=0)
        assert drawn.device.type == "cpu"
