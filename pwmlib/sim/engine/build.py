"""Warp kernels from the generated text: one module a kernel, named by the hash of its text, so that Warp's disk cache finds it again."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import warp as wp

from .rules import StepRules
from .source import Layout, kernel_sources

__all__ = ["CPU_PACK", "CUDA_BLOCK", "CUDA_PACK", "Kernels", "build_kernels", "compile_cuda"]

CPU_PACK = 16
"""Environments of one SIMD pack on the CPU."""
CUDA_PACK = 32
"""Environments of one pack on CUDA: a warp, so that its accesses coalesce."""

CUDA_BLOCK = 64
"""Threads of a CUDA block."""

_CPU_FLAGS = "-march=native -fno-vectorize -fno-slp-vectorize"


@dataclass(frozen=True)
class Kernels:
    """Forward and backward kernel of one set of rules, and how their memory is laid out."""

    forward: wp.Kernel
    backward: wp.Kernel
    layout: Layout
    width: int


_BUILT: dict[tuple, Kernels] = {}


def build_kernels(rules: StepRules, device: torch.device) -> Kernels:
    """Compiled kernels for a device; compiled once per text and machine, then read from Warp's kernel cache.

    device: with its index, if it is a GPU. A cached file that cannot be loaded is deleted and compiled again.
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
    cached = list(Path(wp.config.kernel_cache_dir).glob(f"wp_{module.name}_*"))
    try:
        if module.load(device, block_dim=block).get_kernel_hooks(kernel).forward:
            return
    except Exception:
        if not cached:
            raise
    for folder in cached:
        shutil.rmtree(folder, ignore_errors=True)
    module.unload()
    module.load(device, block_dim=block)


def compile_cuda(rules: StepRules, architecture: int, folder: str) -> list[str]:
    """Compile both kernels for a CUDA architecture (80, 90 ...) without having the GPU; returns the files written."""
    kernels = _declare(rules, cuda=True)
    written = []
    for kernel in (kernels.forward, kernels.backward):
        written += wp.compile_aot_module(kernel.module, arch=architecture, module_dir=folder, use_ptx=False)
    return [str(path) for path in written]


def _declare(rules: StepRules, cuda: bool) -> Kernels:
    _quiet()
    width = CUDA_PACK if cuda else CPU_PACK
    texts = kernel_sources(rules, width=width, cuda=cuda)
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    if key not in _BUILT:
        forward, backward = _forward_kernel(texts[0], key), _backward_kernel(texts[1], key)
        _BUILT[key] = Kernels(forward, backward, Layout.of(rules), width)
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


def _kernel(function, name: str) -> wp.Kernel:
    options = {"enable_backward": False, "cpu_compiler_flags": _CPU_FLAGS, "fuse_fp": True}
    return wp.Kernel(function, key=name, module=wp.Module(f"pwmlib_sim_{name}", None), options=options)


def _forward_kernel(text: str, key: str) -> wp.Kernel:
    def stub(
        thread: int, config_: wp.uint64, trajectory_: wp.uint64, items_: int, state_: wp.uint64, action_: wp.uint64,
        next_: wp.uint64, obs_: wp.uint64, final_: wp.uint64, reward_: wp.uint64, flags_: wp.uint64,
    ): ...  # fmt: skip

    stub.__name__ = stub.__qualname__ = f"forward_body_{key}"
    body = wp.func_native(text)(stub)

    def kernel(
        first: int, config_: wp.uint64, trajectory_: wp.uint64, items_: int, state_: wp.uint64, action_: wp.uint64,
        next_: wp.uint64, obs_: wp.uint64, final_: wp.uint64, reward_: wp.uint64, flags_: wp.uint64,
    ):  # fmt: skip
        body(first + wp.tid(), config_, trajectory_, items_, state_, action_, next_, obs_, final_, reward_, flags_)

    return _kernel(kernel, f"forward_{key}")


def _backward_kernel(text: str, key: str) -> wp.Kernel:
    def stub(
        thread: int, config_: wp.uint64, trajectory_: wp.uint64, items_: int, g_next_: wp.uint64, g_obs_: wp.uint64,
        g_final_: wp.uint64, g_reward_: wp.uint64, g_state_: wp.uint64, g_action_: wp.uint64,
    ): ...  # fmt: skip

    stub.__name__ = stub.__qualname__ = f"backward_body_{key}"
    body = wp.func_native(text)(stub)

    def kernel(
        first: int, config_: wp.uint64, trajectory_: wp.uint64, items_: int, g_next_: wp.uint64, g_obs_: wp.uint64,
        g_final_: wp.uint64, g_reward_: wp.uint64, g_state_: wp.uint64, g_action_: wp.uint64,
    ):  # fmt: skip
        body(first + wp.tid(), config_, trajectory_, items_, g_next_, g_obs_, g_final_, g_reward_, g_state_, g_action_)

    return _kernel(kernel, f"backward_{key}")
