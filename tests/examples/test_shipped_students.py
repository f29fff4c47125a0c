"""The students that are shipped hear the guidance scale: told another, they answer as their guided teachers would."""

from __future__ import annotations

import pytest
import torch
from distilled_stages import RECIPES
from heard import Heard, by_embedding, heard, section
from material import Captions
from sampling import OSCILLATING
from stages import PLANS, Plan

from vdm_blocks.conditioning.minilm import MiniLMEncoder

LEAST = {"1-base": 1 / 3, "2-tsr": 0.6, "3-ssr": 0.6}
"""Of the teacher's change at scale 5. In 2-tsr and 3-ssr it is nearly all the embedding's, which is guided itself."""
GUIDED = [plan for plan in PLANS if plan.name in OSCILLATING]


@pytest.mark.parametrize("plan", GUIDED, ids=[plan.name for plan in GUIDED])
def test_a_shipped_student_moves_with_the_scale_as_its_teacher_does(plan: Plan) -> None:
    captions = Captions(MiniLMEncoder.load())
    found = heard(plan, captions)
    assert all(own.wanted > 0 for own in found.values())
    assert found[5.0].part > LEAST[plan.name]
    assert found[5.0].left < 1
    assert (by_embedding(plan, captions) > 0.9) == RECIPES[plan.name].context


def test_what_is_heard_is_the_part_along_the_teachers_change() -> None:
    """Half the change, and as much across it, at one level; at another twice the change and nothing is heard."""
    wanted, across = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    own = Heard.between(wanted, 0.5 * wanted + 0.5 * across)
    assert (own.part, own.left) == (0.5, 0.5)
    both = own + Heard.between(2 * wanted, torch.zeros(2))
    assert both.part == pytest.approx(2 / 20)
    assert both.left == pytest.approx((2 + 16) / 20)


def test_the_page_says_what_was_measured_and_nothing_else() -> None:
    assert section({}) == ""
    scales = {f"{scale:g}": {"has": scale / 20, "wrong by": 0.25} for scale in (1.5, 3.0, 5.0, 15.0)}
    row = {"embedding": 0.5, **scales}
    assert section({"3-ssr": row}).splitlines()[-1] == (
        "| 3-ssr | 0.500 | 0.07 | 0.25 | 0.15 | 0.25 | 0.25 | 0.25 | 0.75 | 0.25 |"
    )
