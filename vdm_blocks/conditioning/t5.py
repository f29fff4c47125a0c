"""A T5 encoder out of a local folder, through the package transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm_blocks.conditioning.text import TextStates, pad_tokens, refuse_bad_prompts

__all__ = ["T5TextEncoder"]


class T5TextEncoder(nn.Module):
    """Token states of the last layer of a frozen T5 encoder (arXiv 1910.10683), unpooled: (B, L, D).

    Imagen Video conditions all its stages on T5-XXL (arXiv 2210.02303, section 2.1), whose D is 4096.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, width: int, max_tokens: int = 256) -> None:
        super().__init__()
        if max_tokens < 2:
            raise ValueError(f"max_tokens is {max_tokens}; it must be at least 2, a word piece and the end")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.width = width
        self.max_tokens = max_tokens

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, max_tokens: int = 256, dtype: torch.dtype = torch.float32
    ) -> T5TextEncoder:
        """Read config, safetensors weights and tokenizer from `folder`, as `save_pretrained` writes them.

        Nothing is fetched. float16 overflows in T5's feed-forward layers; take bfloat16 to halve the memory.

        Raises:
            ValueError: no such folder, or no config in it.
            ModuleNotFoundError: the package transformers is missing.
        """
        root = Path(folder)
        if not (root / "config.json").is_file():
            raise ValueError(f"{root} holds no config.json; give a folder that save_pretrained wrote")
        try:
            from transformers import AutoTokenizer, T5EncoderModel
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "T5TextEncoder needs the package transformers: pip install 'vdm-blocks[t5]'"
            ) from error
        tokenizer = AutoTokenizer.from_pretrained(root, local_files_only=True)
        model = T5EncoderModel.from_pretrained(root, local_files_only=True, use_safetensors=True)
        return cls(model.to(dtype=dtype), tokenizer, width=int(model.config.d_model), max_tokens=max_tokens)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """States (B, L, D) and mask (B, L) on the model's device; L is the longest prompt's.

        Raises:
            ValueError: no prompts, an empty prompt, or one of more than `max_tokens` tokens.
        """
        refuse_bad_prompts(prompts)
        tokens = [self.tokenizer(prompt).input_ids for prompt in prompts]
        ids, mask = pad_tokens(tokens, max_tokens=self.max_tokens, pad=self.tokenizer.pad_token_id)
        device = next(self.model.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return TextStates(states=states * mask[..., None], mask=mask)
