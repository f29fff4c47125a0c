"""Down the halvings on a Gaussian, where the best student is known: what is lost, what is kept, what is passed on."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from exact import ExactDenoiser, gaussian
from students import SHAPE, chain_moments, distilled
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.diffusion import (
    EPS,
    FLOW,
    V_MSE,
    X0,
    BoundWeighting,
    CosineSchedule,
    KeyedNoise,
    LinearLogSNRSchedule,
    Prediction,
    TruncatedSNR,
    V,
    Weighting,
)
from vdm_blocks.distillation import (
    Adversary,
    ConsistencyDistiller,
    Distiller,
    DistributionMatching,
    GuidanceDistiller,
    Jumps,
    MultistepConsistencyDistiller,
    ProgressiveDistiller,
    stochastic_jumps,
    two_step_target,
)
from vdm_blocks.distillation.jumps import as_jumps
from vdm_blocks.distillation.match import draw_uniform, match
from vdm_blocks.sampling import DDIM, DistilledStochastic, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised, Denoiser

DATA = gaussian(SHAPE, scale=0.7)
COSINE = CosineSchedule()
TEACHER = ExactDenoiser(DATA, COSINE)
NOTHING = Conditioning()


def noise(count: int = 4) -> Tensor:
    return torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_the_error_against_the_flow_map_is_that_of_the_first_teacher() -> None:
    """4 steps distilled from N are N steps of DDIM: doubling N halves the error; 4 plain steps are far worse."""
    start, end = torch.ones(()).double(), torch.zeros(()).double()
    truth = DATA.flow(noise(), start, end, COSINE)
    errors = []
    for steps in (8, 16, 32, 64):
        student = distilled(TEACHER, steps, 4, as_jumps)
        reached = sample(student, DDIM(), uniform_times(4), noise(), NOTHING)
        wanted = sample(TEACHER, DDIM(), uniform_times(steps), noise(), NOTHING)
        torch.testing.assert_close(reached, wanted, rtol=1e-9, atol=1e-9)
        errors.append(float((reached - truth).abs().max()))
    plain = float((sample(TEACHER, DDIM(), uniform_times(4), noise(), NOTHING) - truth).abs().max())
    assert all(1.7 < coarse / fine < 2.4 for coarse, fine in itertools.pairwise(errors))
    assert plain > 8 * errors[-1]


def covariance_after(rule: DDIM | DistilledStochastic, student: Denoiser) -> Tensor:
    mean, covariance = chain_moments(rule, student, uniform_times(4), DATA)
    torch.testing.assert_close(mean, DATA.means.flatten(), rtol=0, atol=2e-3)
    return covariance


def test_the_stochastic_student_keeps_the_marginals() -> None:
    """Its jumps have the first teacher's error alone, of first order; extrapolated to none, nothing is missing."""
    found = [
        covariance_after(DistilledStochastic(), distilled(TEACHER, n, 4, stochastic_jumps)) for n in (64, 128)
    ]
    coarse, fine = (float((c - DATA.covariances[0]).abs().max()) for c in found)
    assert 1.7 < coarse / fine < 2.3
    torch.testing.assert_close(2 * found[1] - found[0], DATA.covariances[0], rtol=0, atol=4e-3)


def test_a_student_of_ddim_alone_does_not_serve_the_stochastic_sampler() -> None:
    """The control: it never learned the jumps of twice the step, so no better teacher helps."""
    found = [covariance_after(DistilledStochastic(), distilled(TEACHER, n, 4, as_jumps)) for n in (32, 64)]
    assert float((2 * found[1] - found[0] - DATA.covariances[0]).abs().max()) > 0.02


@pytest.mark.parametrize("weighting", [TruncatedSNR(), V_MSE, BoundWeighting()], ids=["snr", "v", "bound"])
@pytest.mark.parametrize("law", [as_jumps, stochastic_jumps])
def test_the_best_student_has_no_loss_and_any_other_has(
    law: Callable[[int], Jumps], weighting: Weighting
) -> None:
    jumps = law(4)
    student = distilled(TEACHER, 8, 4, law)
    distiller = ProgressiveDistiller(TEACHER, student, jumps, weighting=weighting)
    x0 = DATA.sample(16, torch.Generator().manual_seed(0))
    generator = KeyedNoise(seeds=tuple(range(16)), stage="a")
    assert float(distiller(x0, NOTHING, generator=generator).detach().max()) < 1e-18
    with torch.no_grad():
        student.maps.add_(1e-3)
    assert float(distiller(x0, NOTHING, generator=generator).detach().max()) > 1e-9


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.3))

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return self.gain * z_t


@pytest.mark.parametrize("prediction", [V, X0, FLOW, EPS], ids=["v", "x0", "flow", "eps"])
def test_the_loss_is_the_weighted_error_of_x0_for_every_prediction(prediction: Prediction) -> None:
    """It is computed on the network's own output; w_x |x0 - target|^2 must come out."""
    student = ModelDenoiser(Net().double(), COSINE, prediction)
    t = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    z_t, x0 = noise(3), noise(6)[3:]
    alpha, sigma = (x.view(-1, 1, 1, 1, 1) for x in COSINE.alpha_sigma(t))
    target = Denoised(x0, (z_t - alpha * x0) / sigma)
    got = match(student, z_t, t, NOTHING, target, TruncatedSNR())
    snr = torch.exp(COSINE.logsnr(t)).clamp(min=1)
    wanted = snr * (student(z_t, t, NOTHING).x0 - x0).square().flatten(1).mean(1)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)
    plain = match(Foreign(student), z_t, t, NOTHING, target, TruncatedSNR())
    torch.testing.assert_close(plain, wanted, rtol=1e-6, atol=1e-9)


class Foreign:
    """The same answers from something that is no ModelDenoiser."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.schedule = inner, inner.schedule

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        return self.inner(z_t, t, cond)


class Listener(nn.Module):
    """A denoiser that keeps what it was told."""

    def __init__(self, gain: float = 0.4) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.schedule = COSINE
        self.heard: list[Conditioning] = []

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        self.heard.append(cond)
        alpha, sigma = (x.view(*x.shape, *(1,) * (5 - x.ndim)).to(z_t) for x in COSINE.alpha_sigma(t))
        x0 = self.gain * z_t
        return Denoised(x0, (z_t - alpha * x0) / sigma)


def full_conditioning() -> Conditioning:
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False  # this sample's text was dropped
    return Conditioning(
        text=torch.randn(3, 4, 8),
        text_mask=mask,
        video=torch.randn(3, 2, 4, 2, 2),
        aug_logsnr=torch.tensor([0.5, 1.0, 2.0]),
        fps=torch.tensor([3.0, 6.0, 12.0]),
        images=torch.tensor([[False] * 4, [True] * 4, [False, False, True, True]]),
        extra={"camera": torch.randn(3, 6)},
    )


def methods() -> dict[str, Callable[[Listener, Listener, Listener], Distiller]]:
    return {
        "progressive": lambda t, s, _: ProgressiveDistiller(t, s, 4),
        "progressive with scales": lambda t, s, _: ProgressiveDistiller(t, s, 4, scales=(1, 16)),
        "guidance": lambda t, s, _: GuidanceDistiller(t, s),
        "consistency": lambda t, s, _: ConsistencyDistiller(t, s, uniform_times(8)),
        "multistep": lambda t, s, _: MultistepConsistencyDistiller(t, s, 2, steps=8),
        "distribution": lambda t, s, c: DistributionMatching(
            t, s, c, 2, adversary=Adversary(discriminator=lambda z, _t, _c: z.flatten(1).mean(1))
        ),
    }


@pytest.mark.parametrize("name", methods())
def test_what_the_roles_are_told_is_what_came_with_the_data(name: str) -> None:
    """Levels of augmentation, dropped text, and marks of pictures; only a guidance scale may come in addition."""
    teacher, student, critic = Listener(), Listener(), Listener()
    cond = full_conditioning()
    loss = methods()[name](teacher, student, critic)(torch.randn(3, 3, 4, 2, 2), cond)
    assert loss.shape == (3,)
    loss.mean().backward()
    assert student.gain.grad is not None
    assert teacher.gain.grad is None
    assert critic.gain.grad is None
    heard = [*teacher.heard, *student.heard, *critic.heard]
    assert student.heard
    for told in heard:
        for field in fields(Conditioning):
            if field.name == "extra":
                assert told.extra["camera"] is cond.extra["camera"]
            elif (
                field.name == "text_mask"
                and name == "guidance"
                and any(told is c for c in teacher.heard[1::2])
            ):
                assert told.text_mask is not None
                assert not told.text_mask.any()  # what guidance pushes away from
            else:
                assert getattr(told, field.name) is getattr(cond, field.name), field.name
    extras = {key for told in student.heard for key in told.extra}
    assert extras == (
        {"camera", "guidance_scale"} if name in ("guidance", "progressive with scales") else {"camera"}
    )


def test_teacher_and_student_hear_of_the_same_scales() -> None:
    teacher, student = Listener(), Listener()
    ProgressiveDistiller(teacher, student, 4, scales=(2, 5))(torch.randn(64, 1, 1, 1, 1), NOTHING)
    (told,) = (c.extra["guidance_scale"] for c in student.heard)
    assert all(torch.equal(c.extra["guidance_scale"], told) for c in teacher.heard)
    assert 2 <= float(told.min()) < 2.5
    assert 4.5 < float(told.max()) <= 5


@pytest.mark.parametrize("name", methods())
def test_a_loss_depends_on_its_own_sample_and_key_alone(name: str) -> None:
    """With keyed noise: the same for any batch; the student of several steps draws one number for the batch."""
    torch.manual_seed(0)
    distiller = methods()[name](Listener(), Listener(0.6), Listener())
    x0, cond = torch.randn(3, 3, 4, 2, 2), full_conditioning()
    keyed = KeyedNoise(seeds=(5, 6, 7), stage="update 3")
    together = distiller(x0, cond, generator=keyed)
    torch.testing.assert_close(distiller(x0, cond, generator=keyed), together, rtol=0, atol=0)
    alone = distiller(x0[:1], cond.select(slice(0, 1)), generator=keyed.select([0]))
    torch.testing.assert_close(alone, together[:1])
    assert not torch.equal(distiller(x0, cond, generator=keyed.at("update 4")), together)


def test_drawn_numbers_are_uniform() -> None:
    u = draw_uniform(torch.Generator().manual_seed(0), torch.zeros(4000, 1), key="x").sort().values
    assert float((u - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 1.95 / 4000**0.5  # Kolmogorov, 0.001


def test_roles_that_do_not_go_together_are_refused() -> None:
    teacher = ModelDenoiser(Net())
    with pytest.raises(ValueError, match="share weights"):
        ProgressiveDistiller(teacher, teacher, 4)
    with pytest.raises(ValueError, match="share weights"):
        ProgressiveDistiller(teacher, ModelDenoiser(teacher.network), 4)
    other = ModelDenoiser(
        copy.deepcopy(teacher.network), LinearLogSNRSchedule(logsnr_min=-9.0, logsnr_max=9.0)
    )
    with pytest.raises(ValueError, match="different schedules"):
        ProgressiveDistiller(teacher, other, 4)


def test_the_target_carries_no_gradient() -> None:
    teacher = Listener()
    t = torch.tensor(0.5)
    target = two_step_target(teacher, torch.randn(3, 3, 4, 2, 2), t, t / 2, t * 0, NOTHING)
    assert not target.requires_grad
