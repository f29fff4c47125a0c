"""Training: losses, averages of the weights, likelihoods, resumable state."""

from vdm_blocks.training.bound import Bits, ContinuousDecoder, Decoder, DiscreteDecoder, variational_bound
from vdm_blocks.training.ema import EMA, ConstantDecay, Decay, WarmedDecay
from vdm_blocks.training.likelihood import (
    ExactTrace,
    HutchinsonTrace,
    Trace,
    bits_per_dimension,
    dequantize,
    flow_log_likelihood,
)
from vdm_blocks.training.loss import DiffusionLoss, MultiscaleDiffusionLoss
from vdm_blocks.training.posthoc_ema import PowerDecay, Snapshot, reconstruct
from vdm_blocks.training.state import TrainingState
from vdm_blocks.training.uncertainty import LearnedUncertainty

__all__ = [
    "EMA",
    "Bits",
    "ConstantDecay",
    "ContinuousDecoder",
    "Decay",
    "Decoder",
    "DiffusionLoss",
    "DiscreteDecoder",
    "ExactTrace",
    "HutchinsonTrace",
    "LearnedUncertainty",
    "MultiscaleDiffusionLoss",
    "PowerDecay",
    "Snapshot",
    "Trace",
    "TrainingState",
    "WarmedDecay",
    "bits_per_dimension",
    "dequantize",
    "flow_log_likelihood",
    "reconstruct",
    "variational_bound",
]
