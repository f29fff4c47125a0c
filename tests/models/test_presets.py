from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vdm_blocks.models import (
    Cost,
    DeviceSpeed,
    LevelSpec,
    Preset,
    TemporalAttentionSpec,
    TemporalConvSpec,
    UNetSpec,
    VideoUNet,
    cost_of,
    imagen,
    imagen_video,
    vdm,
)
from vdm_blocks.models.cost import _Watch
from vdm_blocks.models.table import main

ALL = [*imagen_video(), *imagen(), *vdm()]


def parameters(preset: Preset) -> int:
    with torch.device("meta"):
        network = VideoUNet(preset.spec)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("preset", imagen_video(), ids=lambda p: p.name)
def test_imagen_video_has_the_published_number_of_parameters(preset: Preset) -> None:
    assert preset.published is not None
    assert abs(parameters(preset) / preset.published - 1) < 0.02


def test_imagen_video_is_the_papers_chain() -> None:
    """arXiv 2210.02303, figure 4: grids, and what mixes frames."""
    chain = [(p.frames, p.height, p.width) for p in imagen_video()]
    assert chain == [(16, 24, 40), (32, 24, 40), (32, 48, 80), (32, 192, 320), (64, 192, 320), (128, 192, 320),
                     (128, 768, 1280)]  # fmt: skip
    for preset in imagen_video():
        kind = TemporalAttentionSpec if preset.name == "base" else TemporalConvSpec
        assert all(isinstance(level.temporal, kind) for level in preset.spec.levels)
        assert any(level.text is not None for level in preset.spec.levels)
    attends = [any(level.attention for level in p.spec.levels) for p in imagen_video()]
    assert attends[0]
    assert attends[2]
    assert attends[3]
    assert not attends[6]


@pytest.mark.parametrize("preset", ALL, ids=lambda p: p.name)
def test_every_network_fits_its_grid(preset: Preset) -> None:
    assert preset.height % preset.spec.divisor == 0
    assert preset.width % preset.spec.divisor == 0


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="16 frames of 24x36 do not fit a network whose frames divide by 8"):
        replace(imagen_video()[0], width=36)


def test_cost_is_the_closed_form() -> None:
    """One level of two blocks: 3x3 convolutions, two maps for each of log-SNR and frame rate, and modulations."""
    c, e, pixels = 8, 16, 2 * 4 * 6
    spec = UNetSpec(levels=(LevelSpec(channels=c),), embedding=e, text_width=0)
    cost = cost_of(Preset(name="tiny", spec=spec, frames=2, height=4, width=6), dtype=torch.float32)
    told = 2 * (64 * e + e * e)  # 64 sinusoids
    films = 3 * e * 2 * c
    convolutions = 9 * (3 * c + 4 * c * c + c * 3)
    assert cost.parameters == (
        told
        + 4 * e
        + films
        + 3 * 2 * c
        + convolutions
        + 5 * c
        + 3
        + 2 * c  # biases, and the gains of two norms
    )
    assert cost.operations == 2 * (told + films + convolutions * pixels)
    assert cost.weight_bytes == 4 * cost.parameters
    half = cost_of(Preset(name="tiny", spec=spec, frames=2, height=4, width=6), dtype=torch.bfloat16)
    assert half.operations == cost.operations
    assert half.weight_bytes * 2 == cost.weight_bytes


def test_attention_and_memory_are_counted() -> None:
    small = vdm()[1]
    cost = cost_of(small, dtype=torch.float32)
    assert cost.parameters == parameters(small)
    pixels = small.frames * small.height * small.width
    assert cost.activation_bytes > 4 * 128 * pixels
    assert cost_of(small, dtype=torch.bfloat16).activation_bytes < 0.6 * cost.activation_bytes


def test_a_kernel_takes_what_it_computes_and_what_it_moves() -> None:
    with torch.device("meta"), _Watch() as watch:
        x, weight = torch.empty(2, 3, 8, 8), torch.empty(5, 3, 3, 3)
        watch.kernels.clear()
        torch.nn.functional.conv2d(x.transpose(2, 3), weight, padding=1)  # the transposition moves nothing
    operations, moved = 2 * 9 * 3 * 5 * 2 * 64, 4 * (2 * 3 * 64 + 5 * 3 * 9 + 2 * 5 * 64)
    assert watch.kernels == [(operations, moved)]
    cost = Cost(
        parameters=0, operations=0, weight_bytes=0, activation_bytes=0, kernels=((10**12, 0), (0, 10**9))
    )
    assert cost.seconds(DeviceSpeed(tflops=2, bandwidth=4)) == 1 / 2 + 1 / 4
    assert replace(cost, kernels=((10**12, 10**9),)).seconds(DeviceSpeed(tflops=2, bandwidth=4)) == 1 / 2
    with pytest.raises(ValueError, match="more than nothing"):
        DeviceSpeed(tflops=0)


def test_the_command_prints_a_line_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdm_blocks.models.table.vdm", lambda: vdm()[1:2])
    main(["vdm", "--tflops", "100", "--bandwidth", "2000"])
    lines = capsys.readouterr().out.splitlines()
    assert "operations / 100e12 and bytes / 2000e9" in lines[2]
    assert lines[0].split() == [
        "network",
        "grid",
        "parameters",
        "published",
        "operations",
        "weights",
        "activations",
        "time",
    ]
    assert lines[1].split()[:2] == ["bair", "16x64x64"]
    assert len(lines) == 3
