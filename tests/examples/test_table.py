"""The table's arithmetic, its rows and what it keeps, on numbers and stages whose answer is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import table
import table_read
import table_sample
import torch
from distilled_stages import RECIPES
from evaluate_base import RASTER, Prompt, prompts
from ledger import Ledger
from material import Captions
from sampling import SAMPLING, Constant, Sampling, Swinging, stage_for
from stages import PLANS, Plan
from table_bench import pairs
from table_collect import comparisons, upper_steps
from table_page import page
from table_read import REFERENCE_STREAM, Baselines, on_grid, scenes_digest
from table_rows import DEMO, FEWER, TABLE, TEACHER, Clip, Part, Row, all_rows
from table_rows import table as paper_rows
from table_sample import Sampler, chain, clipped, evaluations, link, missing
from table_sets import LEADING, Renders
from table_summary import compare, figure, figures, precision
from torch import Tensor
from word_states import WordStates

from vdm_blocks.cascade import Grid, Stage
from vdm_blocks.checkpoint import save_network
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.denoisers import DynamicThreshold, ModelDenoiser, StaticThreshold
from vdm_blocks.diffusion import CosineSchedule
from vdm_blocks.metrics import dynamic_degree, gaussian_distance
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
    rows = {row.name: row for row in all_rows()}
    assert len(rows) == len(all_rows())
    own = [row for row in rows.values() if row.group == TABLE]
    assert [row.steps for row in own] == ["256/128", "256/8", "8/8"] * 4
    guidance = [row.parts[0].guidance for row in own[::3]]
    assert guidance == [
        Constant(scale=6.0), Swinging(high=15.0, low=1.0), Constant(scale=7.0), Swinging(high=16.0, low=2.0)
    ]  # fmt: skip
    for row in own:
        assert len({part.guidance for part in row.parts}) == 1
        assert [part.student for part in row.parts] == [part.steps == 8 for part in row.parts]
    assert [row.steps for row in rows.values() if row.group == FEWER] == ["4/4", "2/2", "1/1"] * 2
    assert not any(part.student for row in rows.values() if row.group == TEACHER for part in row.parts)
    assert not any(row.is_long for row in all_rows()[len(paper_rows()) :])


def test_the_demo_s_rows_are_its_students_and_its_teachers() -> None:
    students, *teachers = (row for row in paper_rows() if row.group == DEMO)
    assert all(part.student and part.steps == 8 for part in students.parts)
    for row in teachers:
        assert not any(part.student for part in row.parts)
        assert [part.steps for part in row.parts] == [own.steps for own in SAMPLING.values()][
            : len(row.parts)
        ]


def test_the_stages_beyond_the_third_take_the_row_s_steps_or_what_the_demo_ships() -> None:
    rows = {row.name: row for row in all_rows()}
    assert upper_steps(rows["constant-256-128"]) == [128] * 3
    assert upper_steps(rows["constant-8-8"]) == [8] * 3
    assert upper_steps(rows["demo"]) == [RECIPES[name].shipped for name in ("4-ssr", "5-tsr", "6-tsr")]
    assert upper_steps(rows["demo-full"]) == [SAMPLING["4-ssr"].steps] * 3


def test_any_beginning_of_the_videos_has_many_prompts_and_seeds() -> None:
    assert pairs(8, 4, 3) == [(0, 0), (1, 1), (2, 2), (3, 0), (0, 1), (1, 2), (2, 0), (3, 1)]
    assert sorted(pairs(12, 4, 3)) == [(prompt, seed) for prompt in range(4) for seed in range(3)]
    with pytest.raises(ValueError, match="4 prompts and 3 seeds make 12 videos; got 13"):
        pairs(13, 4, 3)


def test_a_row_without_weights_says_so(tmp_path: Path) -> None:
    row = next(row for row in paper_rows() if row.name == "constant-8-8")
    why = missing(row, tmp_path)
    assert str(why).startswith("no weights of 1-base as it is planned")
    save_network(tmp_path / "1-base.safetensors", build_network(PLANS[0].unet))
    assert str(missing(row, tmp_path)).startswith("no student of 1-base's weights")
    full = next(row for row in paper_rows() if row.name == "constant-256-128")
    assert str(missing(full, tmp_path)).startswith("no weights of 2-tsr as it is planned")
    results = {
        "command": "c", "date": "d", "torch": "t",
        "comparisons": {"truth of x": {"title": "ground truth, less `x`", "videos": 2, "figures": {}}},
        "settings": {
            "device": "cpu", "prompts": 1, "seeds": 1, "batch": 1, "pool": 9, "width": 2, "leading": 1,
            "reference": 3,
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
    assert "| ground truth, less `x` | 2 |" in page(results)


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


def test_a_row_s_videos_are_keyed_by_how_they_are_made_and_not_by_what_is_made_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_sample, "weights_of", lambda _plan, _part, _folder: tmp_path)
    monkeypatch.setattr(table_sample, "digest", lambda _path: "weights")
    plan, part = PLANS[0], Part(steps=4, guidance=Constant(scale=6.0))
    key = link(plan, part, tmp_path)
    own = SAMPLING[plan.name]
    assert link(plan, replace(part, rule=own.rule, snr=plan.snr), tmp_path) == key
    others = [link(replace(plan, schedule=CosineSchedule()), part, tmp_path)]
    others += [link(plan, replace(part, **other), tmp_path) for other in (
        {"steps": 5}, {"guidance": Swinging()}, {"student": True}, {"rule": DDIM(eta=0.5)}, {"snr": 2.0},
        {"clip": Clip.NONE},
    )]  # fmt: skip
    assert len({key, *others}) == 1 + len(others)
    student = replace(part, student=True)
    before = link(plan, student, tmp_path)
    for other in ({"last": 0.2}, {"rule": DDIM(eta=0.5)}):
        monkeypatch.setitem(RECIPES, plan.name, replace(RECIPES[plan.name], **other))
        assert link(plan, student, tmp_path) != before
    # A demo that is guided otherwise leaves the paper's rows as they are.
    monkeypatch.setitem(SAMPLING, plan.name, replace(own, steps=99, guidance=Constant(scale=1.5)))
    assert link(plan, part, tmp_path) == key


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
    stage = tiny_stage()

    def build(plan: Plan, _part: Part, _folder: Path) -> Stage:
        built.append(plan.name)
        return stage

    monkeypatch.setattr(table_sample, "build", build)
    monkeypatch.setattr(table_sample, "chain", lambda _row, _folder: ["tiny"])
    row = Row(name="r", group="g", title="t", parts=(Part(steps=3, guidance=Constant()),))
    found: list[Tensor] = []
    for _ in range(2):
        sampler = Sampler(row, tmp_path, tmp_path / "videos", Ledger(tmp_path / "rows"), device="cpu")
        found.append(sampler.videos([(made[0], 0), (made[1], 1)], Captions(WordStates())))
        assert sampler.spent(made[0], 0)["evaluations"] == 3  # each, although the two were made together
    assert built == ["1-base"]  # the second sampler read what the first one kept
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])
    alone = Sampler(row, tmp_path, tmp_path / "others", Ledger(tmp_path / "other rows"), device="cpu")
    torch.testing.assert_close(alone.videos([(made[1], 1)], Captions(WordStates()))[0], found[0][1])


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
    of = Baselines(pack, HeldOut.load(CASCADE / "heldout.json"), made)
    assert float(dynamic_degree(of("frozen", 0))) == 0
    assert torch.equal(of("frozen", 0)[:, :, 0], of("truth", 0)[:, :, 8])
    assert torch.equal(of("shuffled", 1), of("truth", 3))
    assert not torch.equal(of("noise", 0), of("noise", 1))


def test_readings_of_scenes_that_are_drawn_otherwise_are_not_taken(
    pack: SpritePack, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = HeldOut.load(CASCADE / "heldout.json")
    before = scenes_digest(pack, held_out)
    assert scenes_digest(pack, held_out) == before
    monkeypatch.setattr(table_read, "REFERENCE_STREAM", REFERENCE_STREAM + 1)
    assert scenes_digest(pack, held_out) != before


def test_errors_are_over_prompts() -> None:
    several = figure({(0, 0): 1.0, (0, 1): 3.0, (1, 0): 3.0, (1, 1): 5.0})  # the prompts' means are 2 and 4
    assert several == {"mean": 3.0, "error": pytest.approx(1.0), "n": 4}
    assert figure({(0, 0): 1.0, (0, 1): 3.0}) == {"mean": 2.0, "error": None, "n": 2}


def reading(embedding: list[float]) -> dict[str, object]:
    plain = dict.fromkeys(("score", "steadiness", "change", "flicker", "edge"), 2.0)
    return {**plain, "embedding": embedding, "attributes": {"object": embedding[0] > 0}}


def test_precision_is_of_the_own_caption_in_the_whole_pool() -> None:
    pool = torch.eye(3)
    near, far = reading([0.9, 0.1, 0.0]), reading([0.0, 0.0, 1.0])
    found = precision({(0, 0): near, (1, 0): near, (1, 1): far, (2, 1): far, (7, 0): far}, pool)
    assert found == {(0, 0): 1.0, (1, 0): 0.0, (1, 1): 0.0, (2, 1): 1.0}  # prompt 7 is not in the pool


def test_figures_of_a_row_by_hand() -> None:
    readings = {(0, 0): reading([1.0, 0.0]), (1, 0): reading([0.0, 1.0])}
    found = figures(readings, torch.eye(2), Renders(torch.eye(2), extractor="x"))
    assert found["precision"] == {"mean": 1.0, "error": 0.0, "n": 2}
    assert found["object"]["mean"] == 0.5
    # Rows of length sqrt(2): k is (2 / 2 + 1)^3 = 8 of like and 1 of unlike, so 1 + 1 - 2 (8 + 1) / 2.
    assert found["kernel"]["mean"] == pytest.approx(-7.0)
    assert found["kernel"]["error"] is None  # one seed
    assert not {"frechet", "leading"} & found.keys()  # two videos, two numbers in an embedding
    assert "cpu" not in found


def test_the_kernel_distance_s_error_is_over_the_seeds_sets() -> None:
    alike, unlike = reading([1.0, 0.0]), reading([0.0, 1.0])
    readings = {(0, 0): alike, (1, 0): alike, (2, 1): unlike, (3, 1): unlike}
    renders = Renders(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), extractor="x")
    found = figures(readings, torch.eye(2), renders)["kernel"]
    # The seeds' sets have 8 + 8 - 2 8 = 0 and 8 + 8 - 2 = 14; all four (4 8 + 8) / 12 + 8 - 2 (16 + 2) / 4 = 7 / 3.
    assert found == {"mean": pytest.approx(7 / 3), "error": pytest.approx(7.0), "n": 4}


def test_the_leading_frechet_distance_is_of_the_directions_in_which_the_renders_differ_most() -> None:
    """Renders on the axes, the first ones oftener: those are the directions, and what lies off them is not seen."""
    wide = LEADING + 3
    often = [
        sign * axis for i, axis in enumerate(torch.eye(wide)) for sign in (1.0, -1.0) for _ in range(wide - i)
    ]
    renders = Renders(torch.stack(often), extractor="x")
    draw = torch.Generator().manual_seed(0)
    own = torch.nn.functional.normalize(torch.randn(LEADING + 2, wide, generator=draw), dim=1)
    found = renders.distances({(i, 0): reading(row.tolist()) for i, row in enumerate(own)})
    assert "frechet" not in found  # LEADING + 2 videos are too few for LEADING + 3 numbers
    one, other = ((x.double() * wide**0.5)[:, :LEADING] for x in (own, torch.stack(often)))
    by_hand = gaussian_distance(one.mean(0), one.T.cov(), other.mean(0), other.T.cov())
    assert found["leading"]["mean"] == pytest.approx(by_hand, rel=1e-6)
    assert (found["leading"]["error"] or 0.0) > 0


def test_the_difference_of_distances_is_that_of_the_rows() -> None:
    draw = torch.Generator().manual_seed(1)
    renders = Renders(torch.randn(8, 2, generator=draw), extractor="x")
    one, other = (
        {(i, i % 2): reading(row.tolist()) for i, row in enumerate(torch.randn(6, 2, generator=draw))}
        for _ in range(2)
    )
    before, after, apart = renders.distances(one), renders.distances(other), renders.differences(one, other)
    assert apart.keys() == {"kernel", "frechet", "leading"}
    for name, (difference, error) in apart.items():
        assert difference == pytest.approx((after[name]["mean"] or 0.0) - (before[name]["mean"] or 0.0))
        assert error is not None
        assert error > 0
    for difference, error in renders.differences(one, one).values():
        assert difference == error == 0


def test_a_difference_beyond_the_full_row_s_error_is_stated() -> None:
    def of(*scores: float) -> dict[tuple[int, int], dict[str, object]]:
        return {(i, 0): {**reading([1.0, 0.0]), "score": x, "cpu": x} for i, x in enumerate(scores)}

    full, pool = of(1.0, 3.0, 90.0), torch.eye(2)  # of the first two: 2 ± 1
    renders = Renders(torch.eye(2), extractor="x")
    near, far = (compare(full, of(0.5, last), pool, renders) for last in (2.5, 0.5))
    assert near["score"] == {"difference": -0.5, "error": pytest.approx(0.0), "within": True}
    assert far["score"] == {"difference": -1.5, "error": pytest.approx(1.0), "within": False}
    assert "cpu" not in near
    assert compare(full, of(0.5), pool, renders)["score"] == {
        "difference": -0.5,
        "error": None,
        "within": None,
    }


def test_rows_of_students_are_compared_with_the_full_row_of_their_guidance() -> None:
    own = {(0, 0): reading([1.0, 0.0])}
    names = (
        "constant-8-8",
        "constant-4-4",
        "constant-8-8-teacher",
        "constant-8-8-plus",
        "oscillate-8-8",
        "demo",
    )
    renders = Renders(torch.eye(2), extractor="x")
    found = comparisons(dict.fromkeys((*names, "constant-256-128", "truth"), own), torch.eye(2), renders)
    assert list(found) == ["truth of constant-256-128", "constant-8-8", "constant-4-4"]
    assert found["constant-4-4"]["videos"] == 1


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (["--row", "nothing"], "there is no row 'nothing'"),
        (["--videos", "0"], "--videos is 0"),
        (["--long-videos", "801"], "200 prompts, each with 4 seeds: 800 at most"),
        (["--scenes", "101", "--seeds", "2"], "50 scenes, each with 2 seeds: 100 at most"),
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
