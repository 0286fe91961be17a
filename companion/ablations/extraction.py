"""Fig. 8b: how good a policy is after how many updates of the world model, PWM's extracted from it and TD-MPC2's learned beside it.

Neither plans. Each task has its own episodes (the replay of a learning agent, random actions) and its own models, one for each number of
updates, whose learning rates fall over exactly that many.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from companion.mt80.peers import MultitaskPeers
from companion.mt80.scales import MultitaskScale
from companion.mt80.stages import MultitaskExperiment
from companion.running.jobs import Engine
from companion.running.scales import read_scales
from pwmlib.settings import Count, Counts, settings
from pwmlib.tasks import task

__all__ = ["ABLATION_SCALES", "AblationScale", "ExtractionStudy"]


@settings
class AblationScale:
    """What parameters of notebook 04 are where they say nothing."""

    train_seeds: Count = 3
    extraction_updates: Counts = (500, 1000)


ABLATION_SCALES = read_scales(Path(__file__).with_name("scales.toml"), AblationScale)


@settings
class ExtractionStudy:
    """tasks: names of dm_control tasks. updates: of the world model, ascending. settings: everything else."""

    tasks: tuple[str, ...]
    updates: Counts
    settings: MultitaskScale
    runs_dir: Path
    data_dir: Path
    train_seeds: Count = 3
    device: str = "cpu"
    workers: Count = 2
    engine: Engine = "local"
    progress: bool = True

    def __post_init__(self) -> None:
        wrong = [name for name in self.tasks if task(name).suite != "dm_control"]
        if wrong:
            raise ValueError(f"extraction: {wrong[0]!r} is no dm_control task")

    def experiment(self, name: str, updates: int) -> MultitaskExperiment:
        """The pipeline of one task and number of updates."""
        s = self.settings
        scale = replace(
            s,
            model=replace(s.model, task_dim=0),
            training=replace(s.training, updates=updates),
            tdmpc2=replace(s.tdmpc2, updates=updates),
            planner_episodes=0,
            collection=None,
        )
        common = {"device": self.device, "workers": self.workers, "progress": self.progress, "engine": self.engine}
        return MultitaskExperiment((task(name),), scale, self.train_seeds, self.runs_dir, self.data_dir, **common)

    def table(self) -> pd.DataFrame:
        """One line a task, number of updates, method and training seed: task, updates, method, train_seed, score, mean_return. TD-MPC2 has
        one seed, as in the released files."""
        parts = []
        for name in self.tasks:
            for updates in self.updates:
                e = self.experiment(name, updates)
                e.generate()
                e.train_world_model()
                ours = e.extract_policies((0,)).assign(method="PWM")
                prior = MultitaskPeers(e, (0,)).tdmpc2()
                prior = prior.assign(
                    method="TD-MPC2 without planning", train_seed=0, score=prior["prior_score"], mean_return=prior["prior_return"]
                )
                columns = ["task", "method", "train_seed", "score", "mean_return"]
                parts.append(pd.concat([part[columns] for part in (ours, prior)]).assign(updates=updates))
        return pd.concat(parts, ignore_index=True)
