"""A student goes to disk and comes back, with what tells it the guidance scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from contract import awaken
from safetensors import safe_open
from torch import nn

from vdm_blocks.checkpoint import load_unet, read_info, save_tensors, save_unet
from vdm_blocks.distillation import ScaleAdapter, load_student, save_student, with_guidance_scale
from vdm_blocks.models import LevelSpec, UNetSpec, VideoUNet
from vdm_blocks.types import Conditioning

SPEC = UNetSpec(levels=(LevelSpec(channels=8),), embedding=32, text_width=0)
Z, LOGSNR = torch.randn(2, 3, 2, 4, 4), torch.zeros(2)


def student() -> ScaleAdapter:
    adapted = ScaleAdapter(
        VideoUNet(SPEC),
        at="context.logsnr",
        width=32,
        scales=(1, 8),
        features=16,
        hidden=12,
        head="head",
        knots=2,
        angle=6.0,
    )
    awaken(adapted)
    return adapted


def test_a_student_comes_back_to_the_bit_with_its_range(tmp_path: Path) -> None:
    net, file = student(), tmp_path / "a.safetensors"
    save_student(file, net, notes={"steps": "8"}, dtype=torch.float32)
    again = load_student(file)
    assert isinstance(again, ScaleAdapter)
    assert not again.training
    for scale in (1.0, 8.0):
        cond = with_guidance_scale(Conditioning(), torch.full((2,), scale))
        assert torch.equal(again(Z, LOGSNR, cond), net(Z, LOGSNR, cond))
    with pytest.raises(ValueError, match="knows 1 to 8"):
        again(Z, LOGSNR, with_guidance_scale(Conditioning(), torch.full((2,), 9.0)))
    assert read_info(file).spec == SPEC
    assert read_info(file).notes == {"steps": "8"}


def test_a_file_of_before_the_head_is_read_as_it_was_written(tmp_path: Path) -> None:
    net = ScaleAdapter(VideoUNet(SPEC), at="context.logsnr", width=32, angle=1000.0)
    awaken(net)
    save_student(tmp_path / "new", net, dtype=torch.float32)
    with safe_open(tmp_path / "new", framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    adapter = {
        k: v for k, v in json.loads(metadata["adapter"]).items() if k not in ("head", "knots", "angle")
    }
    save_tensors(tmp_path / "old", tensors, metadata | {"adapter": json.dumps(adapter)})
    cond = with_guidance_scale(Conditioning(), torch.tensor([1.0, 7.0]))
    assert torch.equal(load_student(tmp_path / "old")(Z, LOGSNR, cond), net(Z, LOGSNR, cond))


def test_a_plain_network_is_the_same_file_as_ever(tmp_path: Path) -> None:
    net = VideoUNet(SPEC)
    save_unet(tmp_path / "a", net)
    save_student(tmp_path / "b", net)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_info(tmp_path / "a").adapter is None
    again = load_student(tmp_path / "a")
    assert isinstance(again, VideoUNet)
    assert torch.equal(again(Z, LOGSNR, Conditioning()), load_unet(tmp_path / "b")(Z, LOGSNR, Conditioning()))


def test_the_wrong_door_is_said(tmp_path: Path) -> None:
    save_student(tmp_path / "a", student())
    with pytest.raises(ValueError, match="load it with load_student"):
        load_unet(tmp_path / "a")
    foreign = ScaleAdapter(nn.Sequential(nn.Linear(4, 4)), at="0", width=4)
    with pytest.raises(ValueError, match="an adapter around Sequential"):
        save_student(tmp_path / "b", foreign)


def test_an_adapter_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    save_student(tmp_path / "a", student())
    with safe_open(tmp_path / "a", framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for adapter in ('{"at": "nowhere", "width": 4, "scales": [1, 8], "features": 16, "hidden": null}', "{}"):
        save_tensors(tmp_path / "b", tensors, metadata | {"adapter": adapter})
        with pytest.raises(ValueError, match="an adapter that this version cannot make"):
            load_student(tmp_path / "b")
