"""The students that are shipped hear the guidance scale: told another, they answer as their guided teachers would."""

from __future__ import annotations

import pytest
from heard import heard, heard_of
from material import Captions
from stages import PLANS, Plan

from vdm_blocks.conditioning.minilm import MiniLMEncoder

LEAST = {"1-base": 1 / 3, "2-tsr": 0.15}
"""Of the teacher's change. There is far less of it in 2-tsr, whose student learned less; 3-ssr's hears nothing yet."""
GUIDED = [plan for plan in PLANS if plan.name in LEAST]


@pytest.mark.parametrize("plan", GUIDED, ids=[plan.name for plan in GUIDED])
def test_a_shipped_student_moves_with_the_scale_as_its_teacher_does(plan: Plan) -> None:
    parts = heard(plan, Captions(MiniLMEncoder.load()))
    assert sum(size for _, size in parts.values()) > 0
    assert heard_of(list(parts.values())) > LEAST[plan.name]


def test_what_is_heard_is_the_part_along_the_teachers_change() -> None:
    """Twice the change at one time and none at another, of three times the square."""
    assert heard_of([(2.0, 1.0), (0.0, 3.0)]) == 0.5
