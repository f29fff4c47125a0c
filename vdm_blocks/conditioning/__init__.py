"""What a network is told besides the noisy video: encoded text, and the previous stage's video."""

from vdm_blocks.conditioning.minilm import MiniLMEncoder
from vdm_blocks.conditioning.t5 import T5TextEncoder
from vdm_blocks.conditioning.text import TextEncoder, TextStates

__all__ = ["MiniLMEncoder", "T5TextEncoder", "TextEncoder", "TextStates"]
