"""Guidance of the embedding: exact where the answer is linear in it, right to first order everywhere else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from contract import awaken
from torch import Tensor, nn

from vdm_blocks.denoisers import ModelDenoiser
from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.distillation import (
    GuidanceDistiller,
    ScaleAdapter,
    fit_direction,
    load_student,
    save_student,
    with_guidance_scale,
)
from vdm_blocks.distillation.guided_context import guided_context
from vdm_blocks.models import (
    JointSpec,
    LevelSpec,
    TextAttentionSpec,
    TransformerSpec,
    UNetSpec,
    VideoTransformer,
    VideoUNet,
)
from vdm_blocks.models.context import ContextEncoder
from vdm_blocks.nn.pooling import MeanPool
from vdm_blocks.types import Conditioning

SPEC = UNetSpec(levels=(LevelSpec(channels=8),), embedding=16, text_width=4, text_inner=4)
DRAW = torch.Generator().manual_seed(5)
Z = torch.randn(3, 3, 2, 4, 4, generator=DRAW, dtype=torch.float64)
LOGSNR = torch.tensor([2.0, 0.0, -3.0], dtype=torch.float64)
COND = Conditioning(
    text=torch.randn(3, 5, 4, generator=DRAW, dtype=torch.float64),
    text_mask=torch.tensor([[True] * 3 + [False] * 2, [True] * 5, [True] + [False] * 4]),
)


class Linear(nn.Module):
    """A network whose answer is linear in what the context says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.context = ContextEncoder(SPEC)
        self.out = nn.Linear(SPEC.embedding, 3)

    def forward(self, z_t: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        emb = self.context(logsnr, cond, z_t.dtype, z_t.shape[2]).emb
        said = self.out(emb) if emb.ndim == 3 else self.out(emb)[:, None]
        answer: Tensor = z_t + said.transpose(1, 2)[..., None, None]
        return answer


def adapted(network: nn.Module, *, bend: float = math.inf, context: str = "context") -> ScaleAdapter:
    return ScaleAdapter(network, at="context.logsnr", width=16, context=context, bend=bend).double()


def unet(shrink: float = 1.0, *, attend: bool = False) -> VideoUNet:
    """An awake network whose pooled text counts `shrink` of what it did."""
    text = TextAttentionSpec(heads=2) if attend else None
    torch.manual_seed(0)
    net = VideoUNet(
        UNetSpec(levels=(LevelSpec(channels=8, text=text),), embedding=16, text_width=4, text_inner=4)
    )
    awaken(net)
    pooled = net.context.pooled
    assert isinstance(pooled, MeanPool)
    with torch.no_grad():
        pooled.weight *= shrink
    return net.double()


def told(scale: float) -> Conditioning:
    return with_guidance_scale(COND, torch.full((3,), scale, dtype=torch.float64))


def guided(network: nn.Module, scale: float) -> Tensor:
    cond, bare = network(Z, LOGSNR, COND), network(Z, LOGSNR, COND.without_text())
    answer: Tensor = bare + scale * (cond - bare)
    return answer


@pytest.mark.parametrize("scale", [1.0, 1.5, 6.0, 16.0])
def test_a_straight_line_is_guidance_itself_where_the_answer_is_linear(scale: float) -> None:
    network = Linear().double()
    torch.testing.assert_close(
        adapted(network)(Z, LOGSNR, told(scale)), guided(network, scale), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("scale", [1.0, 3.0, 16.0])
def test_a_bent_line_is_guidance_by_a_smaller_scale(scale: float) -> None:
    network = Linear().double()
    smaller = 1 + 2.5 * math.asinh((scale - 1) / 2.5)
    torch.testing.assert_close(
        adapted(network, bend=2.5)(Z, LOGSNR, told(scale)),
        guided(network, smaller),
        rtol=0,
        atol=1e-12,
    )


def test_what_it_is_wrong_by_falls_with_the_square_of_what_the_text_does() -> None:
    """Of a real network, 8 times less text makes 64 times less error, and 8 times less of guidance."""
    wrong, asked = [], []
    for shrink in (2.0**-6, 2.0**-9):
        network = unet(shrink)
        want = guided(network, 4.0) - network(Z, LOGSNR, COND)
        got = adapted(network)(Z, LOGSNR, told(4.0)) - network(Z, LOGSNR, COND)
        wrong.append(float((got - want).detach().norm()))
        asked.append(float(want.detach().norm()))
    assert 2.8 < math.log2(asked[0] / asked[1]) < 3.2
    assert 5.6 < math.log2(wrong[0] / wrong[1]) < 6.4
    assert wrong[1] < 0.02 * asked[1]


def test_at_scale_1_and_without_text_nothing_changes() -> None:
    network = unet(attend=True)
    adapter = adapted(network, bend=1.5)
    torch.testing.assert_close(adapter(Z, LOGSNR, told(1.0)), network(Z, LOGSNR, COND), rtol=0, atol=1e-12)
    bare = told(9.0).without_text()
    torch.testing.assert_close(adapter(Z, LOGSNR, bare), network(Z, LOGSNR, bare), rtol=0, atol=1e-12)
    assert not torch.allclose(adapter(Z, LOGSNR, told(9.0)), network(Z, LOGSNR, COND))


def test_the_network_used_by_itself_is_left_alone() -> None:
    network = unet()
    before = network(Z, LOGSNR, COND)
    adapted(network, bend=1.5)(Z, LOGSNR, told(9.0))
    assert torch.equal(network(Z, LOGSNR, COND), before)


def test_each_sample_has_its_scale_and_each_frame_its_caption() -> None:
    network = Linear().double()
    adapter = adapted(network)
    scales = torch.tensor([2.0, 5.0, 9.0], dtype=torch.float64)
    mixed = adapter(Z, LOGSNR, with_guidance_scale(COND, scales))
    for i, scale in enumerate(scales.tolist()):
        torch.testing.assert_close(mixed[i], adapter(Z, LOGSNR, told(scale))[i])
    assert COND.text is not None
    assert COND.text_mask is not None
    by_frame = Conditioning(
        text=COND.text[:, None].expand(3, 2, 5, 4), text_mask=COND.text_mask[:, None].expand(3, 2, 5)
    )
    for own in (scales, scales[:, None].expand(3, 2)):
        torch.testing.assert_close(adapter(Z, LOGSNR, with_guidance_scale(by_frame, own)), mixed)
        torch.testing.assert_close(
            adapter(Z, LOGSNR[:, None].expand(3, 2), with_guidance_scale(COND, own)), mixed
        )


@pytest.mark.parametrize("by_frame", [False, True])
def test_one_embedding_may_be_pushed_otherwise_in_each_frame(by_frame: bool) -> None:
    encoder = Linear().double().context
    given = (LOGSNR[:, None].expand(3, 2) if by_frame else LOGSNR, COND, Z.dtype, 2)
    context = encoder(*given)
    bare = encoder(given[0], COND.without_text(), Z.dtype, 2).emb
    gain = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dtype=torch.float64)
    emb = guided_context(encoder, given, context, gain).emb
    for t in range(2):
        own, without = (x[:, t] if by_frame else x for x in (context.emb, bare))
        torch.testing.assert_close(emb[:, t], own + gain[:, t, None] * (own - without))


def test_a_transformer_is_guided_too() -> None:
    spec = TransformerSpec(width=16, depth=1, heads=2, mixing=JointSpec(), embedding=16, text_width=4)
    net = VideoTransformer(spec)
    awaken(net)
    adapter = adapted(net, bend=1.5)
    torch.testing.assert_close(adapter(Z, LOGSNR, told(1.0)), net(Z, LOGSNR, COND), rtol=0, atol=1e-12)
    assert not torch.allclose(adapter(Z, LOGSNR, told(6.0)), net(Z, LOGSNR, COND))


def test_it_has_no_weights_and_learns_with_those_of_the_encoder() -> None:
    adapter = adapted(unet(), bend=1.5)
    assert adapter.added == (adapter.embedding,)
    adapter(Z, LOGSNR, told(6.0)).square().sum().backward()
    grad = adapter.network.get_submodule("context.pooled").weight.grad
    assert isinstance(grad, Tensor)
    assert float(grad.abs().max()) > 0


def test_a_student_comes_back_with_it(tmp_path: Path) -> None:
    for bend in (2.5, math.inf):
        adapter = adapted(unet(), bend=bend)
        save_student(tmp_path / "a.safetensors", adapter, dtype=torch.float64)
        again = load_student(tmp_path / "a.safetensors", dtype=torch.float64)
        assert isinstance(again, ScaleAdapter)
        assert (again.context, again.bend) == ("context", bend)
        assert torch.equal(again(Z, LOGSNR, told(6.0)), adapter(Z, LOGSNR, told(6.0)))


def test_the_direction_of_the_answer_is_bent_alike() -> None:
    network = unet()
    straight, bent = (
        ScaleAdapter(network, at="context.logsnr", width=16, head="head", bend=bend).double()
        for bend in (math.inf, 2.0)
    )
    assert straight.direction is not None
    for p in straight.direction.parameters():
        nn.init.normal_(p)
    bent.load_state_dict(straight.state_dict())
    smaller = 1 + 2 * math.asinh(8 / 2)
    torch.testing.assert_close(
        bent(Z, LOGSNR, told(9.0)), straight(Z, LOGSNR, told(smaller)), rtol=0, atol=1e-12
    )
    slope = [float(bent.gain(torch.tensor(1 + h, dtype=torch.float64))) / h for h in (1e-1, 1e-2)]
    assert abs(slope[1] - 1) < abs(slope[0] - 1) / 50


def test_a_direction_is_not_fitted_to_what_is_guided_already() -> None:
    adapter = ScaleAdapter(unet(), at="context.logsnr", width=16, head="head", context="context").double()
    student = ModelDenoiser(adapter, schedule=CosineSchedule())
    teacher = ModelDenoiser(unet(), schedule=CosineSchedule())
    distiller = GuidanceDistiller(teacher, student)
    with pytest.raises(ValueError, match="is guided by its context"):
        fit_direction(distiller, adapter, lambda _number: (Z, COND), [0], key="fit")


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match=r"has no ContextEncoder 'head'; it has \['context'\]"):
        adapted(unet(), context="head")
    plain = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="Sequential has no ContextEncoder 'context'; guide its answer"):
        ScaleAdapter(plain, at="0", width=4, context="context")
    for bend in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="it is positive"):
            adapted(unet(), bend=bend)
