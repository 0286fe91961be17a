"""A job: a function with its arguments, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

try:
    import resource
except ImportError:  # not a Unix
    resource = None

__all__ = ["Job", "JobResult", "call"]


@dataclass(frozen=True)
class Job:
    """A call of a module-level function with picklable arguments."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class JobResult:
    """What a job returned, or why it failed."""

    name: str
    value: Any = None
    error: str | None = None


def call(job: Job, memory_gb: float | None = None) -> tuple[Any, str | None]:
    """The job's value and None, or None and why it failed; in the process that it belongs to."""
    torch.set_num_threads(1)
    if memory_gb is not None and resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory_gb * 2**30), hard))
    try:
        return job.function(**job.arguments), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
