"""What a launch of the kernels needs: its part of the environments, a trajectory buffer, one device."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import torch
import warp as wp
from torch import Tensor

__all__ = ["Buffer", "Part", "one_device"]


@dataclass
class Part:
    """A recorded launch with the cells of its arguments that change, in their order."""

    command: wp.Launch
    cells: list[ctypes.c_uint64]
    seconds: list[float] = field(default_factory=list)
    """That sharing the launch would have saved, of the first ones."""


class Buffer:
    """A trajectory buffer that returns to the free list when nothing refers to it any more."""

    __slots__ = ("_free", "memory")

    def __init__(self, free: list[Tensor], memory: Tensor):
        self._free, self.memory = free, memory

    def __del__(self) -> None:
        if hasattr(self, "memory"):  # torch.compile makes one without it, to look at the class
            self._free.append(self.memory)


def one_device(device: str | torch.device | None) -> torch.device:
    """Name the device as its tensors do: "cuda" is one GPU, the current one.

    Raises:
        ValueError: torch cannot use it.
    """
    asked = torch.device(device if device is not None else torch.get_default_device())
    if asked.type == "cpu":
        return torch.device("cpu")
    if asked.type != "cuda" or (asked.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"Simulator: device must be 'cpu' or a GPU that torch can use, got {str(asked)!r}")
    return torch.device("cuda", torch.cuda.current_device() if asked.index is None else asked.index)
