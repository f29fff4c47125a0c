"""Building blocks for video diffusion: every public name of every room."""

# ruff: noqa: F403 - each room says in its own __all__ what is public
from vdm_blocks import (
    cascade,
    checkpoint,
    conditioning,
    data,
    denoisers,
    diffusion,
    distillation,
    interop,
    metrics,
    models,
    nn,
    sampling,
    training,
    types,
    video,
)
from vdm_blocks.cascade import *
from vdm_blocks.checkpoint import *
from vdm_blocks.conditioning import *
from vdm_blocks.data import *
from vdm_blocks.denoisers import *
from vdm_blocks.diffusion import *
from vdm_blocks.distillation import *
from vdm_blocks.interop import *
from vdm_blocks.metrics import *
from vdm_blocks.models import *
from vdm_blocks.nn import *
from vdm_blocks.sampling import *
from vdm_blocks.training import *
from vdm_blocks.types import *
from vdm_blocks.video import *

__version__ = "0.1.0"

__all__ = ["__version__"]
__all__ += cascade.__all__
__all__ += checkpoint.__all__
__all__ += conditioning.__all__
__all__ += data.__all__
__all__ += denoisers.__all__
__all__ += diffusion.__all__
__all__ += distillation.__all__
__all__ += interop.__all__
__all__ += metrics.__all__
__all__ += models.__all__
__all__ += nn.__all__
__all__ += sampling.__all__
__all__ += training.__all__
__all__ += types.__all__
__all__ += video.__all__
