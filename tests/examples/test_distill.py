"""Distilling a stage: killed anywhere it ends with the same bytes, and its rungs are measured once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import distill
import pytest
import rungs
import torch
from distill_methods import direct_of, emphasis_of
from distill_parts import Teller, blank
from distilled_stages import (
    RECIPES,
    Chosen,
    choose_weights,
    few_student,
    find_student,
    is_guided,
    jumps_of,
    short_hash,
    student_stage,
    times_of,
)
from ledger import Ledger
from rungs_page import NOTES, in_all, tables, verdict, write_page
from rungs_plain import plain, section
from sampling import SAMPLING, model_of
from stages import BASE, PLANS, Plan
from student_measures import VIEWS, case
from torch import Tensor

from vdm_blocks.checkpoint import read_info, save_network
from vdm_blocks.diffusion import KeyedNoise
from vdm_blocks.distillation import FreshNoise, with_guidance_scale
from vdm_blocks.metrics import psnr
from vdm_blocks.models import LevelSpec, TemporalConvSpec, TextAttentionSpec, UNetSpec, build_network
from vdm_blocks.sampling import Ancestral, uniform_times
from vdm_blocks.types import Conditioning

WITHOUT: dict[str, list[dict[str, object]]] = {}
LEVEL = LevelSpec(channels=16, temporal=TemporalConvSpec(), text=TextAttentionSpec(heads=1))


class Words:
    """Captions as the lengths of their words."""

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor([[len(word) for word in (c.split() + [""] * 4)[:4]] for c in captions])
        return rows[..., None].expand(-1, -1, 384) / 8.0, rows > 0


def tiny(name: str) -> Plan:
    """A stage with next to no network and few pixels."""
    plan = next(plan for plan in PLANS if plan.name == name)
    assert isinstance(plan.unet, UNetSpec)
    unet = replace(plan.unet, levels=(LEVEL,), embedding=32, text_inner=16)
    crop = None if plan.training.crop is None else (32, 48)
    return replace(plan, unet=unet, training=replace(plan.training, crop=crop))


@pytest.fixture(autouse=True)
def _few_pixels_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, "2-tsr", (8, None))
    monkeypatch.setitem(VIEWS, "6-tsr", (8, (32, 48)))
    monkeypatch.setitem(SAMPLING, "1-base", replace(SAMPLING["1-base"], steps=3))


@pytest.fixture(scope="module", params=["1-base", "6-tsr"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return tiny(request.param)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    network = build_network(plan.unet)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn_like(p))
    save_network(folder / f"{plan.name}.safetensors", network)
    return folder


def arguments(weights: Path, out: Path, *more: str) -> argparse.Namespace:
    given = ["--smoke", "--weights", str(weights), "--out", str(out), "--save-every", "1", "--threads", "1",
             "--device", "cpu", "--quiet", *more]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["distill.py", *given])
        return distill.arguments()


def rung_arguments(weights: Path, runs: Path) -> argparse.Namespace:
    kept = str(runs.parent / "kept")
    return argparse.Namespace(
        weights=str(weights),
        runs=str(runs),
        kept=kept,
        full=4,
        seeds=2,
        oscillate=False,
        quiet=True,
        readings=2,
    )


def distilled(plan: Plan, args: argparse.Namespace) -> Path:
    distill.Distillation(plan, Words(), args).run()  # type: ignore[arg-type]
    return Path(args.students) / f"{plan.name}.safetensors"


class Killed(Exception):  # noqa: N818
    pass


def test_a_killed_distillation_ends_with_the_same_bytes_and_its_rungs_are_measured_once(
    tmp_path: Path, plan: Plan, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rung that is shipped; the one below shows where it breaks.
    own = replace(RECIPES[plan.name], shipped=2, method="progressive")
    monkeypatch.setitem(RECIPES, plan.name, own)
    whole = distilled(plan, arguments(weights, tmp_path / "whole"))
    tell = Teller.__call__
    kills = [("guidance", 1), ("rungs", 3)] if is_guided(plan) else [("rungs", 3)]
    for what, update in kills:

        def killed(self: Teller, done: int, loss: float, at: tuple[str, int] = (what, update)) -> None:
            tell(self, done, loss)
            if (self.what, done) == at:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Teller, "__call__", killed)
            with pytest.raises(Killed):
                distilled(plan, arguments(weights, tmp_path / "broken"))
    broken = distilled(plan, arguments(weights, tmp_path / "broken"))
    assert broken.read_bytes() == whole.read_bytes()
    info = read_info(broken)
    assert info.spec == plan.unet
    assert (info.adapter is not None) == is_guided(plan)
    (folder,) = (tmp_path / "whole").glob(f"{plan.name}-*")
    left = {path.name for path in folder.iterdir() if path.suffix == ".safetensors"}
    assert left == {"rung-0002.safetensors", "rung-0001.safetensors"} | (
        {"guidance.safetensors"} if is_guided(plan) else set()
    )
    few = read_info(few_student(plan, 1, broken.parent)).notes
    assert (few["method"], few["rung"], few["teacher"]) == ("progressive", "1", info.notes["teacher"])
    assert not few_student(plan, 2, broken.parent).exists()
    logged = (folder / "rungs.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in logged] == ["step", "0", "1", "2", "3"]
    with pytest.raises(ValueError, match="holds another run"):
        distilled(plan, arguments(weights, tmp_path / "whole", "--seed", "1"))

    given = rung_arguments(weights, tmp_path / "whole")
    ledger = Ledger(tmp_path / "kept" / "rungs.jsonl")
    rows = rungs.measure(plan, Words(), ledger, given)  # type: ignore[arg-type]
    by = {(row["name"], row["steps"]): row["videos"] for row in rows}
    calls = 2 if is_guided(plan) else 1
    assert [video["evaluations"] for video in by["teacher", 4]] == [4 * calls] * 2
    assert [video["evaluations"] for video in by["undistilled", 2]] == [2 * calls] * 2
    assert [video["evaluations"] for video in by["student", 2]] == [2, 2]
    assert all(video["distance"] < 1e-2 for video in by["teacher", 4])  # bytes
    assert all(video["distance"] > by["teacher", 4][0]["distance"] for video in by["undistilled", 1])
    monkeypatch.setattr(rungs, "sampled", None)
    again = Ledger(tmp_path / "kept" / "rungs.jsonl")
    assert rungs.measure(plan, Words(), again, given) == rows  # type: ignore[arg-type]
    assert "undistilled" in tables(rows)
    assert all(("read" in row) == (plan.name == "1-base") for row in rows)
    for row in rows:
        read = row.get("read", {"prompts": 2, "object": 0, "right": 0, "named": 2})
        assert read["prompts"] == 2
        assert read["object"] <= read["right"] <= read["named"]
    monkeypatch.setattr("rungs_page.picture", lambda *_: False)
    write_page(tmp_path, rows, [p.name for p in PLANS], without=WITHOUT, scales={}, seeds=2, full_steps=4)
    page = (tmp_path / "distillation.md").read_text()
    assert page.count("Not measured yet.") == len(PLANS) - 1
    assert "| student | 2 |" in page
    (tmp_path / "distillation.md").write_text(
        f"# Old\n\n{NOTES[0]}\nBy hand.\n{NOTES[1]}\n\nThe old tables.\n"
    )
    write_page(tmp_path, rows, [p.name for p in PLANS], without=WITHOUT, scales={}, seeds=2, full_steps=4)
    assert (tmp_path / "distillation.md").read_text() == page.replace(
        "\n\n## 1-base", f"\n\n{NOTES[0]}\nBy hand.\n{NOTES[1]}\n\n## 1-base"
    )


def test_figures_without_a_network_are_those_of_the_truth_and_of_what_is_trivial() -> None:
    truth, other = plain(PLANS[0], 2)
    assert truth["quality"] == []
    assert min(truth["fit"]) > max(other["fit"])
    (blended,) = plain(PLANS[1], 1)
    video = case(PLANS[1], 0).video
    known, unknown = video[:, :, ::2], video[:, :, 1:-1:2]
    between = (known[:, :, :-1] + known[:, :, 1:]) / 2
    by_hand = torch.full((video.shape[2],), 60.0)  # of a frame that is known
    by_hand[1:-1:2] = psnr(between, unknown).clamp(max=60)[0]
    by_hand[-1] = psnr(known[:, :, -1:], video[:, :, -1:]).clamp(max=60)
    assert blended["fit"] == [pytest.approx(float(by_hand.mean()), abs=1e-3)]
    page = section({"1-base": [truth, other], "2-tsr": [blended]})
    assert f"| 2-tsr | the stage before, interpolated | {blended['quality'][0]:.3f} | " in page
    assert section({}) == ""


def test_the_page_adds_up_what_eight_steps_save_and_what_is_shipped() -> None:
    def row(name: str, steps: int, evaluations: float, seconds: float) -> dict[str, float | str]:
        more = {"distance": 0.1, "quality": 1.0, "quality spread": 0.1}
        return {"name": name, "steps": steps, "evaluations": evaluations, "seconds": seconds, **more}

    stages = {
        "1-base": [row("teacher", 256, 512, 50.0), row("student", 8, 8, 1.0)],
        "4-ssr": [
            row("teacher", 128, 128, 70.0),
            row("undistilled", 8, 8, 3.0),
            row("student", 8, 8, 2.0),
            row("student, as shipped", 4, 4, 1.0),
        ],
        "7-ssr": [row("teacher", 128, 128, 9.0)],
    }
    said = in_all(stages)
    assert "the stages measured (2) take 16 evaluations instead of their teachers' 640" in said
    assert "40.0 times fewer (by stage 64, 16)" in said
    assert "3.0 seconds instead of 120, 40.0 times less" in said
    assert (
        "With what is shipped the stages measured (1) take 4 evaluations instead of their teachers' 128"
        in said
    )
    assert "those of the undistilled network, in 8 evaluations, 0.100" in verdict(stages["4-ssr"])
    assert in_all({"7-ssr": stages["7-ssr"]}) == ""


def test_a_student_may_be_shipped_with_its_guidance_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny("1-base")
    monkeypatch.setitem(RECIPES, "1-base", replace(RECIPES["1-base"], method="guidance"))
    save_network(tmp_path / "1-base.safetensors", build_network(plan.unet))
    shipped = distilled(plan, arguments(tmp_path, tmp_path / "out", "--method", "guidance"))
    assert read_info(shipped).notes["method"] == "guidance"
    assert shipped.with_name("1-base-guidance.csv").read_text().count("\n") == 3
    other, args = tiny("6-tsr"), arguments(tmp_path, tmp_path / "out", "--method", "guidance")
    save_network(tmp_path / "6-tsr.safetensors", build_network(other.unet))
    with pytest.raises(ValueError, match="guidance of 6-tsr is off"):
        distilled(other, args)


@pytest.mark.parametrize("method", ["multistep", "consistency", "matching", "adversarial"])
def test_other_methods_leave_their_student_beside_the_rungs_and_may_ship_it(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny("2-tsr")
    save_network(tmp_path / "2-tsr.safetensors", build_network(plan.unet))
    args = arguments(tmp_path, tmp_path / "out", "--method", method, "--end", "2")
    distill.Distillation(plan, Words(), args).run()  # type: ignore[arg-type]
    (made,) = (tmp_path / "out").glob(f"2-tsr-*/{method}-0002.safetensors")
    assert made.with_suffix(".csv").read_text().count("\n") == 2
    assert not (Path(args.students) / "2-tsr.safetensors").exists()
    when = made.stat().st_mtime_ns
    monkeypatch.setitem(RECIPES, "2-tsr", replace(RECIPES["2-tsr"], method=method, shipped=2))
    distill.Distillation(plan, Words(), arguments(tmp_path, tmp_path / "out")).run()  # type: ignore[arg-type]
    assert made.stat().st_mtime_ns == when
    shipped = Path(args.students) / "2-tsr.safetensors"
    assert read_info(shipped).notes["method"] == method
    assert (shipped.parent / "2-tsr-steps.csv").read_bytes() == made.with_suffix(".csv").read_bytes()
    named = {
        (way.name, way.steps) for way in rungs.variants(plan, rung_arguments(tmp_path, tmp_path / "out"))
    }
    assert {(method, 2), ("guidance alone", 2), ("guidance alone", 1)} <= named
    assert ((method, 4) in named) == (method == "consistency")


@pytest.mark.parametrize("name", ["1-base", "3-ssr", "7-ssr"])
def test_a_stages_grid_halves_all_the_way_down_and_ends_from_its_last_time(name: str) -> None:
    plan = next(plan for plan in PLANS if plan.name == name)
    last = RECIPES[name].last
    for steps in (16, 8, 4, 2, 1):
        times, jumps = times_of(plan, steps), jumps_of(plan, steps)
        assert (float(times[0]), float(times[-1])) == (1.0, 0.0)
        between = last + (1 - last) / steps
        assert float(times[-2]) == pytest.approx(between, abs=1e-12)
        assert all(t > mid > s for t, mid, s in jumps)
        assert all(jumps.makes(float(t), float(s)) for t, s in pairwise(times))
        assert jumps.by_way_of(jumps_of(plan, 2 * steps)) == jumps
    assert (times_of(BASE, 8) == uniform_times(8)).all()


def test_a_student_is_sampled_by_the_recipe_s_rule_unless_another_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = tiny("1-base")
    network = blank(plan, "progressive")
    assert student_stage(plan, network, 8).step == RECIPES["1-base"].rule
    assert student_stage(plan, network, 4, rule=FreshNoise()).step == FreshNoise()
    monkeypatch.setitem(RECIPES, "1-base", replace(RECIPES["1-base"], rule=Ancestral()))
    assert student_stage(plan, network, 8).step == Ancestral()


def test_an_error_counts_relative_to_the_scale_that_the_target_grows_with() -> None:
    guided, unguided = tiny("2-tsr"), tiny("6-tsr")
    student, other = (model_of(plan, blank(plan, "guidance")) for plan in (guided, unguided))
    logsnr, level = torch.zeros(2), torch.tensor([3.0, 3.0])
    cond = with_guidance_scale(Conditioning(aug_logsnr=level), torch.tensor([1.0, 4.0]))
    emphasis, plain = emphasis_of(guided, student), emphasis_of(unguided, other)
    assert emphasis is not None
    assert plain is not None
    own = plain(logsnr, cond)
    assert torch.allclose(emphasis(logsnr, cond), own / torch.tensor([1.0, 16.0]))
    assert float(own[0]) == float(own[1]) > 0


@pytest.mark.parametrize("method", ["matching", "adversarial"])
def test_the_student_and_its_critic_take_turns(method: str) -> None:
    plan = tiny("1-base")
    torch.manual_seed(0)
    teacher, student = (model_of(plan, build_network(plan.unet)) for _ in range(2))
    roles, turns = direct_of(plan, method, teacher.requires_grad_(False), student, 2, 4)
    x0 = torch.rand(1, 3, *plan.grid.shape)
    cond = Conditioning(text=torch.zeros(1, 2, 384), text_mask=torch.ones(1, 2, dtype=torch.bool))
    for update, learner in ((0, "critic"), (5, "student")):
        roles.zero_grad(set_to_none=True)
        turns(update)(x0, cond, generator=KeyedNoise(seeds=(0,), stage=f"{update}")).sum().backward()
        learned = {role: [p for p in own.parameters() if p.grad is not None] for role, own in roles.items()}
        assert [role for role, own in learned.items() if own] == [learner]
    heads = [name for name, _ in roles["critic"].named_children()]
    assert ("head" in heads) == (method == "adversarial")


def test_which_weights_the_demo_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny("6-tsr")
    monkeypatch.setitem(RECIPES, "6-tsr", replace(RECIPES["6-tsr"], shipped=8))
    teacher, student = tmp_path / "6-tsr.safetensors", tmp_path / "students" / "6-tsr.safetensors"
    save_network(teacher, build_network(plan.unet))
    own = Chosen(weights=teacher, steps=SAMPLING["6-tsr"].steps, student=False)
    assert choose_weights(plan, "default", tmp_path) == replace(own, why="it has no student yet")
    student.parent.mkdir()
    save_network(student, build_network(plan.unet), notes={"teacher": "another"})
    stale = "its student is that of other weights"
    assert choose_weights(plan, "default", tmp_path) == replace(own, why=stale)
    save_network(student, build_network(plan.unet), notes={"teacher": short_hash(teacher)})
    assert choose_weights(plan, "default", tmp_path) == Chosen(weights=student, steps=8, student=True)
    monkeypatch.setitem(RECIPES, "6-tsr", replace(RECIPES["6-tsr"], shipped=4))
    assert choose_weights(plan, "default", tmp_path) == Chosen(weights=student, steps=4, student=True)
    assert choose_weights(plan, "full", tmp_path) == own
    assert choose_weights(plan, "4", tmp_path) == Chosen(weights=student, steps=4, student=True)
    assert choose_weights(plan, "32", tmp_path) == Chosen(weights=teacher, steps=32, student=False)
    with pytest.raises(ValueError, match="give 'full', 'default'"):
        choose_weights(plan, "some", tmp_path)
    with pytest.raises(ValueError, match="is missing; distil it"):
        find_student(tiny("2-tsr"), tmp_path)
    save_network(tmp_path / "2-tsr.safetensors", build_network(tiny("2-tsr").unet))
    with pytest.raises(ValueError, match="holds another network"):
        find_student(tiny("2-tsr"), tmp_path)  # one that is not told the scale
