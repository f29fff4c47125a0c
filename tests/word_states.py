"""A text encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch

from vdm_blocks.conditioning.text import TextStates


class WordStates:
    """Its state of a word, six numbers, depends on the word alone."""

    width = 6
    max_tokens = 64

    def encode(self, prompts: Sequence[str]) -> TextStates:
        split = [prompt.split() for prompt in prompts]
        states = torch.zeros(len(split), max(map(len, split)), self.width)
        mask = torch.zeros(states.shape[:2], dtype=torch.bool)
        for i, own in enumerate(split):
            for j, word in enumerate(own):
                rng = Random(word)
                states[i, j] = torch.tensor([rng.gauss(0, 1) for _ in range(self.width)])
                mask[i, j] = True
        return TextStates(states=states, mask=mask)
