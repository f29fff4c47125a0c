from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from allocations import peak_bytes
from exact import SHAPE, ExactDenoiser, label_conditioning, mixture
from torch import Tensor

from vdm_blocks.diffusion import CosineSchedule, KeyedNoise
from vdm_blocks.sampling import (
    DDIM,
    Ancestral,
    DistilledStochastic,
    DPMSolverPP2M,
    EDMChurn,
    LangevinCorrector,
    Restart,
    StepInfo,
    StepRule,
    UniPC,
    sample,
    uniform_times,
)
from vdm_blocks.types import Conditioning, Denoised, Schedule

DENOISER = ExactDenoiser(mixture(), CosineSchedule())
KEYS = KeyedNoise(seeds=(4, 8, 15), stage="base")
COND = label_conditioning([0, 1, -1])
TIMES = uniform_times(12)

RULES: dict[str, StepRule[Any]] = {
    "DDIM": DDIM(),
    "DDIM(1)": DDIM(eta=1.0),
    "Ancestral": Ancestral(),
    "2M SDE": DPMSolverPP2M(eta=1.0),
    "UniPC": UniPC(order=3),
    "EDM": EDMChurn(churn=5.0),
    "distilled": DistilledStochastic(),
    "Langevin": LangevinCorrector(rule=Ancestral(), count=2),
    "restart": Restart(noisy_logsnr=-2.0, clean_logsnr=1.0, steps=3),
}


def start_noise(keys: KeyedNoise) -> Tensor:
    return keys.normal((len(keys.seeds), *SHAPE), step="noise")


def run(rule: StepRule[Any], keys: KeyedNoise = KEYS, cond: Conditioning = COND, **more: Any) -> Tensor:
    return sample(DENOISER, rule, TIMES, start_noise(keys), cond, generator=keys, **more)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_sample_does_not_depend_on_its_batch(rule: StepRule[Any]) -> None:
    together = run(rule)
    for i in range(3):
        alone = run(rule, KEYS.select([i]), COND.select(slice(i, i + 1)))
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_run_resumed_after_any_step_is_the_unbroken_run(rule: StepRule[Any]) -> None:
    infos: list[StepInfo] = []
    whole = run(rule, on_step=infos.append)
    assert [info.index for info in infos] == list(range(12))
    for k in (0, 4, 10):
        z, state = infos[k].z.clone(), infos[k].state
        resumed = sample(DENOISER, rule, TIMES, z, COND, generator=KEYS, start=k + 1, state=state)
        assert torch.equal(resumed, whole)


def test_what_on_step_is_told() -> None:
    infos: list[StepInfo] = []
    result = run(DDIM(), on_step=infos.append)
    assert all(info.count == 12 and info.t.ndim == 0 and info.s.ndim == 0 for info in infos)
    assert [float(info.t) for info in infos] == TIMES[:-1].tolist()
    assert [float(info.s) for info in infos] == TIMES[1:].tolist()
    assert torch.equal(infos[-1].z, result)
    assert torch.equal(infos[-1].x0, result)


@pytest.mark.parametrize(("answer", "steps"), [(True, 3), (False, 12), (None, 12)])
def test_on_step_stops_with_true_and_only_with_true(answer: bool | None, steps: int) -> None:
    seen: list[StepInfo] = []

    def stop(info: StepInfo) -> bool | None:
        seen.append(info)
        return answer if info.index == 2 else None

    result = run(DDIM(), on_step=stop)
    assert len(seen) == steps
    assert torch.equal(result, seen[-1].z)


@dataclass
class Recorder:
    """A denoiser that remembers what it was called with."""

    schedule: Schedule = field(default_factory=CosineSchedule)
    times: list[Tensor] = field(default_factory=list)

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        self.times.append(t)
        assert not torch.is_grad_enabled()
        return Denoised(z_t * 0.5, z_t * 0.5)


def test_the_rule_gets_consecutive_entries_of_the_grid_itself() -> None:
    times = torch.tensor([1.0, 0.83, 0.31, 0.3, 0.07, 0.0], dtype=torch.float64)
    recorder = Recorder()
    sample(recorder, DDIM(), times, torch.randn(1, *SHAPE), Conditioning())
    assert [float(t) for t in recorder.times] == times[:-1].tolist()
    assert all(t.ndim == 0 and t.dtype == torch.float64 and t.device.type == "cpu" for t in recorder.times)


def test_noise_is_left_alone_and_its_dtype_kept() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        noise = torch.randn(3, *SHAPE).to(dtype)
        before = noise.clone()
        for rule in RULES.values():
            assert sample(DENOISER, rule, TIMES, noise, COND, generator=KEYS).dtype == dtype
        assert torch.equal(noise, before)


def test_a_generator_gives_the_same_sample_twice_and_none_follows_torch() -> None:
    noise = torch.randn(3, *SHAPE)
    a, b = (
        sample(DENOISER, Ancestral(), TIMES, noise, COND, generator=torch.Generator().manual_seed(6))
        for _ in range(2)
    )
    assert torch.equal(a, b)
    torch.manual_seed(6)
    c = sample(DENOISER, Ancestral(), TIMES, noise, COND)
    torch.manual_seed(6)
    assert torch.equal(c, sample(DENOISER, Ancestral(), TIMES, noise, COND))
    assert not torch.equal(a, run(Ancestral()))


def test_a_wrong_number_of_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="one seed per sample"):
        sample(DENOISER, Ancestral(), TIMES, torch.randn(3, *SHAPE), COND, generator=KEYS.select([0, 1]))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 0.5, 1.0], "Flip an ascending grid"),
        ([1.0, 0.5, 0.5, 0.0], "fall at every step"),
        ([1.2, 0.5, 0.0], "within"),
        ([1.0, 0.5, -0.1], "within"),
        ([1.0, float("nan"), 0.0], "within"),
        ([1.0], r"\(N \+ 1,\)"),
        ([], r"\(N \+ 1,\)"),
        ([[1.0, 0.0]], r"\(N \+ 1,\)"),
    ],
)
def test_bad_grids_are_refused_before_anything_is_computed(times: list[float], message: str) -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match=message):
        sample(recorder, DDIM(), torch.tensor(times), torch.randn(1, *SHAPE), Conditioning())
    assert recorder.times == []


def test_a_start_off_the_grid_and_integer_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="start=12"):
        run(DDIM(), start=12)
    with pytest.raises(ValueError, match="floating point"):
        sample(DENOISER, DDIM(), TIMES, torch.zeros(3, *SHAPE, dtype=torch.long), COND)


def test_the_distilled_rule_refuses_a_grid_that_is_not_uniform() -> None:
    bent = torch.tensor([1.0, 0.7, 0.3, 0.0])
    with pytest.raises(ValueError, match="uniform_times"):
        sample(DENOISER, DistilledStochastic(), bent, start_noise(KEYS), COND, generator=KEYS)
    with pytest.raises(ValueError, match="ends at 0"):
        sample(DENOISER, DistilledStochastic(), TIMES[:-1], start_noise(KEYS), COND, generator=KEYS)


class Fresh:
    """Answers with two new tensors, like a network."""

    schedule = CosineSchedule()

    def __call__(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:  # noqa: ARG002
        return Denoised(z_t.clone(), z_t.clone())


@pytest.mark.parametrize("rule", [DDIM(), DDIM(eta=1.0), Ancestral(), DistilledStochastic()], ids=str)
def test_memory_is_z_and_the_answer_and_one_more(rule: StepRule[Any]) -> None:
    noise = torch.randn(1, 3, 8, 128, 128)
    size = noise.numel() * noise.element_size()
    peak = peak_bytes(lambda: sample(Fresh(), rule, uniform_times(6), noise, Conditioning()))
    # z is the caller's noise only in the first step, so all four count.
    assert peak < 4.02 * size
