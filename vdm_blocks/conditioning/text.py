"""What a text encoder is: prompts in, one state a token out, and a mask that marks the padding.

Axes: B batch, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["TextEncoder", "TextStates", "pad_tokens", "refuse_bad_prompts"]


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """A batch of encoded prompts, ready for `Conditioning(text=..., text_mask=...)`.

    Attributes:
        states: (B, L, D) one state a token; zero where the mask is False.
        mask: (B, L) bool, True for tokens and False for padding.
    """

    states: Tensor
    mask: Tensor


class TextEncoder(Protocol):
    """A frozen model of text. A prompt has the same states in any batch, to rounding."""

    @property
    def width(self) -> int:
        """D, the length of one token's state."""

    @property
    def max_tokens(self) -> int:
        """The longest prompt that is taken, counted in tokens with the ones that mark start and end."""

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """States of the last layer, without pooling; padded to the longest prompt of the batch."""


def refuse_bad_prompts(prompts: Sequence[str]) -> None:
    """Refuse what cannot be a batch of prompts, before a model runs.

    Raises:
        ValueError: a bare string, no prompts at all, or a prompt without a visible character.

    >>> refuse_bad_prompts("a penguin dances")
    Traceback (most recent call last):
    ValueError: prompts is one string, 'a penguin dances'; give a list of strings: ['a penguin dances']
    """
    if isinstance(prompts, str):
        raise ValueError(f"prompts is one string, {prompts!r}; give a list of strings: [{prompts!r}]")
    if len(prompts) == 0:
        raise ValueError("prompts is empty; give at least one prompt")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise ValueError(f"prompt {index} is a {type(prompt).__name__}; each prompt is a string")
        if not prompt.strip():
            raise ValueError(
                f"prompt {index} is empty ({prompt!r}); say what the video shows. "
                "For a sample without text leave Conditioning.text out, or mask it with drop_text"
            )


def pad_tokens(tokens: Sequence[Sequence[int]], *, max_tokens: int, pad: int) -> tuple[Tensor, Tensor]:
    """Token numbers of several prompts as one array: ids (B, L) int64 and mask (B, L) bool.

    Raises:
        ValueError: a prompt of more than `max_tokens` tokens. Nothing is cut off silently.

    >>> ids, mask = pad_tokens([[5, 6, 7], [8]], max_tokens=4, pad=0)
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 7], [8, 0, 0]], [[True, True, True], [True, False, False]])
    """
    for index, row in enumerate(tokens):
        if len(row) > max_tokens:
            raise ValueError(
                f"prompt {index} has {len(row)} tokens and the encoder takes {max_tokens}; "
                f"shorten the prompt by about {len(row) - max_tokens} words, "
                "or load the encoder with a larger max_tokens"
            )
    length = max(len(row) for row in tokens)
    ids = torch.full((len(tokens), length), pad, dtype=torch.int64)
    mask = torch.zeros(len(tokens), length, dtype=torch.bool)
    for index, row in enumerate(tokens):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[index, : len(row)] = True
    return ids, mask
