"""What a result was made with: versions, processor, commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .paths import CHECKOUT, PROJECT


def environment_stamp() -> dict[str, Any]:
    """Commit, package versions and machine, for provenance."""
    packages = ("torch", "numpy", "warp-lang", "mujoco", "dm_control", "metaworld", "rliable")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    """What the processor is called, where the system says it: costs and last digits depend on it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


COMPUTES = ("pwmlib", "companion", "notebooks", "benchmarks", "requirements.lock")
"""What of the repository a result depends on: tables and figures that a run has just written make no commit "dirty"."""


def _commit() -> str | None:
    """The commit, with "-dirty" behind it where `COMPUTES` differs from it; None without a repository."""
    if not CHECKOUT:
        return None
    git = ["git", "-C", str(PROJECT)]
    try:
        named, changed = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for command in (("rev-parse", "--short=10", "HEAD"), ("status", "--porcelain", "--", *COMPUTES))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return named + "-dirty" * bool(changed)
