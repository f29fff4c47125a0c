from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import pytest
import torch
from contract import randn
from torch import Tensor

from vdm_blocks.nn import attend, attend_by_products, attend_fused

MODULE = importlib.import_module("vdm_blocks.nn.attend")  # the function of that name hides it
BACKENDS: dict[str, Callable[..., Tensor]] = {
    "attend": attend,
    "attend_by_products": attend_by_products,
    "attend_fused": attend_fused,
}
backends = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
N, HEADS, S, S2, D = 5, 2, 3, 4, 6


def naive(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """The definition, one query at a time."""
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    logits = torch.einsum("nhid,nhjd->nhij", q, k) / math.sqrt(q.shape[-1])
    if bias is not None:
        logits = torch.where(bias, logits, -math.inf) if bias.dtype == torch.bool else logits + bias
    for i in range(q.shape[2]):
        weight = torch.exp(logits[:, :, i] - logits[:, :, i].amax(-1, keepdim=True))
        out[:, :, i] = torch.einsum("nhj,nhjd->nhd", weight / weight.sum(-1, keepdim=True), v)
    return out


def seen(*shape: int) -> Tensor:
    """A random mask that lets every query see the first key."""
    mask = randn(*shape, seed=7) > 0
    mask[..., 0] = True
    return mask


BIASES = {
    "none": None,
    "one per head": randn(1, HEADS, S, S2, seed=4),
    "heads alone": randn(HEADS, S, S2, seed=4),
    "one per sample": randn(N, HEADS, S, S2, seed=5),
    "mask of keys": seen(N, 1, 1, S2),
    "mask": seen(N, 1, S, S2),
    "shared mask": seen(S, S2),
}
biases = pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)


def qkv() -> tuple[Tensor, Tensor, Tensor]:
    return randn(N, HEADS, S, D), randn(N, HEADS, S2, D, seed=2), randn(N, HEADS, S2, D, seed=3)


@backends
@biases
def test_is_the_definition(backend: Callable[..., Tensor], bias: Tensor | None) -> None:
    q, k, v = qkv()
    torch.testing.assert_close(backend(q, k, v, bias=bias), naive(q, k, v, bias))


@backends
@biases
def test_large_batches_are_cut(
    backend: Callable[..., Tensor], bias: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "_LARGEST_BATCH", 2)
    sizes: list[int] = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None) -> Tensor:
        sizes.append(q.shape[0])
        return fused(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", watched)
    q, k, v = qkv()
    torch.testing.assert_close(backend(q, k, v, bias=bias), naive(q, k, v, bias))
    assert backend is not attend_fused or sizes == [2, 2, 1]


@backends
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@biases
def test_half_precision(backend: Callable[..., Tensor], bias: Tensor | None, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in qkv())
    out = backend(q, k, v, bias=bias)
    exact = naive(q.double(), k.double(), v.double(), bias)
    assert out.dtype == dtype
    assert (out - exact).norm() < 0.02 * exact.norm()


@backends
def test_gradients_agree(backend: Callable[..., Tensor]) -> None:
    leaves = [x.requires_grad_() for x in (*qkv(), randn(1, HEADS, S, S2, seed=4))]
    q, k, v, bias = leaves
    got = torch.autograd.grad(backend(q, k, v, bias=bias).square().sum(), leaves)
    want = torch.autograd.grad(naive(q, k, v, bias).square().sum(), leaves)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("length", "fused"), [(32, False), (33, True)])
def test_the_length_decides(length: int, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("attend_by_products", "attend_fused"):
        monkeypatch.setattr(MODULE, name, lambda q, k, v, bias, n=name: calls.append(n) or v)  # type: ignore[func-returns-value, redundant-expr]  # noqa: ARG005
    x = torch.zeros(1, 1, length, 2)
    attend(x, x, x)
    assert calls == ["attend_fused" if fused else "attend_by_products"]
