"""Policy-gradient estimators on the same samples, their statistics, and how faithful a model's gradient is.

paths = dict(start=start, noise=noise)                          # [N, state_dim], [T, N, action_dim]
first = first_order(world, policy, **paths)                     # any pwmlib.model.dynamics.Dynamics
zeroth = zeroth_order(world, policy, **paths, baseline="reward_to_go")
horizon_table(first), horizon_table(zeroth)                     # variance and ESNR against the horizon, with intervals
"""

from .fidelity import gradient_fidelity, reward_gradients
from .plain_objectives import objective_gradients
from .policy_gradients import (
    BASELINES,
    confidence_alpha,
    first_order,
    first_order_along,
    mix,
    parameter_smoothing,
    variance_optimal_alpha,
    zeroth_order,
)
from .samples import PolicyGradients, flat_parameters, parameter_gradients
from .statistics import GradientStatistics, gradient_statistics, horizon_table
from .total_propagation import total_propagation
from .trajectories import Trajectories, action_adjoints, returns_at, sample_trajectories

__all__ = [
    "BASELINES",
    "GradientStatistics",
    "PolicyGradients",
    "Trajectories",
    "action_adjoints",
    "confidence_alpha",
    "first_order",
    "first_order_along",
    "flat_parameters",
    "gradient_fidelity",
    "gradient_statistics",
    "horizon_table",
    "mix",
    "objective_gradients",
    "parameter_gradients",
    "parameter_smoothing",
    "returns_at",
    "reward_gradients",
    "sample_trajectories",
    "total_propagation",
    "variance_optimal_alpha",
    "zeroth_order",
]
