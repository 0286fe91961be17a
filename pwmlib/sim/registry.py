"""The six environments by name, with the numbers of their control step."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from pwmlib.errors import one_of
from pwmlib.sim.engine.rules import StepRules
from pwmlib.sim.robots.free_root import AntRules, AnymalRules, HumanoidRules
from pwmlib.sim.robots.planar import DoublePendulumRules, HopperRules
from pwmlib.sim.robots.snu_like import SNULikeRules

__all__ = ["ENVS", "EnvSpec", "env_spec"]


@dataclass(frozen=True)
class EnvSpec:
    """One environment: a robot's rules and the numbers of its control step."""

    rules: Callable[[str], StepRules]
    """Builds model, observation and reward of a variant."""
    substeps: int
    """Of a control step of 1/60 s."""
    interval: int
    """Substeps between updates of the mass matrix."""
    episode_length: int = 1000
    """Control steps."""
    count: int = 64
    """Environments that the paper trains with at once."""


ENVS = {
    "double_pendulum": EnvSpec(DoublePendulumRules, substeps=4, interval=4, episode_length=240, count=1024),
    "hopper": EnvSpec(HopperRules, substeps=16, interval=16),
    "ant": EnvSpec(AntRules, substeps=16, interval=16),
    "anymal": EnvSpec(AnymalRules, substeps=16, interval=16),
    "humanoid": EnvSpec(HumanoidRules, substeps=48, interval=48),
    "snu_like": EnvSpec(SNULikeRules, substeps=48, interval=8),
}
"""Name -> specification (App. D; the released double pendulum updates its mass matrix every 8 of 4 substeps, that is once a step)."""


def env_spec(name: str | EnvSpec, **changes: int | None) -> EnvSpec:
    """Find the specification of an environment and change some of its numbers.

    Args:
        name: one of `ENVS`, or a specification of your own.
        changes: numbers of `EnvSpec`; None leaves one as it is. Fewer substeps than lie between two updates of the mass matrix mean one
            update a step, unless an interval is given as well.

    Raises:
        ValueError: no environment has this name.
    """
    spec = name if isinstance(name, EnvSpec) else ENVS[one_of(name, ENVS, "environment")]
    given = {key: value for key, value in changes.items() if value is not None}
    if "substeps" in given:
        given.setdefault("interval", min(spec.interval, given["substeps"]))
    return replace(spec, **given)
