from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vdm_blocks.data.backdrops import BACKDROPS
from vdm_blocks.data.captions import caption, still_caption
from vdm_blocks.data.colors import COLORS
from vdm_blocks.data.raster import Raster
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.scenes import LIGHTS, MOTIONS, RELATIONS, HeldOut, SpriteObject, SpriteScene, draw_scene
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.tint import split_tint
from vdm_blocks.data.tracks import Track
from vdm_blocks.data.truth import sprite_truth

CASCADE = Path(__file__).parents[2] / "examples" / "cascade"
HELD_OUT = HeldOut.load(CASCADE / "heldout.json")


@pytest.fixture(scope="module")
def pack() -> SpritePack:
    return SpritePack.load(CASCADE / "sprites")


def scenes(pack: SpritePack, count: int, seed: int = 0) -> list[SpriteScene]:
    return [draw_scene(pack.concepts, seed, i, held_out=HELD_OUT) for i in range(count)]


def test_the_pack_is_what_the_cascade_promises(pack: SpritePack) -> None:
    assert pack.pictures.shape[1:] == (16, 5, 128, 128)
    assert len(pack.named("actor")) >= 46
    assert len(pack.named("prop")) >= 14
    assert {"penguin", "umbrella"} <= set(pack.number)
    assert [level.shape[-1] for level in pack.levels] == [128, 64, 32, 16]
    rgb, alpha, tint = pack.pictures[:, :, :3], pack.pictures[:, :, 3:4], pack.pictures[:, :, 4]
    assert bool((rgb <= alpha).all()), "premultiplied colour never exceeds alpha"
    for concept in pack.concepts:
        tinted = (
            tint[pack.number[concept.name]].float().sum() / alpha[pack.number[concept.name]].float().sum()
        )
        assert (tinted > 0.3) if concept.role == "prop" else (tinted == 0), concept


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    index = json.loads((CASCADE / "sprites" / "index.json").read_text())
    index["sprites"] = index["sprites"][:1]
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"penguin\.webp"):
        SpritePack.load(tmp_path)
    (tmp_path / "penguin.webp").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"penguin\.webp"):
        SpritePack.load(tmp_path)
    with pytest.raises(ValueError, match="make_sprites"):
        SpritePack.load(tmp_path / "nowhere")


def test_tinting_with_its_own_colour_gives_back_a_plain_picture() -> None:
    picture = torch.zeros(1, 4, 16, 16)
    picture[:, 3, 4:12, 4:12] = 1
    picture[:, :3, 4:12, 4:12] = torch.tensor(COLORS["blue"]).view(3, 1, 1)
    parts = split_tint(picture, tinted=True)
    again = parts[:, :3] + parts[:, 4:] * torch.tensor(COLORS["blue"]).view(3, 1, 1)
    torch.testing.assert_close(again, picture[:, :3], atol=0.01, rtol=0)
    red = parts[:, :3] + parts[:, 4:] * torch.tensor(COLORS["red"]).view(3, 1, 1)
    torch.testing.assert_close(red[0, :, 8, 8], torch.tensor(COLORS["red"]), atol=0.01, rtol=0)


def test_scenes_depend_on_seed_and_index_alone(pack: SpritePack) -> None:
    assert scenes(pack, 20) == scenes(pack, 20)
    assert scenes(pack, 20)[7] == draw_scene(pack.concepts, 0, 7, held_out=HELD_OUT)
    assert len({caption(scene) for scene in scenes(pack, 20) + scenes(pack, 20, seed=1)}) > 35


def test_training_never_shows_what_is_held_out_and_every_word_else(pack: SpritePack) -> None:
    drawn = scenes(pack, 20_000)
    assert not any(HELD_OUT.holds(scene) for scene in drawn)
    assert {scene.motion for scene in drawn} == set(MOTIONS)
    assert {scene.place for scene in drawn} == set(BACKDROPS)
    assert {scene.relation for scene in drawn} == {None, *RELATIONS}
    assert {scene.light for scene in drawn} == {None, *LIGHTS}
    assert {one.name for scene in drawn for one in scene.objects} == set(pack.number)
    assert {one.color for scene in drawn for one in scene.objects} == {None, *COLORS}
    sure = any(
        s.subject.name == "penguin"
        and s.motion == "dances"
        and s.other is not None
        and s.other.name == "umbrella"
        for s in drawn
    )
    assert sure, "the default prompt's parts meet in training"


def test_only_held_out_scenes_come_when_asked_for(pack: SpritePack) -> None:
    for index in range(40):
        scene = draw_scene(pack.concepts, 0, index, held_out=HELD_OUT, only_held_out=True)
        assert HELD_OUT.holds(scene)
    with pytest.raises(ValueError, match="held out"):
        draw_scene(pack.concepts, 0, 0, only_held_out=True)


def test_the_held_out_list_speaks_the_grammars_words(pack: SpritePack, tmp_path: Path) -> None:
    props = {concept.name for concept in pack.named("prop")}
    assert all(name in pack.number and motion in MOTIONS for name, motion in HELD_OUT.motions)
    assert all(color in COLORS and name in props for color, name in HELD_OUT.colors)
    assert all(name in pack.number and place in BACKDROPS for name, place in HELD_OUT.places)
    (tmp_path / "list.json").write_text('{"motionz": []}')
    with pytest.raises(ValueError, match="motionz"):
        HeldOut.load(tmp_path / "list.json")
    for text, said in (("not json", "cannot be read"), ('{"motions": ["a cat"]}', "lists of pairs")):
        (tmp_path / "list.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            HeldOut.load(tmp_path / "list.json")
    with pytest.raises(ValueError, match="cannot be read"):
        HeldOut.load(tmp_path / "none.json")


def test_captions_say_what_is_there(pack: SpritePack) -> None:
    for scene in scenes(pack, 3000):
        words = caption(scene)
        assert scene.subject.noun in words
        assert (scene.place in words) == scene.says_place
        assert scene.light is None or scene.light in words
        assert (scene.size or "") in words
        if scene.other is not None:
            assert f"{scene.relation} a" in words
            assert scene.other.noun in words
        stem = scene.motion[:3]
        assert any(word.startswith(stem) for word in words.split())
        assert not any(motion in still_caption(scene) for motion in MOTIONS)
        for text in (words, still_caption(scene)):
            assert "  " not in text
            assert text == text.strip()
            for article, word in zip(text.split(), text.split()[1:], strict=False):
                if article in ("a", "an"):
                    vowel = word[0] in "aeiou" and not word.startswith("unicorn")
                    assert (article == "an") == vowel, text


def test_motion_words_match_the_tracks(pack: SpritePack) -> None:
    ends = torch.tensor([0.0, 16 / 3])
    for scene in scenes(pack, 400):
        pose = scene.subject.track.at(ends, duration=scene.duration)
        dx, dy = float(pose.x.diff()), float(pose.y.diff())
        grown = float(pose.size[-1] / pose.size[0])
        assert (dx < -0.4) == (scene.motion == "moves left")
        assert (dx > 0.4) == (scene.motion == "moves right")
        assert (dy < -0.4) == (scene.motion == "rises")
        assert (dy > 0.4) == (scene.motion == "falls")
        assert (grown > 1.5) == (scene.motion == "grows")
        assert (grown < 1 / 1.5) == (scene.motion == "shrinks")


def downsampled(fine: Tensor, by: int) -> Tensor:
    return avg_pool2d(fine, by)


@pytest.mark.parametrize(("height", "by", "mean"), [(24, 2, 0.025), (48, 8, 0.012), (96, 2, 0.006)])
def test_a_coarse_rendering_is_the_average_of_a_fine_one(
    pack: SpritePack, height: int, by: int, mean: float
) -> None:
    """Both sample at twice their own resolution from another level: what differs is the bilinear filter's width,
    at edges of about one pixel in one in six, by a fraction of the contrast there."""
    raster = Raster(frames=2, height=height, width=height * 5 // 3, fps=0.5)
    fine = replace(raster, height=raster.height * by, width=raster.width * by)
    errors = torch.stack(
        [
            (downsampled(render_sprites(pack, scene, fine), by) - render_sprites(pack, scene, raster))
            .abs()
            .mean()
            for scene in scenes(pack, 12)
        ]
    )
    assert errors.max() < mean, errors


def test_a_crop_is_a_part_of_the_whole(pack: SpritePack) -> None:
    whole = Raster(frames=3, height=48, width=80, fps=1.0)
    crop = replace(whole, crop=(8, 20, 24, 40))
    for scene in scenes(pack, 6):
        full = render_sprites(pack, scene, whole)
        torch.testing.assert_close(
            render_sprites(pack, scene, crop), full[..., 8:32, 20:60], atol=1e-5, rtol=0
        )


def test_a_pack_shows_what_each_scene_alone_shows(pack: SpritePack) -> None:
    raster = Raster(frames=10, height=24, width=40)
    times = torch.linspace(0, 5, 10, dtype=torch.float64)
    several = scenes(pack, 10)
    together = render_sprites(pack, several, raster, times=times)
    assert together.shape == (3, 10, 24, 40)
    one = Raster(frames=1, height=24, width=40)
    for i, scene in enumerate(several):
        alone = render_sprites(pack, scene, one, times=times[i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, atol=1e-4, rtol=0)


def test_frame_rate_and_start_only_pick_moments(pack: SpritePack) -> None:
    scene = scenes(pack, 1)[0]
    fast = render_sprites(pack, scene, Raster(frames=12, height=24, width=40, fps=12.0))
    slow = render_sprites(pack, scene, Raster(frames=4, height=24, width=40, fps=6.0, start=0.5))
    torch.testing.assert_close(slow[:, :3], fast[:, 6::2], atol=1e-5, rtol=0)


def behind(pack: SpritePack, gap: float) -> SpriteScene:
    base = scenes(pack, 1)[0]
    hidden = SpriteObject(name="bee", track=Track(x=0.5 + gap, y=0.5, size=0.3), animated=False)
    cover = SpriteObject(name="gift", color="red", track=Track(x=0.5, y=0.5, size=0.9), animated=False)
    return replace(base, subject=hidden, motion="stands still", other=cover, relation="behind")


def test_truth_knows_the_hidden_and_the_seen(pack: SpritePack) -> None:
    raster = Raster(frames=2, height=48, width=80)
    hidden = sprite_truth(pack, behind(pack, 0.0), raster)
    assert hidden.visible[:, 0].max() < 0.01
    assert not bool((hidden.ids == 1).any())
    assert not hidden.boxes[:, 0].any()
    clear = sprite_truth(pack, behind(pack, 0.4), raster)
    torch.testing.assert_close(clear.visible, torch.ones(2, 2), atol=1e-3, rtol=0)
    before = sprite_truth(pack, replace(behind(pack, 0.0), relation="in front of"), raster)
    assert before.visible[:, 0].min() > 0.99
    assert before.visible[:, 1].max() < 0.97


def test_tracks_and_boxes_lie_on_the_object(pack: SpritePack) -> None:
    raster = Raster(frames=4, height=96, width=160, fps=0.75, crop=(8, 16, 80, 128))
    track = Track(x=0.5, y=0.5, size=0.5, dx=-0.3, dy=0.1)
    heart = SpriteObject(name="balloon", color="red", track=Track(x=0.5, y=0.5, size=0.5))
    scene = replace(
        scenes(pack, 1)[0],
        subject=replace(heart, track=track),
        motion="moves left",
        other=None,
        relation=None,
    )
    truth = sprite_truth(pack, scene, raster)
    for frame in range(4):
        rows, columns = (truth.ids[frame] == 1).nonzero(as_tuple=True)
        box = truth.boxes[frame, 0].tolist()
        assert box == [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
        row, column = truth.tracks[frame, 0].tolist()
        p = frame / 0.75 / scene.duration - 0.5
        assert row == pytest.approx(96 * (0.5 + 0.1 * p) - 8, abs=1e-3)
        assert column == pytest.approx(160 * (0.5 - 0.3 * p) - 16, abs=1e-3)
        assert (box[0] + box[2]) / 2 == pytest.approx(row, abs=0.1 * 48)
        assert (box[1] + box[3]) / 2 == pytest.approx(column, abs=0.1 * 48)


def test_colour_words_are_the_colours_seen(pack: SpritePack) -> None:
    raster = Raster(frames=1, height=48, width=48)
    base = scenes(pack, 1)[0]
    for color, rgb in COLORS.items():
        heart = SpriteObject(name="heart", color=color, track=Track(x=0.5, y=0.5, size=0.9), animated=False)
        scene = replace(base, subject=heart, motion="stands still", other=None, relation=None, light=None)
        shown = (render_sprites(pack, scene, raster)[:, 0, 20:28, 20:28].mean(dim=(1, 2)) + 1) / 2
        nearest = min(COLORS, key=lambda name: float((torch.tensor(COLORS[name]) - shown).norm()))
        assert nearest == color, (color, rgb, shown)


def test_wrong_numbers_and_names_are_refused(pack: SpritePack) -> None:
    raster = Raster(frames=3, height=24, width=40)
    with pytest.raises(ValueError, match="3 frames"):
        render_sprites(pack, scenes(pack, 2), raster)
    scene = scenes(pack, 1)[0]
    with pytest.raises(ValueError, match="'yeti'"):
        render_sprites(pack, replace(scene, subject=replace(scene.subject, name="yeti")), raster)
    with pytest.raises(ValueError, match="flies"):
        replace(scene, motion="flies")
    with pytest.raises(ValueError, match="both"):
        replace(scene, other=None, relation="behind")
    with pytest.raises(ValueError, match="crop"):
        replace(raster, crop=(10, 0, 20, 40))


def test_truth_is_of_what_the_same_arguments_draw(pack: SpritePack) -> None:
    raster, scene = Raster(frames=2, height=12, width=20), behind(pack, 0.4)
    for one, other in zip(
        sprite_truth(pack, [scene], raster), sprite_truth(pack, scene, raster), strict=True
    ):
        assert torch.equal(one, other)
    for draw in (render_sprites, sprite_truth):
        with pytest.raises(ValueError, match="2 frames take 1 or 2 scenes"):
            draw(pack, [scene] * 3, raster)
        with pytest.raises(ValueError, match="share one duration"):
            draw(pack, [scene, replace(scene, duration=1.0)], raster)


def test_a_grey_picture_has_nothing_to_tint() -> None:
    with pytest.raises(ValueError, match="leave it untinted"):
        split_tint(torch.full((1, 4, 16, 16), 0.5), tinted=True)
