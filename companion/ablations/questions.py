"""Section 4.3 and Appendix F as variations of single-task runs: one question each, everything else equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from companion.running.jobs import Engine
from companion.running.parameters import override
from companion.single_task.experiment import SingleTaskExperiment, curves_table, results_table, train_together
from companion.single_task.runner import Algorithm, SingleTaskSettings
from companion.single_task.scales import settings_for
from pwmlib.model.twohot import TwoHot
from pwmlib.sim.registry import env_spec

__all__ = ["ABLATIONS", "Ablation", "Variation", "ablation_experiments", "run_ablation"]


@dataclass(frozen=True)
class Variation:
    """A learner with some settings changed."""

    label: str
    algorithm: Algorithm = "pwm"
    overrides: dict[str, Any] = field(default_factory=dict)
    """By dotted names of `SingleTaskSettings`."""
    longer: float = 1
    """Times as many policy updates as at the scale."""
    stiffness: float = 1.0


@dataclass(frozen=True)
class Ablation:
    """Variations that answer one question of the paper."""

    figure: str
    question: str
    variations: tuple[Variation, ...]
    task: str = "hopper"
    recorded_seeds: int = 3
    """Of the committed results."""


_AC, _MODEL = "pwm.actor_critic", "pwm.model"
_PLAIN = {f"{_MODEL}.activation": "relu", f"{_MODEL}.layer_norm": False, f"{_MODEL}.latent_norm": "none"}
_SHORT = 1 / 3
"""Of the policy updates inside frozen models: 400 at scale laptop."""
# What a label says holds at every scale, also where the scale's own setting is another.
_SCALAR = {f"{_MODEL}.two_hot": None, "pwm.training.loss.normalise_reward": True, "pwm.reward_symexp": True}
_FIXED = {**_SCALAR, "pwm.training.standardise_obs": True}
_CAUTIOUS = {"offline.members": 3, "offline.pessimism": 3.0, "offline.model.residual": True}
_NOT_CAUTIOUS = {**_CAUTIOUS, "offline.pessimism": 0.0}
_NO_SIMNORM = {f"{_MODEL}.latent_norm": "none"}
_REGULARISED = (
    Variation("ReLU", overrides=_PLAIN),
    Variation("LayerNorm + Mish", overrides=_NO_SIMNORM),
    Variation("LayerNorm + Mish + SimNorm"),
)

ABLATIONS: dict[str, Ablation] = {
    "stiffness": Ablation(
        "Fig. 7a",
        "Does stiff contact hurt SHAC and not PWM?",
        tuple(
            Variation(f"{name}, contacts {factor:g}x", algorithm, stiffness=factor)
            for algorithm, name in (("shac", "SHAC"), ("pwm", "PWM"))
            for factor in (1.0, 4.0)
        ),
    ),
    "batch": Ablation(
        "Fig. 7b",
        "Do small policy batches suffice? (A trajectory has its own environment: a small batch also sees fewer data)",
        tuple(Variation(f"{n} trajectories", overrides={} if n == env_spec("hopper").count else {"envs": n}) for n in (16, 32, 64, 128)),
    ),
    "regularisation": Ablation(
        "Fig. 17", "Does the more regularised world model give the better policy, although it is less accurate?", _REGULARISED
    ),
    "regularisation_ant": Ablation(
        "Fig. 8a", "The same on Ant: does the more regularised world model give the better policy?", _REGULARISED, "ant", 2
    ),
    "stiffness_mish": Ablation(
        "none: Fig. 7a with the model that does best here",
        "Does stiff contact hurt PWM with the model of LayerNorm + Mish?",
        tuple(Variation(f"LayerNorm + Mish, contacts {factor:g}x", overrides=_NO_SIMNORM, stiffness=factor) for factor in (1.0, 4.0)),
    ),
    "longer": Ablation(
        "none: the paper trains 15 000 updates",
        "Who gets furthest when each learns three times as long?",
        (
            Variation("PWM, SimNorm", longer=3),
            Variation("PWM, LayerNorm + Mish", overrides=_NO_SIMNORM, longer=3),
            Variation("SHAC", "shac", longer=3),
        ),
    ),
    "longer_ant": Ablation(
        "none: the paper trains 15 000 updates",
        "How far does PWM get on Ant when it learns three times as long?",
        (Variation("LayerNorm + Mish", overrides=_NO_SIMNORM, longer=3),),
        "ant",
        2,
    ),
    "ppo_annealing": Ablation(
        "none: a control of the baseline",
        "Does PPO on Ant need a learning rate that falls to zero?",
        (
            Variation("constant learning rate", "ppo", longer=3),
            Variation("falling learning rate", "ppo", {"ppo.final_lr": 0.0}, longer=3),
        ),
        "ant",
        2,
    ),
    "spectral_norm": Ablation(
        "none: curves released, not in the paper",
        "Does a spectral norm do what LayerNorm does?",
        (
            Variation("ReLU", overrides=_PLAIN),
            Variation(
                "spectral norm, ReLU",
                overrides={**_PLAIN, f"{_MODEL}.spectral_norm": True},
            ),
        ),
        recorded_seeds=2,
    ),
    "td_lambda_actor": Ablation(
        "Fig. 19",
        "Does the actor gain from the lambda-return?",
        (Variation("n-step return"), Variation("lambda-return", overrides={f"{_AC}.actor_objective": "td_lambda"})),
    ),
    "detach": Ablation(
        "none: the released code's choice",
        "What does da/ds in the gradient change?",
        (
            Variation("policy sees sg(z)", overrides={f"{_AC}.detach_policy_input": True}),
            Variation("full gradient", overrides={f"{_AC}.detach_policy_input": False}),
        ),
        recorded_seeds=2,
    ),
    "terminal_discount": Ablation(
        "none: the released code's choice",
        "Is the wrong exponent of gamma felt?",
        (Variation("gamma^H"), Variation("gamma^(H+1)", overrides={f"{_AC}.terminal_discount": "gamma^(H+1)"})),
        recorded_seeds=2,
    ),
    "reward_head": Ablation(
        "none: App. C omits SymExp",
        "Scalar reward or two-hot, with and without SymExp? (Of two-hot's larger loss also a tenth, as in TD-MPC2)",
        (
            Variation("scalar", overrides=_SCALAR),
            *(
                Variation(
                    f"two-hot, {name}{', weight 0.1' if weight < 1 else ''}",
                    overrides={
                        f"{_MODEL}.two_hot": TwoHot(),
                        "pwm.training.loss.normalise_reward": False,
                        "pwm.training.loss.reward_coef": weight,
                        "pwm.reward_symexp": symexp,
                    },
                )
                for weight in (1.0, 0.1)
                for name, symexp in (("SymExp", True), ("symlog space", False))
            ),
        ),
        recorded_seeds=2,
    ),
    "running_normalisation": Ablation(
        "none: the released code's choice",
        "Running moments in place of fixed ones: of what the model sees, and of the returns?",
        (
            Variation("fixed moments", overrides=_FIXED),
            Variation("running moments of observations and rewards", overrides={**_FIXED, "pwm.statistics": "running"}),
            Variation("returns over their running deviation", overrides={**_FIXED, f"{_AC}.return_scaling": "running_std"}),
        ),
        recorded_seeds=2,
    ),
    "critic_value": Ablation(
        "none: the released code's choice",
        "Minimum or mean of the critics?",
        (Variation("minimum", overrides={f"{_AC}.critic_value": "min"}), Variation("mean", overrides={f"{_AC}.critic_value": "mean"})),
        recorded_seeds=2,
    ),
    "imagination": Ablation(
        "none: the released code's choice",
        "Re-encode each real step, or let the model run for the whole window?",
        (Variation("re-encode"), Variation("open loop", overrides={"pwm.imagination": "open_loop"})),
        recorded_seeds=2,
    ),
    "frozen": Ablation(
        "none: Section 4.1 without online fine-tuning",
        "What does a policy need that is learned inside frozen models only? (A third of the policy updates)",
        (
            Variation("three state-space models, cautious", "pwm_offline", _CAUTIOUS, longer=_SHORT),
            Variation("three, not cautious", "pwm_offline", _NOT_CAUTIOUS, longer=_SHORT),
            Variation("one", "pwm_offline", {**_NOT_CAUTIOUS, "offline.members": 1}, longer=_SHORT),
            Variation(
                "three SimNorm models, cautious",
                "pwm_offline",
                {
                    **_CAUTIOUS,
                    "offline.model.residual": False,
                    "offline.training.horizon": 5,
                    "offline.training.lr": 3e-4,
                    "offline.training.loss.dynamics_coef": 20.0,
                },
                longer=_SHORT,
            ),
            Variation(
                "three state-space, cautious, replay twice as long", "pwm_offline", {**_CAUTIOUS, "replay.updates": 600}, longer=_SHORT
            ),
        ),
        recorded_seeds=2,
    ),
    "frozen_length": Ablation(
        "none: Section 4.1 without online fine-tuning",
        "What makes learning inside frozen models reliable: three times as long, or caution?",
        (
            Variation("cautious, 3x", "pwm_offline", _CAUTIOUS),
            Variation("cautious", "pwm_offline", _CAUTIOUS, longer=_SHORT),
            Variation("not cautious, 3x", "pwm_offline", _NOT_CAUTIOUS),
        ),
        recorded_seeds=5,
    ),
}
"""Name -> question. Variations of PWM start from the same SHAC replay where their seed is the same."""


def ablation_experiments(
    name: str, scale: str, train_seeds: int, runs_dir: Path, *, changes: dict[str, Any] | None = None, device: str = "cpu",
    workers: int = 2, engine: Engine = "local", progress: bool = True,
) -> dict[str, SingleTaskExperiment]:  # fmt: skip
    """One experiment a variation, by its label. changes: settings of the scale replaced in all of them."""
    if name not in ABLATIONS:
        raise ValueError(f"no ablation {name!r}; known: {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[name]
    common = override(settings_for(scale, ablation.task), changes or {})
    runner = {"device": device, "workers": workers, "engine": engine, "progress": progress}
    return {
        v.label: SingleTaskExperiment(
            tasks=(ablation.task,), algorithms=(v.algorithm,), settings={ablation.task: _settings(common, v)},
            train_seeds=train_seeds, runs_dir=runs_dir, stiffness=v.stiffness, **runner,
        )
        for v in ablation.variations
    }  # fmt: skip


def _settings(common: SingleTaskSettings, variation: Variation) -> SingleTaskSettings:
    """Those of one variation."""
    settings = override(common, variation.overrides)
    policies = {
        "pwm": (_AC, settings.pwm.actor_critic),
        "shac": ("shac", settings.shac),
        "ppo": ("ppo", settings.ppo),
        "pwm_offline": ("offline.policy", settings.offline.policy),
    }
    where, policy = policies[variation.algorithm]
    return override(settings, {f"{where}.updates": max(1, round(variation.longer * policy.updates))})


def run_ablation(name: str, experiments: dict[str, SingleTaskExperiment]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and curves of all variations, with the columns ablation and variation; their runs share one pool."""
    parts = [
        (results_table(lines).assign(ablation=name, variation=label), curves_table(lines).assign(ablation=name, variation=label))
        for label, lines in zip(experiments, train_together(list(experiments.values())), strict=True)
    ]
    results, curves = (_together(tables) for tables in zip(*parts, strict=True))
    return results, curves


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All lines; a column that is empty in one of the tables keeps the type that it has in the others."""
    return pd.concat([t.dropna(axis=1, how="all") for t in tables], ignore_index=True).reindex(columns=tables[0].columns)
