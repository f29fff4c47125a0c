"""Muon: orthogonal updates of the stated size, and Adam for what is no matrix."""

from __future__ import annotations

import pytest
import torch
from muon import Muon, orthogonal
from torch import nn


@pytest.mark.parametrize("shape", [(16, 16), (24, 144), (144, 24)])
def test_an_orthogonalised_matrix_keeps_its_directions_and_evens_out_their_sizes(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    g = torch.randn(shape)
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    inner = u.T @ orthogonal(g) @ v.T
    assert inner.diagonal().min() > 0.6
    assert inner.diagonal().max() < 1.3
    assert (inner - inner.diagonal().diag()).abs().max() < 0.05


def test_an_update_has_the_size_that_adams_has() -> None:
    torch.manual_seed(0)
    w = nn.Parameter(torch.zeros(32, 16, 3, 3))
    w.grad = torch.randn_like(w)
    Muon([w], lr=1.0).step()
    assert w.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.25)


def test_what_is_no_matrix_takes_adams_step() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(7)) for _ in range(2))
    muon = Muon([ours], lr=0.01, betas=(0.8, 0.9))
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.9))
    for _ in range(5):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        muon.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


def test_it_solves_a_least_squares_problem() -> None:
    torch.manual_seed(0)
    true, x = torch.randn(16, 24), torch.randn(24, 64)
    w = nn.Parameter(torch.zeros(16, 24))
    muon = Muon([w], lr=0.1)
    for step in range(300):
        for group in muon.param_groups:
            group["lr"] = 0.1 * (1 - step / 300)
        loss = (w @ x - true @ x).square().mean()
        loss.backward()
        muon.step()
        muon.zero_grad()
    assert (w.detach() - true).square().mean() < 1e-3
