"""Stages as data, and their fold."""

from vdm_blocks.cascade.cascade import Cascade
from vdm_blocks.cascade.grid import Grid
from vdm_blocks.cascade.stage import Stage, raise_space

__all__ = ["Cascade", "Grid", "Stage", "raise_space"]
