from __future__ import annotations

import pytest
import torch

from vdm_blocks.models import TemporalAttentionSpec, TemporalConvSpec, VideoUNet
from vdm_blocks.models.presets import Preset, imagen, imagen_video, vdm
from vdm_blocks.models.table import cost_of, main

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


def test_cost_counts_what_is_known_in_closed_form() -> None:
    small = vdm()[1]
    cost = cost_of(small, dtype=torch.float32)
    assert cost.parameters == parameters(small)
    assert cost.weight_bytes == 4 * cost.parameters
    # Stem and head are 3x3 convolutions between 3 and 128 channels; the rest is far more.
    pixels = small.frames * small.height * small.width
    assert cost.operations > 2 * 2 * 9 * 3 * 128 * pixels
    assert cost.activation_bytes > 4 * 128 * pixels
    half = cost_of(small, dtype=torch.bfloat16)
    assert half.operations == cost.operations
    assert half.weight_bytes * 2 == cost.weight_bytes
    assert half.activation_bytes < 0.6 * cost.activation_bytes


def test_the_command_prints_a_line_a_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdm_blocks.models.table.vdm", lambda: vdm()[1:2])
    main(["vdm", "--tflops", "100"])
    lines = capsys.readouterr().out.splitlines()
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
