"""Independent jobs: one torch thread each, and one job's crash does not take the others down.

engine="local" is a pool of processes on this machine; engine="ray" the same jobs on Ray: one machine or a cluster, fractional GPUs, retries
when a worker dies. It needs the 'cluster' extra.
"""

import math
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import torch
from tqdm.auto import tqdm

from pwmlib.errors import ExplainedError

Engine = Literal["local", "ray"]


class JobsFailedError(ExplainedError):
    """Jobs of a stage failed; the message names each with its reason."""


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
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices(device: str, count: int, *, engine: Engine = "local") -> list[str]:
    """A torch device for each of `count` jobs: on this machine's GPUs in turn where "cuda" names none of them; Ray gives a job its own."""
    here = torch.cuda.device_count() if device == "cuda" and engine == "local" else 0
    return [f"cuda:{i % here}" if here else device for i in range(count)]


def run_jobs(
    jobs: Sequence[Job], *, workers: int, progress: bool = True, description: str = "jobs", engine: Engine = "local",
    gpus: float | Literal["even"] = 0.0,
) -> list[JobResult]:  # fmt: skip
    """Run all jobs, at most `workers` at a time, each in its own process; results in the order of the jobs.

    A job that raises, or whose process dies, gives a JobResult with its error; the others go on.
    gpus: share of a GPU for each job (Ray); "even": those that there are, divided among the workers. Locally a job has the device that its
    arguments name, see `devices`.
    """
    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be 'local' or 'ray', got {engine!r}")
    workers = max(1, min(workers, len(jobs)))
    completed = _on_ray(jobs, workers, gpus) if engine == "ray" else _in_processes(jobs, workers)
    results: dict[int, JobResult] = {}
    with tqdm(total=len(jobs), desc=description, disable=not progress) as bar:
        for index, value, error in completed:
            results[index] = JobResult(jobs[index].name, value, error)
            bar.set_postfix_str(jobs[index].name)
            bar.update()
    return [results[i] for i in range(len(jobs))]


def values_of(jobs: Sequence[Job], *, description: str, **how: Any) -> list[Any]:
    """What the jobs of a stage return, all of which must succeed; `how`: the other options of `run_jobs`.

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


def call(job: Job) -> tuple[Any, str | None]:
    """The job's value and None, or None and why it failed; in the process that it belongs to."""
    torch.set_num_threads(1)
    try:
        return job.function(**job.arguments), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


Completed = Iterator[tuple[int, Any, str | None]]
"""Index of a job, its value and its error, in the order of completion."""


def _in_processes(jobs: Sequence[Job], workers: int) -> Completed:
    # A fork server imports what jobs need (and with it torch) once, not once a job. It starts with the first stage and serves all later
    # ones, so it imports all of ours that is imported here, not just what this stage needs.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        here = {name for name in sys.modules if name.startswith(("companion.", "pwmlib."))}
        context.set_forkserver_preload(sorted({job.function.__module__ for job in jobs} - {"__main__"} | here))
    waiting, running = list(enumerate(jobs)), {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, job = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, theirs), daemon=True)
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
                yield index, value, error
    finally:
        for _, process in running.values():
            process.terminate()


def _work(job: Job, result: Connection) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    outcome = call(job)
    try:
        result.send(outcome)
    except Exception as error:  # it cannot be pickled; nothing of it was sent
        result.send((None, f"its result cannot be sent ({type(error).__name__}: {error})"))


def _leave_with_parent() -> None:
    """End this process when the one that wants its result was killed. (Its system's parent, the fork server, stays as long as it does.)"""
    multiprocessing.parent_process().join()
    os._exit(1)


def _on_ray(jobs: Sequence[Job], workers: int, gpus: float | Literal["even"]) -> Completed:
    """Use the cluster that RAY_ADDRESS names, else start one here with `workers` cores."""
    try:
        import ray
    except ImportError as error:
        raise ExplainedError(f"{error}; engine='ray' needs the 'cluster' extra: pip install 'pwmlib[cluster]'") from error
    ours = not ray.is_initialized()
    if ours:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # workers inherit it
        ray.init(log_to_driver=False, logging_level="ERROR", **local)
    try:
        if gpus == "even":
            gpus = _even_share(int(ray.cluster_resources().get("GPU", 0)), workers)
        # A job is begun again, up to twice, when its worker process died, not when it raised.
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=2)(call)
        waiting, running = list(enumerate(jobs)), {}
        while waiting or running:
            while waiting and len(running) < workers:
                index, job = waiting.pop(0)
                running[remote.remote(job)] = index
            (done,), _ = ray.wait(list(running), num_returns=1)
            try:
                value, error = ray.get(done)
            except ray.exceptions.RayError as died:
                value, error = None, f"its process ended: {type(died).__name__}"
            yield running.pop(done), value, error
    finally:
        if ours:
            ray.shutdown()


def _even_share(gpus: int, workers: int) -> float:
    """Divide the GPUs of a cluster among the workers, as many on each."""
    if gpus < 1:
        raise ExplainedError("engine='ray' with a GPU as device: Ray has no GPU here; start it on machines with one, or device='cpu'")
    return 1 / max(1, math.ceil(workers / gpus))
