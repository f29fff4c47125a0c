from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vdm_blocks.diffusion import (
    IndependentNoise,
    KeyedNoise,
    LowDiscrepancyTimes,
    MixedNoise,
    ProgressiveNoise,
    VideoNoise,
    draw_normal,
)

SHAPE = (3, 2, 4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_sample_has_its_noise_whatever_the_batch_and_the_order(dtype: torch.dtype) -> None:
    seeds = (7, 0, 2**70, -3, 11)
    noise = KeyedNoise(seeds=seeds, stage="base")
    whole = noise.normal((5, *SHAPE), step=4, dtype=dtype)
    assert whole.dtype == dtype
    for i in range(5):
        assert torch.equal(noise.select([i]).normal((1, *SHAPE), step=4, dtype=dtype)[0], whole[i])
    assert torch.equal(noise.select([4, 1, 0]).normal((3, *SHAPE), step=4, dtype=dtype), whole[[4, 1, 0]])
    assert torch.equal(noise.select(slice(1, 3)).normal((2, *SHAPE), step=4, dtype=dtype), whole[1:3])


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    noise = KeyedNoise(seeds=(1, 2), stage="base")
    first = noise.normal((2, 8), step=5)
    noise.normal((2, 100), step=6)
    torch.randn(10)
    assert torch.equal(noise.normal((2, 8), step=5), first)
    assert torch.equal(KeyedNoise(seeds=(1, 2), stage="base").normal((2, 8), step=5), first)


def test_another_process_draws_the_same() -> None:
    code = (
        "from vdm_blocks.diffusion import KeyedNoise\n"
        "print(KeyedNoise(seeds=(5,), stage='base').normal((1, 6), step=2).double().tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(
        KeyedNoise(seeds=(5,), stage="base").normal((1, 6), step=2).double().tolist()
    )


def test_seed_stage_and_step_each_make_other_noise() -> None:
    draws = [
        KeyedNoise(seeds=(seed,), stage=stage).normal((1, 4096), step=step)[0]
        for seed in (1, 11)
        for stage in ("base", "1", "11")
        for step in (0, 1, "0", "augmentation")
    ]
    correlation = torch.stack(draws).corrcoef() - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / 4096**0.5
    assert torch.equal(
        KeyedNoise(seeds=(1,), stage="base").at("sr").normal((1, 8), step=0),
        KeyedNoise(seeds=(1,), stage="sr").normal((1, 8), step=0),
    )


def test_noise_is_standard_normal() -> None:
    x = KeyedNoise(seeds=tuple(range(100)), stage="base").normal((100, 20_000), step=0).double()
    n = x.numel()
    assert abs(float(x.mean())) < 4 / n**0.5
    assert abs(float(x.var()) - 1) < 4 * (2 / n) ** 0.5
    assert abs(float((x**4).mean()) - 3) < 4 * (96 / n) ** 0.5
    share = float((x < 1).double().mean())
    assert abs(share - 0.841345) < 4 * (0.1336 / n) ** 0.5


def test_the_number_of_seeds_must_be_the_batch() -> None:
    noise = KeyedNoise(seeds=(1, 2), stage="base")
    for shape in ((1, 8), (3, 8), ()):
        with pytest.raises(ValueError, match="one seed per sample"):
            noise.normal(shape, step=0)
    with pytest.raises(ValueError, match="one int per sample"):
        KeyedNoise(seeds=(), stage="base")
    with pytest.raises(ValueError, match="one int per sample"):
        KeyedNoise(seeds=(0.5,), stage="base")  # type: ignore[arg-type]


def test_any_source_draws() -> None:
    keyed = KeyedNoise(seeds=(1, 2), stage="base")
    assert torch.equal(draw_normal(keyed, (2, 8), step=3), keyed.normal((2, 8), step=3))
    seeded = draw_normal(torch.Generator().manual_seed(4), (2, 8), step=3, dtype=torch.float64)
    assert torch.equal(
        seeded, torch.randn(2, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    )
    torch.manual_seed(5)
    drawn = draw_normal(None, (2, 8), step=3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.randn(2, 8))


class Moves(TorchDispatchMode):
    """Keeps what is copied, and refuses every draw of torch's own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sources: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert torch.Tag.nondeterministic_seeded not in func.tags, f"{func} draws by itself"
        if func is torch.ops.aten.copy_.default:
            assert args[1].device.type == "cpu"
            self.sources.append(args[1].clone())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("law", [IndependentNoise(), MixedNoise(a=0.5), ProgressiveNoise()], ids=str)
def test_any_device_is_given_the_noise_of_the_cpu(law: VideoNoise) -> None:
    """The reason why all devices agree: a draw is made on the CPU in float32 and copied, sample by sample."""
    noise = KeyedNoise(seeds=(3, 5), stage="base")
    with Moves() as elsewhere:
        law.draw(noise, (2, 3, 2, 4, 4), step=1, device="meta")
    with Moves() as here:
        law.draw(noise, (2, 3, 2, 4, 4), step=1, dtype=torch.float64)
    assert len(elsewhere.sources) == len(here.sources) >= 2
    assert all(torch.equal(a, b) for a, b in zip(elsewhere.sources, here.sources, strict=True))
    assert all(source.dtype == torch.float32 for source in elsewhere.sources)


def test_the_watch_sees_a_draw_on_the_device() -> None:
    with pytest.raises(AssertionError, match="draws by itself"), Moves():
        torch.randn(3, device="meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_has_the_noise_of_the_cpu_to_the_bit(dtype: torch.dtype) -> None:
    noise = KeyedNoise(seeds=(3, 5), stage="base")
    here = noise.normal((2, *SHAPE), step=1, dtype=dtype)
    assert torch.equal(noise.normal((2, *SHAPE), step=1, device="cuda", dtype=dtype).cpu(), here)
    t = LowDiscrepancyTimes().draw(8, seed=0, step=3)
    assert t.device.type == "cpu"
