"""The judge: what it is taught is the truth, and it comes back from disk as it was."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
import train_judge
from judge import ATTRIBUTES, NONE, Judge, JudgeSpec, truth, vocabulary

from vdm_blocks.data.scenes import SpriteScene, draw_scene
from vdm_blocks.data.sprite_source import SpriteClips
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.training import EMA, ConstantDecay
from vdm_blocks.training.state import TrainingState

CASCADE = Path(__file__).resolve().parents[2] / "examples" / "cascade"
SHIPPED = CASCADE / "judge" / "judge.safetensors"


@pytest.fixture(scope="module")
def pack() -> SpritePack:
    return SpritePack.load(CASCADE / "sprites")


def small(pack: SpritePack) -> Judge:
    return Judge(JudgeSpec(answers=vocabulary(pack.concepts), channels=(8, 8, 8)))


def test_the_truth_of_a_scene_has_an_answer_for_everything(pack: SpritePack) -> None:
    answers = vocabulary(pack.concepts)
    for index in range(50):
        scene = draw_scene(pack.concepts, 1, index)
        true = truth(scene)
        assert all(true[name] in answers[name] for name in ATTRIBUTES)
        assert (true["color"] == NONE) == all(one.color is None for one in scene.objects)
        assert (true["second"] == NONE) == (scene.other is None)


def test_frames_of_a_pack_are_read_apart(pack: SpritePack) -> None:
    judge = small(pack).eval()
    for parameter in judge.parameters():  # temporal convolutions start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    video = torch.rand(1, 3, 4, 24, 40) * 2 - 1
    pictures = torch.tensor([True])
    together = judge(video, pictures)
    for t in range(4):
        alone = judge(video[:, :, t : t + 1], pictures)
        for name in ("object", "color"):
            torch.testing.assert_close(together[name][:, t], alone[name][:, 0])
    assert not torch.allclose(together["object"], judge(video)["object"])


def test_a_step_lowers_the_loss_on_its_batch_and_is_repeatable(pack: SpritePack) -> None:
    args = Namespace(batch=4, seed=3, rate=3e-3, steps=400, float32=True)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        judge = small(pack)
        state = TrainingState(
            judge, EMA(judge, ConstantDecay(decay=0.9)), torch.optim.AdamW(judge.parameters())
        )
        losses.append([train_judge.step(state, pack, args)[1:] for _ in range(2)])
        state.step = 0
        assert sum(train_judge.step(state, pack, args)[1:]) < sum(losses[-1][0])
    assert losses[0] == losses[1]


def test_a_saved_judge_reads_the_same(pack: SpritePack, tmp_path: Path) -> None:
    spec = JudgeSpec(answers=vocabulary(pack.concepts))
    judge = Judge(spec).eval()
    judge.load_state_dict({name: x.half().float() for name, x in judge.state_dict().items()})
    judge.save(tmp_path / "judge.safetensors", {})
    again = Judge.load(tmp_path / "judge.safetensors")
    video = torch.rand(2, 3, 16, 24, 40) * 2 - 1
    assert again.spec == spec
    assert again.read(video) == judge.read(video)
    assert (tmp_path / "judge.safetensors").stat().st_size <= 1.5e6


def test_a_judge_refuses_another_grid(pack: SpritePack) -> None:
    with pytest.raises(ValueError, match="the judge reads"):
        small(pack).read(torch.zeros(1, 3, 8, 24, 40))
    with pytest.raises(ValueError, match=r"train_judge\.py makes one"):
        Judge.load(Path("nowhere.safetensors"))


def test_the_shipped_judge_reads_renders(pack: SpritePack) -> None:
    judge = Judge.load(SHIPPED)
    right = dict.fromkeys(ATTRIBUTES, 0)
    for index in range(48):
        sample = SpriteClips(pack=pack).sample(4321, index, train_judge.RASTER)
        (scene,) = sample.scenes
        assert isinstance(scene, SpriteScene)
        read = judge.read(sample.video[None])[0]
        for name, true in truth(scene).items():
            right[name] += read[name] == true
    # It reads the object beside the subject worst, at 0.70, and 20 of 48 is four standard errors below.
    assert min(right.values()) >= 20, right
