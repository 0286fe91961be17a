"""Run folders and jobs: skip, continue, explain; and a real kill -9."""

import json
import multiprocessing.connection
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
import torch

from companion.running import stamp
from companion.running.jobs import Job, JobsFailedError, _even_share, devices, run_jobs, values_of
from companion.running.paths import OutputFolderError, writable_folder
from companion.running.runs import Run, read_record, resolve_device, train
from companion.running.sweep import note_plan, status, summary
from pwmlib.errors import ExplainedError
from pwmlib.optimizer.pwm import PWM, PWMConfig
from pwmlib.sim.closed_form import CartpoleSwingup

CONFIG = PWMConfig(updates=30, horizon=4, batch=8, actor_hidden=(8,), critic_hidden=(8,))


def policy_run(root, updates=30):
    """A short resumable run; returns the log_std of its policy."""
    world = CartpoleSwingup()

    def work(run):
        learner = PWM(world, lambda b, g: world.reset(b, g), CONFIG)
        train(run, learner, updates, checkpoint_every=3, log_every=5)
        return {"log_std": learner.actor.log_std.tolist(), "weights": float(learner.actor.mean[0].weight.detach().double().sum())}

    return Run(root, "policy", "test", {"config": CONFIG, "updates": updates}), work


def metrics(run):
    return pd.read_csv(run.folder / "metrics.csv")


def test_finished_runs_are_not_repeated_and_parameters_name_the_folder(tmp_path):
    run, work = policy_run(tmp_path)
    first = run.execute(work)
    assert run.status == "finished" and run.execute(lambda r: pytest.fail("ran again")) == first
    assert metrics(run)["step"].tolist() == [5, 10, 15, 20, 25, 30]
    assert json.loads((run.folder / "params.json").read_text())["updates"] == 30
    assert policy_run(tmp_path, updates=31)[0].folder != run.folder


def slow_run(root, log):
    """Work of half a second that leaves a line in `log`."""

    def work(run):
        time.sleep(0.5)
        with open(log, "a") as file:
            file.write("worked\n")
        return os.getpid()

    return Run(root, "slow", "test", {}).execute(work)


def test_two_processes_that_want_the_same_run_do_it_once(tmp_path):
    jobs = [Job(str(i), slow_run, {"root": str(tmp_path), "log": str(tmp_path / "log")}) for i in range(3)]
    done = run_jobs(jobs, workers=3, progress=False)
    assert len({job.value for job in done}) == 1 and not any(job.error for job in done)
    assert (tmp_path / "log").read_text() == "worked\n"


def test_failed_runs_say_why_keep_their_state_and_can_continue(tmp_path):
    run, work = policy_run(tmp_path)
    whole = policy_run(tmp_path / "whole")
    expected = whole[0].execute(whole[1])

    def failing(run):
        world, calls = CartpoleSwingup(), [0]

        def starts(b, g):
            calls[0] += 1
            state = world.reset(b, g)
            return state * float("nan") if calls[0] == 11 else state

        train(run, PWM(world, starts, CONFIG), 30, checkpoint_every=100, log_every=5)

    with pytest.raises(Exception, match="update 11: the actor loss is nan"):
        run.execute(failing)
    assert run.status == "failed" and "NonFiniteError: update 11" in read_record(run.folder)["reason"]
    assert run.load_checkpoint()["step"] == 10
    assert run.execute(work) == expected


def test_a_commit_is_dirty_where_the_code_differs_not_where_a_run_wrote(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for folder in ("pwmlib", "data"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    for name, value in (("PROJECT", tmp_path), ("CHECKOUT", True)):
        monkeypatch.setattr(stamp, name, value)
    clean = stamp.environment_stamp()["commit"]
    (tmp_path / "data" / "file").write_text("a table")
    assert stamp.environment_stamp()["commit"] == clean and re.fullmatch(r"[0-9a-f]{10}", clean)
    (tmp_path / "pwmlib" / "new.py").write_text("")
    assert stamp.environment_stamp()["commit"] == f"{clean}-dirty"


def test_a_run_continued_by_another_commit_names_both(tmp_path, monkeypatch):
    def failing(run):
        raise ValueError("not yet")

    run = Run(tmp_path, "stage", "name", {})
    for commit in ("aaa", "bbb", "bbb"):
        monkeypatch.setattr(stamp, "_commit", lambda commit=commit: commit)
        with pytest.raises(ValueError, match="not yet"):
            run.execute(failing)
    monkeypatch.setattr(stamp, "_commit", lambda: "ccc")
    run.execute(lambda run: 1)
    record = json.loads((run.folder / "run.json").read_text())
    assert (record["commit"], record["earlier_commits"]) == ("ccc", ["aaa", "bbb"])


def test_what_a_run_cost_before_it_was_cut_is_not_forgotten(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    run = Run(tmp_path, "stage", "cut", {})

    def cut(run):
        clock[0] += 7
        run.save_checkpoint({"step": 1})
        clock[0] += 2  # lost with what it did
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.execute(cut)
    other = Run(tmp_path, "stage", "other", {})
    note_plan(tmp_path, "stage", [run, other])
    other.execute(lambda run: clock.__setitem__(0, clock[0] + 20))
    line = summary(status(tmp_path)).iloc[0]
    assert (line["cpu_s"], line["cpu_s_left"]) == (27, 13)
    run.execute(lambda run: clock.__setitem__(0, clock[0] + 5))
    assert summary(status(tmp_path))[["finished", "cpu_s", "cpu_s_left"]].to_numpy().tolist() == [[2, 32, 0]]


def test_kill_9_continues_to_the_same_result(tmp_path):
    whole, work = policy_run(tmp_path / "whole", updates=150)
    expected = whole.execute(work)
    code = (
        "import sys, torch; torch.set_num_threads(1); sys.path.insert(0, sys.argv[1]); "
        "from test_runs_jobs import policy_run; run, work = policy_run(sys.argv[2], 150); run.execute(work)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, os.path.dirname(__file__), str(tmp_path / "cut")])
    run, work = policy_run(tmp_path / "cut", updates=150)
    deadline = time.time() + 60
    while not (run.folder / "state.safetensors").exists() and time.time() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run.status == "running"
    assert 0 < run.load_checkpoint()["step"] < 150
    assert run.execute(work) == expected
    assert metrics(run).equals(metrics(whole))


def succeed(x):
    return x * 2


def fail():
    raise ValueError("on purpose")


def crash():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("engine", "died"),
    [("local", "exit code -9"), pytest.param("ray", "its process ended: WorkerCrashedError", marks=pytest.mark.long)],
)
def test_jobs_survive_each_other(engine, died, monkeypatch):
    if engine == "ray":
        pytest.importorskip("ray", reason="the 'cluster' extra is not installed")
        monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    jobs = [Job("a", succeed, {"x": 1}), Job("b", fail, {}), Job("c", crash, {}), Job("d", succeed, {"x": 4})]
    results = run_jobs(jobs, workers=2, progress=False, engine=engine)
    assert [r.value for r in results] == [2, None, None, 8]
    assert results[1].error == "ValueError: on purpose" and died in results[2].error


def test_jobs_that_must_all_succeed_give_their_values_or_name_what_failed():
    first, second = (Job(f"good {x}", succeed, {"x": x}) for x in (2, 3))
    bad = Job("bad", fail, {})
    assert values_of([first, second], description="doubling", workers=1, progress=False) == [succeed(2), succeed(3)]
    with pytest.raises(JobsFailedError, match=r"1 of 2 jobs failed in stage 'doubling': bad: \w+: .*The others are finished; run again"):
        values_of([first, bad], description="doubling", workers=1, progress=False)


def half_sent():
    """A result whose process is killed when half of it was sent."""

    def send_half(connection, data, write=os.write):
        write(connection.fileno(), data[: len(data) // 2])
        if len(data) > 2**20:
            os.kill(os.getpid(), signal.SIGKILL)
        write(connection.fileno(), data[len(data) // 2 :])

    multiprocessing.connection.Connection._send = send_half
    return bytes(2**22)


def not_sendable():
    return lambda: 1


def test_a_process_killed_while_it_sends_its_result_is_noticed():
    jobs, results = [Job("a", half_sent, {}), Job("b", succeed, {"x": 2}), Job("c", not_sendable, {})], []
    thread = threading.Thread(target=lambda: results.extend(run_jobs(jobs, workers=2, progress=False)), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive(), "the parent waits for the rest of the result"
    assert [r.value for r in results] == [None, 4, None] and results[0].error == "its process ended with exit code -9"
    assert "its result cannot be sent (" in results[2].error


def beat(path):
    end = time.time() + 30
    while time.time() < end:
        path.touch()
        time.sleep(0.02)


def test_jobs_end_when_the_process_that_wants_them_is_killed(tmp_path):
    beats = [tmp_path / str(i) for i in range(2)]
    jobs = [Job(path.name, beat, {"path": path}) for path in beats]
    process = multiprocessing.get_context("spawn").Process(target=run_jobs, args=(jobs,), kwargs={"workers": 2, "progress": False})
    process.start()
    deadline = time.time() + 60
    while not all(path.exists() for path in beats) and time.time() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    time.sleep(1.0)
    ended = [path.stat().st_mtime_ns for path in beats]
    time.sleep(1.0)
    assert [path.stat().st_mtime_ns for path in beats] == ended


def visible_gpus(seconds):
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.long
def test_workers_share_the_gpus_of_ray_evenly(monkeypatch):
    ray = pytest.importorskip("ray", reason="the 'cluster' extra is not installed")
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")  # Ray counts them, it uses none
    try:
        jobs = [Job(str(i), visible_gpus, {"seconds": 0.5}) for i in range(4)]
        results = run_jobs(jobs, workers=4, progress=False, engine="ray", gpus="even")
        assert sorted(r.value for r in results) == ["0", "0", "1", "1"]
    finally:
        ray.shutdown()
    assert [_even_share(2, workers) for workers in (1, 2, 4, 5)] == [1, 1, 1 / 2, 1 / 3], "five workers on two GPUs: three on one of them"
    with pytest.raises(ExplainedError, match="Ray has no GPU here; start it on machines with one, or device='cpu'"):
        run_jobs(jobs, workers=1, progress=False, engine="ray", gpus="even")
    assert not ray.is_initialized()


def test_local_jobs_take_the_gpus_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"] and devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert devices("cuda", 2, engine="ray") == ["cuda", "cuda"] and devices("cpu", 2) == ["cpu", "cpu"]


def test_an_unknown_engine_is_named():
    with pytest.raises(ValueError, match="engine must be 'local' or 'ray', got 'dask'"):
        run_jobs([], workers=1, engine="dask")


def test_device_is_checked_by_name():
    assert resolve_device("cpu").type == "cpu" and resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="got 'tpu9'"):
        resolve_device("tpu9")


def test_a_folder_that_cannot_be_written_is_named_with_its_parameter(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match=r"runs_dir='.*file/below'.*cannot be written"):
        writable_folder(tmp_path / "file" / "below", "runs_dir")
