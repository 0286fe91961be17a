"""What the simulator makes of torch's defaults, other devices, threads, forks, copies, compilers and damaged files around it."""

import copy
import gc
import multiprocessing
import pickle
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
import warp as wp
from pretend_gpu import PretendGPU, put
from test_sim_dynamics import Passive

from pwmlib.sim.engine import bridge, build, source
from pwmlib.sim.engine.bridge import Simulator
from pwmlib.sim.engine.model import Joint, Link, Model
from pwmlib.sim.engine.shapes import Sphere
from pwmlib.sim.env import DifferentiableEnv, EnvDynamics
from pwmlib.sim.registry import ENVS


def rollout(device="cpu", count=20, **options):
    """(last state, rewards, gradient to the actions) of four steps of the acrobot, with resets."""
    env = DifferentiableEnv("double_pendulum", count, episode_length=3, device=device, **options)
    uniform = torch.rand(4, count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float32) * 2 - 1
    actions = uniform.to(device).requires_grad_()
    rewards = [env.step(action).reward for action in actions]
    (gradient,) = torch.autograd.grad(sum(r.sum() for r in rewards), actions)
    return env.state.detach(), torch.stack(rewards).detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("when", ["before the environment is made", "after"])
def test_torchs_default_dtype_changes_nothing(dtype, when):
    expected = rollout()
    env = DifferentiableEnv("hopper", 8)
    action = torch.full((8, 3), 0.1).requires_grad_()
    table = env.simulator.contact_table.clone()
    (gradient,) = torch.autograd.grad(env.step(action).reward.sum(), action)
    try:
        if when != "after":
            torch.set_default_dtype(dtype)
        other = DifferentiableEnv("hopper", 8)
        torch.set_default_dtype(dtype)
        (again,) = torch.autograd.grad(other.step(action).reward.sum(), action)
        got = rollout()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(again, gradient) and torch.equal(other.simulator.contact_table, table)
    assert all(a.dtype is torch.float32 and torch.equal(a, b) for a, b in zip(got, expected, strict=True))


class CountingGPUs(PretendGPU):
    """A pretended GPU whose memory the kernels may use: they run on the CPU."""

    HOST_ONLY = ("numpy", "__array__")


@contextmanager
def two_gpus(monkeypatch):
    """CUDA's half of the bridge, with kernels of the CUDA text on the CPU and Warp's own choice of a device: by torch's index."""
    build._declare(ENVS["double_pendulum"].rules("paper"), cuda=False)  # starts Warp
    cpu = wp.get_device("cpu")
    text = source.PRELUDE["cuda"].replace("__noinline__", "__attribute__((noinline))")
    monkeypatch.setitem(source.PRELUDE, "cuda", text)
    for name, value in {"device_count": 2, "current_device": 0, "is_current_stream_capturing": False, "current_stream": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(wp, "device_from_torch", lambda device: [cpu, cpu][device.index] if device.type == "cuda" else cpu)
    monkeypatch.setattr(wp, "stream_from_torch", lambda stream: stream)
    with CountingGPUs():
        yield


def test_cuda_means_the_current_gpu_and_gives_the_cpus_numbers(monkeypatch):
    expected = rollout()
    with two_gpus(monkeypatch):
        assert EnvDynamics("double_pendulum", 4, device="cuda").simulator.device == torch.device("cuda", 0)
        assert EnvDynamics("double_pendulum", 4, device="cuda:1").simulator.device == torch.device("cuda", 1)
        got = [x.cpu() for x in rollout("cuda")]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_tensors_of_another_device_are_refused(monkeypatch):
    simulator = EnvDynamics("double_pendulum", 4).simulator
    state, action = simulator.start()[0], torch.zeros(4, 1)
    for wrong in ((state.to("meta"), action), (state, action.to("meta"))):
        with pytest.raises(ValueError, match=r"is torch.float32 on meta, expected torch.float32 on cpu"):
            simulator.step(*wrong)
    with two_gpus(monkeypatch):
        second = EnvDynamics("double_pendulum", 4, device="cuda:1").simulator
        with pytest.raises(ValueError, match=r"state is torch.float32 on cuda:0, expected torch.float32 on cuda:1"):
            second.step(put(state, True), put(action, True))


@pytest.mark.parametrize("device", ["cuda:7", "meta", "mps"])
def test_a_device_that_torch_cannot_use_is_named(device):
    with pytest.raises(ValueError, match=f"device must be 'cpu' or a GPU that torch can use, got '{device}'"):
        EnvDynamics("double_pendulum", 4, device=device)


def test_more_threads_than_packs_do_no_harm():
    for a, b in zip(rollout(count=20, threads=7), rollout(count=20), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("threads", [1, 2])
def test_after_a_fork_an_environment_steps_or_says_why_not(threads, monkeypatch):
    monkeypatch.setattr(bridge, "_HANDOFF", 0.0)  # share every launch, however short
    simulator = EnvDynamics("double_pendulum", 40, threads=threads).simulator
    state, action = simulator.start()[0], torch.zeros(40, 1)
    for _ in range(4):
        simulator.step(state, action)

    def child(results):
        try:
            results.put(float(simulator.step(state, action).reward.sum()))
        except RuntimeError as error:
            results.put(str(error))

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(20)
    hangs = process.is_alive()
    process.kill()
    assert not hangs, "the forked process waits for threads that it does not have"
    answer = results.get()
    if threads == 1:
        assert answer == pytest.approx(float(simulator.step(state, action).reward.sum()))
    else:
        assert "made in another process" in answer and "threads=1" in answer


@pytest.mark.parametrize("make", [pickle.dumps, copy.deepcopy])
def test_copying_an_environment_is_refused_in_words(make):
    with pytest.raises(TypeError, match=r"Simulator\(double_pendulum, 4 environments .* cannot be copied or pickled: .*state_dict"):
        make(DifferentiableEnv("double_pendulum", 4))


def test_fewer_substeps_than_the_interval_need_no_interval():
    assert DifferentiableEnv("hopper", 4, substeps=8).simulator.interval == 8
    assert DifferentiableEnv("hopper", 4, substeps=32).simulator.interval == 16
    with pytest.raises(ValueError, match="interval <= substeps, got 4, 8, 16"):
        DifferentiableEnv("hopper", 4, substeps=8, interval=16)


def test_torch_compile_looks_at_a_step_without_complaint(monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    simulator = EnvDynamics("double_pendulum", 4).simulator
    state, action = simulator.start()[0], torch.full((4, 1), 0.3, requires_grad=True)

    def total(state, action):
        return simulator.step(state, torch.tanh(action)).reward.sum()

    gradients = [torch.autograd.grad(f(state, action), action)[0] for f in (total, torch.compile(total, backend="eager"))]
    gc.collect()
    assert torch.equal(*gradients) and not [str(c.exc_value) for c in complaints]


def fall(cache):
    """(state, gradient) of a falling ball, with the kernels of a cache of its own."""
    build._quiet()  # Warp chooses its own folder when it starts
    wp.config.kernel_cache_dir = str(cache)
    ball = Model("ball", (Link("ball", Joint("slide", axis=(0, 1, 0)), None, (Sphere((0, 0, 0), 0.1),), collides=False),))
    state = torch.tensor([[1.0, 0.0]], requires_grad=True)
    step = Simulator(Passive(ball), 1, substeps=4, interval=1).step(state, torch.zeros(1, 1))
    return step.state.tolist(), torch.autograd.grad(step.reward.sum(), state)[0].tolist()


def test_damaged_kernels_in_the_cache_are_built_again(tmp_path, monkeypatch):
    monkeypatch.setattr(wp.config, "kernel_cache_dir", wp.config.kernel_cache_dir)
    expected = fall(tmp_path)
    for file in tmp_path.glob("*/*.o"):
        data = file.read_bytes()
        file.write_bytes(bytes(len(data)) if "forward" in file.name else data[: len(data) // 2])
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_sim_bridge as t; print(t.fall({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # this process finds what it still has loaded
    assert done.stdout.strip() == str(expected), done.stderr
