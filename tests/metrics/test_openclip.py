"""CLIP out of open_clip's files: with the package where it is installed, and with a stand-in for it anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from vdm_blocks.metrics import OpenCLIPEncoder, TextFrameEncoder, clip_score

WORDS = {"a": 2, "cat": 3, "dog": 4, "runs": 5}
PROMPTS = ["a cat runs", "a dog"]
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 6, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]},
}


class Words:
    """A tokenizer of four words, in the shape of open_clip's."""

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def encode(self, prompt: str) -> list[int]:
        return [WORDS[word] for word in prompt.split()]

    def __call__(self, prompts: list[str], context_length: int) -> Tensor:
        rows = [torch.tensor([0, *self.encode(prompt), 1]) for prompt in prompts]
        return torch.stack([F.pad(row, (0, context_length - len(row))) for row in rows])


class Means(nn.Module):
    """A network whose answers are known: the mean colour of a picture, and the mean number of a text's tokens."""

    def __init__(self, embed_dim: int, vision_cfg: dict[str, Any], text_cfg: dict[str, Any]) -> None:
        super().__init__()
        assert (vision_cfg["image_size"], text_cfg["context_length"]) == (16, 6)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.gain = nn.Parameter(torch.zeros(embed_dim))

    def encode_image(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, 16, 16)
        return F.pad(x.mean((2, 3)), (0, len(self.gain) - 3)) * self.gain

    def encode_text(self, tokens: Tensor) -> Tensor:
        return tokens.float().mean(1, keepdim=True) * self.gain


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    package, part = ModuleType("open_clip"), ModuleType("open_clip.tokenizer")
    vars(package).update(CLIP=Means, CustomTextCLIP=Means, tokenizer=part)
    vars(part).update(SimpleTokenizer=Words)
    monkeypatch.setitem(sys.modules, "open_clip", package)
    monkeypatch.setitem(sys.modules, "open_clip.tokenizer", part)


def write(folder: Path, network: nn.Module, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in network.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def filled(config: dict[str, Any]) -> nn.Module:
    network = Means(**config["model_cfg"])
    nn.init.constant_(network.gain, 2.0)
    return network


@pytest.mark.usefixtures("stand_in")
def test_frames_are_prepared_as_the_file_says(tmp_path: Path) -> None:
    encoder: TextFrameEncoder = OpenCLIPEncoder.load(write(tmp_path, filled(CONFIG), CONFIG))
    video = torch.full((2, 3, 3, 20, 28), -1.0)
    video[1] = 1.0
    found = encoder.encode_frames(video)
    assert found.shape == (2, 3, 8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.5])
    torch.testing.assert_close(
        found[0, 0, :3], 2 * (0 - mean) / std
    )  # black, as the weights' gain of 2 sees it
    torch.testing.assert_close(found[1, 2, :3], 2 * (1 - mean) / std)
    assert encoder.name.startswith("OpenCLIP/")


@pytest.mark.usefixtures("stand_in")
def test_texts_are_read_whole_or_refused(tmp_path: Path) -> None:
    encoder = OpenCLIPEncoder.load(write(tmp_path, filled(CONFIG), CONFIG))
    found = encoder.encode_texts(PROMPTS)
    torch.testing.assert_close(found[:, 0], 2 * torch.tensor([(2 + 3 + 5 + 1) / 6, (2 + 4 + 1) / 6]))
    with pytest.raises(ValueError, match="7 tokens, and CLIP reads 6"):
        encoder.encode_texts(["a cat runs a cat"])
    with pytest.raises(ValueError, match="no prompts"):
        encoder.encode_texts([])


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("where", "key", "value", "answer"),
    [
        ("text_cfg", "hf_tokenizer_name", "some/name", "asks for hf_tokenizer_name"),
        ("text_cfg", "hf_model_name", "some/name", "asks for hf_model_name"),
        ("vision_cfg", "timm_model_pretrained", True, "asks for timm_model_pretrained"),
        ("preprocess_cfg", "resize_mode", "longest", "resize_mode 'longest'"),
        ("vision_cfg", "image_size", [16, 24], "known are squares"),
    ],
)
def test_what_would_be_fetched_or_guessed_is_refused(
    where: str, key: str, value: object, answer: str, tmp_path: Path
) -> None:
    config = json.loads(json.dumps(CONFIG))
    (config if where == "preprocess_cfg" else config["model_cfg"])[where][key] = value
    write(tmp_path, filled(CONFIG), config)
    with pytest.raises(ValueError, match=answer):
        OpenCLIPEncoder.load(tmp_path)


@pytest.mark.usefixtures("stand_in")
def test_pictures_may_be_squashed(tmp_path: Path) -> None:
    config = {**CONFIG, "preprocess_cfg": {**CONFIG["preprocess_cfg"], "resize_mode": "squash"}}
    encoder = OpenCLIPEncoder.load(write(tmp_path, filled(CONFIG), config))
    assert encoder.prepare.size == (16, 16)
    assert encoder.prepare.crop is None


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"open_clip_config\.json"):
        OpenCLIPEncoder.load(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match=r"open_clip_model\.safetensors"):
        OpenCLIPEncoder.load(tmp_path)


@torch.no_grad()
def test_the_package_says_the_same(tmp_path: Path) -> None:
    """A network of random weights: the embeddings are the package's own, from its own preparation and tokens."""
    open_clip = pytest.importorskip("open_clip", reason="open-clip-torch")
    torch.manual_seed(0)
    config = {
        "model_cfg": {
            **CONFIG["model_cfg"],
            "text_cfg": {**CONFIG["model_cfg"]["text_cfg"], "context_length": 12},
        }
    }
    network = open_clip.CLIP(**config["model_cfg"]).eval()
    encoder = OpenCLIPEncoder.load(write(tmp_path, network, config))
    prompts = ["a cat runs", "the quick brown dog"]
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=12)(prompts)
    torch.testing.assert_close(encoder.encode_texts(prompts), network.encode_text(tokens))
    pillow = pytest.importorskip("PIL.Image")
    draw = torch.Generator().manual_seed(0)
    video = (
        torch.nn.functional.interpolate(torch.rand(1, 3, 2, 5, 7, generator=draw), size=(2, 20, 28)) * 2 - 1
    )
    found = encoder.encode_frames(video)
    prepare = open_clip.image_transform(
        16, is_train=False, mean=encoder.prepare.mean, std=encoder.prepare.std, interpolation="bicubic"
    )
    bytes_ = ((video + 1) * 127.5).round().to(torch.uint8)[0].permute(1, 2, 3, 0)
    pictures = torch.stack([prepare(pillow.fromarray(frame.numpy())) for frame in bytes_])
    theirs = network.encode_image(pictures)
    torch.testing.assert_close(
        found[0], theirs, atol=0.03, rtol=0.03
    )  # Pillow's bicubic is antialiased in bytes
    score = clip_score(encoder.encode_texts(prompts[:1]), found)
    own = F.cosine_similarity(network.encode_text(tokens)[:1], theirs, dim=1).clamp(min=0).mean() * 100
    assert float(score) == pytest.approx(float(own), abs=1.0)
