"""The parity table's own parts: the exact answers, the verdict and the refusals; diffusers is not needed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks.parity_data import Mixture, example
from benchmarks.parity_notes import FallingUniPC
from benchmarks.parity_runs import run_ours
from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.sampling import UniPC, uniform_times

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "parity.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_parity", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_flow_reaches_the_data_from_any_level(benchmark: ModuleType) -> None:
    data = benchmark.example()
    for alpha in (0.01, 0.6, 0.99):
        a = torch.tensor(alpha, dtype=torch.float64)
        moved = data.flow(data.start(a, (1 - a**2).sqrt()), a, (1 - a**2).sqrt())
        assert data.distance(moved) < 0.02
        assert data.distance(moved + 0.1) > 0.09


def test_the_denoiser_is_the_slope_of_the_flow(benchmark: ModuleType) -> None:
    """dz/dsigma = (z - x0) / sigma at alpha = 1, by a central difference of the map back from the clean video."""
    data = benchmark.example()
    one, sigma, h = torch.ones(()).double(), torch.tensor(0.7).double(), 1e-4
    x = data.mean + 0.3

    def level(s: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = data.mean + (x - data.mean) * (data.std**2 + s**2).sqrt() / data.std
        return z

    torch.testing.assert_close(data.flow(level(sigma), one, sigma), x)
    slope = (level(sigma + h) - level(sigma - h)) / (2 * h)
    expected = (level(sigma) - data.denoise(level(sigma), one, sigma)) / sigma
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("difference", "theirs", "verdict"), [(1e-6, 0.5, "equal"), (0.1, 0.5, "ours"), (0.1, 0.1, "theirs")]
)
def test_the_verdict(benchmark: ModuleType, difference: float, theirs: float, verdict: str) -> None:
    row = benchmark.Row(rule="x", difference=difference, wide=None, theirs=theirs, ours=0.2, why="because")
    assert row.nearer == verdict
    assert f"| {verdict} | because |" in benchmark.table([row])


def test_a_missing_k_diffusion_is_refused(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no file; give a clone's"):
        benchmark.load_k_diffusion(tmp_path / "sampling.py")


def test_a_missing_diffusers_is_refused(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["parity.py"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "diffusers is not installed here" in capsys.readouterr().err


def test_the_mixture_s_denoiser_flow_and_distance_agree(benchmark: ModuleType) -> None:
    """The flow carries noisy samples to the data; the denoiser leaves an error that no z explains."""
    data = replace(benchmark.mixture_example(), judged=2000)
    alpha, sigma = torch.tensor(0.8).double(), torch.tensor(0.6).double()
    one, zero = torch.ones(()).double(), torch.zeros(()).double()
    z, x = data.start(alpha, sigma), data.start(one, zero)
    residual = x - data.denoise(
        z, alpha, sigma
    )  # the same draw of x0, so what is left has no correlation with z
    centred = z - z.mean(0)
    assert ((residual * centred).mean(0).abs() < 0.01).all()
    assert residual.mean(0).abs().max() < 0.01
    flowed = data.flow(z, alpha, sigma)
    k = torch.linspace(0, len(z) - 1, len(flowed)).round().long()
    assert (flowed.sort(0).values - x.sort(0).values[k]).square().mean().sqrt() < 0.06
    assert data.distance(x) < 0.02
    assert data.distance(x + 0.1) > 0.09


def test_the_mixture_of_one_is_the_gaussian(benchmark: ModuleType) -> None:
    one = benchmark.example()
    same = Mixture(
        weights=torch.ones(1).double(), means=one.mean[None], stds=one.std[None].clamp(min=0.1), judged=50
    )
    gaussian = replace(one, std=one.std.clamp(min=0.1))
    alpha, sigma = torch.tensor(0.6).double(), torch.tensor(0.8).double()
    z = gaussian.start(alpha, sigma)[:50]
    torch.testing.assert_close(same.denoise(z, alpha, sigma), gaussian.denoise(z, alpha, sigma))
    torch.testing.assert_close(same.flow(z, alpha, sigma), gaussian.flow(z, alpha, sigma), rtol=0, atol=1e-4)


def test_the_falling_order_falls_where_it_is_told_to() -> None:
    data = example()
    times, schedule = uniform_times(6), CosineSchedule()
    third, second = (run_ours(data, UniPC(order=k), schedule, times) for k in (3, 2))
    assert torch.equal(run_ours(data, FallingUniPC(-1.0), schedule, times), third)
    assert torch.equal(run_ours(data, FallingUniPC(2.0), schedule, times), second)
    seen: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    run_ours(data, FallingUniPC(float(times[-3])), schedule, times, seen.append)
    run_ours(data, UniPC(order=3), schedule, times, kept.append)
    assert [torch.equal(a, b) for a, b in zip(seen, kept, strict=True)] == [True] * 4 + [False] * 2
