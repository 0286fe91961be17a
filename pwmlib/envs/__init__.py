"""Hopper, Ant, Anymal, Humanoid, an SNU-like musculoskeletal humanoid and an acrobot on the differentiable simulator."""

from .env import DifferentiableEnv, EnvDynamics
from .registry import ENVS, EnvSpec, env_spec

__all__ = ["ENVS", "DifferentiableEnv", "EnvDynamics", "EnvSpec", "env_spec"]
