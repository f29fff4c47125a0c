"""Step rules, time grids and the one loop."""

from vdm_blocks.sampling.ancestral import Ancestral
from vdm_blocks.sampling.ddim import DDIM
from vdm_blocks.sampling.draw import StepDraw
from vdm_blocks.sampling.grids import karras_times, trailing_times, uniform_logsnr_times, uniform_times
from vdm_blocks.sampling.loop import StepInfo, sample
from vdm_blocks.sampling.rule import Draw, StepResult, StepRule

__all__ = [
    "DDIM",
    "Ancestral",
    "Draw",
    "StepDraw",
    "StepInfo",
    "StepResult",
    "StepRule",
    "karras_times",
    "sample",
    "trailing_times",
    "uniform_logsnr_times",
    "uniform_times",
]
