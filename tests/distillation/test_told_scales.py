"""A student that learns the scale by gradient steps: it hears all of the range, and only if its adapter learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from exact import ExactDenoiser, label_conditioning, labels_of, mixture
from torch import Tensor, nn

from vdm_blocks.denoisers import ClassifierFreeGuidance, ModelDenoiser, Oscillating
from vdm_blocks.diffusion import X0, X0_MSE, CosineSchedule, UniformLaw
from vdm_blocks.distillation import (
    DistilledGuidance,
    GuidanceDirection,
    GuidanceDistiller,
    Lesson,
    ProgressiveDistiller,
    ScaleAdapter,
    ScaleRange,
    ToldGuidance,
    fit_direction,
    learn,
    with_guidance_scale,
)
from vdm_blocks.sampling import DDIM, sample, uniform_times
from vdm_blocks.types import Conditioning

SHAPE = (1, 2, 1, 1)
DATA = mixture(SHAPE, components=4, classes=2)
TEACHER = ExactDenoiser(DATA, CosineSchedule())
TOLERANCE = 1e-3
SCALES = (1.0, 1.5, 6.0, 15.0, 16.0)


class Readout(nn.Module):
    """A network that sees both estimates and passes on the conditional one, as a teacher does before guidance."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, 8)
        self.film = nn.Linear(8, 2)
        self.head = nn.Conv3d(2, 1, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1))
            for p in (self.film.weight, self.film.bias, self.head.bias):
                assert p is not None
                p.zero_()

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        logsnr = logsnr.to(z_t)
        alpha, sigma = logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt()
        labels = labels_of(cond, len(z_t))
        seen = [DATA.denoise(z_t, alpha, sigma, of) for of in (labels, torch.full_like(labels, -1))]
        h = torch.cat(seen, dim=1) + self.film(self.time(logsnr[:, None])).view(-1, 2, 1, 1, 1)
        answer: Tensor = self.head(h)
        return answer


def batches(number: int) -> tuple[Tensor, Conditioning]:
    draw = torch.Generator().manual_seed(number)
    return DATA.sample(16, draw), label_conditioning([0, 1, 1, 0, -1, 0, 1, 0] * 2)


def by_scale(logsnr: Tensor, cond: Conditioning) -> Tensor:
    """Alike, relative to what is asked for."""
    return torch.ones_like(logsnr) / cond.extra["guidance_scale"].to(logsnr).square()


def taught(folder: Path, *, factor: float, frozen: bool = False) -> ModelDenoiser:
    """The student after few updates, what is new in it at `factor` times the rate."""
    torch.manual_seed(0)
    adapter = ScaleAdapter(Readout(), at="time", width=8, head="head", knots=1).double()
    for module in adapter.added:
        module.requires_grad_(not frozen)
    student = ModelDenoiser(adapter, schedule=CosineSchedule(), prediction=X0)
    distiller = GuidanceDistiller(
        TEACHER,
        student,
        ScaleRange(low=1, high=16, power=2),
        times=UniformLaw(low=0.2, high=0.95),
        weighting=X0_MSE,
        emphasis=by_scale,
    )
    learn(
        student,
        lambda _update: distiller,
        Lesson(updates=150, rate=1e-4),
        batches,
        path=folder / "state",
        key="scales",
        optimizer=partial(torch.optim.SGD, momentum=0.9),
        factors=[] if frozen else [(module, factor) for module in adapter.added],
    )
    return student


def test_a_direction_that_the_last_layer_can_be_is_found_without_an_update() -> None:
    adapter = ScaleAdapter(Readout(), at="time", width=8, head="head").double()
    student = ModelDenoiser(adapter, schedule=CosineSchedule(), prediction=X0)
    distiller = GuidanceDistiller(TEACHER, student, times=UniformLaw(low=0.2, high=0.95))
    before = [p.detach().clone() for p in adapter.network.parameters()]
    left = fit_direction(distiller, adapter, batches, range(4), key="fit", ridge=0.0, iterations=100)
    assert left < 1e-8
    assert all(torch.equal(p, q) for p, q in zip(adapter.network.parameters(), before, strict=True))
    assert max(error(student, scale) / scale for scale in SCALES) < TOLERANCE


def test_a_fit_counts_what_the_emphasis_counts() -> None:
    """A last layer that sees its bias alone: the best is the weighted mean."""
    adapter = ScaleAdapter(Readout(), at="time", width=8, head="head", knots=1).double()
    for layer in layers(adapter):
        layer.weight.requires_grad_(False)
    student = ModelDenoiser(adapter, schedule=CosineSchedule(), prediction=X0)
    seen: list[Tensor] = []

    def emphasis(logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG001
        seen.append(torch.linspace(0, 2, len(logsnr)))
        return seen[-1]

    heard: list[Tensor] = []
    adapter.network.get_submodule("head").register_forward_hook(lambda _m, _g, out: heard.append(out))
    distiller = GuidanceDistiller(TEACHER, student, emphasis=emphasis)
    fit_direction(distiller, adapter, batches, [0], key="fit", ridge=0.0)
    wanted = (heard[0] - heard[1]).flatten(1).mean(1)
    for layer in layers(adapter):
        assert layer.bias is not None
        torch.testing.assert_close(
            layer.bias.detach()[0], (seen[0] * wanted).sum() / seen[0].sum(), rtol=1e-4, atol=1e-6
        )


def test_a_ridge_makes_the_direction_smaller() -> None:
    def size(ridge: float) -> float:
        adapter = ScaleAdapter(Readout(), at="time", width=8, head="head", knots=1).double()
        student = ModelDenoiser(adapter, schedule=CosineSchedule(), prediction=X0)
        fit_direction(GuidanceDistiller(TEACHER, student), adapter, batches, [0], key="fit", ridge=ridge)
        return float(layers(adapter)[0].weight.detach().norm())

    assert 0 < size(10.0) < 0.5 * size(1.0) < 0.5 * size(0.0)


def test_a_fit_takes_a_head_and_finds_nothing_where_the_text_says_nothing() -> None:
    bare = ScaleAdapter(Readout(), at="time", width=8).double()
    student = ModelDenoiser(bare, schedule=CosineSchedule(), prediction=X0)
    with pytest.raises(ValueError, match="has no direction to fit"):
        fit_direction(GuidanceDistiller(TEACHER, student), bare, batches, [0], key="fit")
    adapter = ScaleAdapter(Readout(), at="time", width=8, head="head").double()
    student = ModelDenoiser(adapter, schedule=CosineSchedule(), prediction=X0)
    silent = batches(0)[0], label_conditioning([-1] * 16)
    left = fit_direction(GuidanceDistiller(TEACHER, student), adapter, lambda _: silent, [0], key="fit")
    assert left == 0.0
    assert adapter.direction is not None
    assert not any(p.any() for p in adapter.direction.parameters())


def error(student: ModelDenoiser, scale: float) -> float:
    """The largest difference from the guided denoiser, over noise levels."""
    z_t = torch.randn(8, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cond, worst = label_conditioning([0, 1, 1, 0, -1, 0, 1, 0]), 0.0
    with torch.no_grad():
        for t in torch.tensor([0.95, 0.8, 0.5, 0.2], dtype=torch.float64):
            got = DistilledGuidance(student, scale)(z_t, t, cond).x0
            wanted = ClassifierFreeGuidance(TEACHER, scale)(z_t, t, cond).x0
            worst = max(worst, float((got - wanted).abs().max()))
    return worst


def test_few_updates_teach_the_whole_range_of_scales(tmp_path: Path) -> None:
    student = taught(tmp_path, factor=1e4)
    assert max(error(student, scale) / scale for scale in SCALES) < TOLERANCE


def test_and_not_where_the_adapter_is_frozen_or_as_slow_as_the_network(tmp_path: Path) -> None:
    for student in (taught(tmp_path, factor=1.0, frozen=True), taught(tmp_path / "slow", factor=1.0)):
        assert error(student, 1.0) < 0.1
        assert error(student, 16.0) / 16 > 50 * TOLERANCE


def test_a_head_answers_for_every_scale_in_line_and_for_1_as_the_network() -> None:
    adapter = ScaleAdapter(Readout(), at="time", width=8, head="head").double()
    z_t, cond = torch.randn(3, *SHAPE, dtype=torch.float64), label_conditioning([0, 1, -1])
    logsnr = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    for layer in layers(adapter):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1, 1))

    def told(scale: float | Sequence[float]) -> Tensor:
        scales = torch.as_tensor(scale, dtype=torch.float64).expand(3)
        answer: Tensor = adapter(z_t, logsnr, with_guidance_scale(cond, scales))
        return answer

    first, second = told(1.0), told(2.0)
    assert torch.equal(first, adapter.network(z_t, logsnr, cond))
    torch.testing.assert_close(told(16.0), first + 15 * (second - first))
    torch.testing.assert_close(told((1.0, 16.0, 2.0))[1], told(16.0)[1])
    assert torch.equal(told(16.0)[2], first[2])  # its text was dropped


def layers(adapter: ScaleAdapter) -> list[nn.Conv3d | nn.Conv2d]:
    """Of the direction, one a knot."""
    assert adapter.direction is not None
    found = [layer for layer in adapter.direction.layers if isinstance(layer, nn.Conv3d | nn.Conv2d)]
    assert len(found) == len(adapter.direction.layers)
    return found


def test_a_direction_lies_between_its_knots() -> None:
    direction = GuidanceDirection(nn.Conv3d(1, 1, 1, bias=False), knots=3)
    for k, layer in enumerate(direction.layers):
        assert isinstance(layer, nn.Conv3d)
        nn.init.constant_(layer.weight, [1.0, 10.0, 100.0][k])
    one = torch.ones(1, 1, 1, 1, 1)
    u = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    logsnr = -2 * torch.log(torch.tan(u * math.pi / 2))
    got = [float(direction((one,), level[None].float()).detach()) for level in logsnr]
    assert got == pytest.approx([1.0, 5.5, 10.0, 55.0, 100.0], rel=1e-3)
    per_frame = direction((one.expand(1, 1, 5, 1, 1),), logsnr[None].float())
    assert per_frame.flatten().tolist() == pytest.approx(got, rel=1e-5)
    with pytest.raises(ValueError, match="it takes one at least"):
        GuidanceDirection(nn.Conv3d(1, 1, 1), knots=0)


class Folded(nn.Module):
    """Frames in the batch's axis on the way, as in networks inflated from those for pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, 4)
        self.head = nn.Conv2d(1, 1, 1, bias=False)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:  # noqa: ARG002
        self.time(logsnr[:, None])
        frames = self.head(z_t.transpose(1, 2).flatten(0, 1))
        answer: Tensor = frames.view(len(z_t), -1, *frames.shape[1:]).transpose(1, 2)
        return answer


def test_a_head_may_see_frames_one_by_one() -> None:
    adapter = ScaleAdapter(Folded(), at="time", width=4, head="head")
    for layer in layers(adapter):
        nn.init.ones_(layer.weight)
    z_t, logsnr = torch.randn(2, 1, 3, 4, 4), torch.zeros(2)
    plain = adapter.network(z_t, logsnr, Conditioning())
    for scales in (torch.tensor([1.0, 4.0]), torch.tensor([[1.0, 1, 1], [4.0, 4, 4]])):
        got = adapter(z_t, logsnr, with_guidance_scale(Conditioning(), scales))
        torch.testing.assert_close(got[0], plain[0])
        torch.testing.assert_close(got[1], plain[1] + 3 * z_t[1])
    with pytest.raises(ValueError, match="the last layer put out shape"):
        adapter(z_t, logsnr, with_guidance_scale(Conditioning(), torch.ones(2, 4)))


def test_scales_that_are_near_are_embedded_near() -> None:
    torch.manual_seed(0)
    adapter = ScaleAdapter(Readout(), at="time", width=8)
    nn.init.normal_(adapter.embedding.mlp[-1].weight)  # type: ignore[arg-type]
    u = adapter.scales.place(torch.tensor([6.0, 6.1, 15.0]))
    a, b, c = adapter.embedding(u).detach()
    assert float((a - b).norm()) < 0.1 * float((a - c).norm())


def test_low_scales_may_be_drawn_more_often() -> None:
    like = torch.zeros(4000, 1, dtype=torch.float64)
    drawn = ScaleRange(low=1, high=16, power=2).draw(torch.Generator().manual_seed(0), like)
    assert float(drawn.min()) >= 1
    assert float(drawn.max()) <= 16
    assert float((drawn < 4.75).double().mean()) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="ScaleRange got power=0"):
        ScaleRange(power=0)


def test_a_teacher_that_is_told_the_scale_is_the_guided_teacher() -> None:
    times = uniform_times(8)
    noise, cond = torch.randn(2, *SHAPE, dtype=torch.float64), label_conditioning([0, 1])
    scale = Oscillating(high=15.0, low=1.0, times=times)
    got = sample(DistilledGuidance(ToldGuidance(TEACHER), scale), DDIM(), times, noise, cond)
    wanted = sample(ClassifierFreeGuidance(TEACHER, scale), DDIM(), times, noise, cond)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    with pytest.raises(ValueError, match="must be told the guidance scale"):
        ToldGuidance(TEACHER)(noise, times[0], cond)


def test_the_first_halving_learns_from_the_told_teacher_at_every_scale() -> None:
    """Two steps of the guided teacher, each sample by its own scale."""
    student = ModelDenoiser(
        ScaleAdapter(Readout(), at="time", width=8).double(), schedule=CosineSchedule(), prediction=X0
    )
    x0, cond = batches(0)
    told = with_guidance_scale(cond, torch.linspace(1, 16, 16, dtype=torch.float64))

    def loss(teacher: ToldGuidance | ClassifierFreeGuidance, one: int) -> float:
        pick = slice(one, one + 1)
        distiller = ProgressiveDistiller(teacher, student, 4)
        draw = torch.Generator().manual_seed(5)
        return float(distiller(x0[pick], told.select(pick), generator=draw).detach())

    for one in (0, 5, 15):
        scale = float(told.extra["guidance_scale"][one])
        assert loss(ToldGuidance(TEACHER), one) == pytest.approx(
            loss(ClassifierFreeGuidance(TEACHER, scale), one), rel=1e-9
        )


def test_a_factor_is_for_a_part_of_the_student(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))

    def go(*factors: tuple[nn.Module, float]) -> None:
        learn(
            net,
            lambda _update: lambda x0, _cond, generator=None: net(x0)[:, 0],  # noqa: ARG005
            Lesson(updates=1, rate=0.1),
            lambda _number: (torch.ones(2, 1), Conditioning()),
            path=tmp_path / "x",
            key="k",
            optimizer=torch.optim.SGD,
            factors=factors,
        )

    start = {name: p.detach().clone() for name, p in net.state_dict().items()}

    def moved(factor: float) -> list[Tensor]:
        net.load_state_dict(start)
        (tmp_path / "x").unlink(missing_ok=True)
        go((net[1], factor))
        return [(p.detach() - start[name]).abs().sum() for name, p in net.named_parameters()]

    half, whole = moved(0.5), moved(1.0)
    assert float(whole[3]) > 0
    torch.testing.assert_close(half[:2], whole[:2])  # what no factor is for
    torch.testing.assert_close(half[2:], [0.5 * x for x in whole[2:]])
    for factor in ((nn.Linear(1, 1), 2.0), (net[1], 0.0)):
        with pytest.raises(ValueError, match="each is for a part of the student"):
            go(factor)
    with pytest.raises(ValueError, match="each is for a part of the student"):
        go((net[1], 2.0), (net, 2.0), (net[0], 2.0))
