"""CLIP out of a folder: what it reads, and its score against torchmetrics' on the same tiny network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from vdm_blocks.metrics import CLIPEncoder, TextFrameEncoder, clip_score, r_precision

WORDS = ["<start>", "<end>", "<unk>", "a", "cat", "dog", "runs", "fast"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 8 words and pictures of 16 x 16, random weights, as `save_pretrained` writes one."""
    path: Path = tmp_path_factory.mktemp("clip")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<end>", bos_token="<start>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(path)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 8, "max_position_embeddings": 7, "eos_token_id": 1, "bos_token_id": 0}
    vision = {**small, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(path)
    told = {
        "image_mean": [0.4814, 0.4578, 0.4082], "image_std": [0.2686, 0.2613, 0.2758], "resample": 3,
        "size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "do_center_crop": True,
    }  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(told))
    return path


PROMPTS = ["a cat runs", "dog", "a dog runs fast"]


def clips() -> Tensor:
    return torch.rand(3, 3, 2, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Processor:
    """What torchmetrics asks of a processor, over our own preparation: so both see the same pixels."""

    def __init__(self, encoder: CLIPEncoder) -> None:
        self.encoder = encoder

    def __call__(self, text: Any = None, images: Any = None, **_: Any) -> dict[str, Tensor]:
        if text is not None:
            tokens = self.encoder.tokenizer(list(text), padding=True, return_tensors="pt")
            return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        return {"pixel_values": self.encoder.prepare(torch.stack([image.float() for image in images]))}


class Flat(nn.Module):
    """What torchmetrics expects of a network, whose features are plain tensors, whatever transformers' version."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.network: Any = CLIPModel.from_pretrained(folder).eval()
        self.config = self.network.config

    def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.network.text_projection(self.network.text_model(ids, mask).pooler_output)
        return found

    def get_image_features(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.network.visual_projection(self.network.vision_model(pixels).pooler_output)
        return found


@torch.no_grad()
def test_the_score_is_torchmetrics(folder: Path) -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="vdm-blocks[dev]")
    from torchmetrics.multimodal.clip_score import CLIPScore

    assert torchmetrics
    encoder: TextFrameEncoder = CLIPEncoder.load(folder)
    ours = clip_score(encoder.encode_texts(PROMPTS), encoder.encode_frames(clips()))
    theirs = CLIPScore(model_name_or_path=lambda: (Flat(folder), Processor(CLIPEncoder.load(folder))))
    frames = ((clips() + 1) * 127.5).round().to(torch.uint8).transpose(1, 2)
    signs = torch.nn.functional.cosine_similarity(
        encoder.encode_texts(PROMPTS)[:, None], encoder.encode_frames(clips()), dim=2
    )
    assert bool((signs > 0).any())
    for i in range(3):
        each = [max(0.0, float(theirs(frames[i, t], PROMPTS[i]))) for t in range(2)]
        assert float(ours[i]) == pytest.approx(sum(each) / 2, rel=1e-4, abs=1e-4)


def test_embeddings_do_not_depend_on_the_batch(folder: Path) -> None:
    encoder = CLIPEncoder.load(folder)
    texts, frames = encoder.encode_texts(PROMPTS), encoder.encode_frames(clips())
    assert texts.shape == (3, 8)
    assert frames.shape == (3, 2, 8)
    torch.testing.assert_close(encoder.encode_texts(PROMPTS[1:2]), texts[1:2], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        encoder.encode_frames(clips()[2:, :, 1:]), frames[2:, 1:], atol=1e-6, rtol=1e-5
    )
    found = r_precision(texts, frames.mean(1), pool=2)
    assert found.shape == (3,)


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    encoder = CLIPEncoder.load(folder)
    with pytest.raises(ValueError, match="8 tokens, and CLIP reads 7"):
        encoder.encode_texts(["a cat runs a dog runs"])
    with pytest.raises(ValueError, match="no prompts"):
        encoder.encode_texts([])
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        CLIPEncoder.load(tmp_path)
