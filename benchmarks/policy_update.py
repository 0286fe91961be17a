"""How much quicker is one policy update than the released code's way of computing it?

Both run in this process, interleaved, with the same sizes, batch 64, H = 16 and 32 critic steps, one thread:

* baseline: rewards and critic values inside the time loop, gradients of the frozen model's weights computed and thrown away,
  torch's own Mish and softmax, critics vectorised with vmap, 32 critic steps each with its own clip and Adam step;
* ours: `pwmlib.optimizer.pwm.PWM`, in float32 and with bfloat16 matrix products.

The first actor loss of both is compared, so that they are known to compute the same thing.
Run: python benchmarks/policy_update.py [--sizes 1M 5M 48M] [--repeats 7] [--device cpu] [--csv data/results/benchmarks/policy_update.csv]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwmlib.data.checkpoints import write_atomic
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WORLD_MODEL_SIZES, WorldModel
from pwmlib.optimizer.imagination import imagine
from pwmlib.optimizer.pwm import PWM, PWMConfig

OBS, ACTION, TASKS = 39, 6, 80


class _Layer(nn.Linear):
    """Linear, Mish, LayerNorm: the order of the released critics."""

    def __init__(self, a: int, b: int):
        super().__init__(a, b)
        self.ln = nn.LayerNorm(b)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(F.mish(super().forward(x)))


class Baseline:
    """One update computed step by step, sharing the learner's weights at the start."""

    def __init__(self, model: WorldModel, learner: PWM):
        self.model, self.config, self.actor = model, learner.config, learner.actor
        self.task = torch.zeros(learner.config.batch, dtype=torch.long, device=model.obs_mean.device)
        net, self.critics = learner.critics.net, {}
        for i, weight in enumerate(net.weights):
            values = {"weight": weight.mT, "bias": net.biases[i][:, 0]}
            if i < 2:
                values |= {"ln.weight": net.ln_weights[i][:, 0], "ln.bias": net.ln_biases[i][:, 0]}
            self.critics |= {
                f"{i}.{k}": v.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for k, v in values.items()
            }
        self.one_critic = nn.Sequential(_Layer(net.in_features, 400), _Layer(400, 200), nn.Linear(200, 1)).to("meta")
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=5e-4, betas=(0.7, 0.95))
        self.critic_optimiser = torch.optim.Adam(self.critics.values(), lr=5e-4, betas=(0.7, 0.95))

    def value(self, z: Tensor) -> Tensor:
        """All critics as one functional call of a module, vectorised over stacked parameters."""
        return torch.vmap(lambda p, x: torch.func.functional_call(self.one_critic, p, (x,)), (0, None))(self.critics, z)[..., 0]

    def _block(self, net: nn.Sequential, x: Tensor) -> Tensor:
        for i, layer in enumerate(net):
            x = F.linear(x, layer.weight, layer.bias)
            if layer.ln is not None:
                x = F.layer_norm(x, x.shape[-1:], layer.ln.weight, layer.ln.bias)
                last = i == len(net) - 1
                x = F.softmax(x.view(len(x), -1, 8), -1).view(len(x), -1) if last else F.mish(x)
        return x

    def _actor(self, z: Tensor, noise: Tensor) -> Tensor:
        net = list(self.actor.mean)
        for layer in net[:-1]:
            z = F.layer_norm(F.mish(F.linear(z, layer.weight, layer.bias)), (layer.weight.shape[0],), layer.ln.weight, layer.ln.bias)
        mean = F.linear(z, net[-1].weight, net[-1].bias)
        return torch.tanh(mean + self.actor.log_std.clamp(min=-1.427).exp() * noise)

    def update(self, z: Tensor, noise: Tensor) -> tuple[float, dict[str, float]]:
        c, bins, times = self.config, torch.linspace(-10, 10, 101, device=z.device), {}
        start = _now(z)
        states, rewards, values = [], [], []
        total, gamma = 0.0, 1.0
        for eps in noise:
            states.append(z.detach())
            a = self._actor(z.detach(), eps)
            reward_input = torch.cat([z, self.model.task_embedding(self.task), a], -1)
            reward = F.softmax(self._block(self.model.reward_head, reward_input), -1) @ bins
            z = self._block(self.model.dynamics, torch.cat([z, self.model.task_embedding(self.task), a], -1))
            value = self.value(z).min(0).values
            total, gamma = total + gamma * reward, gamma * c.gamma
            rewards.append(reward.detach())
            values.append(value.detach())
        loss = -(total + gamma * c.gamma * value).mean() / c.horizon
        times["rollout"] = _now(z) - start
        loss.backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), 1.0)
        self.actor_optimiser.step()
        self.actor_optimiser.zero_grad()
        times["backward"] = _now(z) - start - times["rollout"]
        targets = torch.stack(rewards) + c.gamma * torch.stack(values)
        flat, flat_targets = torch.cat(states), targets.flatten()
        size = len(flat) // c.critic_minibatches
        for _ in range(c.critic_iterations):
            for i in range(c.critic_minibatches):
                part = slice(i * size, (i + 1) * size)
                self.critic_optimiser.zero_grad()
                error = (self.value(flat[part]) - flat_targets[part]).square().mean()
                error.backward()
                nn.utils.clip_grad_norm_(self.critics.values(), 100.0)
                self.critic_optimiser.step()
        times["critics"] = _now(z) - start - sum(times.values())
        return float(loss.detach()), times


def _now(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(size: str, repeats: int, device: torch.device) -> list[dict[str, object]]:
    """Median seconds per update of each way, interleaved."""
    torch.manual_seed(0)
    model = WorldModel(OBS, ACTION, tasks=TASKS, config=WORLD_MODEL_SIZES[size]).to(device)
    nn.init.trunc_normal_(model.reward_head[-1].weight, std=0.02)
    # Released choices with one-step targets and one reading of the running scale, so that both compute the same numbers.
    config = PWMConfig.variant("released", batch=64, return_scaling="none", updates=10_000, lr_schedule="constant")
    obs = torch.randn(config.batch, OBS, device=device)
    noises = torch.randn(repeats + 1, config.horizon, config.batch, ACTION, device=device)

    def learner(**changes: object) -> PWM:
        changed = replace(config, **changes)
        view = FrozenWorldModel(model, 0, precision=changed.precision)
        with torch.no_grad():
            start = view.encode(obs)
        return PWM(view, lambda batch, generator: start, changed, seed=0, device=device)

    ways = {
        "ours, float32": learner(),
        "ours, bfloat16": learner(precision="bfloat16"),
        "ours, float32, paper's 8 critic steps": learner(critic_sampling="uniform", critic_target="td_lambda", detach_policy_input=False),
    }
    baseline = Baseline(model, learner())
    with torch.no_grad():
        start = FrozenWorldModel(model, 0).encode(obs)
    ways["ours, float32"].generator.manual_seed(0)
    times: dict[str, list[float]] = {name: [] for name in ("baseline", *ways)}
    for i in range(repeats + 1):
        began = _now(obs)
        loss, _ = baseline.update(start, noises[i])
        times["baseline"].append(_now(obs) - began)
        for name, way in ways.items():
            way.imagine = _with_noise(way, noises[i])
            began = _now(obs)
            metrics = way.update()
            times[name].append(_now(obs) - began)
            if i == 0 and name == "ours, float32":
                difference = abs(metrics["actor_loss"] - loss) / abs(loss)
                if difference > 1e-4:
                    raise AssertionError(f"{size}: baseline and ours differ in the actor loss by {difference:.1e}")
    seconds = {name: sorted(values[1:])[repeats // 2] for name, values in times.items()}
    return [
        {"size": size, "way": name, "seconds": s, "ratio_to_baseline": seconds["baseline"] / s, "device": _device_name(device)}
        for name, s in seconds.items()
    ]


def _with_noise(learner: PWM, noise: Tensor):

    def imagined():
        start = learner.starts(learner.config.batch, learner.generator)
        return imagine(learner.dynamics, learner.actor, start, noise=noise, detach_policy_input=learner.config.detach_policy_input)

    return imagined


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name")) + ", 1 thread"
    except (OSError, StopIteration):
        return "CPU, 1 thread"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["1M", "5M", "48M"], choices=sorted(WORLD_MODEL_SIZES))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", help="where to write the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for size in arguments.sizes for row in measure(size, arguments.repeats, torch.device(arguments.device))]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    if arguments.csv:
        write_atomic(arguments.csv, table.to_csv(index=False))


if __name__ == "__main__":
    main()
