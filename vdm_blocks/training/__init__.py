"""Training: losses, averages of the weights, resumable state."""

from vdm_blocks.training.ema import EMA, ConstantDecay, WarmedDecay
from vdm_blocks.training.loss import DiffusionLoss

__all__ = ["EMA", "ConstantDecay", "DiffusionLoss", "WarmedDecay"]
