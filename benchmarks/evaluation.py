"""What could `mujoco.rollout` gain in the evaluator? For each task, CPU time a decision:

* plain: the dm_control environments in lock-step, as `pwmlib.evaluation.scores.evaluate_policy` steps them;
* bound: the physics of all of them by one call of mujoco.rollout, and what must follow in each environment whatever drives it: forward
  kinematics, two rewards, one observation. Bringing the states back into the environments is left out, so no implementation is faster.

One thread, interleaved. Run: python benchmarks/evaluation.py [--csv data/results/benchmarks/evaluation_bound.csv]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import mujoco
import numpy as np
import pandas as pd
from mujoco import rollout

from pwmlib.data.checkpoints import write_atomic
from pwmlib.tasks import make, task

TASKS = ("walker-walk", "fish-swim", "cartpole-swingup", "cheetah-run", "hopper-hop", "reacher-easy")
EPISODES, DECISIONS, REPEATS = 10, 40, 5
STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS


def measure(name: str) -> dict[str, object]:
    """Milliseconds of CPU time a decision of one environment; medians."""
    t = task(name)
    envs = [make(t) for _ in range(EPISODES)]
    for i, env in enumerate(envs):
        env.reset(i)
    model, _ = envs[0].simulation()
    data = mujoco.MjData(model)
    substeps = round(envs[0].control_timestep / model.opt.timestep)
    actions = np.random.default_rng(0).uniform(-1, 1, (DECISIONS, EPISODES, t.action_dim))
    plain, bound = [], []
    for _ in range(REPEATS):
        states = np.zeros((EPISODES, mujoco.mj_stateSize(model, STATE)))
        for env, state in zip(envs, states, strict=True):
            mujoco.mj_getState(model, env.simulation()[1], state, STATE)
        began = time.process_time()
        for action in actions:
            for env, a in zip(envs, action, strict=True):
                env.step(a)
        plain.append(time.process_time() - began)
        began = time.process_time()
        for action in actions:
            out, _ = rollout.rollout(model, data, states, np.repeat(action[:, None], 2 * substeps, 1))
            states = out[:, -1]
            for env in envs:
                for _ in range(2):
                    mujoco.mj_forward(model, data)
                    env._env.task.get_reward(env.physics)
                env._env.task.get_observation(env.physics)
        bound.append(time.process_time() - began)
    each = 1000 / (DECISIONS * EPISODES)
    found = {"plain_ms": np.median(plain) * each, "bound_ms": np.median(bound) * each}
    return {"task": name, "substeps": substeps, **found, "gain_at_most": found["plain_ms"] / found["bound_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--csv", help="where to write the table")
    arguments = parser.parse_args()
    table = pd.DataFrame([measure(name) for name in TASKS])
    print(table.to_string(index=False, float_format="%.3g"))
    if arguments.csv:
        write_atomic(Path(arguments.csv), table.to_csv(index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
