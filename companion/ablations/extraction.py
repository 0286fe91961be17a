"""Fig. 8b: how good a policy is after how many updates of the world model, PWM's extracted from it and TD-MPC2's learned beside it.

Neither plans. Each task has its own episodes (the replay of a learning agent, random actions) and its own models, one for each number of
updates, whose learning rates fall over exactly that many.
"""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd

from companion.mt80.peers import MultitaskPeers
from companion.mt80.stages import MultitaskExperiment
from companion.running.parameters import read_scales
from pwmlib.settings import Count, Counts, settings


@settings
class AblationScale:
    """What parameters of notebook 04 are where they say nothing."""

    train_seeds: Count = 3
    extraction_updates: Counts = (500, 1000)


ABLATION_SCALES = read_scales(Path(__file__).with_name("scales.toml"), AblationScale)


@dataclass(frozen=True)
class ExtractionStudy:
    """updates: of the world model, ascending; experiment: its dm_control tasks, one by one, and everything else."""

    experiment: MultitaskExperiment
    updates: tuple[int, ...]

    def table(self) -> pd.DataFrame:
        """One line a task, number of updates, method and training seed: task, updates, method, train_seed, score, mean_return. TD-MPC2 has
        one seed, as in the released files."""
        parts, s = [], self.experiment.scale
        alone = replace(s, model=replace(s.model, task_dim=0), planner_episodes=0, collection=None)
        for t, updates in product(self.experiment.tasks, self.updates):
            scale = replace(alone, training=replace(s.training, updates=updates), tdmpc2=replace(s.tdmpc2, updates=updates))
            e = replace(self.experiment, tasks=(t,), scale=scale)
            e.generate()
            ours = e.extract_policies().assign(method="PWM")
            prior = MultitaskPeers(e, (0,)).tdmpc2().assign(method="TD-MPC2 without planning", train_seed=0)
            prior = prior.rename(columns={"prior_score": "score", "prior_return": "mean_return"})
            columns = ["task", "method", "train_seed", "score", "mean_return"]
            parts.append(pd.concat([part[columns] for part in (ours, prior)]).assign(updates=updates))
        return pd.concat(parts, ignore_index=True)
