"""Doors to other libraries: diffusers both ways, and folders as the Hugging Face Hub keeps them."""

from vdm_blocks.interop.from_diffusers import DiffusersImageUNet, DiffusersVideoUNet, read_scheduler
from vdm_blocks.interop.hub import download_from_hub, load_hub_folder, save_hub_folder
from vdm_blocks.interop.timesteps import TimestepSchedule, betas_of
from vdm_blocks.interop.to_diffusers import DiffusersModel

__all__ = [
    "DiffusersImageUNet",
    "DiffusersModel",
    "DiffusersVideoUNet",
    "TimestepSchedule",
    "betas_of",
    "download_from_hub",
    "load_hub_folder",
    "read_scheduler",
    "save_hub_folder",
]
