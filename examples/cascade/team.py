"""Processes that train one network together, each on its part of every batch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

__all__ = ["ALONE", "Team"]


@dataclass(frozen=True, kw_only=True)
class Team:
    """One of `size` processes that hold the same weights and take the same steps.

    Each takes the mean loss of its part of the batch; the mean of their gradients is that of the whole batch, so that
    two processes take the step that one would take, to rounding.

    Attributes:
        rank: which of them this is; the first writes the files.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Team:
        """The processes that `torchrun` started, each with a GPU of its own on "cuda"; or this one alone."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1:
            if device.type == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(rank=int(os.environ.get("RANK", "0")), size=size)

    def leave(self) -> None:
        """Parts with the others at the end."""
        if self.size > 1:
            distributed.destroy_process_group()

    @property
    def writes(self) -> bool:
        """Whether files and lines of progress are this process's to write."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Its part of `count` samples.

        Raises:
            ValueError: samples that cannot be dealt out evenly.
        """
        if count % self.size:
            raise ValueError(
                f"a batch of {count} cannot be dealt out to {self.size} processes; start a number that divides it"
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, network: nn.Module, loss: Tensor) -> Tensor:
        """Has each gradient be the mean over all processes, and returns the mean of their losses.

        A parameter that none of them used is left without a gradient, as in one process.
        """
        if self.size == 1:
            return loss.detach()
        own = [p for p in network.parameters() if p.requires_grad]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
        used = torch.tensor([float(p.grad is not None) for p in own]).to(loss)
        flat = torch.cat([*(g.flatten() for g in grads), used, loss.detach().reshape(1)])
        distributed.all_reduce(flat)
        flat /= self.size
        *means, used, mean = torch.split(flat, [*(p.numel() for p in own), len(own), 1])
        for p, gradient, share in zip(own, means, used.tolist(), strict=True):
            p.grad = gradient.view_as(p).clone() if share > 0 else None
        return mean.squeeze()


ALONE = Team()
"""A process by itself."""
