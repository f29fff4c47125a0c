from __future__ import annotations

import pytest
import torch

from vdm_blocks.conditioning.text import pad_tokens, refuse_bad_prompts


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("a cat", r"give a list of strings: \['a cat'\]"),
        ([], "at least one prompt"),
        (["a cat", "  \n"], "prompt 1 is empty"),
        (["a cat", None], "prompt 1 is a NoneType"),
    ],
)
def test_what_is_no_batch_of_prompts_is_refused(prompts: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        refuse_bad_prompts(prompts)


def test_padding_keeps_every_token_and_marks_the_rest() -> None:
    rows = [[3], [1, 2, 3, 4], [7, 8]]
    ids, mask = pad_tokens(rows, max_tokens=4, pad=9)
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool
    for row, row_ids, row_mask in zip(rows, ids, mask, strict=True):
        assert row_ids[row_mask].tolist() == row
        assert set(row_ids[~row_mask].tolist()) <= {9}


def test_a_long_prompt_is_refused_not_cut() -> None:
    with pytest.raises(
        ValueError, match=r"prompt 1 has 5 tokens and the encoder takes 4; shorten .* 1 words"
    ):
        pad_tokens([[1], [1, 2, 3, 4, 5]], max_tokens=4, pad=0)
