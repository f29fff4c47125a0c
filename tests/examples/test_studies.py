"""The studies of training: what arms share, what is read of them, and that a stopped training goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import studies
import table_read
import torch
from material import Captions
from stages import Plan
from study_arms import STUDIES, BaseArm, Target, UpperArm, arms, recipe
from study_measures import coarse, colors, fine
from study_page import by_step, page
from study_train import Learner, train
from torch import Tensor
from word_states import WordStates

TINY = BaseArm(name="tiny", title="t", channels=(8, 8), embedding=16, steps=4, batch=2)
UPPER = UpperArm(name="up", title="t", target=Target.EPS, channels=8, steps=4, batch=2)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as narrow as the states of the words that stand in for captions."""
    for kind in (BaseArm, UpperArm):
        whole = kind.plan

        def smaller(arm: Any, whole: Any = whole) -> Plan:
            made: Plan = whole.__get__(arm)
            return replace(made, unet=replace(made.unet, text_width=WordStates.width))

        monkeypatch.setattr(kind, "plan", property(smaller))


def weights(learner: Learner) -> Tensor:
    return torch.cat([x.detach().flatten() for x in learner.network.parameters()])


def test_each_arm_is_trained_once_however_many_studies_it_stands_in() -> None:
    names = [arm.name for arm in arms()]
    assert len(names) == len(set(names))
    assert sum(len(study.arms) for study in STUDIES) == len(names) + 2  # the middle base stands in three
    assert recipe(TINY) == recipe(replace(TINY, title="another"))
    assert recipe(TINY) != recipe(replace(TINY, tokens=False))


def test_arms_of_the_same_samples_go_together() -> None:
    groups = studies.in_groups(arms())
    assert [[arm.name for arm in group] for group in groups] == [
        ["eps", "v", "residual"], ["small", "middle", "large", "pooled"], ["clips-alone"]
    ]  # fmt: skip


@pytest.mark.parametrize("arm", [TINY, UPPER, replace(UPPER, target=Target.RESIDUAL)])
def test_a_stopped_training_ends_as_an_unbroken_one(arm: BaseArm | UpperArm, tmp_path: Path) -> None:
    captions, ends = Captions(WordStates()), time.monotonic() + 600
    seen: list[int] = []

    def stop(learner: Learner, _spent: float) -> None:
        seen.append(learner.state.step)
        if learner.state.step == 2:
            learner.save()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([arm], 0, tmp_path / "broken", captions, stop, ends=ends, quiet=True)
    for folder in ("broken", "whole"):
        assert train([arm], 0, tmp_path / folder, captions, lambda *_: None, ends=ends, quiet=True)
    broken, whole = (Learner(arm, 0, tmp_path / folder) for folder in ("broken", "whole"))
    assert broken.state.step == whole.state.step == 4
    assert torch.equal(weights(broken), weights(whole))
    assert not torch.equal(weights(whole), weights(Learner(arm, 0, tmp_path / "none")))
    assert seen[-1] == 2
    other = Learner(arm, 1, tmp_path / "none")
    with pytest.raises(ValueError, match="seed"):
        other.state.load(whole.file, run=other.identity)


def test_company_does_not_change_a_training(tmp_path: Path) -> None:
    captions, ends = Captions(WordStates()), time.monotonic() + 600
    one, two = (replace(TINY, steps=2), replace(TINY, name="other", channels=(8, 16), steps=2))
    for group, folder in (([one], "alone"), ([two, one], "together")):
        assert train(group, 0, tmp_path / folder, captions, lambda *_: None, ends=ends, quiet=True)
    assert torch.equal(
        weights(Learner(one, 0, tmp_path / "alone")), weights(Learner(one, 0, tmp_path / "together"))
    )


def test_networks_of_other_scenes_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = studies.runs_of(tmp_path)
    assert studies.runs_of(tmp_path) == before
    monkeypatch.setattr(table_read, "REFERENCE_STREAM", table_read.REFERENCE_STREAM + 1)
    assert studies.runs_of(tmp_path) != before


def test_time_that_is_over_is_said(tmp_path: Path) -> None:
    captions = Captions(WordStates())
    assert not train([TINY], 0, tmp_path, captions, lambda *_: None, ends=time.monotonic() - 1, quiet=True)


def test_a_shift_of_colour_is_measured_in_steps_of_255() -> None:
    truth = torch.zeros(1, 3, 4, 2, 2)
    video = truth.clone()
    video[:, :, 1] += 2 * 3 / 255  # one frame of four is 3 steps brighter
    found = colors(video, truth)
    assert found["shift"] == pytest.approx(3 / 4)
    assert found["drift"] == pytest.approx(3 * (1 / 4 * 3 / 4) ** 0.5)
    assert colors(truth, truth)["shift"] == 0


def test_the_small_grid_goes_there_and_back() -> None:
    video = torch.rand(1, 3, 16, 1, 1).expand(1, 3, 16, 24, 40)
    small = coarse(video)
    assert small.shape == (1, 3, 8, 12, 20)
    torch.testing.assert_close(small[0, :, :, 0, 0], video[0, :, ::2, 0, 0])
    torch.testing.assert_close(fine(small)[:, :, ::2], video[:, :, ::2])


def test_the_page_says_what_is_there_and_what_is_not() -> None:
    row = {"step": 4, "cpu": 1.0, **dict.fromkeys(("loss", "score", "precision", "frechet", "kernel"), 0.5)}
    arm = {"parameters": 1_000_000, "readings": [{**row, "seed": 0}, {**row, "seed": 1, "loss": 0.7}]}
    none = {"parameters": 1_000_000, "readings": []}
    text = page(
        {
            "command": "c", "date": "d", "torch": "t", "renders": None, "encoder": "E",
            "amount": {"prompts": 1, "base_steps": 2, "reference": 3},
            "arms": {"one": arm, "two": none},
            "studies": [{"name": "sizes", "title": "Sizes", "arms": {"one": "first", "two": "second"}}],
        }
    )  # fmt: skip
    assert "| first (`one`) | 1.00 M | 4 | 2 | 0.6000 ± 0.1000 | 0.5 ± 0.0 |" in text
    assert "Not trained yet: `two`." in text
    assert [len(own) for own in by_step(arm["readings"]).values()] == [2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "answer"),
    [(["--arm", "nothing"], "there is no arm 'nothing'"), (["--out", "nowhere"], "no folder")],
)
def test_the_command_refuses_in_a_sentence(
    given: list[str],
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["studies.py", "--runs", str(tmp_path), *given])
    monkeypatch.chdir(tmp_path)
    assert studies.main() == 2
    assert answer in capsys.readouterr().err
