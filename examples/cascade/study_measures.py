"""What is measured of a study's networks while they train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from evaluate_base import RASTER, Prompt, prompts
from evaluate_stages import STREAM as CLIPS_STREAM
from ledger import Row
from material import HERE, Captions, lower, raise_
from sampling import SAMPLING, stage_around
from stages import PLANS, Plan
from study_arms import CROP, SMALL, BaseArm
from study_train import Learner, before_of
from table_read import reference_render
from torch import Tensor, nn
from videotext import VideoTextEncoder

from vdm_blocks.cascade import Grid, Stage
from vdm_blocks.checkpoint import save_tensors
from vdm_blocks.conditioning.upsample import upsample_bicubic
from vdm_blocks.data.render import render_sprites
from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.solid_source import SolidClips
from vdm_blocks.data.sprite_source import SpriteClips
from vdm_blocks.data.sprites import SpritePack
from vdm_blocks.data.stream import View
from vdm_blocks.denoisers import ClassifierFreeGuidance, DynamicThreshold, ModelDenoiser, StaticThreshold
from vdm_blocks.diffusion import diffuse
from vdm_blocks.metrics import (
    FeatureBank,
    TransNetFeatures,
    clip_score,
    frechet_distance,
    kernel_distance,
    psnr,
    r_precision,
)
from vdm_blocks.sampling import DDIM, uniform_times
from vdm_blocks.types import Conditioning, Denoised, Denoiser

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much is measured.

    Attributes:
        prompts: of the base, one video each.
        reference: renders that those are compared with.
        base_steps: of the base's sampler.
        clips: of the super-resolution stage.
        upper_steps: of its sampler.
    """

    prompts: int = 32
    reference: int = 64
    base_steps: int = 10
    clips: int = 6
    upper_steps: int = 16


class Half(nn.Module):
    """A denoiser whose network runs in bfloat16, as it was trained, and all around it does not."""

    def __init__(self, denoiser: ModelDenoiser) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def forward(self, z_t: Tensor, t: Tensor, cond: Conditioning) -> Denoised:
        """As the denoiser's own, in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            found: Denoised = self.denoiser(z_t, t, cond)
        return Denoised(found.x0.float(), found.eps.float())


class Measures:
    """Reads networks on scenes that no training drew.

    Args:
        captions: the text encoder.
        encoder: the video-text encoder.
        amount: how much.
        samples: the folder where the last videos are kept for the page's pictures.
    """

    def __init__(self, captions: Captions, encoder: VideoTextEncoder, amount: Amount, samples: Path) -> None:
        self.captions, self.encoder, self.amount, self.samples = captions, encoder, amount, samples
        self.pack, self.held_out = SpritePack.load(HERE / "sprites"), HeldOut.load(HERE / "heldout.json")

    def __call__(self, learner: Learner) -> Row:
        """All figures of a learner's averaged weights."""
        of = self.base if isinstance(learner.arm, BaseArm) else self.upper
        learner.network.eval()
        with learner.state.ema.applied(learner.network), torch.no_grad():
            row, videos = of(learner.plan, Half(learner.denoiser))
        learner.network.train()
        self.samples.mkdir(parents=True, exist_ok=True)
        save_tensors(
            self.samples / f"{learner.arm.name}-{learner.seed}.safetensors", {"videos": videos.half()}, {}
        )
        return row

    @cached_property
    def made(self) -> list[Prompt]:
        """Prompts, half of them of held-out combinations."""
        return prompts(self.pack, self.held_out, self.amount.prompts)

    @cached_property
    def renders(self) -> Tensor:
        """The truth of those prompts on the small grid, (N, 3, T, H, W)."""
        return coarse(torch.stack([render_sprites(self.pack, prompt.scene, RASTER) for prompt in self.made]))

    @cached_property
    def texts(self) -> Tensor:
        """(N, D) of the prompts."""
        return self.encoder.encode_texts([prompt.text for prompt in self.made])

    @cached_property
    def network(self) -> TransNetFeatures:
        """Whose features the distances compare."""
        return TransNetFeatures.load()

    @cached_property
    def reference(self) -> FeatureBank:
        """Of renders of other scenes."""
        count = self.amount.reference
        return self.bank(
            coarse(torch.cat([reference_render(self.pack, self.held_out, n) for n in range(count)]))
        )

    def bank(self, videos: Tensor) -> FeatureBank:
        """The features of clips."""
        bank = FeatureBank(self.network.width, extractor=self.network.name)
        for part in videos.split(8):
            bank.update(self.network(part))
        return bank

    def base(self, plan: Plan, denoiser: Denoiser) -> tuple[Row, Tensor]:
        """Loss on the prompts' renders, and what is read from samples."""
        text, mask = self.captions([prompt.text for prompt in self.made])
        cond = Conditioning(
            text=text, text_mask=mask, fps=torch.full((len(self.made),), float(plan.grid.fps))
        )
        draw = torch.Generator().manual_seed(0)
        losses = [self.v_error(plan, denoiser, self.renders, t, cond, draw) for t in TIMES]
        stage = Stage(
            name=plan.name, grid=plan.grid, step=SAMPLING[plan.name].rule, noise=plan.noise,
            times=uniform_times(self.amount.base_steps),
            denoiser=DynamicThreshold(ClassifierFreeGuidance(denoiser, scale=3.0)),
        )  # fmt: skip
        parts = []
        for first in range(0, len(self.made), 8):
            chosen = torch.arange(first, min(first + 8, len(self.made)))
            parts.append(stage.run(cond.select(chosen), seeds=[int(i) for i in chosen]).float())
        videos = torch.cat(parts)
        return {"loss": sum(losses) / len(losses), **self.read(videos)}, videos[:8]

    def read(self, videos: Tensor) -> Row:
        """Fit to the prompts, and distances to renders."""
        frames = self.encoder.encode_frames(fine(videos))
        bank = self.bank(videos)
        return {
            "score": float(clip_score(self.texts, frames).mean()),
            "precision": float(r_precision(self.texts, frames.mean(1), pool=len(videos)).mean()),
            "frechet": frechet_distance(bank.stats(), self.reference.stats(), singular=True),
            "kernel": kernel_distance(bank, self.reference),
        }

    @cached_property
    def clips(self) -> tuple[Tensor, Conditioning]:
        """Eight frames of a crop each, half of them sprites, half ray-cast; and their captions."""
        plan = PLANS[3]
        view = View(
            frames=8, height=plan.grid.height, width=plan.grid.width, fps=plan.grid.fps, crop=CROP, shrink=4
        )
        kinds = (
            SpriteClips(pack=self.pack, held_out=self.held_out, only_held_out=True),
            SolidClips(held_out=self.held_out, only_held_out=True),
        )
        found = []
        for index in range(self.amount.clips):
            source = kinds[index % 2]
            raster = view.raster(CLIPS_STREAM, index, duration=source.duration)
            found.append(source.sample(CLIPS_STREAM, index, raster))
        text, mask = self.captions([sample.captions[0] for sample in found])
        fps = torch.full((len(found),), float(plan.grid.fps))
        return torch.stack([sample.video for sample in found]), Conditioning(
            text=text, text_mask=mask, fps=fps
        )

    def upper(self, plan: Plan, denoiser: Denoiser) -> tuple[Row, Tensor]:
        """Error in x0, and colour and fidelity of samples from the true low-resolution clips."""
        truth, cond = self.clips
        before = before_of(plan)
        assert before is not None
        low = lower(truth, *plan.grid.over(before.grid), images=False)
        raised = raise_(low, plan, truth.shape)
        aug = torch.full((len(truth),), 5.0)
        draw = torch.Generator().manual_seed(0)
        told = replace(cond, video=raised, aug_logsnr=aug)
        row: Row = {f"x0 error at {t}": self.x0_error(plan, denoiser, truth, t, told, draw) for t in TIMES}
        frames, height, width = truth.shape[2:]
        grid = Grid(frames=frames, height=height, width=width, fps=plan.grid.fps)
        times = uniform_times(self.amount.upper_steps)
        here, kept = replace(plan, grid=grid), StaticThreshold(denoiser)
        stage = stage_around(here, kept, DDIM(), times, torch.float32)
        videos = stage.run(cond, low, seeds=range(len(truth))).float()
        plain = {f"bicubic {name}": value for name, value in colors(raised, truth).items()}
        return {**row, **colors(videos, truth), **plain}, videos

    def v_error(
        self, plan: Plan, denoiser: Denoiser, x0: Tensor, t: float, cond: Conditioning, draw: torch.Generator
    ) -> float:
        """Mean square of v_hat - v, which is (SNR + 1) times that of x0, whose estimate is kept within [-1, 1]."""
        share = self.x0_error(plan, denoiser, x0, t, cond, draw)
        alpha, sigma = denoiser.schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64))
        return share * float((alpha / sigma).square() + 1)

    def x0_error(
        self, plan: Plan, denoiser: Denoiser, x0: Tensor, t: float, cond: Conditioning, draw: torch.Generator
    ) -> float:
        """Mean square of the clean estimate's error at one time, the estimate kept within [-1, 1]."""
        when = torch.tensor(t)
        eps = plan.noise.draw(draw, x0.shape, step="study", device=x0.device, dtype=x0.dtype)
        z_t = diffuse(x0, eps, when, denoiser.schedule)
        parts = []
        for first in range(0, len(x0), 8):
            chosen = torch.arange(first, min(first + 8, len(x0)))
            found = denoiser(z_t[chosen], when, cond.select(chosen)).x0.float().clamp(-1, 1)
            parts.append((found - x0[chosen]).square().mean((1, 2, 3, 4)))
        return float(torch.cat(parts).mean())


def coarse(videos: Tensor) -> Tensor:
    """Clips of the base's grid on the small one: every second frame, pixels the means of four."""
    return F.avg_pool3d(videos[:, :, :: RASTER.frames // SMALL.frames], (1, 2, 2))


def fine(videos: Tensor) -> Tensor:
    """Clips of the small grid as the video-text encoder takes them: every frame twice, bicubic."""
    return upsample_bicubic(videos, RASTER.height, RASTER.width).repeat_interleave(2, dim=2)


def colors(video: Tensor, truth: Tensor) -> dict[str, float]:
    """How far frames' mean colours are off the truth's, in steps of 255, and PSNR.

    `shift`: the mean of |difference of a frame's mean colour|; `drift`: how much that difference varies from frame to
    frame, its standard deviation over the frames of a clip. Both are 0 for the truth.
    """
    away = (video - truth).double().mean((3, 4)) * 127.5
    return {
        "shift": float(away.abs().mean()),
        "drift": float(away.std(2, correction=0).mean()),
        "psnr": float(psnr(video, truth).clamp(max=60).mean()),
    }
