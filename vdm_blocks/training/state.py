"""Everything that a training run must not lose, in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vdm_blocks.checkpoint import save_tensors
from vdm_blocks.training.ema import EMA

__all__ = ["TrainingState"]

_FORMAT = "vdm_blocks.training.1"


class TrainingState:
    """A network, its average, its optimizer and the number of steps done, saved and restored to the bit.

    There is no random state to save: a run that draws everything by (seed, step), as `KeyedNoise` and the data
    streams here do, needs none, and so continues as if it had never stopped.

    Args:
        network: what is trained.
        ema: its average.
        optimizer: over all of `network`'s parameters that require a gradient, in order.

    Attributes:
        step: optimizer steps done.
    """

    def __init__(self, network: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> None:
        self.network = network
        self.ema = ema
        self.optimizer = optimizer
        self.step = 0

    def save(self, path: str | os.PathLike[str], *, run: Mapping[str, str] | None = None) -> None:
        """Writes everything to `path`, whole or not at all.

        Args:
            path: of a safetensors file.
            run: what identifies the run, such as stage and seed; `load` refuses a file that says otherwise.

        Raises:
            ValueError: a path that cannot be written.
        """
        metadata = {
            "format": _FORMAT,
            "step": str(self.step),
            "run": json.dumps(dict(run or {})),
            "optimizer": type(self.optimizer).__name__,
        }
        save_tensors(path, self._tensors(), metadata)

    def load(self, path: str | os.PathLike[str], *, run: Mapping[str, str] | None = None) -> None:
        """Restores what `save` wrote.

        Raises:
            ValueError: a file that is missing, truncated, of another run, of another network, or of an optimizer of
                another class.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} cannot be read as a training state ({error}); start anew, or copy it again"
            ) from error
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path} is not a training state of this version; start anew in another folder")
        if run is not None and json.loads(metadata["run"]) != dict(run):
            raise ValueError(
                f"{path} belongs to another run: it was made with {metadata['run']}, this run is "
                f"{json.dumps(dict(run))}; choose another output folder, or the same arguments"
            )
        optimizer = type(self.optimizer).__name__
        if (made := metadata.get("optimizer", optimizer)) != optimizer:
            raise ValueError(
                f"{path} holds the state of {made}, and this run's optimizer is {optimizer}; take the same optimizer, "
                "or start anew in another folder"
            )
        own = {name: x.shape for name, x in self._tensors().items() if not name.startswith("optimizer.")}
        other = {name: x.shape for name, x in tensors.items() if not name.startswith("optimizer.")}
        if own != other:
            raise ValueError(f"{path} holds another network's state; choose another output folder")
        device = next(self.network.parameters()).device
        self.network.load_state_dict(_under(tensors, "network."))
        self.ema.load_state_dict(_under(tensors, "ema."))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            # Adam keeps its step count on the CPU unless told otherwise.
            slots.setdefault(int(index), {})[key] = value if value.ndim == 0 else value.to(device)
        plain = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": slots, "param_groups": plain["param_groups"]})
        self.step = int(metadata["step"])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{name}": x for name, x in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": x for name, x in self.ema.state_dict().items()}
        for index, slot in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{key}": value for key, value in slot.items() if isinstance(value, Tensor)
            }
        return tensors


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
