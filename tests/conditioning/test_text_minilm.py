from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from vdm_blocks.conditioning.bert import Bert, BertSpec, renamed_weights
from vdm_blocks.conditioning.minilm import MiniLMEncoder, _installed_folder

PROMPTS = ["a penguin dances in front of a red umbrella", "rain", "Ein Bär läuft – 'schnell' & \"weit\"; 熊"]


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder.load()


@pytest.fixture(scope="module")
def theirs() -> BertModel:
    return BertModel.from_pretrained(
        _installed_folder(), add_pooling_layer=False, local_files_only=True
    ).eval()


@torch.no_grad()
def test_states_equal_transformers_on_random_tokens(encoder: MiniLMEncoder, theirs: BertModel) -> None:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 30522, (4, 64), generator=draw)
    mask = torch.arange(64) < torch.tensor([[64], [33], [7], [1]])
    ours = encoder.bert(ids, mask)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours[mask], expected[mask], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_states_equal_transformers_on_a_prompt(
    encoder: MiniLMEncoder, theirs: BertModel, prompt: str
) -> None:
    ids = torch.tensor([encoder.tokenizer.encode(prompt).ids])
    expected = theirs(input_ids=ids).last_hidden_state
    torch.testing.assert_close(encoder.encode([prompt]).states, expected, rtol=0, atol=1e-5)


def test_a_prompt_has_the_same_states_alone_and_in_a_batch(encoder: MiniLMEncoder) -> None:
    batch = encoder.encode(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt])
        assert alone.mask.all()
        torch.testing.assert_close(batch.states[row][batch.mask[row]], alone.states[0], rtol=0, atol=1e-5)
    assert batch.states[~batch.mask].abs().max() == 0


def test_the_encoder_is_frozen(encoder: MiniLMEncoder) -> None:
    assert not any(p.requires_grad for p in encoder.parameters())
    states = encoder.encode(["rain"]).states
    assert not states.requires_grad
    assert not states.is_inference()  # they can go into a training step


def test_a_prompt_of_just_max_tokens_is_taken_and_one_more_is_not() -> None:
    encoder = MiniLMEncoder.load(max_tokens=6)
    assert encoder.encode(["one two three four"]).mask.sum() == 6
    with pytest.raises(ValueError, match="prompt 0 has 7 tokens and the encoder takes 6"):
        encoder.encode(["one two three four five"])
    with pytest.raises(ValueError, match="max_tokens is 600"):
        MiniLMEncoder.load(max_tokens=600)


def test_changed_weights_are_refused_unless_trusted(tmp_path: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(_installed_folder() / name, tmp_path / name)
    weights = tmp_path / "model.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-1] ^= 1
    weights.write_bytes(blob)
    with pytest.raises(ValueError, match="has sha256"):
        MiniLMEncoder.load(tmp_path)
    assert MiniLMEncoder.load(tmp_path, sha256=None).width == 384


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors does not exist"):
        MiniLMEncoder.load(tmp_path)


def test_weights_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="is this BERT"):
        renamed_weights({"embeddings.word_embeddings.weight": torch.zeros(2, 2)}, layers=1)


def test_padding_never_reaches_a_token() -> None:
    torch.manual_seed(0)
    bert = Bert(BertSpec(vocabulary=11, width=8, hidden=16, layers=2, heads=2, positions=6)).eval()
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    mask = torch.tensor([[True, True, True, False, False, False]])
    other = torch.tensor([[1, 2, 3, 9, 9, 9]])
    torch.testing.assert_close(bert(ids, mask)[:, :3], bert(other, mask)[:, :3], rtol=0, atol=0)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        BertSpec(width=8, heads=3)
