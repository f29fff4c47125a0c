"""Video files in and out, resizing and contact sheets."""

from vdm_blocks.video.pixels import from_bytes, to_bytes
from vdm_blocks.video.read import Film, read_frames, read_video
from vdm_blocks.video.resize import fit_video, resize_video, skip_frames
from vdm_blocks.video.sheet import contact_sheet
from vdm_blocks.video.write import VideoWriter, write_video

__all__ = [
    "Film",
    "VideoWriter",
    "contact_sheet",
    "fit_video",
    "from_bytes",
    "read_frames",
    "read_video",
    "resize_video",
    "skip_frames",
    "to_bytes",
    "write_video",
]
