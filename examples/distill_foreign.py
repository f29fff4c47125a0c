"""Distil a network that is not ours, first its guidance and then its steps: `python examples/distill_foreign.py`.

The network is diffusers' UNet3DConditionModel, trained for a moment on bars that move left or right, as the text says.
"""

import copy
import tempfile
from collections.abc import Callable
from functools import partial

import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from torch import Tensor

from vdm_blocks import distillation
from vdm_blocks.denoisers import ClassifierFreeGuidance, ModelDenoiser
from vdm_blocks.diffusion import KeyedNoise
from vdm_blocks.interop import DiffusersVideoUNet, read_scheduler
from vdm_blocks.sampling import DDIM, sample, uniform_times
from vdm_blocks.training import DiffusionLoss
from vdm_blocks.types import Conditioning, Denoiser

TEXT = torch.tensor([-1.0, 1.0, 1.0, -1.0])[:, None, None].expand(4, 1, 8)


def batches(step: int) -> tuple[Tensor, Conditioning]:
    """Four bars, and the text (one token) that says which way they move; one text in four is dropped."""
    draw = torch.Generator().manual_seed(step)
    column = (torch.randint(8, (4, 1), generator=draw) + TEXT[:, 0, :1].long() * torch.arange(4)) % 8
    video = torch.nn.functional.one_hot(column, 8).float()[:, None, :, None, :].expand(-1, 3, 4, 8, 8) * 2 - 1
    return video.contiguous(), Conditioning(text=TEXT, text_mask=torch.rand(4, 1, generator=draw) > 0.25)


def train(model: ModelDenoiser, loss: Callable[[Tensor, Conditioning], Tensor], updates: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(updates):
        loss(*batches(step)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def taught(updates: int) -> ModelDenoiser:
    """Their network, trained a little."""
    unet = UNet3DConditionModel(
        in_channels=3, out_channels=3, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8, attention_head_dim=8,
    )  # fmt: skip
    schedule, prediction = read_scheduler(DDIMScheduler(prediction_type="v_prediction"))
    network = DiffusersVideoUNet(unet, schedule, null_text=torch.zeros(1, 8))
    teacher = ModelDenoiser(network, schedule, prediction)
    train(teacher, lambda x, cond: DiffusionLoss()(teacher, x, torch.rand(len(x)), cond), updates)
    return teacher.eval().requires_grad_(False)


def judge(denoiser: Denoiser, steps: int, *, teacher: ModelDenoiser) -> list[float]:
    """How far a guided sample is from the teacher's own of 16 steps from the same noise, for four seeds."""
    noise = KeyedNoise(seeds=(1, 2, 3, 4), stage="judge").normal((4, 3, 4, 8, 8), step=0)
    cond = Conditioning(text=TEXT, text_mask=torch.ones(4, 1, dtype=torch.bool))
    wanted = sample(ClassifierFreeGuidance(teacher, 3.0), DDIM(), uniform_times(16), noise, cond)
    got = sample(distillation.DistilledGuidance(denoiser, 3.0), DDIM(), uniform_times(steps), noise, cond)
    return [float(distance) for distance in (got - wanted).square().flatten(1).mean(1).sqrt()]


def distilled(teacher: ModelDenoiser, updates: int, folder: str) -> distillation.Ladder:
    """Sixteen guided steps, of two evaluations each, to two steps of one: this is all it takes."""
    network, head = copy.deepcopy(teacher.network).requires_grad_(), "unet.conv_out"
    told = distillation.ScaleAdapter(network, at="unet.time_embedding", width=64, head=head)
    student = ModelDenoiser(told, teacher.schedule, teacher.prediction)
    train(student, distillation.GuidanceDistiller(teacher, student), updates)
    halved = partial(distillation.ProgressiveDistiller, scales=(1, 16))
    rungs, own = distillation.halvings(16, 2, updates, rate=1e-3), partial(judge, teacher=teacher)
    return distillation.distill(copy.deepcopy(student), student, rungs, batches, own, folder=folder,
                                teacher_steps=16, width=float("inf"), method=halved)  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(distilled(taught(updates=150), 40, folder).table())
