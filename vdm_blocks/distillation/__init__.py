"""Distillation: methods over roles (teacher, student, critic) that take any denoiser, and a driver over halvings."""

from vdm_blocks.distillation.adversary import Adversary, Discriminator, FeatureDiscriminator
from vdm_blocks.distillation.consistency import ConsistencyDistiller, FreshNoise
from vdm_blocks.distillation.direction import GuidanceDirection
from vdm_blocks.distillation.distribution import DistributionMatching
from vdm_blocks.distillation.driver import DistillInfo, Judge, Method, distill
from vdm_blocks.distillation.fit import fit_direction
from vdm_blocks.distillation.guidance import DistilledGuidance, GuidanceDistiller, ToldGuidance
from vdm_blocks.distillation.jumps import Jumps, ddim_jumps, stochastic_jumps
from vdm_blocks.distillation.ladder import Ladder, Rung, RungResult, halvings
from vdm_blocks.distillation.learn import Lesson, learn
from vdm_blocks.distillation.match import Distiller, Emphasis
from vdm_blocks.distillation.multistep import MultistepConsistencyDistiller, adjusted_ddim_step, segment_jumps
from vdm_blocks.distillation.progressive import ProgressiveDistiller
from vdm_blocks.distillation.scale import GUIDANCE_SCALE, ScaleRange, with_guidance_scale
from vdm_blocks.distillation.scale_adapter import ScaleAdapter
from vdm_blocks.distillation.student_file import load_student, save_student
from vdm_blocks.distillation.targets import ddim_step, two_step_target

__all__ = [
    "GUIDANCE_SCALE",
    "Adversary",
    "ConsistencyDistiller",
    "Discriminator",
    "DistillInfo",
    "DistilledGuidance",
    "Distiller",
    "DistributionMatching",
    "Emphasis",
    "FeatureDiscriminator",
    "FreshNoise",
    "GuidanceDirection",
    "GuidanceDistiller",
    "Judge",
    "Jumps",
    "Ladder",
    "Lesson",
    "Method",
    "MultistepConsistencyDistiller",
    "ProgressiveDistiller",
    "Rung",
    "RungResult",
    "ScaleAdapter",
    "ScaleRange",
    "ToldGuidance",
    "adjusted_ddim_step",
    "ddim_jumps",
    "ddim_step",
    "distill",
    "fit_direction",
    "halvings",
    "learn",
    "load_student",
    "save_student",
    "segment_jumps",
    "stochastic_jumps",
    "two_step_target",
    "with_guidance_scale",
]
