from __future__ import annotations

import exact
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from diffusers import UNet3DConditionModel as VideoUNet

from vdm_blocks.denoisers.model import ModelDenoiser
from vdm_blocks.diffusion.predictions import EPS, X0, V
from vdm_blocks.diffusion.schedules import CosineSchedule
from vdm_blocks.interop.from_diffusers import DiffusersImageUNet, DiffusersVideoUNet, read_scheduler
from vdm_blocks.interop.timesteps import betas_of
from vdm_blocks.interop.to_diffusers import DiffusersModel
from vdm_blocks.sampling.ddim import DDIM
from vdm_blocks.sampling.loop import sample
from vdm_blocks.types import Conditioning, Denoised

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.fixture(scope="module")
def video_unet() -> VideoUNet:
    torch.manual_seed(0)
    return VideoUNet(
        in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8, attention_head_dim=4,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def image_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4,
    ).eval()  # fmt: skip


def prompt(batch: int) -> Conditioning:
    return Conditioning(text=torch.randn(batch, 4, 8), text_mask=torch.ones(batch, 4, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@torch.no_grad()
def test_sampling_with_their_network_equals_their_loop(video_unet: VideoUNet, kind: str) -> None:
    theirs = DDIMScheduler(**STABLE, prediction_type=kind, clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(5)
    cond, z = prompt(2), torch.randn(2, 3, 3, 8, 8)
    expected = z
    for k in theirs.timesteps:
        out = video_unet(expected, k, encoder_hidden_states=cond.text).sample
        expected = theirs.step(out, k, expected).prev_sample

    schedule, prediction = read_scheduler(theirs)
    denoiser = ModelDenoiser(DiffusersVideoUNet(video_unet, schedule), schedule, prediction)
    times = torch.cat([schedule.at(theirs.timesteps.double()), torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(sample(denoiser, DDIM(), times, z, cond), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_their_loop_with_our_denoiser_equals_our_sampling() -> None:
    schedule = CosineSchedule(logsnr_min=-9.0, logsnr_max=9.0)
    denoiser = exact.ExactDenoiser(exact.gaussian(), schedule)
    z = torch.randn(3, *exact.SHAPE)
    times = torch.linspace(1, 0, 11, dtype=torch.float64)
    expected = sample(denoiser, DDIM(), times, z, Conditioning())

    model = DiffusersModel(denoiser, count=100)
    theirs = DDIMScheduler(
        num_train_timesteps=100, trained_betas=betas_of(schedule, 100).tolist(), prediction_type="v_prediction",
        clip_sample=False, timestep_spacing="trailing",
    )  # fmt: skip
    theirs.set_timesteps(10)
    for k in theirs.timesteps:
        z = theirs.step(model(z, k).sample, k, z).prev_sample
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_text_and_its_mask_reach_our_denoiser() -> None:
    denoiser = exact.ExactDenoiser(exact.gaussian(), CosineSchedule())
    seen: list[Conditioning] = []

    class Spy:
        schedule = denoiser.schedule

        def __call__(self, z_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> Denoised:
            seen.append(cond)
            return denoiser(z_t, t, Conditioning())

    cond = prompt(2)
    model = DiffusersModel(Spy(), count=10, cond=Conditioning(fps=torch.tensor([8.0, 8.0])))
    z = torch.randn(2, *exact.SHAPE)
    model(z, 3, encoder_hidden_states=cond.text)
    model(z, torch.tensor([3, 4]), cond.text, torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]))
    assert seen[0].text_mask is not None
    assert seen[0].text_mask.all()
    assert seen[0].fps is not None
    assert seen[1].text_mask is not None
    assert seen[1].text_mask.sum(1).tolist() == [2, 1]
    with pytest.raises(ValueError, match="must be from 0 to 9"):
        model(z, 10)


@torch.no_grad()
def test_masked_out_text_is_the_empty_prompts(video_unet: VideoUNet) -> None:
    schedule, _ = read_scheduler(DDPMScheduler(**STABLE))
    null = torch.randn(4, 8)
    network = DiffusersVideoUNet(video_unet, schedule, null)
    cond, z, logsnr = prompt(2), torch.randn(2, 3, 2, 8, 8), torch.zeros(2)
    got = network(z, logsnr, cond.drop_text(torch.tensor([True, False])))
    assert cond.text is not None
    told = torch.stack([cond.text[0], null])
    expected = network(z, logsnr, Conditioning(text=told, text_mask=torch.ones(2, 4, dtype=torch.bool)))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="give null_text"):
        DiffusersVideoUNet(video_unet, schedule)(z, logsnr, cond.without_text())
    with pytest.raises(ValueError, match="pad both to one length"):
        DiffusersVideoUNet(video_unet, schedule, torch.zeros(5, 8))(z, logsnr, cond)
    with pytest.raises(ValueError, match="needs text"):
        network(z, logsnr, Conditioning())
    with pytest.raises(ValueError, match="one level a sample"):
        network(z, torch.zeros(2, 2), cond)


@torch.no_grad()
def test_a_picture_network_sees_each_frame_alone(image_unet: UNet2DConditionModel) -> None:
    schedule, _ = read_scheduler(DDPMScheduler(**STABLE))
    network = DiffusersImageUNet(image_unet, schedule)
    cond, z = prompt(2), torch.randn(2, 3, 3, 8, 8)
    logsnr = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.5, 0.0]])
    out = network(z, logsnr, cond)
    assert cond.text is not None
    for b in range(2):
        for frame in range(3):
            k = schedule.timestep(schedule.time(logsnr[b, frame]))
            alone = image_unet(z[b : b + 1, :, frame], k, encoder_hidden_states=cond.text[b : b + 1]).sample
            torch.testing.assert_close(out[b : b + 1, :, frame], alone, rtol=1e-4, atol=1e-5)
    one_level = network(z, torch.zeros(2), cond)
    torch.testing.assert_close(one_level, network(z, torch.zeros(2, 3), cond), rtol=0, atol=0)
    with pytest.raises(ValueError, match="needs text"):
        network(z, torch.zeros(2), Conditioning())


@torch.no_grad()
def test_a_picture_network_does_not_read_padding(image_unet: UNet2DConditionModel) -> None:
    schedule, _ = read_scheduler(DDPMScheduler(**STABLE))
    network = DiffusersImageUNet(image_unet, schedule)
    cond, z = prompt(1), torch.randn(1, 3, 2, 8, 8)
    assert cond.text is not None
    mask = torch.tensor([[True, True, False, False]])
    other = torch.cat([cond.text[:, :2], torch.randn(1, 2, 8)], dim=1)
    outs = [
        network(z, torch.zeros(1), Conditioning(text=text, text_mask=mask)) for text in (cond.text, other)
    ]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-5)


def test_a_scheduler_says_what_is_predicted() -> None:
    found: list[object] = [
        read_scheduler(DDPMScheduler(prediction_type=kind))[1]
        for kind in ("epsilon", "v_prediction", "sample")
    ]
    assert found == [EPS, V, X0]
    with pytest.raises(ValueError, match="has no alphas_cumprod"):
        read_scheduler(FlowMatchEulerDiscreteScheduler())
