"""Warp kernels from the generated text, and what a launch of them needs: a device, its part of the environments, a trajectory buffer.

A kernel is a module named by the hash of its text, so that Warp's disk cache finds it again.
"""

# pyright: reportOperatorIssue=false
# Warp types `wp.tid()` for launches of any number of dimensions; ours have one.

import ctypes
import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

import torch
import warp as wp
from torch import Tensor

from .rules import StepRules
from .source import kernel_sources

__all__ = ["CPU_PACK", "CUDA_BLOCK", "CUDA_PACK", "Buffer", "Kernels", "Part", "build_kernels", "compile_cuda", "one_device"]

CPU_PACK = 16
"""Environments of one SIMD pack on the CPU."""
CUDA_PACK = 32
"""Environments of one pack on CUDA: a warp, so that its accesses coalesce."""

CUDA_BLOCK = 64
"""Threads of a CUDA block."""

U64: TypeAlias = wp.uint64

_CPU_FLAGS = "-march=native -fno-vectorize -fno-slp-vectorize"


@dataclass(frozen=True)
class Kernels:
    """Forward and backward kernel of one set of rules, for packs of `width` environments."""

    forward: wp.Kernel
    backward: wp.Kernel
    width: int


_BUILT: dict[str, Kernels] = {}


def build_kernels(rules: StepRules, device: torch.device) -> Kernels:
    """Build the kernels for a device (with its index, if it is a GPU), or read them from Warp's cache: they are compiled once a machine.

    A cached file that cannot be loaded is deleted and compiled again.
    """
    cuda = device.type == "cuda"
    kernels = _declare(rules, cuda)
    target = wp.device_from_torch(device)
    pair = kernels.forward, kernels.backward
    if cuda:
        for kernel in pair:
            _load(kernel, target)
    else:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda kernel: _load(kernel, target), pair))
    return kernels


def _load(kernel: wp.Kernel, device: wp.Device) -> None:
    module, block = kernel.module, CUDA_BLOCK if device.is_cuda else 1
    cached = list(Path(wp.config.kernel_cache_dir or "").glob(f"wp_{module.name}_*"))
    try:
        loaded = module.load(device, block_dim=block)
        if loaded is not None and loaded.get_kernel_hooks(kernel).forward:
            return
    except Exception:
        if not cached:
            raise
    for folder in cached:
        shutil.rmtree(folder, ignore_errors=True)
    module.unload()
    module.load(device, block_dim=block)


def compile_cuda(rules: StepRules, architecture: int, folder: str) -> list[str]:
    """Compile both kernels for a CUDA architecture (80, 90 ...) into a folder, without having the GPU; returns the files written."""
    kernels = _declare(rules, cuda=True)
    modules = (kernel.module for kernel in (kernels.forward, kernels.backward))
    return [str(path) for m in modules for path in wp.compile_aot_module(m, arch=architecture, module_dir=folder, use_ptx=False)]


def _declare(rules: StepRules, cuda: bool) -> Kernels:
    _quiet()
    width = CUDA_PACK if cuda else CPU_PACK
    texts = kernel_sources(rules, width=width, cuda=cuda)
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    if key not in _BUILT:
        forward, backward = (_kernel(text, f"{name}_{key}") for name, text in zip(("forward", "backward"), texts, strict=True))
        _BUILT[key] = Kernels(forward, backward, width)
    return _BUILT[key]


@cache
def _quiet() -> None:
    """Start Warp without its banner, and without its complaint on machines that have no GPU."""
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    if torch.cuda.is_available():
        wp.init()
        return
    sys.stderr.flush()
    kept, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silent, 2)
        wp.init()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silent)


def _kernel(text: str, name: str) -> wp.Kernel:
    """A kernel around one native function; p0 to p6 are addresses of what the caller's tensors hold, as the frames name them."""

    def stub(
        thread: int, config_: U64, trajectory_: U64, p0: U64, p1: U64, p2: U64, p3: U64, p4: U64, p5: U64, p6: U64,
    ): ...  # fmt: skip

    stub.__name__ = stub.__qualname__ = name.replace("_", "_body_")
    body = wp.func_native(text)(stub)

    def kernel(
        first: int, config_: U64, trajectory_: U64, p0: U64, p1: U64, p2: U64, p3: U64, p4: U64, p5: U64, p6: U64,
    ):  # fmt: skip
        body(first + wp.tid(), config_, trajectory_, p0, p1, p2, p3, p4, p5, p6)

    options = {"enable_backward": False, "cpu_compiler_flags": _CPU_FLAGS, "fuse_fp": True}
    return wp.Kernel(kernel, key=name, module=wp.Module(f"pwmlib_sim_{name}", None), options=options)


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
