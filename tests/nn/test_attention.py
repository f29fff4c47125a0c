"""What each kind of attention sees, beyond the contract of all blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract import awaken, randn
from torch import Tensor

from vdm_blocks.nn import (
    AttentionPool,
    JoinedTextAttention,
    JointAttention,
    Rotary,
    SpatialAttention,
    TemporalAttention,
    TextAttention,
    attend_by_products,
    attend_fused,
    grid_positions,
    use_attend,
)

EXACT: dict[str, Any] = {"rtol": 0.0, "atol": 1e-12}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 1, 3])
def test_a_window_is_seen_and_nothing_beyond_it(causal: bool, window: int) -> None:
    layer = awaken(TemporalAttention(4, 2, causal=causal, window=window).double())
    for t in range(6):
        x = randn(1, 4, 6, 1, 1).requires_grad_()
        layer(x)[:, :, t].square().sum().backward()
        assert x.grad is not None
        seen = (x.grad.abs().sum((0, 1, 3, 4)) > 0).nonzero().flatten().tolist()
        assert seen == [j for j in range(6) if abs(t - j) <= window and (j <= t or not causal)]


@pytest.mark.parametrize("rotary", [None, Rotary(widths=(4,))], ids=["bias", "rotary"])
def test_time_is_seen(rotary: Rotary | None) -> None:
    layer, x = awaken(TemporalAttention(4, 1, rotary=rotary).double()), randn(1, 4, 5, 2, 2)
    assert (layer(x.flip(2)).flip(2) - layer(x)).abs().max() > 1e-3


def test_joint_attention_sees_space_and_time_by_its_positions() -> None:
    x, order = randn(1, 6, 3, 2, 2), torch.tensor([2, 0, 1])
    for axis, count in ((2, 3), (3, 2), (4, 2)):
        turn = order[:count] if count == 3 else torch.tensor([1, 0])
        placed = awaken(JointAttention(6, 1, rotary=Rotary(widths=(2, 2, 2))).double())
        blind = awaken(JointAttention(6, 1).double())
        for layer, equal in ((placed, False), (blind, True)):
            gap = (layer(x.index_select(axis, turn)) - layer(x).index_select(axis, turn)).abs().max()
            assert (gap < 1e-12) == equal


def test_rotations_keep_lengths_and_see_differences_alone() -> None:
    rotary = Rotary(widths=(4, 2), longest=50.0)
    q, k = randn(6, 8), randn(6, 8, seed=2)
    where = grid_positions(3, 2)
    assert where.tolist() == [[t, h] for t in range(3) for h in range(2)]
    want = rotary.rotate(q, where) @ rotary.rotate(k, where).T
    for shift in ([0.0, 0.0], [2.0, -1.0]):
        moved = where + torch.tensor(shift)
        product = rotary.rotate(q, moved) @ rotary.rotate(k, moved).T
        torch.testing.assert_close(product, want)
    assert (want - q @ k.T).abs().max() > 0.1
    torch.testing.assert_close(rotary.rotate(q, where).norm(dim=1), q.norm(dim=1), rtol=0, atol=1e-6)
    assert torch.equal(rotary.rotate(q, where)[:, 6:], q[:, 6:])


def test_rotations_are_the_complex_formula() -> None:
    q, p = randn(5, 6), torch.arange(5)[:, None]
    turned = Rotary(widths=(6,)).rotate(q, p)
    rate = 10_000.0 ** (-torch.arange(3, dtype=torch.float64) / 3)
    want = torch.complex(q[:, :3], q[:, 3:]) * torch.exp(1j * p * rate)
    torch.testing.assert_close(turned, torch.cat([want.real, want.imag], 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("widths", [(), (3,), (0, 0), (2, -2)], ids=str)
def test_rotations_that_cannot_be_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rotary widths are even"):
        Rotary(widths=widths)


@pytest.mark.parametrize("longest", [0.0, -1.0, float("inf"), float("nan")])
def test_wavelengths_that_cannot_be_are_refused(longest: float) -> None:
    with pytest.raises(ValueError, match="longest is a ratio of wavelengths"):
        Rotary(widths=(4,), longest=longest)


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="heads of 3 channels cannot turn 4"):
        TemporalAttention(6, 2, rotary=Rotary(widths=(4,)))(torch.zeros(1, 6, 2, 1, 1))
    with pytest.raises(ValueError, match="have 2"):
        TemporalAttention(6, 1, rotary=Rotary(widths=(2, 2)))
    with pytest.raises(ValueError, match="at least 0; got -1"):
        TemporalAttention(6, 1, window=-1)
    with pytest.raises(ValueError, match="6 channels do not divide into 4 heads"):
        SpatialAttention(6, 4)
    with pytest.raises(ValueError, match="2 axes; these rotations are for 1"):
        Rotary(widths=(2,)).angles(grid_positions(2, 2))


TEXT, MASK = randn(2, 4, 5, seed=5), torch.tensor([[True, True, False, False], [True] * 4])


@pytest.mark.parametrize("kind", [TextAttention, JoinedTextAttention])
def test_padding_changes_nothing_and_a_caption_per_frame_is_its_own(
    kind: type[TextAttention | JoinedTextAttention],
) -> None:
    layer, x = awaken(kind(6, 5, 2).double()), randn(2, 6, 3, 2, 3)
    want = layer(x, TEXT, MASK)
    torch.testing.assert_close(layer(x[:1], TEXT[:1, :2], MASK[:1, :2]), want[:1], **EXACT)
    each, masks = randn(2, 3, 4, 5, seed=6), MASK[:, None].expand(-1, 3, -1)
    out = layer(x, each, masks)
    for t in range(3):
        torch.testing.assert_close(layer(x[:, :, t : t + 1], each[:, t], MASK), out[:, :, t : t + 1], **EXACT)


def test_joined_text_without_a_caption_is_attention_within_the_frame() -> None:
    joined, plain = awaken(JoinedTextAttention(6, 5, 2).double()), SpatialAttention(6, 2).double()
    plain.load_state_dict({k: v for k, v in joined.state_dict().items() if k != "text_kv.weight"})
    x = randn(2, 6, 3, 2, 3)
    torch.testing.assert_close(joined(x, TEXT, torch.zeros_like(MASK)), plain(x), **EXACT)


def test_pooling_ignores_padding_and_hears_the_rest() -> None:
    pool = awaken(AttentionPool(8, 6, heads=2).double())
    text, mask = randn(2, 4, 8, seed=5), MASK
    out = pool(text, mask)
    assert out.shape == (2, 6)
    torch.testing.assert_close(pool(text[:1, :2], mask[:1, :2]), out[:1], **EXACT)
    torch.testing.assert_close(pool(text[0, :2], mask[0, :2]), out[0], **EXACT)  # no batch at all
    none = pool(text, torch.zeros_like(mask))
    torch.testing.assert_close(none[0], none[1], **EXACT)
    assert (out - none).abs().amin() > 1e-6
    torch.testing.assert_close(pool(text.flip(1), mask.flip(1)), out, **EXACT)
    per_frame = pool(text[:, None].expand(-1, 3, -1, -1), mask[:, None].expand(-1, 3, -1))
    torch.testing.assert_close(per_frame, out[:, None].expand(-1, 3, -1), **EXACT)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in pool.parameters())
    with pytest.raises(ValueError, match="width 8; got 7"):
        pool(text[..., :7], mask)


@pytest.mark.parametrize("backend", [attend_by_products, attend_fused])
def test_the_backend_can_be_chosen(backend: object) -> None:
    calls: list[int] = []

    def watched(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
        calls.append(1)
        assert callable(backend)
        out: Tensor = backend(q, k, v, bias=bias)
        return out

    net, x = (
        torch.nn.Sequential(SpatialAttention(4, 2), TemporalAttention(4, 2)).double(),
        randn(1, 4, 3, 2, 2),
    )
    want = awaken(net)(x)
    use_attend(net, watched)
    torch.testing.assert_close(net(x), want, **EXACT)
    assert len(calls) == 2
