"""The table's arithmetic, its rows and what it keeps, on numbers and stages whose answer is known."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import table
import table_sample
import torch
from evaluate_base import RASTER, Prompt, prompts
from ledger import Ledger
from material import Captions
from sampling import Constant, Sampling, Swinging, stage_for
from stages import PLANS, Plan
from table_page import page
from table_read import baseline, on_grid
from table_rows import DEMO, TABLE, TEACHER, Clip, Part, Row, ablations
from table_rows import table as paper_rows
from table_sample import Sampler, chain, clipped, evaluations, missing
from table_summary import compare, figure, figures, precision
from torch import Tensor
from word_states import WordStates

from vdm_blocks.cascade import Grid, Stage
from vdm_blocks.checkpoint import save_network
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.denoisers import DynamicThreshold, ModelDenoiser, StaticThreshold
from vdm_blocks.metrics import dynamic_degree
from vdm_blocks.models import LevelSpec, UNetSpec, VideoUNet, build_network
from vdm_blocks.sampling import DDIM, uniform_times
from vdm_blocks.types import Conditioning

CASCADE = Path(__file__).resolve().parents[2] / "examples" / "cascade"


@pytest.fixture(scope="module")
def pack() -> SpritePack:
    return SpritePack.load(CASCADE / "sprites")


@pytest.fixture(scope="module")
def made(pack: SpritePack) -> list[Prompt]:
    return prompts(pack, HeldOut.load(CASCADE / "heldout.json"), 6)


def test_the_rows_are_the_paper_s_in_both_readings() -> None:
    rows = {row.name: row for row in [*paper_rows(), *ablations()]}
    assert len(rows) == len(paper_rows()) + len(ablations())
    own = [row for row in rows.values() if row.group == TABLE]
    assert [row.steps for row in own] == ["256/128", "256/8", "8/8"] * 4
    guidance = [row.parts[0].guidance for row in own[::3]]
    assert guidance == [
        Constant(scale=6.0), Swinging(high=15.0, low=1.0), Constant(scale=7.0), Swinging(high=16.0, low=2.0)
    ]  # fmt: skip
    for row in own:
        assert [part.student for part in row.parts] == [part.steps == 8 for part in row.parts]
    assert not any(
        part.student for row in rows.values() if row.group in (TEACHER, DEMO) for part in row.parts
    )


def test_a_row_without_weights_says_so(tmp_path: Path) -> None:
    row = next(row for row in paper_rows() if row.name == "constant-8-8")
    why = missing(row, tmp_path)
    assert str(why).startswith("no weights of 1-base as it is planned")
    save_network(tmp_path / "1-base.safetensors", build_network(PLANS[0].unet))
    assert str(missing(row, tmp_path)).startswith("no student of 1-base's weights")
    full = next(row for row in paper_rows() if row.name == "constant-256-128")
    assert str(missing(full, tmp_path)).startswith("no weights of 2-tsr as it is planned")
    results = {
        "command": "c", "date": "d", "torch": "t", "comparisons": {},
        "settings": {
            "device": "cpu", "prompts": 1, "long prompts": 0, "seeds": 1, "pool": 9, "width": 2, "reference": 3,
            "encoder": {"sprites": {"R@1 of 32": 0.5}},
        },
        "rows": [
            {
                "name": row.name, "group": row.group, "title": row.title, "steps": row.steps, "stages": 3,
                "videos": 0, "figures": {}, "missing": why, "to the sixth": None,
            }
        ],
    }  # fmt: skip
    assert "- `constant-8-8`: no weights of 1-base" in page(results)


def test_rows_that_begin_alike_share_their_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_text("first")
    monkeypatch.setattr(table_sample, "weights_of", lambda _plan, _part, _folder: file)
    table_sample.digest.cache_clear()
    rows = {row.name: chain(row, tmp_path) for row in paper_rows()}
    full, fewer = rows["constant-256-128"], rows["constant-256-8"]
    assert full[0] == fewer[0]
    assert full[1] != fewer[1]
    assert rows["constant-8-8"][0] != rows["constant-8-8-teacher"][0]
    file.write_text("second")
    table_sample.digest.cache_clear()
    assert not {key for keys in rows.values() for key in keys} & set(chain(paper_rows()[0], tmp_path))
    table_sample.digest.cache_clear()


TINY = UNetSpec(levels=(LevelSpec(channels=8),), embedding=32, text_width=0)


def tiny_stage() -> Stage:
    return Stage(
        name="tiny", grid=Grid(frames=2, height=4, width=4, fps=3), denoiser=ModelDenoiser(VideoUNet(TINY)),
        step=DDIM(), times=uniform_times(3),
    )  # fmt: skip


def test_a_video_is_made_once_and_its_cost_remembered(
    made: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    def build(plan: Plan, _part: Part, _folder: Path) -> Stage:
        built.append(plan.name)
        return tiny_stage()

    monkeypatch.setattr(table_sample, "build", build)
    monkeypatch.setattr(table_sample, "chain", lambda _row, _folder: ["tiny"])
    row = Row(name="r", group="g", title="t", parts=(Part(steps=3, guidance=Constant()),))
    videos: list[Tensor] = []
    for _ in range(2):
        sampler = Sampler(row, tmp_path, tmp_path / "videos", Ledger(tmp_path / "rows"), device="cpu")
        videos += [sampler.video(made[0], seed, Captions(WordStates())) for seed in (0, 1)]
        assert sampler.spent(made[0], 0)["evaluations"] == 3
    assert built == ["1-base"]  # the second sampler read what the first one kept
    assert torch.equal(videos[0], videos[2])
    assert torch.equal(videos[1], videos[3])
    assert not torch.equal(videos[0], videos[1])


def test_guidance_counts_twice_and_a_low_scale_of_one_does_not() -> None:
    plan = PLANS[0]
    torch.manual_seed(0)
    counts = {}
    text = torch.zeros(1, 2, 6)
    cond = Conditioning(text=text, text_mask=torch.ones(1, 2, dtype=torch.bool))
    kinds: dict[str, Constant | Swinging] = {
        "off": Constant(scale=1.0),
        "on": Constant(scale=2.0),
        "swing": Swinging(constant=0.5),
    }
    for name, guidance in kinds.items():
        stage = stage_for(plan, VideoUNet(TINY), Sampling(steps=4, guidance=guidance))
        with evaluations(stage) as count:
            for t in uniform_times(4)[:-1]:
                stage.denoiser(torch.zeros(1, 3, 1, 4, 4), t, cond)
        counts[name] = count[0]
    assert counts == {"off": 4, "on": 8, "swing": 7}  # high, high, low, high


def test_only_a_guided_stage_is_clipped_otherwise() -> None:
    inner = ModelDenoiser(VideoUNet(TINY))
    guided = DynamicThreshold(inner)
    assert clipped(guided, Clip.DYNAMIC) is guided
    assert clipped(guided, Clip.NONE) is inner
    assert isinstance(clipped(guided, Clip.STATIC), StaticThreshold)
    loose = clipped(guided, Clip.LOOSE)
    assert isinstance(loose, DynamicThreshold)
    assert loose.quantile == 0.9
    plain = StaticThreshold(inner)
    assert clipped(plain, Clip.NONE) is plain


def test_a_finer_video_is_read_on_the_base_s_grid() -> None:
    coarse = torch.rand(1, 3, *RASTER.shape)
    fine = coarse.repeat_interleave(2, 3).repeat_interleave(2, 4).repeat_interleave(2, 2)
    fine[:, :, 1::2] = 9  # frames between the base's are not read
    torch.testing.assert_close(on_grid(fine), coarse)
    assert on_grid(coarse) is not None
    torch.testing.assert_close(on_grid(coarse), coarse)


def test_the_baselines_are_what_they_are_called(pack: SpritePack, made: list[Prompt]) -> None:
    held_out = HeldOut.load(CASCADE / "heldout.json")

    def of(name: str, number: int) -> Tensor:
        return baseline(name, pack, held_out, made, number)

    assert float(dynamic_degree(of("frozen", 0))) == 0
    assert torch.equal(of("frozen", 0)[:, :, 0], of("truth", 0)[:, :, 8])
    assert torch.equal(of("shuffled", 1), of("truth", 3))
    assert not torch.equal(of("noise", 0), of("noise", 1))


def test_errors_are_over_seeds_or_else_over_prompts() -> None:
    several = figure([[1.0, 3.0], [3.0, 5.0]])  # means 2 and 4
    assert several == {"mean": 3.0, "error": pytest.approx(1.0)}
    assert figure([[1.0, 3.0]]) == {"mean": 2.0, "error": pytest.approx(1.0)}
    assert math.isnan(figure([[1.0]])["error"])


def reading(embedding: list[float]) -> dict[str, object]:
    plain = dict.fromkeys(("score", "steadiness", "change", "flicker", "edge"), 2.0)
    return {**plain, "embedding": embedding, "attributes": {"object": embedding[0] > 0}}


def test_precision_is_of_the_own_caption_in_the_whole_pool() -> None:
    pool = torch.eye(3)
    own = {0: reading([0.9, 0.1, 0.0]), 1: reading([0.9, 0.1, 0.0]), 7: reading([0.0, 0.0, 1.0])}
    assert precision(own, pool) == [1.0, 0.0]  # the prompt outside the pool is left out


def test_figures_of_a_row_by_hand() -> None:
    readings = {(0, 0): reading([1.0, 0.0]), (1, 0): reading([0.0, 1.0])}
    found = figures(readings, torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), extractor="x")
    assert found["precision"] == {"mean": 1.0, "error": 0.0}
    assert found["object"]["mean"] == 0.5
    # Rows of length sqrt(2): k is (2 / 2 + 1)^3 = 8 of like and 1 of unlike, so 1 + 1 - 2 (8 + 1) / 2.
    assert found["kernel"]["mean"] == pytest.approx(-7.0)
    assert "frechet" not in found  # two videos, two numbers in an embedding
    assert "cpu" not in found


def test_a_difference_beyond_the_full_row_s_error_is_stated() -> None:
    full = {"score": {"mean": 30.0, "error": 1.0}, "cpu": {"mean": 9.0, "error": 1.0}}
    few = {"score": {"mean": 28.5, "error": 1.0}, "cpu": {"mean": 1.0, "error": 1.0}}
    assert compare(full, few) == {"score": {"within": False, "difference": -1.5}}
    assert compare(full, full)["score"]["within"]


def test_rows_are_compared_on_the_videos_that_both_have() -> None:
    full = {(0, 0): {"x": 1.0}, (0, 1): {"x": 3.0}, (1, 0): {"x": 90.0}}
    few = {(0, 0): {"x": 2.0}, (0, 1): {"x": 5.0}, (2, 0): {"x": -90.0}}

    def mean(readings: dict[tuple[int, int], dict[str, float]]) -> dict[str, dict[str, float]]:
        return {"score": figure([[row["x"]] for row in readings.values()])}

    seen = {"constant-8-8": few, "constant-256-128": full, "oscillate-8-8": few, "constant-8-8-teacher": few}
    found = table.comparisons(seen, mean)
    assert found == {
        "constant-8-8": {
            "videos": 2,
            "figures": {"score": {"within": False, "difference": pytest.approx(1.5)}},
        }
    }


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (["--row", "nothing"], "there is no row 'nothing'"),
        (["--prompts", "0"], "--prompts is 0"),
        (["--out", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    given: list[str],
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["table.py", "--ledger", str(tmp_path / "rows"), *given])
    monkeypatch.chdir(tmp_path)
    assert table.main() == 2
    assert answer in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
