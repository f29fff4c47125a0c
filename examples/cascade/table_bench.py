"""What every measurement of the table needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluate_base import Prompt
from ledger import Ledger
from material import Captions
from table_read import Reader
from table_rows import Row
from table_sample import Sampler

from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a measurement needs."""

    args: argparse.Namespace
    pack: SpritePack
    held_out: HeldOut
    captions: Captions
    reader: Reader
    ledger: Ledger
    made: Sequence[Prompt]

    def sampler(self, row: Row) -> Sampler:
        """Of a row whose weights are there."""
        videos = Path(self.args.ledger).parent / "table-videos"
        return Sampler(row, Path(self.args.weights), videos, self.ledger, device=self.args.device)

    def key(self, sampler: Sampler, number: int, seed: int) -> str:
        """Of what is read from one video."""
        return f"{sampler.keys(self.made[number], seed)[-1]} {self.reader.name}"
