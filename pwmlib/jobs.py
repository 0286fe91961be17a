"""Independent jobs on a few processes: one torch thread each, and one job's crash does not take the others down."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Job", "JobResult", "default_workers", "run_jobs"]


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


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], *, workers: int, progress: bool = True, description: str = "jobs") -> list[JobResult]:
    """Run all jobs, at most `workers` at a time, each in its own process; results in the order of the jobs.

    A job that raises, or whose process dies, gives a JobResult with its error; the others go on.
    """
    from tqdm.auto import tqdm

    results: dict[int, JobResult] = {}
    with tqdm(total=len(jobs), desc=description, disable=not progress) as bar:
        for index, result in _completed(jobs, max(1, min(workers, len(jobs)))):
            results[index] = result
            bar.set_postfix_str(result.name)
            bar.update()
    return [results[i] for i in range(len(jobs))]


def _completed(jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, JobResult]]:
    # A fork server imports the jobs' module (and with it torch) once, not once a job.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(sorted({job.function.__module__ for job in jobs} - {"__main__"}))
    outcomes = context.Queue()
    waiting, running = list(enumerate(jobs)), {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, job = waiting.pop(0)
                process = context.Process(target=_work, args=(index, job, outcomes), daemon=True)
                process.start()
                running[index] = process
            try:
                index, value, error = outcomes.get(timeout=0.2)
                process = running.pop(index)
                process.join()
                yield index, JobResult(jobs[index].name, value, error)
                continue
            except queue.Empty:
                pass
            for index, process in list(running.items()):
                if not process.is_alive() and outcomes.empty():
                    time.sleep(0.2)  # its result may still be on the way
                    if outcomes.empty():
                        del running[index]
                        yield index, JobResult(jobs[index].name, None, f"its process ended with exit code {process.exitcode}")
    finally:
        for process in running.values():
            process.terminate()


def _work(index: int, job: Job, outcomes: Any) -> None:
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    try:
        outcomes.put((index, job.function(**job.arguments), None))
    except Exception as error:
        outcomes.put((index, None, f"{type(error).__name__}: {error}"))


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent was killed: two processes must never work on one run folder."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)
