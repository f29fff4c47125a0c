"""The optional backends: found, missing, and unable."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from contract import randn
from torch import Tensor

from vdm_blocks.nn import attend, attend_flex, attend_xformers
from vdm_blocks.nn.attend_fallback import say_once

FLEX = importlib.import_module("vdm_blocks.nn.attend_flex")
XFORMERS = importlib.import_module("vdm_blocks.nn.attend_xformers")
Q, K, V = randn(5, 2, 3, 4), randn(5, 2, 6, 4, seed=2), randn(5, 2, 6, 4, seed=3)
BIASES = {
    "none": None,
    "per head": randn(2, 3, 6, seed=4),
    "per sample": randn(5, 1, 3, 6, seed=5),
    "mask": torch.arange(6) < 1 + torch.arange(5).view(5, 1, 1, 1),
}
biases = pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    cached = (FLEX._load, XFORMERS._load, say_once)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def test_without_xformers_it_says_so_once_and_falls_back() -> None:
    with mock.patch.dict(sys.modules, {"xformers": None, "xformers.ops": None}):
        with pytest.warns(UserWarning, match="xformers cannot be imported"):
            first = attend_xformers(Q, K, V)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = attend_xformers(Q, K, V)
    assert torch.equal(first, attend(Q, K, V))
    assert torch.equal(second, first)


def stand_in(kernel: object) -> dict[str, types.ModuleType]:
    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    vars(ops)["memory_efficient_attention"] = kernel
    vars(package)["ops"] = ops
    return {"xformers": package, "xformers.ops": ops}


@biases
def test_xformers_is_handed_its_own_layout(bias: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("vdm_blocks.nn.attend"), "_LARGEST_BATCH", 2)
    sizes = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, attn_bias: Tensor | None) -> Tensor:
        """What xformers computes, on (N, S, heads, d) with a whole bias whose rows are aligned."""
        sizes.append(q.shape[0])
        logits = torch.einsum("nihd,njhd->nhij", q, k) / q.shape[-1] ** 0.5
        if attn_bias is not None:
            assert attn_bias.shape == logits.shape
            assert attn_bias.dtype == q.dtype
            assert attn_bias.stride(-2) % 8 == 0
            logits = logits + attn_bias
        return torch.einsum("nhij,njhd->nihd", logits.softmax(-1), v)

    with mock.patch.dict(sys.modules, stand_in(kernel)):
        torch.testing.assert_close(attend_xformers(Q, K, V, bias=bias), attend(Q, K, V, bias=bias))
    assert sizes == [2, 2, 1]


def test_gradients_reach_the_bias_through_xformers() -> None:
    def kernel(q: Tensor, k: Tensor, v: Tensor, attn_bias: Tensor) -> Tensor:
        logits = torch.einsum("nihd,njhd->nhij", q, k) / q.shape[-1] ** 0.5 + attn_bias
        return torch.einsum("nhij,njhd->nihd", logits.softmax(-1), v)

    bias = randn(2, 3, 6, seed=4).requires_grad_()
    with mock.patch.dict(sys.modules, stand_in(kernel)):
        (got,) = torch.autograd.grad(attend_xformers(Q, K, V, bias=bias).square().sum(), bias)
    (want,) = torch.autograd.grad(attend(Q, K, V, bias=bias).square().sum(), bias)
    torch.testing.assert_close(got, want)


def test_an_xformers_that_cannot_says_so_once_and_falls_back() -> None:
    def kernel(*_: object, **__: object) -> Tensor:
        raise NotImplementedError("No operator found for these inputs:\n  a long table")

    with mock.patch.dict(sys.modules, stand_in(kernel)):
        with pytest.warns(
            UserWarning, match=r"xformers cannot take .* \(No operator found for these inputs:\)"
        ):
            out = attend_xformers(Q, K, V)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            attend_xformers(Q, K, V)
    assert torch.equal(out, attend(Q, K, V))


def test_flex_on_a_cpu_says_so_once_and_falls_back() -> None:
    with pytest.warns(UserWarning, match="needs a CUDA device, these tensors are on cpu"):
        out = attend_flex(Q, K, V)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attend_flex(Q, K, V)
    assert torch.equal(out, attend(Q, K, V))


@biases
def test_flex_is_told_the_bias_entry_by_entry(bias: Tensor | None) -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # uncompiled it warns that it is slow
        got = FLEX.with_kernel(flex, Q.float(), K.float(), V.float(), None if bias is None else bias.float()
                               if bias.is_floating_point() else bias)  # fmt: skip
    torch.testing.assert_close(got.double(), attend(Q, K, V, bias=bias), rtol=0, atol=1e-5)
