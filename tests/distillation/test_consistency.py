"""Consistency models on a Gaussian: the exact composition of the teacher's steps is where the loss vanishes."""

from __future__ import annotations

import itertools

import pytest
import torch
from exact import ExactDenoiser, gaussian, mixture
from students import SHAPE, AffineTable
from torch import Tensor

from vdm_blocks.diffusion import CosineSchedule, KeyedNoise, RectifiedFlowSchedule
from vdm_blocks.distillation import (
    ConsistencyDistiller,
    FreshNoise,
    MultistepConsistencyDistiller,
    adjusted_ddim_step,
    ddim_jumps,
    ddim_step,
    segment_jumps,
)
from vdm_blocks.distillation.consistency import heun_step
from vdm_blocks.distillation.targets import first_share
from vdm_blocks.sampling import DDIM, Heun, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised

DATA = gaussian(SHAPE, scale=0.7)
COSINE = CosineSchedule()
TEACHER = ExactDenoiser(DATA, COSINE)
NOTHING = Conditioning()
X0 = DATA.sample(16, torch.Generator().manual_seed(0))
KEYED = KeyedNoise(seeds=tuple(range(16)), stage="a")
NOISE = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def consistent(steps: int) -> AffineTable:
    """f(z_t) = f(Heun(z_t)), from the clean end upwards."""
    student = AffineTable(ddim_jumps(uniform_times(steps)), COSINE)

    def target(z_t: Tensor, t: Tensor, _mid: Tensor, s: Tensor) -> Tensor:
        z_s = heun_step(TEACHER, z_t, t, s, NOTHING)
        return z_s if float(s[0]) == 0 else student(z_s, s, NOTHING).x0

    return student.fit(target)


class Clean:
    """A student that may be asked at time 0 as well, where its answer does not matter."""

    def __init__(self, table: AffineTable) -> None:
        self.table, self.schedule = table, COSINE

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        answer = self.table(z_t, t.clamp(min=self.table.jumps.t[-1]), cond)
        return Denoised(torch.where((t == 0).view(-1, 1, 1, 1, 1), torch.nan, answer.x0), answer.eps)


def test_heun_step_is_the_sampler_s_for_each_sample() -> None:
    for schedule in (COSINE, RectifiedFlowSchedule()):
        teacher = ExactDenoiser(mixture(SHAPE), schedule)
        t = torch.tensor([1.0, 0.7, 0.5, 0.2], dtype=torch.float64)
        s = torch.tensor([0.9, 0.4, 0.45, 0.0], dtype=torch.float64)
        got = heun_step(teacher, NOISE, t, s, NOTHING)
        for i in range(4):
            wanted = Heun()(teacher, NOISE[i : i + 1], t[i], s[i], NOTHING, None, torch.randn_like).z
            torch.testing.assert_close(got[i : i + 1], wanted, rtol=1e-10, atol=1e-10)


def test_the_consistent_student_has_no_loss_and_any_other_has() -> None:
    student = consistent(6)
    distiller = ConsistencyDistiller(TEACHER, student, uniform_times(6), target=Clean(student))
    assert float(distiller(X0, NOTHING, generator=KEYED).detach().max()) < 1e-18
    with torch.no_grad():
        student.maps[-1] += 1e-3
    assert float(distiller(X0, NOTHING, generator=KEYED).detach().max()) > 1e-9


def test_one_step_of_the_consistent_student_is_the_teacher_s_whole_path() -> None:
    student = consistent(8)
    one = sample(student, FreshNoise(), torch.tensor([1.0, 0.0]), NOISE, NOTHING)
    path = sample(TEACHER, Heun(), uniform_times(8), NOISE, NOTHING)
    torch.testing.assert_close(one, path, rtol=1e-9, atol=1e-9)


def test_fresh_noise_keeps_the_marginals_of_a_point() -> None:
    """With a single point as data, x0 is a draw of p(x0 | z_t): z_s has variance sigma_s^2 about alpha_s x."""
    student = point_student(torch.full((4000, 1, 1, 1, 1), 0.3).double())
    times = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)
    z = sample(student, FreshNoise(), times, torch.randn(4000, 1, 1, 1, 1).double(), NOTHING)
    alpha, sigma = COSINE.alpha_sigma(times[-1])
    assert float((z - alpha * 0.3).mean().abs()) < 4 * float(sigma) / 4000**0.5
    assert float(z.std() / sigma) == pytest.approx(1, abs=4 / 8000**0.5)


def point_student(x0: Tensor) -> Clean:
    class Point:
        schedule = COSINE

        def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
            return Denoised(x0, z_t)

    point: Clean = Point()  # type: ignore[assignment]
    return point


def test_paths_must_end_clean() -> None:
    with pytest.raises(ValueError, match=r"end at 0\.5"):
        ConsistencyDistiller(TEACHER, consistent(2), torch.tensor([1.0, 0.5]))


def segmented(segments: int, steps: int) -> AffineTable:
    """From each time to the end of its segment by steps of DDIM, the later ones made by the student itself."""
    student = AffineTable(segment_jumps(segments, steps), COSINE)

    def target(z_t: Tensor, t: Tensor, mid: Tensor, s: Tensor) -> Tensor:
        first = TEACHER(z_t, t, NOTHING).x0
        if float(mid[0]) == float(s[0]):
            return first
        second = student(ddim_step(COSINE, z_t, first, t, mid), mid, NOTHING).x0
        share = first_share(COSINE, t, mid, s).view(-1, 1, 1, 1, 1)
        return torch.lerp(second, first, share)

    return student.fit(target)


@pytest.mark.parametrize(("segments", "steps"), [(1, 4), (2, 8), (4, 4)])
def test_the_segmented_student_has_no_loss_and_is_the_teacher_s_path(segments: int, steps: int) -> None:
    student = segmented(segments, steps)

    class Guarded(Clean):
        def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
            answer = self.table(z_t, t.clamp(min=self.table.jumps.t[-1]), cond)
            return Denoised(answer.x0, answer.eps)

    distiller = MultistepConsistencyDistiller(
        TEACHER, student, segments, steps=steps, adjust=0, target=Guarded(student)
    )
    assert float(distiller(X0, NOTHING, generator=KEYED).detach().max()) < 1e-18
    reached = sample(student, DDIM(), uniform_times(segments), NOISE, NOTHING)
    wanted = sample(TEACHER, DDIM(), uniform_times(steps), NOISE, NOTHING)
    torch.testing.assert_close(reached, wanted, rtol=1e-9, atol=1e-9)


def test_adjusted_ddim_is_ddim_without_missing_variance_and_takes_each_sample_by_itself() -> None:
    t = torch.tensor([1.0, 0.7, 0.4, 0.2], dtype=torch.float64)
    s = torch.tensor([0.5, 0.6, 0.3, 0.0], dtype=torch.float64)
    x0 = TEACHER(NOISE, t, NOTHING).x0
    nothing = torch.zeros(4).double()
    assert torch.equal(
        adjusted_ddim_step(COSINE, NOISE, x0, t, s, nothing), ddim_step(COSINE, NOISE, x0, t, s)
    )
    some = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    z_s = adjusted_ddim_step(COSINE, NOISE, x0, t, s, some)
    for i in range(4):
        alone = adjusted_ddim_step(COSINE, *(x[i : i + 1] for x in (NOISE, x0, t, s, some)))
        torch.testing.assert_close(z_s[i : i + 1], alone)
    torch.testing.assert_close(z_s[3], x0[3])  # nothing is added to the clean end
    for i in range(3):  # the printed formula
        (alpha_t, sigma_t), (alpha_s, sigma_s) = COSINE.alpha_sigma(t[i]), COSINE.alpha_sigma(s[i])
        eps = (NOISE[i] - alpha_t * x0[i]) / sigma_t
        gain = alpha_s - alpha_t * sigma_s / sigma_t
        level = (sigma_s**2 + eps.numel() / eps.square().sum() * gain**2 * some[i]).sqrt()
        torch.testing.assert_close(z_s[i], alpha_s * x0[i] + level * eps)


def test_adjusted_ddim_gives_back_the_variance_that_the_mean_lacks() -> None:
    """From pure noise x0 is the mean of the data, and all of the data's variance is missing."""
    t, s = torch.ones(4).double(), torch.tensor([0.7, 0.5, 0.3, 0.1]).double()
    std = 0.6
    z_s = adjusted_ddim_step(COSINE, NOISE, torch.zeros_like(NOISE), t, s, torch.full((4,), std**2).double())
    alpha, sigma = COSINE.alpha_sigma(s)
    got = z_s.flatten(1).square().mean(1)
    wanted = alpha**2 * std**2 + sigma**2 * NOISE.flatten(1).square().mean(1)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_the_adjusted_target_lands_where_the_adjusted_step_leads() -> None:
    """With as many segments as steps the reference is the teacher's adjusted step itself."""
    table = AffineTable(segment_jumps(4, 4), COSINE)
    seen: list[Tensor] = []

    class Student(Clean):
        def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
            seen.extend([z_t, t])
            return Denoised(torch.zeros_like(z_t, requires_grad=True), z_t)

    distiller = MultistepConsistencyDistiller(TEACHER, Student(table), 4, steps=4, adjust=0.75)
    loss = distiller(X0, NOTHING, generator=KEYED)
    z_t, t = seen[-2:]
    first = TEACHER(z_t, t, NOTHING).x0
    s = t - 0.25
    x_var = 0.75 * (first - X0).flatten(1).square().mean(1)
    z_s = adjusted_ddim_step(COSINE, z_t, first, t, s, x_var)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (x.view(-1, 1, 1, 1, 1) for x in COSINE.alpha_sigma(u)) for u in (t, s)
    )
    ratio = sigma_s / sigma_t
    reference = torch.where(
        (s == 0).view(-1, 1, 1, 1, 1), first, (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t)
    )
    weight = COSINE.logsnr(t).exp().clamp(min=1)
    torch.testing.assert_close(loss, weight * reference.square().flatten(1).mean(1), rtol=1e-6, atol=1e-9)


def test_each_jump_ends_at_the_next_border() -> None:
    """As many jumps as steps, whatever the segments."""
    for segments, steps in itertools.product((1, 2, 4), (4, 8)):
        jumps = segment_jumps(segments, steps)
        assert len(jumps) == steps
        assert sorted(set(jumps.s)) == [i / segments for i in range(segments)]
