"""A student told the scale: it matches guidance over the whole range, in one evaluation, from any network."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from exact import ExactDenoiser, label_conditioning, mixture
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vdm_blocks.denoisers import ClassifierFreeGuidance, Oscillating
from vdm_blocks.diffusion import CosineSchedule, KeyedNoise
from vdm_blocks.distillation import (
    DistilledGuidance,
    GuidanceDistiller,
    ProgressiveDistiller,
    ScaleAdapter,
    ScaleRange,
    with_guidance_scale,
)
from vdm_blocks.distillation.scale import guidance_scale_of
from vdm_blocks.models import LevelSpec, UNetSpec, VideoUNet
from vdm_blocks.sampling import DDIM, sample, uniform_times
from vdm_blocks.types import Conditioning, Denoised

SHAPE = (1, 2, 1, 1)
DATA = mixture(SHAPE, components=4, classes=2)
COSINE = CosineSchedule()
TEACHER = ExactDenoiser(DATA, COSINE)
LABELS = [0, 1, 1, 0, -1, 0, 1, -1]  # -1: the text was dropped


class Combination(nn.Module):
    """x0 = (a + b scale) cond + (c + d scale) uncond: guidance is a = 0, b = 1, c = 1, d = -1."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = COSINE
        self.weights = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
        self.calls = 0

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        self.calls += 1
        a, b, c, d = self.weights
        scale = guidance_scale_of(cond).double().view(-1, 1, 1, 1, 1)
        first, second = TEACHER(z_t, t, cond), TEACHER(z_t, t, cond.without_text())
        return Denoised(
            (a + b * scale) * first.x0 + (c + d * scale) * second.x0,
            (a + b * scale) * first.eps + (c + d * scale) * second.eps,
        )


def trained() -> Combination:
    """The minimum of the loss, which is quadratic in the weights: one step of Newton's method."""
    student = Combination()
    distiller = GuidanceDistiller(TEACHER, student, scales=(1, 16))
    x0 = DATA.sample(len(LABELS), torch.Generator().manual_seed(0))
    cond = label_conditioning(LABELS)
    keyed = KeyedNoise(seeds=tuple(range(len(LABELS))), stage="guidance")

    def gradient(at: Tensor) -> Tensor:
        student.weights.data.copy_(at)
        (g,) = torch.autograd.grad(distiller(x0, cond, generator=keyed).mean(), student.weights)
        return g

    zero = gradient(torch.zeros(4).double())
    hessian = torch.stack([gradient(e) - zero for e in torch.eye(4).double()])
    student.weights.data.copy_(-torch.linalg.solve(hessian, zero))
    assert float(distiller(x0, cond, generator=keyed).detach().max()) < 1e-16
    return student


def test_a_student_that_can_be_guidance_becomes_it_over_the_whole_range() -> None:
    student = trained()
    assert student.weights.tolist() == pytest.approx([0, 1, 1, -1], abs=1e-7)
    z_t = torch.randn(len(LABELS), *SHAPE, dtype=torch.float64)
    cond = label_conditioning(LABELS)
    for scale in (1.0, 1.5, 6.0, 15.0, 16.0):
        for t in torch.tensor([1.0, 0.8, 0.4, 0.1], dtype=torch.float64):
            got = DistilledGuidance(student, scale)(z_t, t, cond)
            wanted = ClassifierFreeGuidance(TEACHER, scale)(z_t, t, cond)
            torch.testing.assert_close(got.x0, wanted.x0, rtol=1e-5, atol=1e-5)


def test_oscillating_guidance_costs_one_evaluation_a_step() -> None:
    student = trained()
    times = uniform_times(8)
    scale = Oscillating(high=15.0, low=1.0, times=times)
    noise, cond = torch.randn(2, *SHAPE, dtype=torch.float64), label_conditioning([0, 1])
    student.calls = 0
    got = sample(DistilledGuidance(student, scale), DDIM(), times, noise, cond)
    assert student.calls == 8
    wanted = sample(ClassifierFreeGuidance(TEACHER, scale), DDIM(), times, noise, cond)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_each_sample_has_its_own_scale_and_dropped_text_stays_unconditional() -> None:
    distiller = GuidanceDistiller(TEACHER, Combination())
    z_t = torch.randn(3, *SHAPE, dtype=torch.float64)
    t, scale = torch.tensor([0.7, 0.5, 0.3]).double(), torch.tensor([1.0, 7.0, 12.0]).double()
    cond = label_conditioning([0, 1, -1])
    target = distiller.target(z_t, t, scale, cond)
    for i in range(3):
        alone = ClassifierFreeGuidance(TEACHER, float(scale[i]))(
            z_t[i : i + 1], t[i], cond.select(slice(i, i + 1))
        )
        torch.testing.assert_close(target.x0[i : i + 1], alone.x0)
        torch.testing.assert_close(target.eps[i : i + 1], alone.eps)
    unconditional = TEACHER(z_t, t, cond.without_text())
    torch.testing.assert_close(target.x0[2], unconditional.x0[2])


def test_progressive_distillation_halves_the_steps_at_every_scale() -> None:
    """Stage two of arXiv 2210.03142: teacher and student at the same scale have the same two-step target."""
    teacher, student = trained(), trained()
    distiller = ProgressiveDistiller(teacher, student, 512, scales=ScaleRange(low=1, high=16))
    x0, cond = DATA.sample(8, torch.Generator().manual_seed(0)), label_conditioning(LABELS)
    keyed = KeyedNoise(seeds=tuple(range(8)), stage="two")
    near = distiller(x0, cond, generator=keyed).mean()
    with torch.no_grad():
        student.weights[1] += 0.1
    assert float(near.detach()) < 0.01 * float(distiller(x0, cond, generator=keyed).mean().detach())


SPEC = UNetSpec(
    levels=(LevelSpec(channels=8), LevelSpec(channels=8)), embedding=16, text_width=4, text_inner=4
)


def network() -> VideoUNet:
    torch.manual_seed(0)
    net = VideoUNet(SPEC)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)  # the head starts at zero, and would hide everything
    return net


def told(scale: float | list[float]) -> Conditioning:
    values = torch.tensor([scale, scale] if isinstance(scale, float) else scale)
    return with_guidance_scale(
        Conditioning(text=torch.ones(2, 3, 4), text_mask=torch.ones(2, 3, dtype=torch.bool)), values
    )


Z, LOGSNR = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([1.0, -2.0])


def adapted() -> ScaleAdapter:
    return ScaleAdapter(network(), at="context.logsnr", width=16)


def awake() -> ScaleAdapter:
    adapter = adapted()
    torch.manual_seed(2)
    for p in adapter.embedding.parameters():
        nn.init.normal_(p, std=0.5)
    return adapter


def test_an_adapted_network_starts_as_the_network_to_the_bit() -> None:
    plain = network()(Z, LOGSNR, told(1.0))
    for scale in (1.0, 7.5, 16.0):
        assert torch.equal(adapted()(Z, LOGSNR, told(scale)), plain)


def test_the_scale_is_heard_per_sample_and_the_inner_network_is_left_alone() -> None:
    adapter = awake()
    low, high = adapter(Z, LOGSNR, told(2.0)), adapter(Z, LOGSNR, told(9.0))
    assert not torch.allclose(low, high)
    mixed = adapter(Z, LOGSNR, told([2.0, 9.0]))
    torch.testing.assert_close(mixed, torch.stack([low[0], high[1]]))
    assert torch.equal(adapter.network(Z, LOGSNR, told(9.0)), network()(Z, LOGSNR, told(9.0)))


def test_a_level_for_each_frame_works_too() -> None:
    per_frame = awake()(Z, LOGSNR[:, None].expand(2, 2), told([2.0, 9.0]))
    torch.testing.assert_close(per_frame, awake()(Z, LOGSNR, told([2.0, 9.0])))
    scales = torch.tensor([[2.0, 2.0], [9.0, 9.0]])
    for_frames = awake()(Z, LOGSNR, with_guidance_scale(told(1.0), scales))
    torch.testing.assert_close(for_frames, per_frame)


def test_network_and_embedding_both_learn_and_both_are_saved(tmp_path: Path) -> None:
    adapter = awake()
    adapter(Z, LOGSNR, told(5.0)).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in adapter.embedding.parameters())
    inner = [p for name, p in adapter.network.named_parameters() if name.startswith("head")]
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in inner)
    save_file(adapter.state_dict(), tmp_path / "student.safetensors")
    again = adapted()
    again.load_state_dict(load_file(tmp_path / "student.safetensors"))
    assert torch.equal(again(Z, LOGSNR, told(5.0)), adapter(Z, LOGSNR, told(5.0)))
    assert torch.equal(copy.deepcopy(adapter)(Z, LOGSNR, told(5.0)), adapter(Z, LOGSNR, told(5.0)))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match=r"has no submodule 'time_embedding'.*context\.logsnr"):
        ScaleAdapter(network(), at="time_embedding", width=16)
    with pytest.raises(ValueError, match=r"put out shape \(2, 16\)"):
        ScaleAdapter(network(), at="context.logsnr", width=32)(Z, LOGSNR, told(5.0))
    with pytest.raises(ValueError, match="must be told the guidance scale"):
        adapted()(Z, LOGSNR, Conditioning(text=torch.ones(2, 3, 4), text_mask=torch.ones(2, 3).bool()))
    with pytest.raises(ValueError, match="from 17 to 17 were asked of a student that knows 1 to 16"):
        adapted()(Z, LOGSNR, told(17.0))
    with pytest.raises(ValueError, match="finite range"):
        ScaleRange(low=3, high=3)
