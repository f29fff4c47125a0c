"""The video-text encoder: captions that are wrong in one word, a training that repeats, weights that come back."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from pathlib import Path
from random import Random

import pytest
import torch
import train_videotext
from altered import ALTERABLE, altered, words
from material import Captions
from retrieval import TEST_SEED
from train_judge import RASTER
from train_videotext import Material
from videotext import VideoText, VideoTextEncoder, VideoTextSpec, record
from word_states import WordStates

from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.data.scenes import draw_scene
from vdm_blocks.data.solids import draw_solids
from vdm_blocks.data.sprite_source import SpriteClips
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.metrics import r_precision
from vdm_blocks.training import EMA, ConstantDecay
from vdm_blocks.training.state import TrainingState

CASCADE = Path(__file__).resolve().parents[2] / "examples" / "cascade"
SHIPPED = CASCADE / "videotext" / "videotext.safetensors"
SMALL = VideoTextSpec(channels=(8, 8, 8), width=12, text=6, value=8)


@pytest.fixture(scope="module")
def pack() -> SpritePack:
    return SpritePack.load(CASCADE / "sprites")


def test_a_wrong_caption_is_wrong_in_one_thing(pack: SpritePack) -> None:
    seen = set()
    for index in range(40):
        for scene in (draw_scene(pack.concepts, 5, index), draw_solids(5, index)):
            right = words(scene)
            for name, wrong in altered(scene, pack.concepts, Random(index)).items():
                seen.add(name)
                assert wrong != right
                ours, theirs = set(right.split()) - {"a", "an"}, set(wrong.split()) - {"a", "an"}
                most = {"object": 2, "color": 1, "second": 2, "motion": 2, "relation": 3, "place": 4}[name]
                assert len(ours - theirs) <= most
                assert len(theirs - ours) <= most
    assert seen == set(ALTERABLE)
    with pytest.raises(ValueError, match="a scene is"):
        words("no scene")


def learner() -> TrainingState:
    torch.manual_seed(0)
    model = VideoText(SMALL)
    return TrainingState(model, EMA(model, ConstantDecay(decay=0.9)), torch.optim.AdamW(model.parameters()))


def test_a_resumed_training_ends_with_the_same_bits(
    pack: SpritePack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("CLIPS", 2), ("SOLID_CLIPS", 1), ("PACKS", 1), ("SOLID_PACKS", 0)):
        monkeypatch.setattr(train_videotext, name, count)
    args = Namespace(seed=3, rate=3e-3, steps=4, float32=True)
    whole, bank, data = learner(), train_videotext.Bank(maxlen=2), Material(pack, Captions(WordStates()), 3)
    rows = []
    for number in range(4):
        if number == 2:
            whole.save(tmp_path / "state")
        rows.append(train_videotext.step(whole, data, bank, args))
    again, fresh = learner(), Material(pack, Captions(WordStates()), 3)
    again.load(tmp_path / "state")
    bank = deque((dict(fresh(number).said) for number in range(2)), maxlen=2)
    assert [train_videotext.step(again, fresh, bank, args) for _ in range(2)] == rows[2:]
    for own, other in zip(again.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(own, other)


def test_lessons_come_back_worn_anew() -> None:
    looks, apart = train_videotext.LOOKS, train_videotext.APART
    data = Material.__new__(Material)
    numbers = []

    class Kept(dict[int, object]):
        def __contains__(self, number: object) -> bool:
            numbers.append(number)
            return True

        def __missing__(self, _number: int) -> None:
            return None

    data.kept = Kept()  # type: ignore[assignment]
    for number in range(2 * looks * apart):
        data(number)
    assert numbers == [*range(apart)] * looks + [*range(apart, 2 * apart)] * looks


def test_pictures_are_seen_apart_and_captions_read_alone() -> None:
    model = VideoText(SMALL).eval()
    for parameter in model.video.parameters():  # temporal convolutions start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    video, pictures = torch.rand(1, 3, 4, 24, 40) * 2 - 1, torch.tensor([True])
    together = model.video(video, pictures)
    for t in range(4):
        torch.testing.assert_close(together[:, t], model.video(video[:, :, t : t + 1], pictures)[:, 0])
    assert not torch.allclose(together, model.video(video))
    both = model.embed_captions(["a cat", "a long red dog"], WordStates())
    assert torch.equal(both[:1], model.embed_captions(["a cat"], WordStates()))
    with pytest.raises(ValueError, match="the video-text encoder takes"):
        model.embed(video)


def test_a_saved_encoder_embeds_the_same(tmp_path: Path) -> None:
    model = VideoText(VideoTextSpec()).eval()
    model.load_state_dict({name: x.half().float() for name, x in model.state_dict().items()})
    file = tmp_path / "encoder.safetensors"
    model.save(file, {"retrieval": '{"sprites": {"R@1 of 32": 0.5}}'})
    again = VideoText.load(file)
    video = torch.rand(1, 3, 16, 24, 40) * 2 - 1
    assert torch.equal(again.embed(video), model.embed(video))
    assert record(file) == {"sprites": {"R@1 of 32": 0.5}}
    assert file.stat().st_size <= 1.5e6
    model.save(file, {})
    with pytest.raises(ValueError, match="states no accuracy of its own"):
        record(file)
    with pytest.raises(ValueError, match=r"train_videotext\.py makes one"):
        VideoText.load(tmp_path / "nowhere")


def test_the_shipped_encoder_finds_captions_as_it_states(pack: SpritePack) -> None:
    encoder, count = VideoTextEncoder.load(SHIPPED, MiniLMEncoder.load()), 32
    samples = [SpriteClips(pack=pack).sample(TEST_SEED, i, RASTER) for i in range(count)]
    texts = encoder.encode_texts([sample.captions[0] for sample in samples])
    videos = torch.cat([encoder.encode_frames(sample.video[None]).mean(1) for sample in samples])
    found = float(r_precision(texts, videos, pool=count).mean())
    stated = record(SHIPPED)["sprites"][f"R@1 of {count}"]
    assert stated > 0.9  # chance is 0.03
    assert abs(found - stated) <= 4 * (stated * (1 - stated) / count) ** 0.5 + 0.02
