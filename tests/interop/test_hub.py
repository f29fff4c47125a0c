from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from vdm_blocks.interop.hub import download_from_hub, load_hub_folder, save_hub_folder
from vdm_blocks.models import FactorizedSpec, TransformerSpec, VideoTransformer
from vdm_blocks.models.spec import LevelSpec, UNetSpec
from vdm_blocks.models.unet import VideoUNet
from vdm_blocks.types import Conditioning

save = partial(
    save_hub_folder, title="A tiny one", license="mit", description="It makes nothing worth seeing."
)


@pytest.fixture(scope="module")
def network() -> VideoUNet:
    torch.manual_seed(0)
    return VideoUNet(UNetSpec(levels=(LevelSpec(channels=8),), embedding=16, text_width=0)).eval()


@torch.no_grad()
def test_a_network_comes_back_from_its_folder(network: VideoUNet, tmp_path: Path) -> None:
    save(tmp_path / "tiny", network, dtype=torch.float32)
    again = load_hub_folder(tmp_path / "tiny")
    z, logsnr = torch.randn(1, 3, 2, 8, 8), torch.zeros(1)
    torch.testing.assert_close(
        again(z, logsnr, Conditioning()), network(z, logsnr, Conditioning()), rtol=0, atol=0
    )
    for ours, theirs in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_hub_reads_the_card_and_the_config(network: VideoUNet, tmp_path: Path) -> None:
    save(tmp_path / "tiny", network, tags=["text-to-video", "a: tag"], notes={"steps": "7"})
    card = ModelCard.load(tmp_path / "tiny" / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "vdm_blocks"
    assert card.data.tags == ["text-to-video", "a: tag"]
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert config["spec"]["levels"][0]["channels"] == 8
    assert config["notes"] == {"steps": "7"}


def test_a_download_that_the_cache_holds_asks_no_network(network: VideoUNet, tmp_path: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "cache" / "models--someone--tiny" / "snapshots" / revision
    snapshot.parent.mkdir(parents=True)
    save(tmp_path / "tiny", network)
    shutil.copytree(tmp_path / "tiny", snapshot)
    folder = download_from_hub("someone/tiny", revision=revision, cache=tmp_path / "cache", local_only=True)
    assert load_hub_folder(folder).spec == network.spec
    with pytest.raises(FileNotFoundError):
        download_from_hub("someone/else", revision=revision, cache=tmp_path / "cache", local_only=True)


def test_a_card_must_say_something(network: VideoUNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="what the model is and what it is for"):
        save_hub_folder(tmp_path / "tiny", network, title="", license="mit", description="x")
    assert not (tmp_path / "tiny").exists()


def test_a_transformer_has_a_folder_too_and_a_folder_needs_a_place(tmp_path: Path) -> None:
    spec = TransformerSpec(width=24, depth=1, heads=2, mixing=FactorizedSpec(), text_width=0, embedding=8)
    save(tmp_path / "tiny", VideoTransformer(spec))
    assert load_hub_folder(tmp_path / "tiny").spec == spec
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert config["architecture"] == "vdm_blocks.VideoTransformer"
    with pytest.raises(ValueError, match=r"cannot make .*: No such file or directory"):
        save(tmp_path / "none" / "tiny", VideoTransformer(spec))
