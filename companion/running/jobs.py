"""Independent jobs: one torch thread each, and one job's crash does not take the others down.

engine="local" is a pool of processes on this machine; engine="ray" (`companion.running.ray`) the same jobs on Ray.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import torch

from companion.running.job import Job, JobResult, call
from pwmlib.errors import ExplainedError

__all__ = ["Engine", "JobsFailedError", "default_workers", "devices", "run_jobs", "values_of"]

Engine = Literal["local", "ray"]


class JobsFailedError(ExplainedError):
    """Jobs of a stage failed; the message names each with its reason."""


def default_workers() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices(device: str, count: int, *, engine: Engine = "local") -> list[str]:
    """A torch device for each of `count` jobs: on this machine's GPUs in turn where "cuda" names none of them; Ray gives a job its own."""
    here = torch.cuda.device_count() if device == "cuda" and engine == "local" else 0
    return [f"cuda:{i % here}" if here else device for i in range(count)]


def run_jobs(
    jobs: Sequence[Job], *, workers: int, progress: bool = True, description: str = "jobs", engine: Engine = "local",
    memory_gb: float | None = None, gpus: float | Literal["even"] = 0.0,
) -> list[JobResult]:  # fmt: skip
    """Run all jobs, at most `workers` at a time, each in its own process; results in the order of the jobs.

    A job that raises, or whose process dies, gives a JobResult with its error; the others go on.
    memory_gb: what a job may allocate (Linux); beyond it the job fails with MemoryError. gpus: share of a GPU for each job (Ray);
    "even": those that there are, divided among the workers. Locally a job has the device that its arguments name, see `devices`.
    """
    from tqdm.auto import tqdm

    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be 'local' or 'ray', got {engine!r}")
    results: dict[int, JobResult] = {}
    with tqdm(total=len(jobs), desc=description, disable=not progress) as bar:
        count = max(1, min(workers, len(jobs)))
        if engine == "ray":
            from .ray import completed_on_ray

            completed = completed_on_ray(jobs, count, gpus=gpus, memory_gb=memory_gb)
        else:
            completed = _completed(jobs, count, memory_gb)
        for index, result in completed:
            results[index] = result
            bar.set_postfix_str(result.name)
            bar.update()
    return [results[i] for i in range(len(jobs))]


def values_of(jobs: Sequence[Job], *, description: str, **how: Any) -> list[Any]:
    """What jobs return that must all succeed.

    Args:
        jobs: The jobs of a stage.
        description: What the stage is called.
        how: The other options of `run_jobs`.

    Raises:
        JobsFailedError: Names each job that failed; what the others did is kept where they are runs.
    """
    results = run_jobs(jobs, description=description, **how)
    failed = [f"{r.name}: {r.error}" for r in results if r.error]
    if failed:
        raise JobsFailedError(
            f"{len(failed)} of {len(results)} jobs failed in stage {description!r}: {'; '.join(failed)}. The others are finished; "
            "run again to repeat only what failed."
        )
    return [r.value for r in results]


def _completed(jobs: Sequence[Job], workers: int, memory_gb: float | None) -> Iterator[tuple[int, JobResult]]:
    # A fork server imports the jobs' module (and with it torch) once, not once a job.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(sorted({job.function.__module__ for job in jobs} - {"__main__"}))
    waiting, running = list(enumerate(jobs)), {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, job = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, memory_gb, theirs), daemon=True)
                process.start()
                theirs.close()  # the process has the only end to write to: when it dies, even in the middle of its result, ours ends
                running[ours] = index, process
            for ours in wait(list(running)):
                index, process = running[ours]
                try:
                    value, error = ours.recv()
                except (EOFError, OSError):
                    ours.close()
                    process.join()
                    value, error = None, f"its process ended with exit code {process.exitcode}"
                except Exception as failure:
                    value, error = None, f"its result cannot be read ({type(failure).__name__}: {failure})"
                ours.close()  # first: a process that is still sending ends then
                process.join()
                del running[ours]
                yield index, JobResult(jobs[index].name, value, error)
    finally:
        for _, process in running.values():
            process.terminate()


def _work(job: Job, memory_gb: float | None, result: Connection) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    outcome = call(job, memory_gb)
    try:
        result.send(outcome)
    except Exception as error:  # it cannot be pickled, or not in this memory; nothing of it was sent
        result.send((None, f"its result cannot be sent ({type(error).__name__}: {error})"))


def _leave_with_parent() -> None:
    """End this process when the one that wants its result was killed. (Its system's parent, the fork server, stays as long as it does.)"""
    multiprocessing.parent_process().join()
    os._exit(1)
