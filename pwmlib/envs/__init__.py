"""Hopper, Ant, Anymal, Humanoid, an SNU-like musculoskeletal humanoid and an acrobot on the differentiable simulator."""

from .captured import RolloutStep, capture_rollout
from .env import DifferentiableEnv, EnvDynamics
from .registry import ENVS, EnvSpec, env_spec

__all__ = ["ENVS", "DifferentiableEnv", "EnvDynamics", "EnvSpec", "RolloutStep", "capture_rollout", "env_spec"]
