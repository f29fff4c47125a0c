"""Students of fewer steps than are shipped: where they lie, how they are sampled, and what a row says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from distilled_stages import RECIPES, RULES, choose_weights, few_student, load_chosen, rule_of, short_hash
from sampling import Constant
from stages import BASE, PLANS, Phase
from student_batches import shared
from student_readings import total
from table_rows import FEWER, Part, Row
from table_sample import link, title_of

from vdm_blocks.checkpoint import save_network
from vdm_blocks.distillation import FreshNoise
from vdm_blocks.models import LevelSpec, UNetSpec, build_network
from vdm_blocks.sampling import DDIM

UPPER = PLANS[5]
assert isinstance(UPPER.unet, UNetSpec)
PLAN = replace(UPPER, unet=replace(UPPER.unet, levels=(LevelSpec(channels=16),), embedding=32, text_width=0))
PART = Part(steps=4, guidance=Constant(scale=1.0), student=True)
ROW = Row(name="few", group=FEWER, title="constant 1", parts=(PART,))


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stages here ship eight steps."""
    for name in ("6-tsr", "4-ssr"):
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], shipped=8))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A teacher, its shipped student, and one for four steps."""
    teacher = tmp_path / f"{PLAN.name}.safetensors"
    save_network(teacher, build_network(PLAN.unet))
    for path, method in (
        (tmp_path / "students" / teacher.name, "progressive"),
        (few_student(PLAN, 4, tmp_path / "students"), "consistency"),
    ):
        path.parent.mkdir()
        notes = {"teacher": short_hash(teacher), "method": method}
        save_network(path, build_network(PLAN.unet), notes=notes)
    return tmp_path


def test_the_student_of_a_number_of_steps_is_taken_before_the_shipped_one_and_sampled_by_its_own_method(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = weights / "students" / f"{PLAN.name}.safetensors"
    few = choose_weights(PLAN, "4", weights)
    assert few.weights == few_student(PLAN, 4, weights / "students")
    assert [choose_weights(PLAN, steps, weights).weights for steps in ("default", "8", "2")] == [shipped] * 3
    assert rule_of(PLAN, few.weights) == FreshNoise() == load_chosen(PLAN, few).step
    assert rule_of(PLAN, shipped) == RECIPES[PLAN.name].rule == DDIM()
    monkeypatch.setattr("table_sample.PLANS", (PLAN,))
    assert f"student by {FreshNoise()}" in link(PLAN, PART, weights)
    assert title_of(ROW, weights) == "constant 1, all distilled for these steps"
    few.weights.unlink()
    assert choose_weights(PLAN, "4", weights).weights == shipped


def test_what_is_shipped_is_not_replaced_by_what_an_earlier_run_left(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, PLAN.name, replace(RECIPES[PLAN.name], shipped=4))
    shipped = weights / "students" / f"{PLAN.name}.safetensors"
    for steps in ("default", "4"):
        chosen = choose_weights(PLAN, steps, weights)
        assert (chosen.weights, chosen.steps) == (shipped, 4)


def test_a_student_of_few_steps_of_other_weights_is_passed_over(weights: Path) -> None:
    save_network(
        few_student(PLAN, 2, weights / "students"), build_network(PLAN.unet), notes={"teacher": "other"}
    )
    assert choose_weights(PLAN, "2", weights).weights == weights / "students" / f"{PLAN.name}.safetensors"


def test_a_student_of_few_steps_says_its_method(weights: Path) -> None:
    path = few_student(PLAN, 1, weights / "students")
    save_network(path, build_network(PLAN.unet), notes={"method": "guessing"})
    with pytest.raises(ValueError, match=r"method 'guessing', and there are guidance, progressive"):
        rule_of(PLAN, path)
    assert set(RULES) >= {"guidance", "progressive"}


def test_a_row_says_which_of_its_students_were_distilled_for_its_steps(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(PLAN, name="4-ssr")
    for at in (weights, weights / "students"):
        save_network(
            at / "4-ssr.safetensors",
            build_network(PLAN.unet),
            notes={"teacher": short_hash(weights / "4-ssr.safetensors")} if at != weights else None,
        )
    monkeypatch.setattr("table_sample.PLANS", (PLAN, other))
    both = replace(ROW, parts=(PART, PART))
    assert title_of(both, weights) == f"constant 1, {PLAN.name} distilled for these steps"
    assert title_of(replace(ROW, parts=(replace(PART, steps=8),)), weights) == "constant 1"
    assert title_of(both, weights / "nowhere") == "constant 1"


def test_the_share_of_pictures_is_set_and_each_kind_keeps_its_mixture() -> None:
    phase = Phase(steps=1, batch=2, clips=0.6, images=0.2, ray_clips=0.15, ray_images=0.05)
    told = shared(phase, 0.5)
    assert (told.images + told.ray_images, told.clips + told.ray_clips) == pytest.approx((0.5, 0.5))
    assert (told.images / told.ray_images, told.clips / told.ray_clips) == pytest.approx((4.0, 4.0))
    assert shared(phase, None) is phase
    assert shared(BASE.training.phases[-1], 1.0).clips == 0


def test_readings_add_up() -> None:
    rows = [{"named": 3, "right": 2, "object": True}, {"named": 4, "right": 1, "object": False}]
    assert total(rows) == {"prompts": 2, "named": 7, "right": 3, "object": 1}
