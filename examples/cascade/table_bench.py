"""What every measurement of the table needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evaluate_base import Prompt
from ledger import Ledger
from material import Captions
from table_read import BASELINES, Baselines, Reader, Reading, scenes_digest
from table_rows import Row
from table_sample import Sampler
from torch import Tensor

from vdm_blocks.data.scenes import HeldOut
from vdm_blocks.data.sprites import SpritePack

PROMPTS = 200


def pairs(count: int, prompts: int, seeds: int) -> list[tuple[int, int]]:
    """The first `count` of all pairs of a prompt and a seed, so ordered that any beginning has many of both.

    Each prompt once, the seeds in turn; then each prompt again, with the seed after.

    >>> pairs(8, 4, 3)
    [(0, 0), (1, 1), (2, 2), (3, 0), (0, 1), (1, 2), (2, 0), (3, 1)]

    Raises:
        ValueError: more pairs than there are.
    """
    if count > prompts * seeds:
        raise ValueError(f"{prompts} prompts and {seeds} seeds make {prompts * seeds} videos; got {count}")
    return [(i % prompts, (i % prompts + i // prompts) % seeds) for i in range(count)]


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

    @property
    def weights(self) -> Path:
        """Their folder."""
        return Path(self.args.weights)

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """Of a prompt's number and a seed, for as many videos."""
        return pairs(count, len(self.made), self.args.seeds)

    def sampler(self, row: Row) -> Sampler:
        """Of a row whose weights are there."""
        videos = Path(self.args.ledger).parent / "table-videos"
        return Sampler(row, self.weights, videos, self.ledger, device=self.args.device)

    def key(self, sampler: Sampler, number: int, seed: int) -> str:
        """Of what is read from one video."""
        return f"{sampler.keys(self.made[number], seed)[-1]} {self.reader.name}"

    def read(self, video: Tensor, number: int) -> Reading:
        """From a video (1, 3, T, H, W) of a prompt."""
        return self.reader.read(video, self.made[number])

    @cached_property
    def baselines(self) -> Baselines:
        """What needs no network."""
        return Baselines(self.pack, self.held_out, self.made)

    @cached_property
    def drawn(self) -> str:
        """Another whenever scenes are."""
        return scenes_digest(self.pack, self.held_out)

    def baseline_keys(self, name: str, count: int) -> dict[int, str]:
        """Of what is read from a baseline, for `count` prompts."""
        assert name in BASELINES
        return {number: f"{name} {number} {self.drawn} {self.reader.name}" for number in range(count)}
