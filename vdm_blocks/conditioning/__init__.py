"""What a network is told besides the noisy video: encoded text, and the previous stage's video."""

from vdm_blocks.conditioning.augmentation import ConditioningAugmentation
from vdm_blocks.conditioning.blur import BlurAugmentation
from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.conditioning.sweep import AugmentationSweep, sweep_augmentation
from vdm_blocks.conditioning.t5 import T5TextEncoder
from vdm_blocks.conditioning.text import TextEncoder, TextStates
from vdm_blocks.conditioning.upsample import (
    blank_frames,
    blend_frames,
    repeat_frames,
    upsample_bicubic,
    upsample_space,
)

__all__ = [
    "AugmentationSweep",
    "BlurAugmentation",
    "ConditioningAugmentation",
    "MiniLMEncoder",
    "T5TextEncoder",
    "TextEncoder",
    "TextStates",
    "blank_frames",
    "blend_frames",
    "repeat_frames",
    "sweep_augmentation",
    "upsample_bicubic",
    "upsample_space",
]
