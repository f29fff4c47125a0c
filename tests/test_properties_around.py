"""Random input around a denoiser and a chain: a right answer, or a ValueError with a sentence."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import COSINE, DTYPES, Case, Knows, attempt, cases, few, near, numbers
from torch import Tensor, nn

from vdm_blocks import denoisers, diffusion, sampling
from vdm_blocks.diffusion import expand_level
from vdm_blocks.types import Conditioning, Denoised


class Normal:
    """The denoiser of standard normal data: x0 = alpha z."""

    schedule = COSINE

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        alpha, sigma = (expand_level(v, z_t) for v in COSINE.alpha_sigma(t))
        return Denoised(alpha * z_t, sigma * z_t)


def said(batch: int) -> Conditioning:
    """A caption that adds 1 to the video of `Knows`."""
    return Conditioning(text=torch.ones(batch, 1, 1), text_mask=torch.ones(batch, 1, dtype=torch.bool))


@few
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from([*DTYPES, torch.int64]),
    numbers | st.floats(0, 1),
    st.integers(0, 4),
    st.integers(0, 99),
)
def test_a_quantile_is_torch_s(
    shape: list[int], dtype: torch.dtype, quantile: float, keep: int, seed: int
) -> None:
    keep = min(keep, len(shape))
    x = (9 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)
    got = attempt(
        lambda: denoisers.magnitude_quantile(x, quantile, keep=keep),
        right=0 <= quantile <= 1 and dtype.is_floating_point,
    )
    if got is not None:
        rows = x.double().abs().reshape(math.prod(shape[:keep]), -1)
        want = torch.quantile(rows, quantile, dim=1).view(shape[:keep])
        near(got, want, torch.empty(shape[:keep], dtype=dtype), torch.finfo(dtype).eps)
        attempt(lambda: denoisers.magnitude_quantile(x[:0], quantile), right=False)


@few
@given(cases(), st.floats(-2, 8))
def test_the_papers_weight_is_our_scale(case: Case, w: float) -> None:
    scale = denoisers.guidance_scale_from_paper(w)
    guided = denoisers.ClassifierFreeGuidance(Knows(case.x0), scale)
    assert isinstance(guided, denoisers.DenoiserWrapper)
    got = guided(case.eps, case.t, said(case.x0.shape[0]))
    x0 = case.x0.double()
    near(got.x0, (1 + w) * (x0 + 1) - w * x0, case.x0, case.unit, 16)


@few
@given(cases(), st.floats(-0.9, 0.9), st.integers(1, 5))
def test_momentum_is_a_geometric_sum(case: Case, beta: float, steps: int) -> None:
    """The difference is 1 at every step, so what is carried is 1 + beta + beta^2 + ..."""
    momentum = denoisers.Momentum(beta)
    states: list[sampling.MomentumState] = []
    want = [(1 - beta ** (i + 1)) / (1 - beta) for i in range(steps)]
    for each in want:
        carried = momentum.carry(torch.ones_like(case.x0))
        near(carried, each * torch.ones_like(carried).double(), case.x0, case.unit, 4)
    rule = sampling.GuidanceMomentum(
        rule=sampling.DDIM(), guide=lambda d, m: denoisers.ProjectedGuidance(d, 3.0, momentum=m), beta=beta
    )
    got = sampling.sample(
        Knows(case.x0),
        rule,
        sampling.uniform_times(steps),
        case.eps,
        said(case.x0.shape[0]),
        on_step=lambda info: states.append(info.state),
    )
    near(got, got, case.x0, 0)
    for state, each in zip(states, want, strict=True):
        assert isinstance(state, sampling.MomentumState)
        assert state.before is not None
        # From half a precision's x0 + 1 less x0, 1 comes back to some roundings.
        near(
            state.before,
            each * torch.ones_like(state.before).double(),
            case.x0,
            torch.finfo(case.x0.dtype).eps,
            32,
        )


@few
@given(cases(), st.floats(0, 1), st.integers(0, 9))
def test_one_step_by_hand(case: Case, share: float, index: int) -> None:
    t = torch.tensor(0.8, dtype=torch.float64)
    s = share * t
    draw = sampling.StepDraw(case.keyed, index)
    first, second = draw(case.eps), draw(case.eps)
    near(first, first, case.eps, 0)
    again = sampling.StepDraw(case.keyed, index)
    assert torch.equal(again(case.eps), first)
    assert torch.equal(again(case.eps), second)
    assert not torch.equal(first, second)
    rule = sampling.DDIM()
    alpha_t, sigma_t = COSINE.alpha_sigma(t)
    z_t = diffusion.diffuse(case.x0, case.eps, t, COSINE)
    result: sampling.StepResult[Any] = rule(Knows(case.x0), z_t, t, s, Conditioning(), None, draw)
    assert isinstance(result, sampling.StepResult)
    alpha_s, sigma_s = COSINE.alpha_sigma(s)
    eps = (z_t.double() - alpha_t * case.x0.double()) / sigma_t
    want = case.x0.double() if share == 0 else alpha_s * case.x0.double() + sigma_s * eps
    near(result.z, want, case.x0, torch.finfo(case.x0.dtype).eps, 8)
    assert torch.equal(result.x0, case.x0)


@few
@given(cases(), st.integers(1, 6), st.text(max_size=8))
def test_progress_says_every_step(case: Case, steps: int, name: str) -> None:
    stream = io.StringIO()
    sampling.sample(
        Knows(case.x0),
        sampling.DDIM(),
        sampling.uniform_times(steps),
        case.eps,
        Conditioning(),
        on_step=sampling.ProgressLine(name=name, stream=stream),
    )
    written = stream.getvalue()
    for i in range(1, steps + 1):
        assert f"\r{name} {i}/{steps}" in written
    assert written.endswith("\n")
    alone = io.StringIO()
    time = torch.tensor(0.5, dtype=torch.float64)
    told = sampling.StepInfo(steps, steps + 2, time, time / 2, case.eps, case.x0, None)
    sampling.ProgressLine(name=name, stream=alone)(told)
    assert alone.getvalue() == f"\r{name} {steps + 1}/{steps + 2}\033[K"


class Silent(nn.Module):
    """A network that says nothing."""

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(z_t)


@few
@given(cases(), numbers | st.floats(0.1, 2), st.floats(0.01, 2), st.floats(-6, 6), st.booleans())
def test_the_linear_part_is_the_posterior_mean(
    case: Case, data_std: float, detail_std: float, aug: float, video: bool
) -> None:
    """By Bayes from two observations of each pixel, where the network says nothing."""
    net = attempt(
        lambda: denoisers.ResidualNetwork(Silent(), data_std=data_std, detail_std=detail_std),
        right=1e-6 <= data_std <= 1e6,
    )
    if net is not None:
        check_linear_part(case, net, aug, video)


def check_linear_part(case: Case, net: denoisers.ResidualNetwork, aug: float, video: bool) -> None:
    batch = case.x0.shape[0]
    logsnr = diffusion.level_of_batch(COSINE.logsnr(case.t), case.x0)
    cond = Conditioning(video=case.x0, aug_logsnr=torch.full((batch,), aug)) if video else Conditioning()
    got = net(case.eps, logsnr, cond)
    told = expand_level(logsnr.double(), case.eps.double())
    alpha, sigma = diffusion.alpha_sigma_vp(told)
    precision, mean = 1 / net.data_std**2 + (alpha / sigma) ** 2, alpha / sigma**2 * case.eps.double()
    if video:
        seen, noise = diffusion.alpha_sigma_vp(torch.tensor(aug).double())
        sure = 1 / (net.detail_std**2 + (noise / seen) ** 2)
        precision, mean = precision + sure, mean + sure / seen * case.x0.double()
        attempt(lambda: net(case.eps, logsnr, replace(cond, aug_logsnr=None)), right=False)
    want = (alpha * case.eps.double() - mean / precision) / sigma
    near(got, want, case.eps, max(torch.finfo(case.eps.dtype).eps, 1e-6), 8 / sigma)
    assert bool((net.precision(logsnr, cond) > 0).all())


@few
@given(cases(), st.floats(0, 4), st.integers(0, 5))
def test_reconstruction_follows_its_gradient(case: Case, weight: float, known: int) -> None:
    """Of standard normal data, where x0 = alpha z: x0 + weight alpha^2 (video - x0) on the frames known."""
    frames = case.x0.shape[2]
    guided = denoisers.ReconstructionGuidance(
        Normal(), case.x0[:, :, :known], lambda x: x[:, :, :known], weight
    )
    got = guided(case.eps, case.t, Conditioning())
    a, s = case.exact
    want = a * case.eps.double()
    reached = torch.arange(frames).view(-1, 1, 1) < known
    want = torch.where(reached, want + weight * a**2 * (case.x0.double() - want), want)
    near(got.x0, want, case.x0, case.unit, 16)
    near(got.eps, (case.eps.double() - a * want) / s, case.x0, case.unit, 64 / s)
    wrong = denoisers.ReconstructionGuidance(Normal(), case.x0[..., :1, :1, :0], lambda x: x, 1.0)
    attempt(lambda: wrong(case.eps, case.t, Conditioning()), right=False)


@few
@given(
    cases(), st.floats(0, 0.4), st.floats(0.5, 1), st.floats(0, 1), st.lists(st.integers(1, 3), max_size=2)
)
def test_an_annealed_text_keeps_its_mean_and_deviation(
    case: Case, clear: float, blurred: float, time: float, level: list[int]
) -> None:
    batch, dtype = case.x0.shape[0], case.x0.dtype
    g = torch.Generator().manual_seed(case.seed)
    text = torch.randn(batch, 6, 4, generator=g, dtype=torch.float64).to(dtype)
    mask = torch.arange(6).expand(batch, 6) < 4
    cond = Conditioning(text=text, text_mask=mask)
    annealing = denoisers.ConditionAnnealing(Knows(case.x0), case.keyed, clear=clear, blurred=blurred)
    t = torch.full(level, time, dtype=torch.float64)
    got = attempt(lambda: annealing.annealed(t, cond), right=not level)
    if got is not None:
        assert got.text is not None
        near(got.text, got.text, text, 0)
        assert torch.equal(got.text[:, 4:], text[:, 4:])
        if time <= clear:
            assert torch.equal(got.text, text)
        real, before = got.text[:, :4].double().flatten(1), text[:, :4].double().flatten(1)
        unit = 8 * torch.finfo(dtype).eps + 1e-7
        torch.testing.assert_close(real.mean(1), before.mean(1), rtol=unit, atol=unit)
        torch.testing.assert_close(real.std(1), before.std(1), rtol=8 * unit, atol=8 * unit)
        split = annealing(case.eps, t, Conditioning())  # nothing to anneal
        assert torch.equal(split.x0, case.x0)
