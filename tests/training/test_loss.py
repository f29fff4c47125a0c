from __future__ import annotations

from functools import partial

import pytest
import torch
from exact import SHAPE, ExactDenoiser, gaussian
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.diffusion import (
    EDM,
    EPS,
    EPS_MSE,
    FLOW,
    SCORE,
    V_MSE,
    X0,
    X0_MSE,
    BoundWeighting,
    CosineSchedule,
    KarrasSchedule,
    KeyedNoise,
    LearnedSchedule,
    MinSNR,
    MixedNoise,
    NoiseSchedule,
    P2Weighting,
    Prediction,
    SigmoidWeighting,
    TruncatedSNR,
    V,
    Weighting,
    ZeroTerminalSNRSchedule,
    diffuse,
    expand_level,
    logsnr_slope,
)
from vdm_blocks.training import DiffusionLoss, LearnedUncertainty, MultiscaleDiffusionLoss
from vdm_blocks.types import Conditioning

NOTHING = Conditioning()


class Affine(nn.Module):
    """Answers scale * z + shift; with `sees` it remembers the z it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(-0.2))

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return z_t * self.scale + self.shift


def minus_slope(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    return -logsnr_slope(schedule, t)


def draw(batch: int = 3) -> tuple[Tensor, KeyedNoise, Tensor]:
    x0 = gaussian().sample(batch, torch.Generator().manual_seed(0))
    noise = KeyedNoise(seeds=tuple(range(batch)), stage="train/0")
    return x0, noise, noise.normal(x0.shape, step="loss", dtype=torch.float64)


LEVELS = [torch.tensor(0.37), torch.tensor([0.1, 0.6, 0.95]), torch.rand(3, SHAPE[1])]


@pytest.mark.parametrize("t", LEVELS)
def test_v_with_its_own_weight_is_the_plain_mean_to_the_bit(t: Tensor) -> None:
    x0, noise, eps = draw()
    denoiser, t = ModelDenoiser(Affine()), t.double()
    alpha, sigma = denoiser.schedule.alpha_sigma(t)
    v_hat = denoiser.network(diffuse(x0, eps, t, denoiser.schedule), torch.zeros(3), NOTHING)
    plain = (v_hat - V.target(x0, eps, alpha, sigma)).square().flatten(1).mean(1)
    assert torch.equal(DiffusionLoss()(denoiser, x0, t, NOTHING, generator=noise), plain)


@pytest.mark.parametrize("t", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_v_loss_is_finite_and_full_at_both_ends(t: float, dtype: torch.dtype) -> None:
    """At t = 1 with exactly no signal, where a loss on eps would weigh nothing."""
    x0, noise, eps = draw()
    for schedule in (CosineSchedule(), ZeroTerminalSNRSchedule(base=CosineSchedule(logsnr_min=-9.0))):
        denoiser = ModelDenoiser(Affine().to(dtype), schedule)
        loss = DiffusionLoss()(denoiser, x0.to(dtype), torch.full((3,), t), NOTHING, generator=noise)
        target = eps if t == 0 else -x0
        z_t = x0 if t == 0 else eps
        expected = (0.3 * z_t - 0.2 - target).square().flatten(1).mean(1)
        assert torch.allclose(loss.double(), expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("t", LEVELS)
@pytest.mark.parametrize("prediction", [X0, EPS, V, FLOW, SCORE, EDM])
@pytest.mark.parametrize(
    "weighting",
    [
        X0_MSE,
        EPS_MSE,
        V_MSE,
        MinSNR(),
        TruncatedSNR(),
        P2Weighting(),
        SigmoidWeighting(bias=-1.0),
        BoundWeighting(),
    ],
)
def test_the_loss_is_the_weight_on_x0_whatever_is_predicted(
    weighting: Weighting, prediction: Prediction, t: Tensor
) -> None:
    for schedule in (CosineSchedule(), KarrasSchedule()):
        x0, noise, eps = draw()
        denoiser, t = ModelDenoiser(Affine(), schedule, prediction), t.double() * 0.8 + 0.1
        answer = denoiser(diffuse(x0, eps, t, schedule), t, NOTHING)
        weight = weighting.log_weight(schedule.logsnr(t), partial(minus_slope, schedule, t)).exp()
        expected = (expand_level(weight, x0) * (answer.x0 - x0).square()).flatten(1).mean(1)
        loss = DiffusionLoss(weighting=weighting)(denoiser, x0, t, NOTHING, generator=noise)
        assert loss.shape == (3,)
        assert torch.allclose(loss, expected, rtol=1e-8)


def test_a_foreign_denoiser_is_judged_by_its_x0() -> None:
    x0, noise, eps = draw()
    t = LEVELS[1].double()
    exact = ExactDenoiser(gaussian(), CosineSchedule())
    x0_hat = exact(diffuse(x0, eps, t, exact.schedule), t, NOTHING).x0
    snr = exact.schedule.logsnr(t).exp()
    loss = DiffusionLoss(weighting=EPS_MSE)(exact, x0, t, NOTHING, generator=noise)
    assert torch.allclose(loss, snr * (x0_hat - x0).square().flatten(1).mean(1))


@pytest.mark.parametrize("prediction", [X0, EPS, V, FLOW, EDM])
def test_the_best_denoiser_is_the_minimum(prediction: Prediction) -> None:
    """One affine network at one level: gradient descent's fixed point is the posterior mean of a scalar Gaussian."""
    g = torch.Generator().manual_seed(0)
    x0 = 0.3 + 0.5 * torch.randn(50_000, 1, 1, 1, 1, generator=g, dtype=torch.float64)
    t, schedule = torch.tensor(0.4, dtype=torch.float64), CosineSchedule()
    network = Affine().double()
    denoiser, loss = ModelDenoiser(network, schedule, prediction), DiffusionLoss(weighting=X0_MSE)
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(denoiser, x0, t, NOTHING, generator=torch.Generator().manual_seed(1)).mean()
        total.backward()
        return total.detach()

    optimizer.step(closure)
    alpha, sigma = schedule.alpha_sigma(t)
    z = torch.linspace(-1, 1, 5, dtype=torch.float64).view(5, 1, 1, 1, 1)
    expected = 0.3 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (z - alpha * 0.3)
    assert (denoiser(z, t, NOTHING).x0 - expected).abs().max() < 0.01


def test_masks_choose_what_counts() -> None:
    x0, noise, eps = draw()
    t, denoiser = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64), ModelDenoiser(Affine())
    alpha, sigma = denoiser.schedule.alpha_sigma(t)
    v_hat = denoiser.network(diffuse(x0, eps, t, denoiser.schedule), torch.zeros(3), NOTHING)
    error = (v_hat - V.target(x0, eps, alpha, sigma)).square()
    loss = DiffusionLoss()
    frames = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1]])
    by_frame = loss(denoiser, x0, t, NOTHING, generator=noise, mask=frames)
    for b in range(3):
        assert torch.allclose(by_frame[b], error[b][:, frames[b].bool()].mean())
    pixels = torch.zeros(3, 1, *SHAPE[1:])
    pixels[:, :, 1, 0, 1] = 1
    assert torch.allclose(
        loss(denoiser, x0, t, NOTHING, generator=noise, mask=pixels), error[:, :, 1, 0, 1].mean(1)
    )
    assert torch.equal(
        loss(denoiser, x0, t, NOTHING, generator=noise, mask=torch.zeros(3, 3)), torch.zeros(3).double()
    )
    for shape in ((3,), (3, 2), (2, 3), (3, 2, 3, 2), (3, 5, 3, 2, 2)):
        with pytest.raises(ValueError, match="give"):
            loss(denoiser, x0, t, NOTHING, generator=noise, mask=torch.ones(shape))


def test_the_sample_decides_not_its_batch() -> None:
    x0, noise, _ = draw()
    t, denoiser, loss = (
        torch.tensor([0.2, 0.5, 0.8]),
        ModelDenoiser(Affine()),
        DiffusionLoss(noise=MixedNoise(a=1.0)),
    )
    whole = loss(denoiser, x0, t, NOTHING, generator=noise)
    for i in range(3):
        alone = loss(denoiser, x0[i : i + 1], t[i : i + 1], NOTHING, generator=noise.select([i]))
        assert torch.allclose(alone[0], whole[i], rtol=1e-12)


def test_every_parameter_gets_a_gradient_but_a_learned_schedule_none() -> None:
    x0, noise, _ = draw()
    schedule: NoiseSchedule = LearnedSchedule(bins=4)
    denoiser = ModelDenoiser(Affine(), schedule)
    for weighting in (V_MSE, BoundWeighting()):
        loss = DiffusionLoss(weighting=weighting)(denoiser, x0, torch.rand(3), NOTHING, generator=noise)
        gradients = torch.autograd.grad(loss.sum(), list(denoiser.parameters()), allow_unused=True)
        given = {
            n: g
            for (n, _), g in zip(denoiser.named_parameters(), gradients, strict=True)
            if g is not None  # type: ignore[redundant-expr]
        }
        assert set(given) == {"network.scale", "network.shift"}
        assert all(g.abs() > 0 for g in given.values())


def test_multiscale_sums_the_losses_of_averages() -> None:
    x0 = torch.randn(2, 3, 2, 4, 8, dtype=torch.float64)
    noise = KeyedNoise(seeds=(1, 2), stage="train")
    eps = noise.normal(x0.shape, step="loss", dtype=torch.float64)
    t, denoiser = torch.tensor([0.3, 0.7], dtype=torch.float64), ModelDenoiser(Affine(), prediction=EPS)
    eps_hat = denoiser.network(diffuse(x0, eps, t, denoiser.schedule), torch.zeros(2), NOTHING)
    expected = torch.zeros(2, dtype=torch.float64)
    for f in (1, 2, 4):
        small = (eps_hat - eps).unflatten(4, (8 // f, f)).unflatten(3, (4 // f, f)).mean((4, 6))
        expected += f * small.square().flatten(1).mean(1)
    loss = MultiscaleDiffusionLoss(factors=(1, 2, 4), weighting=EPS_MSE)
    assert torch.allclose(loss(denoiser, x0, t, NOTHING, generator=noise), expected)
    single = MultiscaleDiffusionLoss(factors=(1,))(denoiser, x0, t, NOTHING, generator=noise)
    assert torch.allclose(single, DiffusionLoss()(denoiser, x0, t, NOTHING, generator=noise))
    with pytest.raises(ValueError, match="leave out"):
        MultiscaleDiffusionLoss(factors=(1, 8))(denoiser, x0, t, NOTHING, generator=noise)
    with pytest.raises(ValueError, match="each at least 1"):
        MultiscaleDiffusionLoss(factors=())


def test_a_video_that_does_not_fit_its_times_is_refused() -> None:
    x0, noise, _ = draw()
    with pytest.raises(ValueError, match="batch size"):
        DiffusionLoss()(ModelDenoiser(Affine()), x0, torch.rand(2), NOTHING, generator=noise)
    with pytest.raises(ValueError, match="divide a step's number"):
        DiffusionLoss()(
            ModelDenoiser(Affine()), x0, torch.tensor([0.1, 500.0, 0.2]), NOTHING, generator=noise
        )
    with pytest.raises(ValueError, match=r"bytes / 127\.5 - 1"):
        DiffusionLoss()(ModelDenoiser(Affine()), x0.to(torch.uint8), torch.rand(3), NOTHING, generator=noise)


def test_learned_uncertainty_starts_neutral_and_finds_the_size_of_the_loss() -> None:
    torch.manual_seed(0)
    uncertainty = LearnedUncertainty(features=64)
    logsnr = torch.linspace(-10, 10, 101)
    expected = torch.exp(torch.sin(logsnr / 4) - 1)
    assert torch.equal(uncertainty(expected, logsnr), expected)
    optimizer = torch.optim.Adam(uncertainty.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        uncertainty(expected, logsnr).mean().backward()
        optimizer.step()
    assert (uncertainty.u(logsnr) - expected.log()).abs().max() < 0.05
    with pytest.raises(ValueError, match="at least 1"):
        LearnedUncertainty(features=0)


def test_learned_uncertainty_lies_on_one_device_wherever_it_is_made() -> None:
    with torch.device("meta"):
        uncertainty = LearnedUncertainty(features=4)
    assert all(x.is_meta for x in (*uncertainty.parameters(), *uncertainty.buffers()))
