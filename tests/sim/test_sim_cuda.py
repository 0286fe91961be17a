"""What can be said of the CUDA kernels without a GPU: they compile for real architectures, and their text computes the same numbers."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from pwmlib.sim.captured import capture_rollout
from pwmlib.sim.engine.build import CUDA_PACK, compile_cuda
from pwmlib.sim.engine.source import kernel_sources
from pwmlib.sim.env import DifferentiableEnv, EnvDynamics
from pwmlib.sim.registry import ENVS


@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_for_cuda(architecture, tmp_path):
    files = compile_cuda(ENVS["hopper"].rules("paper"), architecture, str(tmp_path))
    cubins = [f for f in files if f.endswith(".cubin")]
    assert len(cubins) == 2 and all(Path(f).read_bytes()[:4] == b"\x7fELF" for f in cubins)


def compiled_as_cpp(rules, folder):
    """Forward and backward kernel of the CUDA text as plain C++ functions of a thread number, launched in a loop."""
    forward, backward = kernel_sources(rules, width=CUDA_PACK, cuda=True)
    arguments = ["config_", "trajectory_", *(f"p{i}" for i in range(7))]
    text = "#include <cmath>\n#include <cstddef>\n#define CUDA_CALLABLE\n#define __noinline__ __attribute__((noinline))\n"
    signature = ",".join(f"unsigned long long {a}" for a in arguments)
    for name, body in (("forward", forward), ("backward", backward)):
        text += f'extern "C" void {name}(int threads,{signature}){{for(int thread=0;thread<threads;++thread){{\n{body}\n}}}}\n'
        text += "#undef AT\n#undef STRIDE\n#undef SELECT\n#undef ANY_NEGATIVE\n#undef LANES\n"
        text += "#undef SQRT\n#undef SIN\n#undef COS\n#undef FLOOR\n"
        text += "#undef LANE\n#undef ROW\n#undef NOINLINE\n"
    (folder / "kernels.cpp").write_text(text)
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-o", str(folder / "kernels.so"), str(folder / "kernels.cpp")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(folder / "kernels.so"))


def address(tensor):
    return ctypes.c_ulonglong(0 if tensor is None else tensor.data_ptr())


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to run the CUDA text as C++")
@pytest.mark.parametrize("name", ["hopper", "ant", pytest.param("snu_like", marks=pytest.mark.long)])
def test_cuda_text_computes_what_the_cpu_kernels_compute(name, tmp_path):
    count = 40  # one full pack of 32 and a part of another
    simulator = EnvDynamics(name, count).simulator
    library = compiled_as_cpp(simulator.rules, tmp_path)
    state, _ = simulator.start()
    actions = torch.rand(9, count, simulator.action_dim, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    for action in actions[:8]:
        state = simulator.step(state, action).state
    x, a = state.requires_grad_(), actions[8].requires_grad_()
    step = simulator.step(x, a)
    seeds = [torch.randn(t.shape, generator=torch.Generator().manual_seed(i)) for i, t in enumerate(step[:4])]
    expected = torch.autograd.grad(step[:4], [x, a], seeds)

    packs = -(-count // CUDA_PACK)
    trajectory = torch.empty(packs * simulator._items * CUDA_PACK)
    out = [torch.empty_like(t) for t in step[:4]]
    flags = torch.empty(2, count, dtype=torch.bool)
    common = (packs * CUDA_PACK, address(simulator._config), address(trajectory))
    library.forward(*common, address(state), address(actions[8]), *map(address, out), address(flags))
    for got, value in zip(out, step[:4], strict=True):
        torch.testing.assert_close(got, value.detach(), atol=2e-3, rtol=1e-4)
    g_state, g_action = torch.empty_like(state), torch.empty_like(actions[8])
    library.backward(*common, *map(address, seeds), address(g_state), address(g_action), address(None))
    for got, value in zip((g_state, g_action), expected, strict=True):
        assert float((got - value).norm() / value.norm()) < 1e-3
    library.backward(*common, *map(address, (seeds[0], None, None, None, g_state, g_action, None)))
    alone = torch.autograd.grad(simulator.step(x, a).state, [x, a], seeds[0])
    assert float((g_action - alone[1]).norm() / alone[1].norm()) < 1e-3


def test_capturing_without_a_gpu_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    env = DifferentiableEnv("hopper", 4)
    with pytest.raises(ValueError, match=r"capture_rollout needs an environment on a CUDA device, this one is on cpu"):
        capture_rollout(env, torch.nn.Linear(11, 3), horizon=4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", sorted(ENVS))
def test_cuda_agrees_with_cpu(name):
    actions = torch.rand(3, 70, ENVS[name].rules("paper").action_dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
    results = []
    for device in ("cpu", "cuda"):
        dynamics = EnvDynamics(name, 70, device=device)
        x = dynamics.reset().requires_grad_()
        a = actions.to(device).requires_grad_()
        state, total = x, 0.0
        for action in a:
            step = dynamics.simulator.step(state, action)
            state, total = step.state, total + step.reward.sum()
        results.append([t.detach().cpu() for t in (state, *torch.autograd.grad(total, [x, a]))])
    torch.testing.assert_close(results[1][0], results[0][0], atol=2e-3, rtol=1e-3)
    for got, expected in zip(results[1][1:], results[0][1:], strict=True):
        assert float((got - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_rollout_is_the_eager_one():
    policy = torch.nn.Linear(11, 3).cuda()
    noise = torch.randn(8, 64, 3, device="cuda")
    gradients = []
    for captured in (False, True):
        env = DifferentiableEnv("hopper", 64, device="cuda")
        start = env.state.clone()
        roll = capture_rollout(env, policy, horizon=8, captured=captured)
        policy.zero_grad()
        for name in ("steps", "resets"):
            env.simulator.counters[name].zero_()
        out = roll(start, env.simulator.observe(start), noise)
        out.rewards.sum().backward()
        gradients.append((out.rewards.detach().clone(), policy.weight.grad.clone()))
    for eager, graph in zip(*gradients, strict=True):
        torch.testing.assert_close(graph, eager, atol=1e-4, rtol=1e-4)
