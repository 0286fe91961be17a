"""How fast is one whole environment step, forward and backward?

A step is everything: action scaling, substeps with contacts and muscles, observation, reward, termination, reset. It is measured over
rollouts of 16 steps through torch's autograd, in one process on one thread, in units of t_mlp: forward + backward of a float32
64x256 -> 256 -> 256 torch MLP with ReLU and all gradients, timed in between. Also: both cores on 512 environments, the first build and a
cached start (each in a fresh process), and the memory that a step keeps until its backward pass.

Run: python benchmarks/simulator.py [--envs hopper ant] [--device cuda] [--record]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from companion.running.results import save_table
from pwmlib.sim.captured import capture_rollout
from pwmlib.sim.engine.build import compile_cuda
from pwmlib.sim.env import DifferentiableEnv
from pwmlib.sim.registry import ENVS

HORIZON = 16
BOUNDS = {"double_pendulum": 0.15, "hopper": 0.3, "ant": 1.0, "anymal": 1.5, "humanoid": 6.0, "snu_like": 30.0}
"""t_mlp of one step that this simulator has to stay below."""


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def mlp_pass(device: torch.device) -> Callable[[], None]:
    net = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256)).to(device)
    x = torch.randn(64, 256, device=device, requires_grad=True)

    def run() -> None:
        net.zero_grad()
        x.grad = None
        net(x).sum().backward()

    return run


def rollout_pass(env: DifferentiableEnv, *, backward: bool) -> Callable[[], None]:
    actions = torch.rand(HORIZON, env.count, env.action_dim, device=env.simulator.device) * 2 - 1
    actions.requires_grad_(backward)

    def run() -> None:
        env.detach()
        total = 0.0
        with torch.set_grad_enabled(backward):
            for action in actions.unbind(0):
                total = total + env.step(action).reward.sum()
        if backward:
            total.backward()
            actions.grad = None

    return run


def captured_pass(env: DifferentiableEnv) -> Callable[[], None]:
    """The same through CUDA graphs, with a linear policy."""
    policy = torch.nn.Linear(env.obs_dim, env.action_dim).to(env.simulator.device)
    roll = capture_rollout(env, policy, horizon=HORIZON)
    noise = torch.randn(HORIZON, env.count, env.action_dim, device=env.simulator.device)
    state, obs = env.state.clone(), env.simulator.observe(env.state)

    def run() -> None:
        policy.zero_grad()
        roll(state, obs, noise).rewards.sum().backward()

    return run


def interleaved(passes: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each pass; every round runs all of them, so that a change of the machine's clock meets them alike."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for i in range(repeats + 2):
        for name, run in passes.items():
            loops = 16 if name == "mlp" else 1
            began = now(device)
            for _ in range(loops):
                run()
            if i >= 2:
                times[name].append((now(device) - began) / loops)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def speed(name: str, count: int, device: torch.device, repeats: int) -> dict[str, object]:
    env = DifferentiableEnv(name, count, device=device)
    env.reset(spread=True)
    passes = {"mlp": mlp_pass(device), "forward": rollout_pass(env, backward=False), "both": rollout_pass(env, backward=True)}
    if device.type == "cuda":
        passes["graph"] = captured_pass(env)
    seconds = interleaved(passes, repeats, device)
    row = {"env": name, "count": count, "t_mlp": seconds["both"] / HORIZON / seconds["mlp"]}
    row["forward_t_mlp"] = seconds["forward"] / HORIZON / seconds["mlp"]
    if device.type == "cuda":
        row["graph_t_mlp"] = seconds["graph"] / HORIZON / seconds["mlp"]
        row["milliseconds"] = seconds["both"] / HORIZON * 1e3
        row["graph_milliseconds"] = seconds["graph"] / HORIZON * 1e3
    else:
        row["bound"] = BOUNDS[name]
    return row | {"megabytes_per_step": env.simulator.bytes_per_step / 1e6}


def two_cores(name: str, repeats: int) -> float:
    """How much faster 512 environments are on two threads than on one."""
    device = torch.device("cpu")
    passes = {}
    for threads in (1, 2):
        env = DifferentiableEnv(name, 512, threads=threads)
        env.reset(spread=True)
        passes[str(threads)] = rollout_pass(env, backward=True)
    seconds = interleaved(passes, repeats, device)
    return seconds["1"] / seconds["2"]


def wake_seconds() -> float:
    """Median seconds to wake another Python thread and hear back: what sharing one launch costs, whatever its size."""
    times = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(300):
            began = time.perf_counter()
            pool.submit(int).result()
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def start_seconds(name: str, cache: str, device: torch.device) -> float:
    """Seconds to make an environment in a fresh process, imports not counted."""
    code = (
        "import time, torch; from pwmlib.sim.env import DifferentiableEnv; t = time.perf_counter(); "
        f"DifferentiableEnv({name!r}, 64, device={str(device)!r}); print(time.perf_counter() - t)"
    )
    environment = {**os.environ, "WARP_CACHE_PATH": cache}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def compile_for(names: list[str], architectures: list[int]) -> None:
    """Seconds and size of both CUDA kernels of each environment; needs no GPU."""
    for name in names:
        for architecture in architectures:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                files = [Path(f) for f in compile_cuda(ENVS[name].rules("paper"), architecture, folder)]
                size = sum(f.stat().st_size for f in files if f.suffix == ".cubin") / 1e3
                print(f"{name}, sm_{architecture}: {time.perf_counter() - began:.1f} s, {size:.0f} kB", flush=True)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().split("\n") if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--envs", nargs="+", default=list(ENVS), choices=list(ENVS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--counts", nargs="+", type=int, help="environments; 64 on a CPU, 64 1024 8192 on a GPU")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--record", action="store_true", help="write data/results/benchmarks/simulator_speed.csv")
    parser.add_argument("--compile-cuda", nargs="+", type=int, metavar="ARCH", help="only compile the CUDA kernels, e.g. 80 90")
    arguments = parser.parse_args()
    if arguments.compile_cuda:
        return compile_for(arguments.envs, arguments.compile_cuda)
    torch.set_num_threads(1)
    device, rows = torch.device(arguments.device), []
    for name in arguments.envs:
        with tempfile.TemporaryDirectory() as cache:
            first, cached = (start_seconds(name, cache, device) for _ in range(2))
        for count in arguments.counts or ([64, 1024, 8192] if device.type == "cuda" else [64]):
            row = speed(name, count, device, arguments.repeats) | {"first_build_s": first, "cached_start_s": cached}
            if device.type == "cpu":
                row["two_cores_512"] = two_cores(name, max(arguments.repeats // 2, 3))
            rows.append(row | {"device": device_name(device)})
            print(pd.DataFrame(rows[-1:]).drop(columns="device").to_string(index=False, float_format=lambda x: f"{x:.3f}"), flush=True)
    table = pd.DataFrame(rows)
    if device.type == "cpu":
        table["wake_ms"] = 1e3 * wake_seconds()
        print(f"waking a second thread and waiting for it takes {table['wake_ms'][0]:.3f} ms")
    if arguments.record:
        name = "benchmarks/simulator_speed" + ("" if device.type == "cpu" else "_cuda")
        save_table(name, table, "python benchmarks/simulator.py --record" + (" --device cuda" if device.type == "cuda" else ""))
    if device.type == "cpu" and (slow := table[table["t_mlp"] > table["bound"]]["env"].tolist()):
        raise SystemExit(f"slower than the bound: {', '.join(slow)}")


if __name__ == "__main__":
    main()
