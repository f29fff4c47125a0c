"""Random averages, states, bounds and likelihoods: a right answer, or a ValueError with a sentence."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import COSINE, DTYPES, Case, attempt, cases, few, near, numbers
from torch import Tensor, nn

from vdm_blocks import training
from vdm_blocks.diffusion import expand_level
from vdm_blocks.types import Conditioning, Denoised

LOG_2PI = math.log(2 * math.pi)


class Normal:
    """The denoiser of standard normal data, x0 = alpha z and eps = sigma z: its flow stands still."""

    schedule = COSINE

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        alpha, sigma = (expand_level(v, z_t) for v in COSINE.alpha_sigma(t))
        return Denoised(alpha * z_t, sigma * z_t)


def walk(module: nn.Module, step: int) -> None:
    """Give the parameters other values, and keep the buffers in step."""
    g = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
        for b in module.buffers():
            b.fill_(step)


@few
@given(
    st.sampled_from(["number", "constant", "warmed", "power"]),
    numbers | st.floats(0, 1),
    st.integers(0, 6),
    st.sampled_from(DTYPES),
    st.integers(1, 3),
)
def test_an_average_is_the_sum_with_its_weights(
    kind: str, value: float, steps: int, dtype: torch.dtype, width: int
) -> None:
    make: dict[str, tuple[Callable[[], training.Decay], Callable[[int], float], bool]] = {
        "number": (lambda: training.ConstantDecay(decay=value), lambda _: value, 0 <= value < 1),
        "constant": (lambda: training.ConstantDecay(decay=value), lambda _: value, 0 <= value < 1),
        "warmed": (
            lambda: training.WarmedDecay(decay=value),
            lambda i: min(value, (1 + i) / (10 + i)),
            0 <= value < 1,
        ),
        "power": (
            lambda: training.PowerDecay(gamma=value),
            lambda i: (1 - 1 / i) ** (value + 1),
            -1 < value < math.inf,
        ),
    }
    maker, formula, right = make[kind]
    decay = attempt(maker, right=right)
    if decay is not None:
        check_average(value if kind == "number" else decay, formula, steps, dtype, width)


def check_average(
    decay: training.Decay | float, formula: Callable[[int], float], steps: int, dtype: torch.dtype, width: int
) -> None:
    net = nn.BatchNorm1d(width).to(dtype)
    walk(net, 0)
    ema = training.EMA(net, decay)
    want = net.weight.detach().clone().double()
    for i in range(1, steps + 1):
        walk(net, i)
        ema.update(net)
        want = formula(i) * want + (1 - formula(i)) * net.weight.detach().double()
    trained = net.weight.detach().clone()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    near(ema.state_dict()["average.weight"], want, torch.empty(width, dtype=wide), 1e-6)
    with ema.applied(net):
        near(net.weight.detach(), want, trained, torch.finfo(dtype).eps + 1e-6)
        assert net.running_mean is not None
        assert bool((net.running_mean == steps).all())
    assert torch.equal(net.weight.detach(), trained)
    other = nn.BatchNorm1d(width + 1)
    attempt(lambda: ema.update(other), right=False)
    attempt(lambda: ema.load_state_dict(training.EMA(other).state_dict()), right=False)
    again = training.EMA(net)
    again.load_state_dict(ema.state_dict())
    assert again.step == steps
    ema.copy_to(net)
    near(net.weight.detach(), want, trained, torch.finfo(dtype).eps + 1e-6)


@few
@given(
    st.lists(st.floats(1, 20), min_size=0, max_size=3, unique=True), st.integers(1, 8), st.integers(-2, 12)
)
def test_a_profile_is_reconstructed_from_itself(gammas: list[float], last: int, step: int) -> None:
    """Averages of a constant give the constant; one that is among the snapshots gives itself."""
    decays = [training.PowerDecay(gamma=gamma) for gamma in gammas]
    snapshots = [
        training.Snapshot(decay=d, step=last, average={"average.w": torch.full((2, 3), 0.7)}) for d in decays
    ]
    wanted = training.PowerDecay(gamma=3.0)
    got = attempt(
        lambda: training.reconstruct(snapshots, wanted, step), right=bool(gammas) and 1 <= step <= last
    )
    if got is not None:
        near(got["average.w"], torch.full((2, 3), 0.7), torch.empty(2, 3), 1e-5)
    if gammas and all(abs(a - b) > 1 for a in gammas for b in gammas if a != b):
        own = [
            training.Snapshot(decay=d, step=last, average={"average.w": torch.full((2,), float(i))})
            for i, d in enumerate(decays)
        ]
        again = training.reconstruct(own, decays[0])["average.w"]
        near(again, torch.zeros(2), torch.empty(2), 1e-5, 1)


@settings(few, max_examples=6)  # each waits for the disk
@given(st.integers(1, 4), st.integers(0, 3), st.sampled_from(["a", "b"]), st.booleans())
def test_a_training_state_comes_back_to_the_bit(width: int, steps: int, other: str, wider: bool) -> None:
    def made(size: int) -> training.TrainingState:
        net = nn.Linear(size, 2)
        return training.TrainingState(net, training.EMA(net, 0.5), torch.optim.Adam(net.parameters(), 0.1))

    def advance(state: training.TrainingState) -> None:
        state.optimizer.zero_grad()
        state.network(torch.ones(1, width)).square().sum().backward()
        state.optimizer.step()
        state.ema.update(state.network)
        state.step += 1

    saved, loaded = made(width), made(width + wider)
    for _ in range(steps):
        advance(saved)
    right = other == "a" and not wider
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        attempt(lambda: loaded.load(path), right=False)
        saved.save(path, run={"seed": "a"})
        attempt(lambda: loaded.load(path, run={"seed": other}), right=right)
    if right:
        advance(saved)
        advance(loaded)
        assert loaded.step == steps + 1
        for one, two in (
            (saved.network.state_dict(), loaded.network.state_dict()),
            (saved.ema.state_dict(), loaded.ema.state_dict()),
        ):
            for name, x in one.items():
                assert torch.equal(x, two[name])


@few
@given(cases(), st.sampled_from(["exact", "signs"]), st.integers(-1, 3), st.integers(0, 3))
def test_the_flow_of_normal_data_has_their_likelihood(case: Case, kind: str, steps: int, count: int) -> None:
    x0 = case.x0[..., :2, :2]  # the exact trace takes a pass for every number
    trace: training.Trace | None = training.ExactTrace()
    if kind == "signs":
        trace = attempt(lambda: training.HutchinsonTrace(count=count), right=count >= 1)
    if trace is not None:
        got = attempt(
            lambda: training.flow_log_likelihood(
                Normal(), x0, Conditioning(), steps=steps, trace=trace, generator=case.keyed
            ),
            right=steps >= 1,
        )
        if got is not None:
            numbers_of = x0[0].numel()
            want = -0.5 * (x0.double().flatten(1).square().sum(1) + numbers_of * LOG_2PI)
            unit = max(torch.finfo(x0.dtype).eps, 1e-5)
            near(got, want, torch.empty(len(x0), dtype=x0.dtype), unit, numbers_of)
            for d in (1, numbers_of):
                bits = training.bits_per_dimension(got, d)
                torch.testing.assert_close(bits, -got / d / math.log(2))


@few
@given(cases(), st.integers(-1, 40), st.floats(-30, 20))
def test_decoders_cost_what_they_should(case: Case, levels: int, logsnr: float) -> None:
    where = torch.tensor(logsnr, dtype=torch.float64)
    size, batch = case.x0[0].numel(), case.x0.shape[0]
    nats = training.ContinuousDecoder().nats(case.x0, case.eps, where)
    unit = torch.finfo(case.x0.dtype).eps
    want = torch.full((batch,), size * (LOG_2PI + 1 - logsnr) / 2, dtype=torch.float64)
    near(nats, want, torch.empty(batch, dtype=torch.float64), unit)
    decoder: training.Decoder | None = attempt(
        lambda: training.DiscreteDecoder(levels=levels), right=levels >= 2
    )
    if decoder is not None:
        place = ((case.x0.double() + 1) / 2 * (levels - 1)).round()
        on = 2 * place / (levels - 1) - 1
        nats = decoder.nats(on, case.eps.double(), where)
        assert nats.shape == (batch,)
        assert bool((nats >= 0).all())
        if logsnr < -20:  # nothing is seen, so every level is as likely
            near(nats, torch.full((batch,), size * math.log(levels)), nats, 1e-3)
        if levels < 5 and logsnr > 10:
            assert float(nats.max()) < 1e-6
        attempt(lambda: decoder.nats(on + 0.5 / (levels - 1), case.eps, where), right=False)
        spread = training.dequantize(on, levels, generator=case.keyed)
        assert float((spread - on).abs().max()) <= (1 + 1e-9) / (levels - 1)
        alone = training.dequantize(on[:1], levels, generator=case.keyed.select([0]))
        assert torch.equal(alone[0], spread[0])


@few
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99), st.sampled_from(DTYPES[2:]))
def test_bits_join_and_have_an_error(first: int, second: int, seed: int, dtype: torch.dtype) -> None:
    def some(count: int) -> training.Bits:
        prior, rest, diffusion = torch.randn(3, count, generator=g).to(dtype)
        return training.Bits(prior=prior, reconstruction=rest, diffusion=diffusion)

    g = torch.Generator().manual_seed(seed)
    one, two = some(first), some(second)
    both = training.Bits.cat([one, two])
    total = torch.cat([one.total, two.total]).double()
    near(both.total, total, torch.empty(first + second, dtype=dtype), 1e-6)
    assert math.isclose(both.mean, float(total.mean()), abs_tol=1e-5)
    want = math.sqrt(float(total.diff().square().sum()) / (first + second - 1) / 2 / (first + second))
    assert math.isclose(both.standard_error, want, rel_tol=1e-4, abs_tol=1e-6)
    attempt(lambda: one.standard_error, right=first > 1)


@few
@given(st.integers(-1, 9), st.integers(1, 4), st.floats(-4, 4), st.sampled_from(DTYPES))
def test_uncertainty_is_its_formula(features: int, batch: int, bias: float, dtype: torch.dtype) -> None:
    learned = attempt(lambda: training.LearnedUncertainty(features), right=features >= 1)
    if learned is not None:
        loss = torch.linspace(0, 2, batch, dtype=dtype)
        logsnr = torch.linspace(-9, 9, batch, dtype=dtype)
        assert torch.equal(learned(loss, logsnr), loss.float() if dtype != torch.float64 else loss)
        nn.init.constant_(learned.linear.bias, bias)
        got = learned(loss, logsnr).detach()
        want = loss.double() * math.exp(-bias) + bias
        near(got, want, got, max(torch.finfo(dtype).eps, 1e-6), 4)
        assert got.shape == loss.shape
