"""The jobs of a sweep on Ray: one machine or a cluster, fractional GPUs, retries when a worker dies. Needs the 'cluster' extra."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pwmlib.errors import ExplainedError

from .job import Job, JobResult, call

__all__ = ["RayMissingError", "completed_on_ray"]

RETRIES = 2
"""How many times a job is begun again when its worker process died (not when it raised)."""


class RayMissingError(ExplainedError, ImportError):
    """engine="ray" was asked for and Ray is not installed."""


def completed_on_ray(
    jobs: Sequence[Job], workers: int, *, gpus: float | Literal["even"] = 0.0, memory_gb: float | None = None
) -> Iterator[tuple[int, JobResult]]:
    """Results in the order of completion. Uses the cluster that RAY_ADDRESS names, else starts one here with `workers` cores.

    gpus: of each job, may be a fraction; "even": the cluster's, divided among the workers, as many on each. Raises ExplainedError where
    it has none.
    """
    try:
        import ray
    except ImportError as error:
        raise RayMissingError(f"{error}; engine='ray' needs the 'cluster' extra: pip install 'pwmlib[cluster]'") from error
    ours = not ray.is_initialized()
    if ours:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # workers inherit it
        ray.init(log_to_driver=False, logging_level="ERROR", **local)
    try:
        if gpus == "even":
            gpus = _even_share(int(ray.cluster_resources().get("GPU", 0)), workers)
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_call)
        waiting, running = list(enumerate(jobs)), {}
        while waiting or running:
            while waiting and len(running) < max(workers, 1):
                index, job = waiting.pop(0)
                running[remote.remote(job, memory_gb)] = index
            (done,), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(done)
            try:
                value, error = ray.get(done)
            except ray.exceptions.RayError as died:
                value, error = None, f"its process ended: {type(died).__name__}"
            yield index, JobResult(jobs[index].name, value, error)
    finally:
        if ours:
            ray.shutdown()


def _even_share(gpus: int, workers: int) -> float:
    if gpus < 1:
        raise ExplainedError("engine='ray' with a GPU as device: Ray has no GPU here; start it on machines with one, or device='cpu'")
    return 1 / max(1, math.ceil(workers / gpus))


def _call(job: Job, memory_gb: float | None) -> tuple[Any, str | None]:
    return call(job, memory_gb)
