from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from vdm_blocks.conditioning.t5 import T5TextEncoder

WORDS = ["<pad>", "</s>", "<unk>", "a", "cat", "dog", "runs", "fast"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of 8 words and width 16, random weights, written as Hugging Face writes one."""
    path: Path = tmp_path_factory.mktemp("t5")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.1
    )
    T5EncoderModel(config).save_pretrained(path)
    return path


@torch.no_grad()
def test_states_are_the_encoders_last_hidden_states(folder: Path) -> None:
    encoder = T5TextEncoder.from_folder(folder)
    model = T5EncoderModel.from_pretrained(folder).eval()
    got = encoder.encode(["a cat runs", "dog"])
    assert encoder.width == 16
    assert got.mask.tolist() == [[True] * 4, [True, True, False, False]]
    expected = model(input_ids=torch.tensor([[3, 4, 6, 1]])).last_hidden_state
    torch.testing.assert_close(got.states[:1], expected, rtol=0, atol=1e-6)


def test_a_prompt_has_the_same_states_alone_and_in_a_batch(folder: Path) -> None:
    encoder = T5TextEncoder.from_folder(folder)
    batch, alone = encoder.encode(["dog", "a cat runs fast"]), encoder.encode(["dog"])
    torch.testing.assert_close(batch.states[0][batch.mask[0]], alone.states[0], rtol=0, atol=1e-6)
    assert batch.states[~batch.mask].abs().max() == 0


def test_the_encoder_is_frozen_and_takes_a_dtype(folder: Path) -> None:
    encoder = T5TextEncoder.from_folder(folder, dtype=torch.bfloat16)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.encode(["a cat"]).states.dtype == torch.bfloat16


def test_long_prompts_and_empty_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prompt 0 has 4 tokens and the encoder takes 3"):
        T5TextEncoder.from_folder(folder, max_tokens=3).encode(["a cat runs"])
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        T5TextEncoder.from_folder(tmp_path)
    with pytest.raises(ValueError, match="at least 2"):
        T5TextEncoder.from_folder(folder, max_tokens=1)
