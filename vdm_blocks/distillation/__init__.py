"""Distillation: methods over roles (teacher, student, critic) that take any denoiser, and a driver over halvings."""

from vdm_blocks.distillation.guidance import DistilledGuidance, GuidanceDistiller
from vdm_blocks.distillation.jumps import Jumps, ddim_jumps, stochastic_jumps
from vdm_blocks.distillation.match import Distiller
from vdm_blocks.distillation.progressive import ProgressiveDistiller
from vdm_blocks.distillation.scale import GUIDANCE_SCALE, ScaleRange, with_guidance_scale
from vdm_blocks.distillation.scale_adapter import ScaleAdapter
from vdm_blocks.distillation.targets import ddim_step, two_step_target

__all__ = [
    "GUIDANCE_SCALE",
    "DistilledGuidance",
    "Distiller",
    "GuidanceDistiller",
    "Jumps",
    "ProgressiveDistiller",
    "ScaleAdapter",
    "ScaleRange",
    "ddim_jumps",
    "ddim_step",
    "stochastic_jumps",
    "two_step_target",
    "with_guidance_scale",
]
