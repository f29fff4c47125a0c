"""The evaluation's arithmetic, on rows and clips whose answer is known."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluate
import evaluate_base
import evaluate_stages
import pytest
import torch
from ledger import Ledger, Progress, Row
from results_page import page
from stages import PLANS

from vdm_blocks.checkpoint import save_network
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.models import LevelSpec, UNetSpec, VideoUNet

CASCADE = Path(__file__).resolve().parents[2] / "examples" / "cascade"


@pytest.fixture(scope="module")
def pack() -> SpritePack:
    return SpritePack.load(CASCADE / "sprites")


def test_a_ledger_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "rows.jsonl"
    first = Ledger(file)
    first.add("a", {"x": 1})
    first.add("b", {"x": 2})
    file.write_text(file.read_text() + '{"key": "c", "x"')
    again = Ledger(file)
    assert again.missing(["a", "b", "c"]) == ["c"]
    assert again.present(["b", "c", "a"]) == [{"x": 2}, {"x": 1}]
    again.add("c", {"x": 3})  # not glued to the torn line
    assert Ledger(file).present(["a", "b", "c"]) == [{"x": 1}, {"x": 2}, {"x": 3}]


def test_two_ledgers_on_one_file_lose_nothing(tmp_path: Path) -> None:
    one, two = Ledger(tmp_path / "rows.jsonl"), Ledger(tmp_path / "rows.jsonl")
    for number in range(5):
        one.add(f"one {number}", {"x": number})
        two.add(f"two {number}", {"x": number})
    assert len(Ledger(tmp_path / "rows.jsonl").rows) == 10


def test_progress_is_silent_when_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet, said in ((True, ""), (False, "work 2/2  0.0 min left\n")):
        progress = Progress("work", 2, quiet=quiet)
        progress(2)
        assert capsys.readouterr().out == said


def test_prompts_are_half_held_out_and_name_what_is_true(pack: SpritePack) -> None:
    held_out = HeldOut.load(CASCADE / "heldout.json")
    made = evaluate_base.prompts(pack, held_out, 20)
    assert [held_out.holds(prompt.scene) for prompt in made] == [False, True] * 10
    assert made[:10] == evaluate_base.prompts(pack, held_out, 10)
    for prompt in made:
        for name in ("object", "second", "color", "place"):
            assert prompt.named.get(name, "") in prompt.text
        assert ("color" in prompt.named) == any(one.color for one in prompt.scene.objects)
    seeds = {evaluate_base.seed_of(prompt, seed) for prompt in made for seed in (0, 1)}
    assert len(seeds) == 40


def test_another_judge_reads_the_same_videos(pack: SpritePack, tmp_path: Path) -> None:
    made = evaluate_base.prompts(pack, HeldOut.load(CASCADE / "heldout.json"), 4)
    for name in ("model", "retrained", "judge", "other"):
        (tmp_path / name).write_text(name)

    def run(weights: str, judge: str, steps: int = 8) -> evaluate_base.BaseRun:
        return evaluate_base.BaseRun(
            weights=tmp_path / weights, judge=tmp_path / judge, steps=steps, count=4, seeds=(0, 1)
        )

    first, again = run("model", "judge"), run("model", "other")
    assert len(first.videos(made)) == len(set(first.keys(made))) == 8
    assert first.videos(made) == again.videos(made)
    assert not set(first.keys(made)) & set(again.keys(made))
    for other in (run("retrained", "judge"), run("model", "judge", steps=9)):
        assert not set(first.videos(made)) & set(other.videos(made))
    track = replace(made[0].scene.subject.track, size=0.9)
    larger = replace(made[0].scene, subject=replace(made[0].scene.subject, track=track))
    redrawn = [replace(made[0], scene=larger), *made[1:]]
    assert first.videos(redrawn) == {
        key: (redrawn[made.index(p)], s) for key, (p, s) in first.videos(made).items()
    }
    assert len(set(first.keys(redrawn)) & set(first.keys(made))) == 6  # its render is read anew
    files = {evaluate_base.kept(tmp_path, key) for key in first.videos(made)}
    assert len(files) == 8


def reading(thing: str, motion: str) -> Row:
    return {"object": thing, "motion": motion, "color": "red"}


def test_the_share_of_right_readings_its_error_and_chance() -> None:
    rows = [
        {
            "split": "seen",
            "index": i,
            "prompt": str(i),
            "named": {"object": thing, "motion": "spins"},
            "video": reading("cat" if i < 3 else thing, "spins"),
            "render": reading(thing, "jumps" if i == 0 else "spins"),
        }
        for i, thing in enumerate(["cat", "dog", "cat", "owl"])
    ]
    table = {row["attribute"]: row for row in evaluate_base.summary(rows)}
    assert table.keys() == {"object", "motion"}  # no prompt names a colour
    cats = table["object"]
    assert (cats["video"], cats["render"], cats["videos"]) == (0.75, 1.0, 4)
    assert cats["video error"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    # Of the 12 pairs of a video with another's prompt, the readings cat, cat, cat, owl fit 1 + 2 + 1 + 0.
    assert cats["chance"] == pytest.approx(4 / 12)
    assert table["motion"]["render"] == 0.75
    assert table["motion"]["chance"] == 1.0


def test_videos_of_one_prompt_are_no_more_prompts() -> None:
    named = {"motion": "spins"}
    rows = [
        {
            "split": "seen",
            "index": i,
            "prompt": str(i),
            "named": named,
            "video": reading("", said),
            "render": named,
        }
        for i, said in ((0, "spins"), (0, "spins"), (1, "falls"), (1, "spins"))
    ]
    (motion,) = evaluate_base.summary(rows)
    assert (motion["prompts"], motion["videos"], motion["video"]) == (2, 4, 0.75)  # of shares 1 and 1/2
    assert motion["video error"] == pytest.approx(0.25)


def test_the_baselines_are_what_they_are_called() -> None:
    low = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 3, 3, 2, 2) / 4
    time = evaluate_stages.baselines(low, torch.Size((1, 3, 6, 2, 2)))
    assert (time["repeat"][0, 0, :, 0, 0] * 4).tolist() == [0, 0, 1, 1, 2, 2]
    assert (time["blend"][0, 0, :, 0, 0] * 4).tolist() == [0, 0.5, 1, 1.5, 2, 2]
    ramp = torch.linspace(-0.5, 0.5, 8).view(1, 1, 1, 1, 8).expand(1, 3, 2, 4, 8)
    space = evaluate_stages.baselines(ramp, torch.Size((1, 3, 2, 8, 16)))
    assert all(video.shape == (1, 3, 2, 8, 16) for video in space.values())
    torch.testing.assert_close(space["nearest"], ramp.repeat_interleave(2, 3).repeat_interleave(2, 4))
    exact = torch.linspace(-0.5 - 0.25 / 7, 0.5 + 0.25 / 7, 16)
    torch.testing.assert_close(space["bilinear"][0, 0, 0, 0, 2:-2], exact[2:-2])


def test_a_temporal_stage_is_scored_on_the_frames_it_adds() -> None:
    truth = torch.rand(1, 3, 4, 12, 12) - 0.5
    video = truth.clone()
    video[:, :, ::2] = 1  # the known frames do not count
    assert evaluate_stages.scores(video, truth, 2)[0] == evaluate_stages.CEILING
    video[:, :, 1::2] += 0.2
    psnr, _ = evaluate_stages.scores(video, truth, 2)
    assert psnr == pytest.approx(20, abs=1e-4)
    assert evaluate_stages.scores(video, truth, 1)[0] < 20


def test_every_stage_has_a_view_that_divides() -> None:
    assert set(evaluate_stages.VIEWS) == {plan.name for plan in PLANS[1:]}
    for plan in PLANS[1:]:
        frames, height, width = evaluate_stages.view(plan).raster(0, 0, duration=16 / 3).shape
        divisor = plan.unet.divisor
        assert not height % divisor
        assert not width % divisor
        assert not frames % evaluate_stages.factors(plan)[0]


def test_readings_of_clips_that_are_drawn_otherwise_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_text("w")
    found = []
    for stream in (evaluate_stages.STREAM, evaluate_stages.STREAM, evaluate_stages.STREAM + 1):
        monkeypatch.setattr(evaluate_stages, "STREAM", stream)
        evaluate_stages.drawn.cache_clear()
        found.append(list(evaluate_stages.keys(PLANS[1], tmp_path / "weights", ("sprites", "footage"), 1)))
    evaluate_stages.drawn.cache_clear()
    first, again, other = found
    assert first == again
    assert first[0] != other[0]
    assert first[1] == other[1]


def stage_row(own: float, best: float) -> Row:
    values = {"baseline bilinear": 20.0, "baseline nearest": 19.0}
    values |= {variant.name: own for variant in evaluate_stages.VARIANTS} | {"one step, SNR 10⁶": best}
    return values


def results() -> dict[str, Any]:
    rows = [
        {
            "stage": stage,
            "source": "sprites",
            "psnr": stage_row(own, best + i / 10),
            "ssim": stage_row(own, best),
        }
        for stage, own, best in (("3-ssr", 19.0, 25.0), ("4-ssr", 18.0, 17.0))
        for i in range(3)
    ]
    settings = {"3-ssr": {"view": "16x48x80", "sampling": "4 steps", "weights": "abc", "trained": "9"}}
    table = evaluate_stages.summary(rows)
    return {
        "command": "c", "date": "d", "torch": "t", "stages": {"table": table, "settings": settings}
    }  # fmt: skip


def test_gains_are_paired_and_against_the_best_baseline() -> None:
    row = results()["stages"]["table"][0]
    assert (row["baseline"], row["baseline mean"], row["clips"]) == ("bilinear", 20.0, 3)
    best = row["variants"]["one step, SNR 10⁶"]
    assert best["gain"] == pytest.approx(5.1)
    assert best["gain error"] == pytest.approx(0.1 / math.sqrt(3))


def test_the_page_says_where_a_stage_loses() -> None:
    text = page(results())
    assert "Not measured yet." in text  # the base
    assert "- **3-ssr** beats it only as *one step, SNR 10⁶* in PSNR on sprites, SSIM on sprites.\n" in text
    assert "- **4-ssr** is **below** it in every way in PSNR on sprites, SSIM on sprites.\n" in text
    assert json.loads(json.dumps(results())) == results()


def test_weights_of_another_network_do_not_spoil_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--clips", "2"])
    spec = UNetSpec(levels=(LevelSpec(channels=8),), embedding=32, text_width=0)
    save_network(tmp_path / "1-base.safetensors", VideoUNet(spec))
    found = evaluate.collect(evaluate.arguments(), tmp_path, Ledger(tmp_path / "rows"))
    assert found["stages"] == {"table": [], "settings": {}}
    assert "base" not in found


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (["--parts", "bass"], "--parts"),
        (["--prompts", "1"], "takes two at least"),
        (["--weights", "nowhere"], "train it"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    given: list[str],
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["evaluate.py", "--ledger", str(tmp_path / "rows"), *given]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.chdir(tmp_path)
    assert evaluate.main() == 2
    assert answer in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
