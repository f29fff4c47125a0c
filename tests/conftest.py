"""Every test starts from the same torch: one thread, fixed global seed, no switch left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_torch() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dtype, deterministic = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    yield
    assert torch.get_default_dtype() == dtype, "a test changed the default dtype"
    assert torch.are_deterministic_algorithms_enabled() == deterministic, (
        "a test changed the determinism switch"
    )
