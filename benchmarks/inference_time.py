"""How much does a decision cost with planning, and how much with PWM's policy alone (Fig. 6, middle)?

Both act on one observation of one environment with the same world model: TD-MPC2's published planner (512 samples, 6 iterations, 3
steps, terminal values from its Q-functions), and encoder plus actor. Interleaved in one process, one thread; the table gives the ratio.
Run: python benchmarks/inference_time.py [--sizes 1M 5M 48M] [--repeats 9] [--device cpu] [--csv data/results/benchmarks/inference_time.csv]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from pwmlib.baselines.tdmpc2 import TDMPC2, TDMPC2Config
from pwmlib.baselines.tdmpc2_planner import PlanSearch
from pwmlib.data.checkpoints import write_atomic
from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.world_model import WORLD_MODEL_SIZES, WorldModel
from pwmlib.optimizer.actor_critic import Actor
from pwmlib.optimizer.online_episodes import policy_actor
from pwmlib.optimizer.pwm import PWMConfig

OBS, ACTION, TASKS = 39, 6, 80


def measure(size: str, repeats: int, device: torch.device) -> list[dict[str, object]]:
    """Median time of a decision by each way, and how many policy decisions fit in it."""
    torch.manual_seed(0)
    model = WorldModel(OBS, ACTION, tasks=TASKS, config=WORLD_MODEL_SIZES[size]).to(device)
    agent = TDMPC2(model, TDMPC2Config()).to(device)
    view, paper = FrozenWorldModel(model, 0), PWMConfig()
    actor = Actor(model.latent_dim, ACTION, hidden=paper.actor_hidden).to(device)

    search = PlanSearch(agent, 0, 1, 0.99)
    env = SimpleNamespace(task=SimpleNamespace(obs_dim=OBS, action_dim=ACTION))
    ways = {
        "PWM policy": policy_actor(actor, view, env),
        "TD-MPC2 prior": policy_actor(lambda z, noise: agent.policy(z, view.task)[0], view, env),
        "TD-MPC2 planner": policy_actor(lambda z, noise: search(z[None])[0][0], view, env),
    }
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        obs = rng.standard_normal(OBS).astype(np.float32)
        for name, way in ways.items():
            calls = 1 if name == "TD-MPC2 planner" else 20
            began = time.perf_counter()
            for step in range(calls):
                way(obs, step)  # its answer is on the CPU, so a GPU has finished
            times[name].append((time.perf_counter() - began) / calls)
    seconds = {name: sorted(values[1:])[repeats // 2] for name, values in times.items()}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, 1 thread"
    return [
        {"size": size, "way": name, "milliseconds": 1000 * s, "in_policy_decisions": s / seconds["PWM policy"], "device": where}
        for name, s in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["1M", "5M", "48M"], choices=sorted(WORLD_MODEL_SIZES))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", help="where to write the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for size in arguments.sizes for row in measure(size, arguments.repeats, torch.device(arguments.device))]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3g"))
    if arguments.csv:
        write_atomic(Path(arguments.csv), table.to_csv(index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
