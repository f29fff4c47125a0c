"""Step rules, time grids and the one loop."""

from vdm_blocks.sampling.ancestral import Ancestral
from vdm_blocks.sampling.churn import EDMChurn
from vdm_blocks.sampling.ddim import DDIM
from vdm_blocks.sampling.distilled import DistilledStochastic
from vdm_blocks.sampling.dpm_solver import DPMSolverPP2M
from vdm_blocks.sampling.draw import StepDraw
from vdm_blocks.sampling.grids import karras_times, trailing_times, uniform_logsnr_times, uniform_times
from vdm_blocks.sampling.heun import EDMHeun, Heun
from vdm_blocks.sampling.langevin import LangevinCorrector
from vdm_blocks.sampling.loop import StepInfo, sample
from vdm_blocks.sampling.momentum import GuidanceMomentum, MomentumState
from vdm_blocks.sampling.progress import ProgressLine
from vdm_blocks.sampling.restart import Restart
from vdm_blocks.sampling.rule import Draw, StepResult, StepRule
from vdm_blocks.sampling.unipc import UniPC

__all__ = [
    "DDIM",
    "Ancestral",
    "DPMSolverPP2M",
    "DistilledStochastic",
    "Draw",
    "EDMChurn",
    "EDMHeun",
    "GuidanceMomentum",
    "Heun",
    "LangevinCorrector",
    "MomentumState",
    "ProgressLine",
    "Restart",
    "StepDraw",
    "StepInfo",
    "StepResult",
    "StepRule",
    "UniPC",
    "karras_times",
    "sample",
    "trailing_times",
    "uniform_logsnr_times",
    "uniform_times",
]
